package embedded

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var silent = slog.New(slog.DiscardHandler)

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  error
		says  string
	}{
		{"newer than any binaries", map[string]string{"postgres/PG_VERSION": "99\n"}, ErrDataVersion, "99"},
		{"too old", map[string]string{"postgres/PG_VERSION": "13\n"}, ErrDataVersion, "13"},
		{"two-part version", map[string]string{"postgres/PG_VERSION": "9.6\n"}, ErrDataVersion, "9.6"},
		{"unreadable version", map[string]string{"postgres/PG_VERSION": ""}, ErrDataVersion, `""`},
		{"no version", map[string]string{"postgres/base/1": "data"}, ErrNotCluster, "PG_VERSION"},
		{"a file", map[string]string{"postgres": "data"}, ErrNotCluster, "postgres"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, content := range tc.files {
				writeTestFile(t, filepath.Join(dir, name), content)
			}
			writeTestFile(t, filepath.Join(dir, "postgres.init-1", "PG_VERSION"), "15\n")
			before := snapshot(t, dir)
			_, err := StartPostgres(t.Context(), Options{DataDir: dir})
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) ||
				!strings.Contains(err.Error(), filepath.Join(dir, "postgres")) {
				t.Errorf("error: %v", err)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("changed; before:\n%safter:\n%s", before, after)
			}
		})
	}
}

func TestRefusesBinariesOfAnotherVersion(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(openDir(t), "bin")
	fakeBinaries(t, bin, "postgres (PostgreSQL) 16.1 (Somebody's)")
	dir := t.TempDir()
	writeTestFile(t, filepath.Join(dir, "postgres", "PG_VERSION"), "15\n")
	before := snapshot(t, dir)
	_, err := StartPostgres(t.Context(), Options{DataDir: dir, BinDir: bin})
	if !errors.Is(err, ErrDataVersion) || !strings.Contains(err.Error(), bin) {
		t.Errorf("error: %v", err)
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("changed; before:\n%safter:\n%s", before, after)
	}
}

func writeTestFile(t *testing.T, path, content string) {
	t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot describes all of a tree: names, kinds, permissions, owners, contents.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		uid, gid, err := owner(path)
		if err != nil {
			return err
		}
		var content []byte
		if e.Type().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%s %s %d:%d %x\n", path, info.Mode(), uid, gid, sha256.Sum256(content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeTestFile(t, filepath.Join(dir, initPrefix+"7", "PG_VERSION"), "15\n")
	writeTestFile(t, filepath.Join(dir, initPrefix+"pw"), "x")
	if err := os.Mkdir(filepath.Join(dir, "postgres"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := start(t, Options{DataDir: dir})
	stop(t, p)
	assertNoLeftovers(t, dir)
}

func TestLostPasswordIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := clusterPassword(dir, true); err == nil || !strings.Contains(err.Error(), "postgres.password") {
		t.Errorf("error: %v", err)
	}
	made, err := clusterPassword(dir, false)
	if err != nil || len(made) != 2*passwordBytes {
		t.Fatalf("%q, %v", made, err)
	}
	if again, err := clusterPassword(dir, true); err != nil || again != made {
		t.Errorf("%q and then %q, %v", made, again, err)
	}
}

// TestReusedPID: a postmaster.pid that names a living process of the same user stops Postgres for
// ever unless that process is seen to be a stranger; and one that works in the cluster is none.
func TestReusedPID(t *testing.T) {
	t.Parallel()
	if !kernelSignalsOrphans {
		t.Skip("other systems do not tell where a process works")
	}
	dir := t.TempDir()
	p := start(t, Options{DataDir: dir})
	stop(t, p)
	cluster := filepath.Join(dir, "postgres")
	pidFile := filepath.Join(cluster, "postmaster.pid")

	resident := sleeper(t, cluster, cluster)
	writeTestFile(t, pidFile, fmt.Sprintf("%d\n%s\n", resident, cluster))
	_, err := StartPostgres(t.Context(), Options{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(resident)) {
		t.Fatalf("beside a process in the cluster: %v", err)
	}
	if postmasterPID(cluster) != resident {
		t.Error("its postmaster.pid is gone")
	}
	stranger := sleeper(t, cluster, "/")
	writeTestFile(t, pidFile, fmt.Sprintf("%d\n%s\n1\n5432\n\n127.0.0.1\n1 1\n", stranger, cluster))
	stop(t, start(t, Options{DataDir: dir}))
}

// sleeper runs a process as the cluster's user.
func sleeper(t *testing.T, cluster, in string) int {
	t.Helper()
	user, err := chooseAccount(cluster)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "600")
	cmd.Dir = in
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if in == "/" {
		cmd.SysProcAttr.Credential = user.credential()
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// TestRestoredByRoot: a cluster that root copied into place belongs to root.
func TestRestoredByRoot(t *testing.T) {
	t.Parallel()
	user := otherUser(t)
	dir := t.TempDir()
	stop(t, start(t, Options{DataDir: dir}))
	cluster := filepath.Join(dir, "postgres")
	if uid, _, err := owner(cluster); err != nil || uid != user.uid {
		t.Fatalf("made for user %d, want %d: %v", uid, user.uid, err)
	}
	if err := (&account{}).takeTree(cluster); err != nil {
		t.Fatal(err)
	}
	stop(t, start(t, Options{DataDir: dir}))
}

// takeTree is giveTree whoever owns it.
func (a *account) takeTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.uid), int(a.gid))
	})
}
