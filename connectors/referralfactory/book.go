package referralfactory

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// book is the file in which a meter stands for the next process, mode 0600. It is replaced as a whole
// before each request goes out and not synced: it has to outlive the process, and a machine that was
// restarted has been quiet for long enough.
type book struct{ path string }

// page is what the file holds.
type page struct {
	At   int64   `json:"at"`   // when it was written, in milliseconds since 1970, as are the others
	Out  int     `json:"out"`  // requests that had not ended
	Free []int64 `json:"free"` // when the places of those that had come free
}

const (
	// lingering is how long after its process a request may still reach the provider and be counted.
	lingering = 30 * time.Second
	// longest is how long after it went out a request may be counted, whatever became of its process.
	longest = 2 * time.Minute
)

// write notes how many requests are out and when the places of the others come free.
func (b *book) write(out int, free []time.Time) error {
	if b == nil {
		return nil
	}
	p := page{At: time.Now().UnixMilli(), Out: out, Free: make([]int64, 0, len(free))}
	for _, at := range free {
		p.Free = append(p.Free, at.UnixMilli()+1) // cut off, it would be early
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.path), 0o700); err != nil {
		return err
	}
	fresh := b.path + ".new"
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, b.path)
}

// read gives the places that are still taken, by when they come free, ascending. A request that was out
// when its process ended may be counted a little later. A file that cannot be read counts as a whole
// minute's requests: to wait for a minute is better than to be locked out. A clock that was set back does
// not keep places taken for longer than they could have been.
func (b *book) read(now time.Time) []time.Time {
	whole := slices.Repeat([]time.Time{now.Add(time.Minute)}, perMinute)
	data, err := os.ReadFile(b.path)
	if os.IsNotExist(err) {
		return nil
	}
	var p page
	if err != nil || json.Unmarshal(data, &p) != nil || p.Out < 0 || p.Out+len(p.Free) > perMinute {
		return whole
	}
	last := now.Add(time.Minute + lingering)
	var free []time.Time
	for _, ms := range p.Free {
		if at := time.UnixMilli(ms); at.After(now) {
			free = append(free, earlier(at, last))
		}
	}
	if ended := earlier(time.UnixMilli(p.At).Add(longest+time.Minute), last); ended.After(now) {
		free = append(free, slices.Repeat([]time.Time{ended}, p.Out)...)
	}
	slices.SortFunc(free, time.Time.Compare)
	return free
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
