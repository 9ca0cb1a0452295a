//go:build linux || darwin

package doctor

import "golang.org/x/sys/unix"

// freeBytes is how much of the disk of a directory the user may still fill.
func freeBytes(dir string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}
