package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The test binary runs itself as another process, to be killed, when helperVariable says what to do.
const (
	helperVariable  = "EMBEDDED_TEST_HELPER"
	helperDataDir   = "EMBEDDED_TEST_DATA_DIR"
	helperBinDir    = "EMBEDDED_TEST_BIN_DIR"
	helperCacheDir  = "EMBEDDED_TEST_CACHE_DIR"
	startTimeout    = 2 * time.Minute // for a whole start on a loaded machine
	pollProcess     = 10 * time.Millisecond
	deathLimit      = 3 * time.Second // the contract
	helperStartSome = "start"
	helperWatchSome = "watch"
	helperPublish   = "publish"
)

func TestMain(m *testing.M) {
	switch os.Getenv(helperVariable) {
	case helperStartSome:
		helperStart()
	case helperWatchSome:
		helperWatch()
	case helperPublish:
		helperPublishKafka()
	default:
		os.Exit(runTests(m))
	}
}

// runTests gives the tests a temporary directory that every user can use and that goes as a whole:
// the fetching library leaves a log file there.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "embedded-")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), os.Setenv("TMPDIR", dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return m.Run()
}

// report is what a helper prints, on one line, when it has begun.
type report struct {
	URL   string `json:"url"`
	PID   int    `json:"pid"`
	Error string `json:"error"`
}

// tell prints a report, then waits for the end of stdin.
func (r report) tell() {
	text, _ := json.Marshal(r)
	fmt.Println(string(text))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func helperStart() {
	p, err := StartPostgres(context.Background(), Options{
		DataDir:  os.Getenv(helperDataDir),
		BinDir:   os.Getenv(helperBinDir),
		CacheDir: os.Getenv(helperCacheDir),
	})
	if err != nil {
		report{Error: err.Error()}.tell()
		os.Exit(1)
	}
	report{URL: p.URL(), PID: p.PID()}.tell()
	if err := p.Stop(context.Background()); err != nil {
		os.Exit(1)
	}
}

// helperWatch starts a process that only the watcher can end.
func helperWatch() {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		report{Error: err.Error()}.tell()
		return
	}
	if _, err := startWatcher(cmd.Process.Pid, syscall.SIGQUIT); err != nil {
		report{Error: err.Error()}.tell()
		return
	}
	report{PID: cmd.Process.Pid}.tell()
}

// helper is another process of this test binary.
type helper struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

// startHelper runs the test binary again, as another user unless user is nil.
func startHelper(t *testing.T, mode string, user *account, o Options) *helper {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if user != nil {
		self = copyProgram(t, self)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperVariable+"="+mode, helperDataDir+"="+o.DataDir,
		helperBinDir+"="+o.BinDir, helperCacheDir+"="+o.CacheDir)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user.credential()}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{t: t, cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}
	t.Cleanup(h.kill)
	return h
}

// copyProgram puts the test binary where every user can run it.
func copyProgram(t *testing.T, path string) string {
	t.Helper()
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(openDir(t), "helper")
	if err := os.WriteFile(to, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// openDir is a temporary directory that every user can enter; those of package testing are not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "embedded-test-") //nolint:usetesting // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// begun waits for the helper's report.
func (h *helper) begun() report {
	h.t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatalf("helper said nothing: %v", err)
	}
	var r report
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		h.t.Fatalf("helper said %q: %v", line, err)
	}
	if r.Error != "" {
		skipWithoutBinaries(h.t, errors.New(r.Error))
		h.t.Fatalf("helper: %s", r.Error)
	}
	return r
}

// kill is a kill -9; idempotent.
func (h *helper) kill() {
	if h.cmd.ProcessState == nil {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	}
}

// finish lets the helper stop its child in order and end.
func (h *helper) finish() {
	h.t.Helper()
	_ = h.stdin.Close()
	if err := h.cmd.Wait(); err != nil {
		h.t.Errorf("helper's end: %v", err)
	}
}

// otherUser is an ordinary user whom we can become, or the test is not for us.
func otherUser(t *testing.T) *account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("becoming another user takes root; the other tests run as an ordinary user already")
	}
	user, err := chooseAccount(filepath.Join(t.TempDir(), "absent"))
	if err != nil {
		t.Skip(err)
	}
	return user
}

// ownDir is a DATA_DIR of its own for a user.
func ownDir(t *testing.T, user *account) string {
	t.Helper()
	if user == nil {
		return t.TempDir()
	}
	dir := filepath.Join(openDir(t), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := user.giveTree(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start starts Postgres and stops it when the test ends. Without any binaries there is no test.
func start(t *testing.T, o Options) *Postgres {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	p, err := StartPostgres(ctx, o)
	skipWithoutBinaries(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(context.Background()) })
	return p
}

// skipWithoutBinaries skips when neither local nor prebuilt binaries can be had.
func skipWithoutBinaries(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "unable to connect to") {
		t.Skipf("no Postgres binaries here and no way to fetch them: %v", err)
	}
}

func stop(t *testing.T, p *Postgres) {
	t.Helper()
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	default:
		t.Fatal("stopped but not done")
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn := connect(t, url)
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	var text string
	if err := connect(t, url).QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// alive reports whether a process runs; one that only waits for its parent's notice does not.
func alive(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil {
		return errors.Is(err, syscall.EPERM)
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) || !kernelSignalsOrphans
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

// awaitGone polls until none of the processes is alive, and returns those that still are.
func awaitGone(pids []int, limit time.Duration) []int {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(pollProcess)
	defer tick.Stop()
	for {
		var left []int
		for _, pid := range pids {
			if alive(pid) {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-deadline.C:
			return left
		case <-tick.C:
		}
	}
}
