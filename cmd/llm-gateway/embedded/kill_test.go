package embedded

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestKilledParent is the contract: after a kill -9 of the process that runs it, Postgres is gone
// within 3 s with all its backends, busy ones included, and what was committed is there again.
func TestKilledParent(t *testing.T) {
	t.Parallel()
	t.Run("as we are", func(t *testing.T) {
		t.Parallel()
		testKilledParent(t, nil)
	})
	t.Run("ordinary user", func(t *testing.T) {
		t.Parallel()
		testKilledParent(t, otherUser(t))
	})
}

func testKilledParent(t *testing.T, user *account) {
	o := Options{DataDir: ownDir(t, user)}
	h := startHelper(t, helperStartSome, user, o)
	r := h.begun()
	pids := append(keepBusy(t, r.URL), r.PID)
	begin := time.Now()
	h.kill()
	if left := awaitGone(pids, deathLimit); left != nil {
		_ = syscall.Kill(r.PID, syscall.SIGQUIT)
		t.Fatalf("of %v, alive after %s: %v", pids, deathLimit, left)
	}
	t.Logf("%d processes gone after %s", len(pids), time.Since(begin))

	h = startHelper(t, helperStartSome, user, o)
	r = h.begun()
	if got := query(t, r.URL, "SELECT count(*) FROM kept"); got != "1000" {
		t.Errorf("%s rows, want the 1000 committed ones", got)
	}
	h.finish()
	if left := awaitGone([]int{r.PID}, deathLimit); left != nil {
		t.Errorf("alive after an orderly end: %v", left)
	}
}

// keepBusy commits 1000 rows, leaves a transaction open and a statement running, and returns the
// ids of all server processes but the postmaster.
func keepBusy(t *testing.T, url string) []int {
	t.Helper()
	execute(t, url, "CREATE TABLE kept (n int)", "INSERT INTO kept SELECT generate_series(1, 1000)")
	execute(t, url, "BEGIN", "INSERT INTO kept VALUES (-1)")
	sleeper := connect(t, url)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := sleeper.Exec(ctx, "SELECT pg_sleep(600)")
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	conn := connect(t, url)
	rows, err := conn.Query(t.Context(), "SELECT pid FROM pg_stat_activity")
	if err != nil {
		t.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	if len(pids) < 5 {
		t.Fatalf("only %v", pids)
	}
	return pids
}

// skipWithoutAnyBinaries is for a test that kills its helper before that could tell.
func skipWithoutAnyBinaries(t *testing.T) {
	t.Helper()
	user, err := chooseAccount(filepath.Join(t.TempDir(), "absent"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = chooseBinaries(t.Context(), Options{Log: silent}, 0, user)
	skipWithoutBinaries(t, err)
	if err != nil {
		t.Fatal(err)
	}
}

// TestKilledInitdb: a kill -9 while the cluster is being made leaves nothing that blocks the next
// start or is taken for a cluster.
func TestKilledInitdb(t *testing.T) {
	t.Parallel()
	skipWithoutAnyBinaries(t)
	dir := t.TempDir()
	h := startHelper(t, helperStartSome, nil, Options{DataDir: dir})
	awaitFile(t, filepath.Join(dir, initPrefix+"*", "base"))
	h.kill()
	if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
		t.Fatal("the cluster was in place before it was complete")
	}
	p := start(t, Options{DataDir: dir})
	if got := query(t, p.URL(), "SELECT 1"); got != "1" {
		t.Error(got)
	}
	assertNoLeftovers(t, dir)
}

func awaitFile(t *testing.T, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	tick := time.NewTicker(pollProcess)
	defer tick.Stop()
	for {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no %s", pattern)
		case <-tick.C:
		}
	}
}

func assertNoLeftovers(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), initPrefix) {
			t.Errorf("left over: %s", e.Name())
		}
	}
}

// TestWatcher: the stand-in for the death signal where the kernel has none.
func TestWatcher(t *testing.T) {
	t.Parallel()
	h := startHelper(t, helperWatchSome, nil, Options{})
	r := h.begun()
	if !alive(r.PID) {
		t.Fatal("ended too early")
	}
	h.kill()
	if left := awaitGone([]int{r.PID}, deathLimit); left != nil {
		t.Errorf("alive: %v", left)
	}
}
