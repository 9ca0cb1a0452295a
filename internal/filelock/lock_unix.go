//go:build unix

// Package filelock keeps those apart who read a small file, change what they read and write it again: two at
// the same moment would each lose what the other did.
package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Suffix is what the file of a lock has after the name of the file that it guards.
const Suffix = ".lock"

// Lock waits until nobody else changes the file at path, in this process or in another one. The lock is a file
// of its own beside it, mode 0600, which stays: the guarded file is replaced as a whole, and with it would go
// its lock. It ends with the process at the latest.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+Suffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // which gives up the lock
}
