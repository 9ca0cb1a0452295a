//go:build !failpoints

package failpoint

// Enabled reports whether points do anything.
const Enabled = false

// Hit marks a point.
func Hit(string) {}
