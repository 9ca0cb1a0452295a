//go:build !unix

package boltstore

import (
	"os"
	"time"
)

// lockShared is left to bbolt here.
func lockShared(*os.File, time.Duration) (unlock func(), err error) { return func() {}, nil }
