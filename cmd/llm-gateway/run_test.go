package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/migrations/pgtest"
)

// runTime bounds one run of the binary in a test; building one may come first.
const runTime = 2 * time.Minute

// binaryDir is where the binary under test is built, once, when it is first needed.
var binaryDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "llm-gateway-test-")
	if err != nil {
		panic(err)
	}
	binaryDir = dir
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

var built = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, program)
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// binary is the path of the program under test.
func binary(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatalf("building the binary: %v", err)
	}
	return path
}

// command prepares a run of the binary in an empty directory, with these settings and no others.
func command(ctx context.Context, t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	cmd.Dir = t.TempDir()
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "EMBEDDED_POSTGRES_BIN"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, onServers(t, env)...)
	cmd.Stderr = newOutput() // unless the test has its own
	scanProcess(t, cmd)
	return cmd
}

// result is how a run ended.
type result struct {
	stdout, stderr string
	status         int
}

func run(t testing.TB, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runTime)
	defer cancel()
	return finish(t, command(ctx, t, env, args...))
}

func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// peakEvery is how often a process's memory is read.
const peakEvery = 5 * time.Millisecond

// finishMeasured is finish, and says how much memory the process took at most, in MiB, as Linux tells while it
// runs. (What it tells at the end of a process may be what its parent had when it made it.)
func finishMeasured(t testing.TB, cmd *exec.Cmd) (r result, peak int64) {
	t.Helper()
	started, ended, read := make(chan int, 1), make(chan struct{}), make(chan struct{})
	go func() { // ends with the process
		defer close(read)
		tick := time.NewTicker(peakEvery)
		defer tick.Stop()
		for pid := <-started; pid != 0; {
			peak = max(peak, mostMemory(pid))
			select {
			case <-ended:
				return
			case <-tick.C:
			}
		}
	}()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		close(started)
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	started <- cmd.Process.Pid
	err := cmd.Wait()
	close(ended)
	<-read
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, peak
}

// mostMemory is the most that a process has had so far, in MiB; 0 where nobody tells.
func mostMemory(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) //nolint:errcheck // it has ended, or there is no such file
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var kilobytes int64
	fmt.Sscan(line, &kilobytes) //nolint:errcheck // 0
	return kilobytes / 1024
}

// succeeds runs the binary, which must end with status 0, and returns what it printed.
func succeeds(t testing.TB, env []string, args ...string) string {
	t.Helper()
	r := run(t, env, args...)
	if r.status != 0 {
		t.Fatalf("%v ended with %d:\n%s%s", args, r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// parsed runs the binary with --json and parses what it printed.
func parsed[T any](t testing.TB, env []string, args ...string) T {
	t.Helper()
	return decoded[T](t, succeeds(t, env, append(args, "--json")...))
}

// decoded parses what the binary printed with --json.
func decoded[T any](t testing.TB, out string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("what was printed is not its JSON: %v\n%s", err, out)
	}
	return v
}

// fails runs the binary, which must end with this status and one line on stderr that has the text.
func fails(t testing.TB, status int, text string, env []string, args ...string) {
	t.Helper()
	r := run(t, env, args...)
	switch {
	case r.status != status:
		t.Errorf("%v ended with %d, not %d:\n%s%s", args, r.status, status, r.stdout, r.stderr)
	case !strings.Contains(r.stderr, text) || !strings.HasPrefix(r.stderr, program+": "):
		t.Errorf("%v: stderr lacks %q:\n%s", args, text, r.stderr)
	case strings.Count(r.stderr, "\n") != 1:
		t.Errorf("%v: stderr is not one line:\n%s", args, r.stderr)
	}
}

// onPostgres are settings for a migrated schema of the test's own.
func onPostgres(t testing.TB, more ...string) []string {
	t.Helper()
	return append([]string{"DATABASE_URL=" + pgtest.URL(t)}, more...)
}
