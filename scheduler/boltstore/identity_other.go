//go:build !linux

package boltstore

import (
	"fmt"
	"os"
	"path/filepath"
)

// initialMmap is left to bbolt: not every system hands out address space for nothing.
const initialMmap = 0

// fileIdentity has neither inode nor time of birth in portable Go, so a copy is only noticed here
// when it stands at another path. A directory that was moved then has to be claimed.
func fileIdentity(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	abs, err := filepath.Abs(path)
	return fmt.Sprintf("path %s", abs), err
}

// stamp has no time of the last change in portable Go, so every file is read through when it is opened.
func stamp(*os.File) (m mark, ok bool) { return m, false }

func isNoMemory(error) bool { return false }
