package lease

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/migrations/pgtest"
)

// childURL makes this test binary the process that is frozen.
const childURL = "LEASE_TEST_CHILD_URL"

// TestFrozenProcess stops a process that holds a lease, lets another take it, and wants the first to
// see that at its first look, before it does anything.
func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	if url := os.Getenv(childURL); url != "" {
		frozenChild(t, url)
		return
	}
	url := pgtest.URL(t)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFrozenProcess$", "-test.v")
	child.Env = append(os.Environ(), childURL+"="+url)
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	waitFor(t, lines, "holds")
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r := newReferee(t)
	parent := play(t, openPool(t, url, false), uuid.New(), names(1), r.hold("parent"))
	eventually(t, "the parent has held for longer than a term", func() bool {
		return r.holds("parent") == 1 && parent.pool.count() > 3*int(testTerm/testEvery)
	})
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, lines, "lost")
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if r.holds("parent") != 1 {
		t.Error("the parent lost its lease")
	}
}

// waitFor reads what the child says, up to a line.
func waitFor(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	late := time.After(patiently)
	for {
		select {
		case line, more := <-lines:
			if line == want {
				return
			}
			if strings.HasPrefix(line, "overlap") {
				t.Error(line)
			}
			if !more {
				t.Fatalf("the child ended without %q", want)
			}
		case <-late:
			t.Fatalf("the child did not say %q", want)
		}
	}
}

// frozenChild holds the lease until it has lost it. It looks at nothing but its context's Err, and all
// the time: what it did between a look at the clock and the next tells of a lease that it had not.
func frozenChild(t *testing.T, url string) {
	ctx, cancel := context.WithCancel(t.Context())
	k := &Keeper{Pool: openPool(t, url, false), Owner: uuid.New(), Term: testTerm, Every: testEvery}
	k.Run(ctx, names(1), func(ctx context.Context, _ string) error {
		fmt.Println("holds")
		last := time.Now()
		for ctx.Err() == nil {
			// A stop may come right here, between the look and this line: twice in a row it cannot.
			if now := time.Now(); now.Sub(last) > testTerm && ctx.Err() == nil {
				fmt.Println("overlap:", now.Sub(last))
			} else {
				last = now
			}
		}
		fmt.Println("lost")
		cancel()
		return nil
	})
}

// TestTimeIsOver wants a look at the context to see that the time is over though no timer has run, and
// nothing to make it last again.
func TestTimeIsOver(t *testing.T) {
	t.Parallel()
	h := &held{until: time.Now().Add(time.Hour), timer: time.NewTimer(time.Hour)}
	h.ctx, h.cancel = context.WithCancelCause(t.Context())
	ctx := leaseContext{h.ctx, h}
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	if ctx.Err() != nil || Lost(ctx) {
		t.Fatalf("it ended early: %v", context.Cause(ctx))
	}
	h.until = time.Now()
	if ctx.Err() == nil || child.Err() == nil || !Lost(ctx) || !Lost(child) {
		t.Fatalf("%v, %v because of %v", ctx.Err(), child.Err(), context.Cause(ctx))
	}
	h.extend(time.Now().Add(time.Hour))
	if ctx.Err() == nil {
		t.Fatal("a lost lease lives again")
	}
}
