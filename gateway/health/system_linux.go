package health

import (
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// maxDescriptorsCounted bounds the counting of descriptors.
const maxDescriptorsCounted = 1 << 20

// platform fills in what Linux tells: by /proc and by calls of the system.
func platform(s *System, dataDir string) {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		s.CPUSeconds = new(float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9)
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		if load, err := strconv.ParseFloat(first, 64); err == nil {
			s.Load = &load
		}
	}
	s.RSS = kilobytes("/proc/self/status", "VmRSS:")
	s.MemoryTotal = kilobytes("/proc/meminfo", "MemTotal:")
	if dir, err := os.Open("/proc/self/fd"); err == nil {
		names, err := dir.Readdirnames(maxDescriptorsCounted)
		dir.Close() //nolint:errcheck // it was only read
		if err == nil {
			s.Descriptors = new(len(names) - 1) // without the one that was opened to look
		}
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		s.MaxDescriptors = new(bounded(limit.Cur))
	}
	s.DiskFree, s.DiskTotal = Disk(dataDir)
}

// Disk says what an unprivileged process may still write on a directory's disk, and how large that is, in
// bytes; nil where nobody knows.
func Disk(dir string) (free, total *int64) {
	var disk syscall.Statfs_t
	if syscall.Statfs(dir, &disk) != nil || disk.Bsize <= 0 {
		return nil, nil
	}
	size := uint64(disk.Bsize)
	return new(bounded(disk.Bavail * size)), new(bounded(disk.Blocks * size))
}

func bounded(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// kilobytes finds a line such as "VmRSS:  123 kB", in bytes.
func kilobytes(file, name string) *int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != name {
			continue
		}
		if n, err := strconv.ParseInt(fields[1], 10, 53); err == nil {
			return new(n << 10)
		}
	}
	return nil
}
