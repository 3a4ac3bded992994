//go:build !linux

package embedded

import "syscall"

// kernelSignalsOrphans: not everywhere, so a watcher process does it everywhere but on Linux.
const kernelSignalsOrphans = false

// inheritedFiles is where a process finds its open files by number.
const inheritedFiles = "/dev/fd/"

// directoriesByNumber: open directories are not found there. So, for root, the directories above
// DATA_DIR must let the unprivileged user through on these systems.
const directoriesByNumber = false

func processAttributes(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// worksIn is not known here; Postgres decides by its own checks.
func worksIn(int, string) (yes, known bool) { return false, false }
