package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the times in /proc, which is the same on every Linux machine that Go runs on
// (proc_pid_stat(5): sysconf(_SC_CLK_TCK)).
const tick = 10 * time.Millisecond

// family lists a process and all below it.
func family(pid int) []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a good one
	for _, path := range dirs {
		f := statOf(path)
		if f == nil {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(f[1])
		children[parent] = append(children[parent], id)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// statOf are the fields of a process from its state on, which is the third; nil when it is gone.
func statOf(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return nil
	}
	return f
}

// serverTime is the processor time of a server's processes, those that ended included.
func serverTime(pid int) time.Duration {
	var total time.Duration
	for _, id := range family(pid) {
		f := statOf(fmt.Sprintf("/proc/%d/stat", id))
		if f == nil {
			continue
		}
		last := 13 // user and system time
		if id == pid {
			last = 15 // and that of children that ended
		}
		for _, v := range f[11:last] {
			n, _ := strconv.ParseInt(v, 10, 64)
			total += time.Duration(n) * tick
		}
	}
	return total
}

// serverMemory is the memory of a server's processes in bytes: what is shared between them counts once,
// mapped files do not.
func serverMemory(pid int) int64 {
	var total int64
	for _, id := range family(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", id))
		if err != nil {
			continue
		}
		for s := range strings.Lines(string(b)) {
			for _, name := range []string{"Pss_Anon:", "Pss_Shmem:"} {
				if v, ok := strings.CutPrefix(s, name); ok {
					kb, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
					total += kb << 10
				}
			}
		}
	}
	return total
}
