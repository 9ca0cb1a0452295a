//go:build unix

package app

import "syscall"

// connsThatFit is how many connections leave as many files again for the store, the streams and the providers.
func connsThatFit() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return mostConns
	}
	return int(min(uint64(l.Cur)/2, mostConns))
}
