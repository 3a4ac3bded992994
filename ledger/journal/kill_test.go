package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// isChild makes this test binary another process with the journal that it is started in.
const isChild = "JOURNAL_TEST_CHILD"

const (
	killedLives = 6
	writers     = 16
)

// TestKilled kills a process amid concurrent Puts, again and again on the same directory, and wants each
// command that it said was acknowledged to be there, each account's in order.
func TestKilled(t *testing.T) {
	t.Parallel()
	if os.Getenv(isChild) != "" {
		killedChild(t)
		return
	}
	dir := t.TempDir()
	acked := map[string][]uuid.UUID{}
	for range killedLives {
		child, lines := startChild(t, "^TestKilled$", dir)
		mostly := 1 + rand.IntN(2000)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if err != nil { // what is not a whole line was not said
				break
			}
			if account, id, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(account, "w-") {
				acked[account] = append(acked[account], uuid.MustParse(id))
			} else if strings.Contains(line, "FAIL") {
				t.Error(line)
			}
			if n == mostly {
				child.Process.Kill()
			}
		}
		child.Wait()
		wantAcked(t, dir, acked)
	}
	drainKilled(t, dir, acked)
}

// wantAcked wants what was acknowledged to be listed, in order, with little else.
func wantAcked(t *testing.T, dir string, acked map[string][]uuid.UUID) {
	t.Helper()
	got := map[string][]uuid.UUID{}
	for e, err := range Read(dir) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Command.Account] = append(got[e.Command.Account], e.Command.ID)
	}
	n := 0
	for account, ids := range acked {
		n += len(ids)
		there := slices.DeleteFunc(slices.Clone(got[account]), func(id uuid.UUID) bool { return !slices.Contains(ids, id) })
		wantIDs(t, account, there, ids)
		if extra := len(got[account]) - len(ids); extra > killedLives {
			t.Fatalf("%s has %d commands that nobody was told of", account, extra)
		}
	}
	t.Logf("%d were acknowledged", n)
}

// drainKilled opens the journal after all and books everything.
func drainKilled(t *testing.T, dir string, acked map[string][]uuid.UUID) {
	t.Helper()
	o := quiet()
	g := watch(&o)
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	b := &booker{}
	drainAll(t, j, g, b.append)
	mustClose(t, j)
	b.check(t)
	for account, ids := range acked {
		booked := slices.DeleteFunc(b.ids(account), func(id uuid.UUID) bool { return !slices.Contains(ids, id) })
		wantIDs(t, account, booked, ids)
	}
}

// startChild runs a test of this binary in a process of its own.
func startChild(t *testing.T, test, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self, "-test.run="+test, "-test.v")
	child.Env, child.Dir = append(os.Environ(), isChild+"=1"), dir
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return child, bufio.NewReader(out)
}

// killedChild puts until it is killed, and says what was acknowledged.
func killedChild(t *testing.T) {
	o := quiet()
	o.SegmentBytes = 20_000
	j, err := Open(".", o)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for account := fmt.Sprint("w-", w); ; {
				c := release(account)
				if err := j.Put(context.Background(), c); err != nil {
					fmt.Println("FAIL", err)
					return
				}
				os.Stdout.WriteString(account + " " + c.ID.String() + "\n") //nolint:errcheck // one write: a whole line or none
			}
		})
	}
	wait.Wait()
}

// TestTwoProcesses wants a process to be refused while another has the journal, and to be told which.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	if os.Getenv(isChild) != "" {
		_, err := Open(".", quiet())
		fmt.Println("answer", errors.Is(err, ErrLocked), err)
		return
	}
	dir := t.TempDir()
	j, err := Open(dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, j)
	mustPut(t, j, release("alice"))
	child, lines := startChild(t, "^TestTwoProcesses$", dir)
	said := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		if strings.HasPrefix(line, "answer") {
			said = line
		}
	}
	child.Wait()
	if !strings.HasPrefix(said, "answer true") || !strings.Contains(said, strconv.Itoa(os.Getpid())) {
		t.Errorf("it said %q", said)
	}
	n := 0
	for _, err := range Read(dir) {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d are listed beside the process", n)
	}
}
