package main

import (
	"context"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent asks the kernel for a SIGTERM when the process that started this one ends, however it
// ends: `make`, killed, cannot pass on what it got itself. The kernel keeps the wish with the thread
// that uttered it, so a goroutine holds that thread until ctx ends.
func endWithParent(ctx context.Context) error {
	started, wished := os.Getppid(), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		wished <- unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0)
		<-ctx.Done()
	}()
	if err := <-wished; err != nil {
		return err
	}
	if os.Getppid() != started { // it ended before the kernel knew
		return syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
	return nil
}
