//go:build !unix

package broker

// dirLock does nothing here: the store's own lock, which is taken first, covers the data directory.
type dirLock struct{}

func lockDir(string) (*dirLock, error) { return nil, nil }

func (l *dirLock) release() {}
