package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// clockTick is the kernel's unit of process times: USER_HZ, 100 a second on every Linux.
const clockTick = 10 * time.Millisecond

// cpuOf reads how much CPU each process has used so far: itself, and for "postgres" its children
// too, the living ones and those it has reaped. A child that ends between two readings moves from
// the one sum to the other.
func cpuOf(processes map[string]int) (map[string]time.Duration, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("process times are read from /proc, which %s does not have", runtime.GOOS)
	}
	out := map[string]time.Duration{}
	for name, pid := range processes {
		own, err := readStat(pid)
		if err != nil {
			return nil, err
		}
		out[name] = own.self
		if name == "postgres" {
			children, err := childrenTime(pid)
			if err != nil {
				return nil, err
			}
			out[name] += own.reaped + children
		}
	}
	return out, nil
}

// stat is what /proc/<pid>/stat says.
type stat struct {
	parent       int
	self, reaped time.Duration
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	// The second field, the name in brackets, may hold anything: the others follow its last bracket.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	number := func(i int) int64 { // field i of proc(5), counted from 1
		n, _ := strconv.ParseInt(string(fields[i-3]), 10, 64)
		return n
	}
	ticks := func(n int64) time.Duration { return time.Duration(n) * clockTick }
	return stat{parent: int(number(4)), self: ticks(number(14) + number(15)), reaped: ticks(number(16) + number(17))}, nil
}

func childrenTime(parent int) (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil && s.parent == parent {
			sum += s.self
		}
	}
	return sum, nil
}
