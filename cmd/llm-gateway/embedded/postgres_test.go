package embedded

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestRestartKeepsData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, Options{DataDir: dir})
	execute(t, p.URL(), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42)")
	checkPrivacy(t, dir, p)
	stop(t, p)
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
	p = start(t, Options{DataDir: dir})
	if got := query(t, p.URL(), "SELECT n FROM kept"); got != "42" {
		t.Errorf("after a restart: %s", got)
	}
}

// checkPrivacy: what holds or leads to secrets is for us only, and Postgres has none of our
// environment.
func checkPrivacy(t *testing.T, dir string, p *Postgres) {
	t.Helper()
	for name, want := range map[string]os.FileMode{"postgres.password": 0o600, "postgres.log": 0o600, "postgres": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s is %o, want %o", name, got, want)
		}
	}
	environ, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "environ"))
	if errors.Is(err, os.ErrNotExist) {
		return // no such thing on this system
	}
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(string(bytes.Trim(environ, "\x00")), "\x00") {
		// Postgres adds PG* variables of its own.
		if !slices.Contains(childEnvironment(), name) && !strings.HasPrefix(name, "PG") {
			t.Errorf("in the child's environment: %s", name)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	p := start(t, Options{DataDir: t.TempDir()})
	for name, want := range map[string]string{
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "100",
		"shared_buffers": "128MB", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
		"data_checksums": "on", "server_encoding": "UTF8", "lc_messages": "C", "timezone": "UTC",
		"password_encryption": "scram-sha-256",
	} {
		if got := query(t, p.URL(), "SELECT current_setting('"+name+"')"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := query(t, p.URL(), "SELECT datcollate FROM pg_database WHERE datname = current_database()"); got != "C" {
		t.Errorf("collation %q", got)
	}
	wrong := strings.Replace(p.URL(), superuser+":", superuser+":x", 1)
	if conn, err := pgx.Connect(t.Context(), wrong); err == nil {
		_ = conn.Close(t.Context())
		t.Error("a wrong password is let in")
	}
}

// TestClosedParent: for root, the cluster's user cannot enter the directories above; all that
// Postgres does with its directory must work nevertheless.
func TestClosedParent(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	if err := os.Chmod(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "clone", "data")
	p := start(t, Options{DataDir: dir})
	execute(t, p.URL(), "CREATE DATABASE another", "CREATE TABLE t AS SELECT generate_series(1, 200000) AS n",
		"SET work_mem = '64kB'", "SELECT count(*) FROM (SELECT n FROM t ORDER BY md5(n::text)) s",
		"VACUUM ANALYZE t", "CHECKPOINT", "SELECT pg_reload_conf()", "SELECT pg_switch_wal()",
		"ALTER SYSTEM SET work_mem = '5MB'")
	killBackend(t, p)
	if got := query(t, awaitURL(t, p), "SELECT count(*) FROM t"); got != "200000" {
		t.Errorf("after the crash of a backend: %s rows", got)
	}
	stop(t, p)
	if kept, err := filepath.Glob(filepath.Join(dir, "postgres", "pg_stat", "*")); err != nil || len(kept) == 0 {
		t.Errorf("statistics kept: %v, %v", kept, err)
	}
	info, err := os.Stat(parent)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the parent is %o now", info.Mode().Perm())
	}
}

// killBackend makes the postmaster restart everything from the write-ahead log.
func killBackend(t *testing.T, p *Postgres) {
	t.Helper()
	conn := connect(t, p.URL())
	pid := int(conn.PgConn().PID())
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if left := awaitGone([]int{pid}, deathLimit); left != nil {
		t.Fatalf("%v alive", left)
	}
}

// awaitURL waits until the server answers again.
func awaitURL(t *testing.T, p *Postgres) string {
	t.Helper()
	if err := p.awaitReady(t.Context(), p.URL()); err != nil {
		t.Fatal(err)
	}
	return p.URL()
}

func TestUnexpectedEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log bytes.Buffer
	p := start(t, Options{DataDir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	execute(t, p.URL(), "CREATE TABLE kept (n int)")
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if !strings.Contains(log.String(), "ended by itself") {
		t.Errorf("logged: %s", &log)
	}
	p = start(t, Options{DataDir: dir}) // while the backends may still be ending
	if got := query(t, p.URL(), "SELECT count(*) FROM kept"); got != "0" {
		t.Errorf("rows: %s", got)
	}
}

func TestSecondStartWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, Options{DataDir: dir})
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := StartPostgres(short, Options{DataDir: dir})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(p.PID())) {
		t.Fatalf("beside process %d: %v", p.PID(), err)
	}
	second := make(chan *Postgres, 1)
	go func() {
		p, err := StartPostgres(t.Context(), Options{DataDir: dir})
		if err != nil {
			t.Error(err)
		}
		second <- p
	}()
	stop(t, p)
	if p := <-second; p != nil {
		stop(t, p)
	}
}

func TestPortTakenIsTriedAgain(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := openCluster(t.Context(), Options{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	skipWithoutBinaries(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	log, err := openServerLog(c.root)
	if err != nil {
		t.Fatal(err)
	}
	defer log.closeFile()
	p := &Postgres{logFile: log}
	if p.child, err = c.spawn(log, l.Addr().(*net.TCPAddr).Port, nil); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := p.earlyEnd(); !errors.Is(err, errPortTaken) {
		t.Errorf("port taken: %v", err)
	}
}

// TestStopWithoutTime: no time for a checkpoint must not cost committed data.
func TestStopWithoutTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, Options{DataDir: dir})
	execute(t, p.URL(), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Stop(over); err != nil && !strings.Contains(err.Error(), "quit") {
		t.Errorf("Stop: %v", err)
	}
	p = start(t, Options{DataDir: dir})
	if got := query(t, p.URL(), "SELECT n FROM kept"); got != "1" {
		t.Errorf("after SIGQUIT: %s", got)
	}
}

func TestStopStages(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		ignored string
		says    string
	}{{"USR1", ""}, {"INT", "quit"}, {"INT QUIT", "killed"}} {
		t.Run(tc.ignored, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sh", "-c", "trap '' "+tc.ignored+"; echo; exec sleep 600")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			c, err := startChild(cmd, nil, syscall.SIGKILL, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil { // the trap is set
				t.Fatal(err)
			}
			const limit = 300 * time.Millisecond
			err = c.stop(t.Context(), []stage{{syscall.SIGINT, limit}, {syscall.SIGQUIT, limit}, {syscall.SIGKILL, killWait}})
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("stop: %v", err)
			}
			<-c.done
		})
	}
}

func TestServerLogIsBounded(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		size    int64
		rotated bool
	}{{"at the limit", maxLogSize, false}, {"above", maxLogSize + 1, true}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			path := filepath.Join(root, "postgres.log")
			if err := errors.Join(os.WriteFile(path, []byte("old"), 0o600), os.Truncate(path, tc.size)); err != nil {
				t.Fatal(err)
			}
			log, err := openServerLog(root)
			if err != nil {
				t.Fatal(err)
			}
			defer log.closeFile()
			if _, err := os.Stat(path + ".1"); (err == nil) != tc.rotated {
				t.Errorf("rotated: %v", err == nil)
			}
			if _, err := io.WriteString(log.file, strings.Repeat("line\n", 100)+"last\n"); err != nil {
				t.Fatal(err)
			}
			want := strings.Repeat("line\n", tailLines-1) + "last"
			if got := log.tail(); got != want {
				t.Errorf("tail is %q", got)
			}
		})
	}
}
