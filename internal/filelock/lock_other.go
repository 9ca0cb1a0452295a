//go:build !unix

// Package filelock keeps those apart who read a small file, change what they read and write it again.
package filelock

import "sync"

// Suffix is what the file of a lock has after the name of the file that it guards.
const Suffix = ".lock"

var changing sync.Mutex

// Lock keeps changes of this process apart. Those of two processes at the same moment are not kept apart here.
func Lock(string) (unlock func(), err error) {
	changing.Lock()
	return changing.Unlock, nil
}
