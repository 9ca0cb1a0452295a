// Package replacefile writes small files as a whole, so that whoever reads one finds what it held or what it
// is to hold, also after a crash in between.
package replacefile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write replaces the file at path, or makes it, mode 0600. When it returns the content is on the disk, and the
// name stands for it.
func Write(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}
