package embedded

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// kernelSignalsOrphans: prctl(PR_SET_PDEATHSIG).
const kernelSignalsOrphans = true

// inheritedFiles is where a process finds its open files by number. Opening an entry goes straight
// to the file, whatever the directories above it permit.
const inheritedFiles = "/proc/self/fd/"

// directoriesByNumber: also open directories are found there.
const directoriesByNumber = true

func processAttributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: death}
}

// worksIn reports whether process pid has dir as its working directory, as every Postgres process
// has its data directory, and whether that could be found out.
func worksIn(pid int, dir string) (yes, known bool) {
	cwd, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		return false, os.IsNotExist(err)
	}
	want, err := os.Stat(dir)
	if err != nil {
		return false, false
	}
	return os.SameFile(cwd, want), true
}
