//go:build unix

package boltstore

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockShared waits for whoever holds the file to let go of it, as bbolt does, and keeps others from
// changing it until unlock.
func lockShared(f *os.File, wait time.Duration) (unlock func(), err error) {
	for end := time.Now().Add(wait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, ErrInUse
		}
		time.Sleep(min(50*time.Millisecond, wait))
	}
}
