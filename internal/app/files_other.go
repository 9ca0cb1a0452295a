//go:build !unix

package app

// connsThatFit is how many connections leave as many files again for the store, the streams and the providers.
func connsThatFit() int { return mostConns }
