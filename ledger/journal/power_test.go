package journal

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// history is a random course of events on one disk.
type history struct {
	*past

	disk    *disk
	journal *Journal
	alike   [][]uuid.UUID // of each account, in the order of its Puts
}

// TestHistories lets Puts, one after the other and many at once, failures of the disk, drains, kills, power
// losses and clean ends follow each other in any order. After each life exactly what was acknowledged is
// there.
func TestHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &history{past: newPast(), disk: newDisk(rapid.Uint64().Draw(t, "seed"))}
		h.journal = mustOpen(t, h.disk, smallSegments())
		defer func() { h.journal.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"put":          func(*rapid.T) { h.put(h.journal, "alone") },
			"put together": func(t *rapid.T) { h.together(rapid.IntRange(2, 12).Draw(t, "n")) },
			"fail":         func(t *rapid.T) { h.disk.fail(rapid.IntRange(1, 12).Draw(t, "call")) },
			"drain":        func(t *rapid.T) { h.drainSome(t, h.disk, h.journal, rapid.IntRange(1, 10).Draw(t, "n")) },
			"power goes":   func(t *rapid.T) { h.disk.failOff(rapid.IntRange(1, 20).Draw(t, "call")) },
			"close": func(t *rapid.T) {
				h.journal.Close()
				if h.disk.isOff() {
					h.disk = h.disk.powerLoss()
				}
				h.reopen(t, h.disk)
			},
			"kill": func(t *rapid.T) {
				if !h.disk.isOff() {
					h.reopen(t, h.disk.crash())
				}
			},
			"power loss": func(t *rapid.T) { h.reopen(t, h.disk.powerLoss()) },
		})
		h.reopen(t, h.disk.powerLoss())
	})
}

// together puts commands of as many accounts at once. Their order is not known, and so not asked.
func (h *history) together(n int) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		wait.Go(func() {
			c := release(fmt.Sprint("account-", i))
			err := h.journal.Put(context.Background(), c)
			mu.Lock()
			defer mu.Unlock()
			h.alike = append(h.alike, []uuid.UUID{c.ID})
			h.acked[c.ID] = err == nil
		})
	}
	wait.Wait()
}

// reopen is the next life, on what the last one left.
func (h *history) reopen(t *rapid.T, d *disk) {
	h.journal.Close()
	d.failAt, d.offAt, h.disk = 0, 0, d
	listed := waits(t, d)
	h.verify(t, listed)
	h.checkRefused(t, d)
	h.journal = mustOpen(t, d, smallSegments())
	wantIDs(t, "Open changed what is there", waits(t, d), listed)
	if n, _, _ := h.journal.Waiting(); n != len(listed) {
		t.Fatalf("%d wait, %d are there", n, len(listed))
	}
}

// verify wants what was put alone in its order, and what was put together to be there.
func (h *history) verify(t *rapid.T, got []uuid.UUID) {
	known := map[uuid.UUID]bool{}
	for _, ids := range h.alike {
		known[ids[0]] = true
	}
	there := map[uuid.UUID]bool{}
	var alone []uuid.UUID
	for _, id := range got {
		there[id] = true
		if !known[id] {
			alone = append(alone, id)
		}
	}
	h.check(t, alone)
	for id := range known {
		if h.acked[id] && !h.booked[id] && !there[id] {
			t.Fatalf("%s was acknowledged, and is gone", id)
		}
	}
}
