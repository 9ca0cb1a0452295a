package boltstore

import (
	"errors"
	"fmt"
	"os"

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
	return identityOf(&st), nil
}

func identityOf(st *unix.Statx_t) string {
	id := fmt.Sprintf("inode %d", st.Ino)
	if st.Mask&unix.STATX_BTIME != 0 {
		id += fmt.Sprintf(" born %d.%09d", st.Btime.Sec, st.Btime.Nsec)
	}
	return id
}

// stamp tells whether a file was touched: which it is, its size and its times.
func stamp(f *os.File) (m mark, ok bool) {
	const wanted = unix.STATX_INO | unix.STATX_SIZE | unix.STATX_MTIME | unix.STATX_CTIME
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, wanted|unix.STATX_BTIME, &st)
	return mark{
		File: identityOf(&st), Size: int64(st.Size),
		Modified: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec), Changed: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec),
	}, err == nil && st.Mask&wanted == wanted
}

func isNoMemory(err error) bool { return errors.Is(err, unix.ENOMEM) }
