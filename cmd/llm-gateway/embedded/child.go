package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// child is a process that does not outlive this one.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and been waited for
	err  error         // how it ended; to be read after done
}

// startChild starts cmd as the given user (nil: as we are), to be sent the signal death when this
// process dies, in a process group of its own: a Ctrl-C at the terminal is for us to handle, and we
// stop the child in order. ended, if not nil, is called with the exit before done is closed.
func startChild(cmd *exec.Cmd, user *account, death syscall.Signal, ended func(error)) (*child, error) {
	cmd.SysProcAttr = processAttributes(death)
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Credential = user.credential()
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go c.run(death, started, ended)
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// run starts the process and waits for it, all on one OS thread: the kernel sends the death signal
// when the thread that forked ends, and the Go runtime ends threads as it likes unless they are
// locked. The thread is not unlocked; it ends with this goroutine, after the child.
func (c *child) run(death syscall.Signal, started chan<- error, ended func(error)) {
	runtime.LockOSThread()
	defer close(c.done)
	if err := c.cmd.Start(); err != nil {
		started <- err
		return
	}
	if !kernelSignalsOrphans {
		w, err := startWatcher(c.pid(), death)
		if err != nil {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
			started <- err
			return
		}
		defer w.stop()
	}
	started <- nil
	c.err = c.cmd.Wait()
	if ended != nil {
		ended(c.err)
	}
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stage is one step of stopping a process: a signal, and how long to wait for its effect.
type stage struct {
	signal syscall.Signal
	limit  time.Duration
}

// stop goes through the stages until the process is gone; ctx may cut the first one short, the
// others keep their limits. The error says which signal it took if not the first.
func (c *child) stop(ctx context.Context, stages []stage) error {
	for i, s := range stages {
		_ = c.cmd.Process.Signal(s.signal) // fails only if the process has ended already
		gone := c.wait(ctx, s.limit)
		switch {
		case gone && i == 0:
			return nil
		case gone:
			return fmt.Errorf("process %d did not end in order, only by signal %d (%v)", c.pid(), s.signal, s.signal)
		}
		ctx = context.WithoutCancel(ctx) //nolint:fatcontext // there are three stages
	}
	return fmt.Errorf("process %d does not end", c.pid())
}

// wait reports whether the process is gone before the limit or ctx is over.
func (c *child) wait(ctx context.Context, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// watcher is the stand-in for the death signal on systems whose kernel has none: a shell that reads
// from a pipe of which only we hold the other end, so that our death, of whatever kind, ends the
// read and lets the shell signal the child.
type watcher struct {
	cmd  *exec.Cmd
	hold io.Closer
}

func startWatcher(pid int, death syscall.Signal) (*watcher, error) {
	cmd := exec.Command("/bin/sh", "-c", `read _; kill -"$2" "$1"`, "sh",
		strconv.Itoa(pid), strconv.Itoa(int(death)))
	cmd.Env = childEnvironment()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	return &watcher{cmd: cmd, hold: hold}, nil
}

// stop ends the watcher before the pipe, so that it never signals a process id used anew.
func (w *watcher) stop() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	_ = w.hold.Close()
}

// childEnvironment is all the environment that children get: ours may hold secrets, and a locale
// or a PG* variable of ours would change what Postgres does.
func childEnvironment() []string {
	return []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/bin:/bin"}
}

// inherit adds f to the files that cmd will have open and returns its number there.
func inherit(cmd *exec.Cmd, f *os.File) int {
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return 2 + len(cmd.ExtraFiles) // after stdin, stdout and stderr
}
