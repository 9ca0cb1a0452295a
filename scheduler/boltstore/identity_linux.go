package boltstore

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// initialMmap is address space, not memory (see openFile).
const initialMmap = 64 << 30

// fileIdentity tells a file from a copy of it: inode and time of birth. Both stay when a directory
// is moved, the machine restarts or a volume is mounted on another host. The time of birth is left
// out where the filesystem keeps none.
func fileIdentity(path string) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", err
	}
	id := fmt.Sprintf("inode %d", st.Ino)
	if st.Mask&unix.STATX_BTIME != 0 {
		id += fmt.Sprintf(" born %d.%09d", st.Btime.Sec, st.Btime.Nsec)
	}
	return id, nil
}

func isNoMemory(err error) bool { return errors.Is(err, unix.ENOMEM) }
