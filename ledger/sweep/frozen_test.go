package sweep

import (
	"bufio"
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

// What makes this test binary the process that is frozen.
const (
	childURL   = "SWEEP_TEST_CHILD_URL"
	childOwner = "SWEEP_TEST_CHILD_OWNER"
)

// TestFrozenProcess stops a process that holds an owner's lease until that has run out. It must see so
// at its first look, and soon hold it again.
func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	if url := os.Getenv(childURL); url != "" {
		frozenChild(t, url)
		return
	}
	url, owner := pgtest.URL(t), uuid.New()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFrozenProcess$", "-test.v")
	child.Env = append(os.Environ(), childURL+"="+url, childOwner+"="+owner.String())
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
	waitFor(t, lines, "held")
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	conn := asOwner(t, url)
	eventually(t, "its lease has run out", func() bool {
		return queryInt(t, conn, `SELECT count(*) FROM ledger_leases WHERE name = $1 AND until < now()`, ownerLease(owner)) == 1
	})
	// It is not renewed before the child has looked, however late a busy machine lets it look.
	kept, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Exec(t.Context(), `SELECT FROM ledger_leases WHERE name = $1 FOR UPDATE`, ownerLease(owner)); err != nil {
		t.Fatal(err)
	}
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, lines, "lost")
	if err := kept.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	renewable := time.Now()
	waitFor(t, lines, "held again")
	if took := time.Since(renewable); took > quickOwner.term {
		t.Errorf("it took %s to hold it again", took)
	}
	for range lines { // until it has ended
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
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

// frozenChild asks whether the lease is held, all the time, until it was lost and had again.
func frozenChild(t *testing.T, url string) {
	o := owned(t, openPool(t, url, false), uuid.MustParse(os.Getenv(childOwner)))
	fmt.Println("held")
	last := time.Now()
	for o.Held() {
		// A stop may come right here, between the look and this line: twice in a row it cannot.
		if now := time.Now(); now.Sub(last) > quickOwner.term && o.Held() {
			fmt.Println("overlap:", now.Sub(last))
		} else {
			last = now
		}
	}
	fmt.Println("lost")
	eventually(t, "it is held again", o.Held)
	fmt.Println("held again")
}
