package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent asks the kernel for a SIGTERM when the process that started this one ends, however it
// ends: `make`, killed, cannot pass on what it got itself.
func endWithParent() error {
	started := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != started { // it ended before the kernel knew
		return syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
	return nil
}
