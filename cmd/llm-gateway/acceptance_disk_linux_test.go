package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"llm-gateway/gateway/health"
	"llm-gateway/migrations/pgtest"
)

// The sizes of a disk: with room, and with so little that what is put there fills it.
const (
	roomyDisk = diskLow + 64<<20
	fillBytes = 96 << 20
)

// smallDisk is a disk of a test's own. It is one in memory, and takes no more of that than what is put there.
func smallDisk(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, sizedDisk(roomyDisk)); err != nil {
		t.Skipf("a disk of a test's own takes the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func sizedDisk(bytes int) string { return "mode=0700,size=" + strconv.Itoa(bytes) }

// put takes so much of a disk.
func put(t *testing.T, path string, bytes int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // what is in it counts for nothing
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, bytes); err != nil {
		t.Fatal(err)
	}
}

// fill leaves nothing of a disk.
func fill(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, sizedDisk(fillBytes+8<<20)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "rest"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // what is in it counts for nothing
	page := make([]byte, os.Getpagesize())
	for err == nil {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// empty gives a disk its room back.
func empty(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"much", "rest"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, sizedDisk(roomyDisk)); err != nil {
		t.Fatal(err)
	}
}

// TestComponentsAwayDisk: the disk of DATA_DIR fills up, and is full when Postgres goes away and a settlement needs
// the journal: the answer's end is withheld until Postgres is back, and is charged once; then there is room again.
func TestComponentsAwayDisk(t *testing.T) {
	t.Parallel()
	disk, direct := smallDisk(t), pgtest.URL(t)
	post, through := newGatePost(t, direct)
	w := watch(t, startServe(t, "DATABASE_URL="+through, "DATA_DIR="+filepath.Join(disk, "data"), "HEALTH_CHECK_INTERVAL=200ms", "LOG_LEVEL=INFO"))
	eventually(t, seenLimit, "all is up", func() bool { return healthOf(t, w.client, w.s.url, w.admin).State == health.Up })
	put(t, filepath.Join(disk, "much"), fillBytes)
	c := w.sees("disk", health.Degraded, "less than 1 GiB is free", "WARN")
	if free, ok := c.Facts["free_bytes"].(float64); !ok || free <= 0 || free >= diskLow {
		t.Errorf("the facts are %v", c.Facts)
	}
	w.is(health.Degraded, http.StatusOK, `{"status":"ready"}`)
	serves(t, w.client, w.s.url, "thrifty")
	fill(t, disk)
	eventually(t, seenLimit, "nothing is free", func() bool {
		return healthOf(t, w.client, w.s.url, w.admin).Components["disk"].Facts["free_bytes"] == 0.0
	})
	serves(t, w.client, w.s.url, "thrifty") // while Postgres answers, nobody needs the journal
	running := make(chan reply, 1)
	go func() {
		running <- chat(t.Context(), w.client, w.s.url, tokenFor(t, "thrifty"), chatBody(flatModel, "sim:tokens=20 sim:pace=50ms", true, ""))
	}()
	eventually(t, settleLimit, "the stream has its reserve", func() bool { return len(auditLedger(t, direct).open()) == 1 })
	post.set(cut)
	eventually(t, seenLimit, "the journal refuses", func() bool {
		return strings.Contains(w.s.stdout.String(), `"level":"ERROR","message":"the journal does not take a settlement"`)
	})
	w.wants(`ledger_journaled_total{result="refused"} 1`, "journal_waiting_commands 0")
	w.is(health.Down, http.StatusServiceUnavailable, "Postgres does not answer")
	select {
	case r := <-running:
		t.Fatalf("the answer ended with its charge nowhere: %v", &r)
	default:
	}
	post.set(open)
	if r := <-running; r.status != http.StatusOK || !r.complete || r.cost != "0.01" {
		t.Errorf("the stream under way: %v", &r)
	}
	empty(t, disk)
	w.sees("disk", health.Up, "", "INFO")
	w.sees("postgres", health.Up, "", "INFO")
	readyAgain(t, w.client, w.s.url)
	serves(t, w.client, w.s.url, "thrifty")
	auditLedger(t, direct).has("thrifty", "99.96")
	verified(t, "DATABASE_URL="+direct)
}
