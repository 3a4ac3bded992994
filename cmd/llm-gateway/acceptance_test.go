package main

// The acceptance tests drive the real binary as its users do: over HTTP, by the command line, and
// with signals. What it did with the money is then judged by an auditor (acceptance_audit_test.go)
// that reads the ledger's rows by SQL and shares no arithmetic with the program. ACCEPTANCE=full
// makes the sizes those of the promise; `make acceptance` sets it.

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"llm-gateway/gateway"
)

const (
	readyLimit  = 30 * time.Second                   // for a serve to say that it is ready, on a loaded machine
	endLimit    = 30 * time.Second                   // for a process to end that was told to
	deathLimit  = 3 * time.Second                    // for all of its children to be gone after kill -9
	lookAgain   = 20 * time.Millisecond              // between two looks at the same thing
	settleLimit = 20 * time.Second                   // for what was left open to be settled behind the scenes
	testSecret  = "acceptance-acceptance-acceptance" // what tokens are signed with
)

// full says whether the sizes are those of the promise.
func full() bool { return os.Getenv("ACCEPTANCE") == "full" }

// sized is how large a test is.
func sized(usual, complete int) int {
	if full() {
		return complete
	}
	return usual
}

// output keeps what a process prints, and can be waited on.
type output struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	select {
	case o.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// served is one running `serve`.
type served struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan struct{}
	launched       time.Time
	url            string        // set by ready
	readyIn        time.Duration // set by ready
}

// launch starts `serve` on a free port, in an empty directory, with these settings and no others.
// Nothing of it is left when the test ends.
func launch(t testing.TB, env ...string) *served {
	t.Helper()
	base := []string{"HOST=127.0.0.1", "PORT=0", "LOG_LEVEL=WARN", "JWT_SECRET_KEY=" + testSecret}
	return launchBare(t, append(base, env...)...)
}

// launchBare is launch without settings of its own.
func launchBare(t testing.TB, env ...string) *served {
	t.Helper()
	return launchCommand(t, command(context.Background(), t, env, "serve"))
}

// unlimited are the settings of tests that are not about limits. Their own come after these.
var unlimited = []string{"RATE_LIMIT_REQUESTS_PER_MINUTE=0", "RATE_LIMIT_REQUESTS_PER_HOUR=0"}

// launchCommand is launch of a prepared command.
func launchCommand(t testing.TB, cmd *exec.Cmd) *served {
	t.Helper()
	s := &served{t: t, cmd: cmd, stdout: newOutput(), stderr: newOutput(), ended: make(chan struct{}), launched: time.Now()}
	s.cmd.Stdout, s.cmd.Stderr = s.stdout, s.stderr
	s.cmd.Env = slices.Concat(unlimited, s.cmd.Env)
	s.cmd.WaitDelay = deathLimit
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.cmd.Wait() //nolint:errcheck // its status is looked at
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.scanMetrics()
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
		<-s.ended
		if text := s.stderr.String() + s.stdout.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic") {
			t.Errorf("serve was not well:\n%s", tail(text)) // races show with GOFLAGS=-race
		}
		if t.Failed() {
			t.Logf("serve said:\n%s\n%s", tail(s.stdout.String()), tail(s.stderr.String()))
		}
	})
	return s
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// startServe launches and waits until it is ready.
func startServe(t testing.TB, env ...string) *served {
	t.Helper()
	return launch(t, env...).ready()
}

var readyLine = regexp.MustCompile(`is ready on http://localhost:(\d+) `)

// ready waits until it says where it is.
func (s *served) ready() *served {
	s.t.Helper()
	s.url = "http://127.0.0.1:" + s.says(readyLine)[1]
	s.readyIn = time.Since(s.launched)
	return s
}

// says waits until stdout has what the pattern matches.
func (s *served) says(pattern *regexp.Regexp) []string {
	s.t.Helper()
	limit := time.NewTimer(readyLimit)
	defer limit.Stop()
	for {
		if found := pattern.FindStringSubmatch(s.stdout.String()); found != nil {
			return found
		}
		select {
		case <-s.stdout.more:
		case <-s.ended:
			s.t.Fatalf("serve ended with %d:\n%s", s.cmd.ProcessState.ExitCode(), s.stderr)
		case <-limit.C:
			s.t.Fatalf("serve did not say %s within %s:\n%s%s", pattern, readyLimit, s.stdout, s.stderr)
		}
	}
}

// stop asks it to end, and it must end well.
func (s *served) stop() {
	s.t.Helper()
	s.scanMetrics()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.await(endLimit)
	if status := s.cmd.ProcessState.ExitCode(); status != 0 {
		s.t.Errorf("after SIGTERM serve ended with %d:\n%s", status, tail(s.stderr.String()))
	}
}

// kill is kill -9 of the process alone, not of its children.
func (s *served) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) await(limit time.Duration) {
	s.t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
		s.t.Fatalf("serve has not ended after %s", limit)
	}
}

// tokenFor signs a token as the settings of launch do.
func tokenFor(t testing.TB, account string) string {
	t.Helper()
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Sign(account, gateway.RoleUser, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// verified runs `ledger verify`, which must find nothing.
func verified(t testing.TB, env ...string) {
	t.Helper()
	r := run(t, env, "ledger", "verify", "--json")
	if r.status != 0 || !strings.Contains(r.stdout, `"clean": true`) {
		t.Errorf("ledger verify ended with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
}

// eventually looks again and again, for a bounded time.
func eventually(t testing.TB, limit time.Duration, what string, look func() bool) {
	t.Helper()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !look(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// family is a process and all that descend from it, by /proc.
func family(t testing.TB, pid int) []int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(entries) == 0 {
		t.Skip("there is no /proc to find child processes in")
	}
	children := map[int][]int{}
	for _, entry := range entries {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		if parent := parentOf(child); err == nil && parent > 0 {
			children[parent] = append(children[parent], child)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// parentOf is a process's parent; 0 where there is no such process, or only a zombie of it.
func parentOf(pid int) int {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, after, found := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	if err != nil || !found || len(fields) < 2 || fields[0] == "Z" {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	return map[bool]int{true: parent}[err == nil]
}

// gone waits until none of the processes is there, and returns how long that took.
func gone(t testing.TB, pids []int, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	eventually(t, limit, "the end of all processes", func() bool {
		for _, pid := range pids {
			if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && parentOf(pid) > 0 {
				return false
			}
		}
		return true
	})
	return time.Since(begin)
}

func containsAll(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}
