package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// TestUnstorable wants what no ledger can ever hold to be refused, and not to hold up its account.
func TestUnstorable(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	o := quiet()
	g := watch(&o)
	j := mustOpen(t, d, o)
	c := release("alice")
	mustPut(t, j, c)
	mustPut(t, j, release("alice"))
	b := &booker{before: func(_ context.Context, got domain.Command) error {
		if got.ID == c.ID {
			return fmt.Errorf("%w: a column is too short", domain.ErrUnstorable)
		}
		return nil
	}}
	drainAll(t, j, g, b.append)
	mustClose(t, j)
	for e, err := range read(d) {
		if err != nil || e.Refused.Reason != Unstorable || e.Command.ID != c.ID || !strings.Contains(e.Refused.Error, "column") {
			t.Errorf("%v %v", e, err)
		}
	}
	if len(b.ids("")) != 1 || len(refusedIDs(t, d)) != 1 {
		t.Errorf("%d booked", len(b.ids("")))
	}
}

// refuser refuses all of some accounts.
func refuser(accounts ...string) *booker {
	return &booker{before: func(_ context.Context, c domain.Command) error {
		if slices.Contains(accounts, c.Account) {
			return fmt.Errorf("wrapped: %w", &domain.Rejection{Reason: domain.RejectInvalid, Account: c.Account, Detail: "r"})
		}
		return nil
	}}
}

// TestRefused wants money that could not be booked to be kept, without the answer beside it, to be logged as
// an error, and told, once, even when the journal comes back from the past and hands it over again.
func TestRefused(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	var log bytes.Buffer
	var told []domain.Command
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	o.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	o.Hooks.Refused = func(c domain.Command, err error) {
		if _, ok := errors.AsType[*domain.Rejection](err); !ok {
			t.Errorf("told %v", err)
		}
		told = append(told, c)
	}
	g := watch(&o)
	j := mustOpen(t, d, o)
	bad := settle("bad", uuid.New(), "1.5")
	s := bad.Op.(domain.Settle)
	s.Response = &domain.Response{Body: []byte("an answer")}
	bad.Op = s
	mustPut(t, j, bad)
	mustPut(t, j, release("good"))
	mustClose(t, j)
	before := bytes.Clone(d.names[segmentName(1)].seen)
	for life := range 2 {
		j = mustOpen(t, d, o)
		b := refuser("bad")
		drainAll(t, j, g, b.append)
		if len(b.ids("")) != 1 {
			t.Errorf("life %d: %d were booked", life, len(b.ids("")))
		}
		mustClose(t, j)
		d.names[segmentName(1)] = &inode{seen: before, dirty: map[int]bool{}} // a deletion that did not last
	}
	delete(d.names, segmentName(1))
	if len(told) != 1 || told[0].ID != bad.ID || strings.Count(log.String(), "level=ERROR") != 1 {
		t.Errorf("told %v, logged %s", told, log.String())
	}
	var entries []Entry
	for e, err := range read(d) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if len(entries) != 1 || entries[0].Refused == nil || entries[0].Command.ID != bad.ID {
		t.Fatalf("%v", entries)
	}
	got := entries[0].Command.Op.(domain.Settle)
	if !got.Charge.Equal(s.Charge) || got.Response != nil || !entries[0].Refused.At.Equal(o.Now()) ||
		entries[0].Refused.Reason != domain.RejectInvalid || !strings.Contains(entries[0].Refused.Error, "bad") {
		t.Errorf("%v %v", got, entries[0].Refused)
	}
}

// TestReleaseOfNothing holds that a release which finds nothing to give back, because the reserve never
// happened or somebody was faster, is no money that could not be booked. Any other refusal of it is.
func TestReleaseOfNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		command domain.Command
		reason  domain.Reject
		told    int
	}{
		{release("a"), domain.RejectReservationUnknown, 0},
		{release("a"), domain.RejectAlreadySettled, 0},
		{release("a"), domain.RejectAccountUnknown, 1},
		{settle("a", uuid.New(), "1"), domain.RejectReservationUnknown, 1},
		{settle("a", uuid.New(), "1"), domain.RejectAlreadySettled, 1},
	} {
		d, o, told, drained := newDisk(1), quiet(), 0, 0
		o.Hooks.Refused = func(domain.Command, error) { told++ }
		o.Hooks.Drained = func(n int) { drained += n }
		g := watch(&o)
		j := mustOpen(t, d, o)
		mustPut(t, j, c.command)
		drainAll(t, j, g, func(context.Context, domain.Command) (domain.Outcome, error) {
			return domain.Outcome{}, &domain.Rejection{Reason: c.reason, Account: "a"}
		})
		mustClose(t, j)
		kept := 0
		for e, err := range read(d) {
			if err != nil || e.Refused == nil {
				t.Fatalf("%+v, %v", e, err)
			}
			kept++
		}
		if told != c.told || kept != c.told || drained != 1-c.told {
			t.Errorf("%T, %s: told %d times, %d are kept, %d have drained", c.command.Op, c.reason, told, kept, drained)
		}
	}
}

// TestRefusedIsBounded wants the file to stay within twice its bound, and to keep the newest.
func TestRefusedIsBounded(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	o := quiet()
	g := watch(&o)
	j := mustOpen(t, d, o)
	j.refused.max = 2000
	var ids []uuid.UUID
	for range 50 {
		c := release("bad")
		ids = append(ids, c.ID)
		mustPut(t, j, c)
	}
	drainAll(t, j, g, refuser("bad").append)
	mustClose(t, j)
	size := 0
	for _, n := range d.names {
		size += len(n.seen)
	}
	kept := refusedIDs(t, d)
	for e := range read(d) { // those in the old file too
		if first, err := j.refused.keep(e.Command, Unstorable, errors.New("again"), time.Now()); first || err != nil {
			t.Errorf("%s is kept twice: %v", e.Command.ID, err)
		}
	}
	if size > 4000 || len(kept) < 4 || size < 2000 {
		t.Errorf("%d bytes, %d commands", size, len(kept))
	}
	wantIDs(t, "the newest", kept, ids[len(ids)-len(kept):])
}

// TestRefusedCannotBeKept wants a command to stay as long as nobody would know that it was refused.
func TestRefusedCannotBeKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1)
		full := &fullDisk{disk: d}
		o := quiet()
		g := watch(&o)
		j := mustOpen(t, full, o)
		mustPut(t, j, release("bad"))
		full.full.Store(true)
		end := run(t, j, refuser("bad").append)
		<-time.After(time.Minute)
		if n, _, _ := j.Waiting(); n != 1 || len(refusedIDs(t, d)) != 0 {
			t.Errorf("%d wait", n)
		}
		full.full.Store(false)
		g.until(t, "kept", empty)
		end()
		if ids := refusedIDs(t, d); len(ids) != 1 {
			t.Errorf("%v", ids)
		}
		mustClose(t, j)
	})
}

// TestRefusedPower lets the power go at every call of a file that becomes the old one again and again, and
// wants the newest that were kept to be there, as many as a file has.
func TestRefusedPower(t *testing.T) {
	t.Parallel()
	const lines = 3
	for seed := range uint64(20) {
		for n, gone := 1, true; gone; n++ {
			d := newDisk(seed)
			d.failOff(n)
			r := &refusals{dir: d, known: map[uuid.UUID]bool{}}
			var kept []uuid.UUID
			for range 3*lines + 1 {
				c := release("alice")
				c.SpooledAt = time.Unix(1, 0)
				if _, err := r.keep(c, Unstorable, errors.New("why"), time.Unix(1, 0)); err == nil {
					kept = append(kept, c.ID)
				}
				r.max = lines * r.size / int64(max(1, len(r.known)))
			}
			gone = d.isOff()
			got := refusedIDs(t, d.powerLoss())
			got = slices.DeleteFunc(got, func(id uuid.UUID) bool { return !slices.Contains(kept, id) })
			if len(got) < min(lines, len(kept)) {
				t.Fatalf("power went at call %d: %d are there of %d", n, len(got), len(kept))
			}
			wantIDs(t, "the newest", got, kept[len(kept)-len(got):])
		}
	}
}

// TestRefusedTorn cuts the file at every byte, and wants whole lines to be listed, and the next one to
// follow them.
func TestRefusedTorn(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	r := &refusals{dir: d, max: refusedBytes}
	if err := r.load(); err != nil {
		t.Fatal(err)
	}
	why := errors.New("why")
	keep := func(r *refusals) uuid.UUID {
		c := release("alice")
		c.SpooledAt = time.Now()
		if first, err := r.keep(c, Unstorable, why, time.Now()); err != nil || !first {
			t.Fatal(first, err)
		}
		return c.ID
	}
	first := keep(r)
	line := len(d.names[refusedName].seen)
	second := keep(r)
	whole := d.names[refusedName].seen
	for size := line; size <= len(whole); size++ {
		for _, hole := range []bool{false, true} {
			torn := bytes.Clone(whole[:size])
			if hole { // a sector that was never written, before others that were
				clear(torn[line:min(line+10, size)])
			}
			d := newDisk(1)
			d.names[refusedName] = &inode{seen: torn, dirty: map[int]bool{}}
			want := []uuid.UUID{first}
			if size == len(whole) && !hole {
				want = append(want, second)
			}
			wantIDs(t, "whole lines", refusedIDs(t, d), want)
			r := &refusals{dir: d, max: refusedBytes}
			if err := r.load(); err != nil {
				t.Fatal(err)
			}
			want = append(want, keep(r))
			wantIDs(t, "continued", refusedIDs(t, d), want)
		}
	}
}
