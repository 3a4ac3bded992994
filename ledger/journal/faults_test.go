package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// past is what happened to a journal so far, over all its lives: what must be in it, and what may.
type past struct {
	tried  []uuid.UUID        // in the order of the Puts
	acked  map[uuid.UUID]bool // answered with nil
	booked map[uuid.UUID]bool // handed over, and so free to be gone, or to come again
	// refused: handed over, and refused. They are in the journal, or kept.
	refused map[uuid.UUID]bool
}

func newPast() *past {
	return &past{acked: map[uuid.UUID]bool{}, booked: map[uuid.UUID]bool{}, refused: map[uuid.UUID]bool{}}
}

// put puts one command and remembers the answer.
func (p *past) put(j *Journal, account string) error {
	c := release(account)
	p.tried = append(p.tried, c.ID)
	err := j.Put(context.Background(), c)
	p.acked[c.ID] = err == nil
	return err
}

// check wants all that was acknowledged and not booked, and nothing else but what failed, at its place.
func (p *past) check(t tester, got []uuid.UUID) {
	t.Helper()
	rest := p.tried
	for _, id := range got {
		i := slices.Index(rest, id)
		if i < 0 {
			t.Fatalf("%s was never put, or before one that comes before it:\n%v\nof %v", id, got, p.tried)
		}
		rest = rest[i+1:]
	}
	for _, id := range p.tried {
		if p.acked[id] && !p.booked[id] && !slices.Contains(got, id) {
			t.Fatalf("%s was acknowledged, and is gone:\n%v\nof %v", id, got, p.tried)
		}
	}
}

// checkRefused wants whatever was refused to be kept, once, or to wait still.
func (p *past) checkRefused(t tester, d files) {
	t.Helper()
	kept := refusedIDs(t, d)
	for _, id := range kept {
		if !p.refused[id] {
			t.Fatalf("%s was not refused", id)
		}
	}
	if slices.SortFunc(kept, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }); len(slices.Compact(slices.Clone(kept))) != len(kept) {
		t.Fatalf("something was kept twice: %v", kept)
	}
	waiting := waits(t, d)
	for id := range p.refused {
		if !slices.Contains(kept, id) && !slices.Contains(waiting, id) {
			t.Fatalf("%s was refused, and nobody knows", id)
		}
	}
}

// drainSome hands over up to n commands, and refuses every third.
func (p *past) drainSome(t tester, d *disk, j *Journal, n int) {
	t.Helper()
	waiting, _, _ := j.Waiting()
	if n = min(n, waiting); n == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-d.off:
			cancel()
		case <-ctx.Done():
		}
	}()
	calls := make(chan struct{}, 1) // one at a time
	taken := 0
	err := j.Run(ctx, func(ctx context.Context, c domain.Command) (domain.Outcome, error) {
		calls <- struct{}{}
		defer func() { <-calls }()
		if taken == n {
			return domain.Outcome{}, ctx.Err()
		}
		if taken++; taken == n {
			cancel()
		}
		p.booked[c.ID] = true
		if taken%3 == 0 || p.refused[c.ID] {
			p.refused[c.ID] = true
			return domain.Outcome{}, &domain.Rejection{Reason: domain.RejectInvalid, Account: c.Account}
		}
		return domain.Outcome{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// life is a whole life of a journal, with every kind of call in it.
func (p *past) life(t tester, d *disk, j *Journal) {
	for i := range 5 {
		p.put(j, fmt.Sprint("a", i%2))
	}
	p.drainSome(t, d, j, 4)
	for i := range 3 {
		p.put(j, fmt.Sprint("a", i%2))
	}
}

// TestFailEachCall lets every single call of a journal's life fail, until one passes without; or the power
// goes at it. What was acknowledged is there, however the process ended, and an error costs no more than
// the Put that got it.
func TestFailEachCall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fail func(d *disk, n int)
		end  func(d *disk, j *Journal) *disk
	}{
		"closed":     {(*disk).fail, func(d *disk, j *Journal) *disk { j.Close(); return d }},
		"killed":     {(*disk).fail, func(d *disk, j *Journal) *disk { d = d.crash(); j.Close(); return d }},
		"power loss": {(*disk).fail, func(d *disk, j *Journal) *disk { d = d.powerLoss(); j.Close(); return d }},
		"power goes": {(*disk).failOff, func(d *disk, j *Journal) *disk { j.Close(); return d.powerLoss() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) { // for what a failing call has done and what has not
				n := 1
				for ; failCall(t, seed, n, c.fail, c.end); n++ {
				}
				if n < 50 {
					t.Fatalf("a life has only %d calls", n)
				}
			}
		})
	}
}

// failCall lives with the n-th call failing, and says whether there was one.
func failCall(t *testing.T, seed uint64, n int, fail func(*disk, int), end func(*disk, *Journal) *disk) (failed bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(seed)
		p := newPast()
		j := mustOpen(t, d, smallSegments())
		p.put(j, "a0")
		mustClose(t, j) // so that there is something to open

		fail(d, n)
		j, err := open(d, smallSegments())
		if err != nil && !errors.Is(err, errInjected) && !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		if errors.Is(err, errInjected) {
			j = mustOpen(t, d, smallSegments())
		}
		if j != nil {
			p.life(t, d, j)
			failed = d.hasFailed()
			if refusals := len(p.tried) - len(p.acknowledged()); refusals > 1 && !d.isOff() {
				t.Fatalf("call %d failed, and with it %d Puts", n, refusals)
			}
			d = end(d, j)
		} else {
			failed, d = true, d.powerLoss()
		}
		p.check(t, waits(t, d))
		j = mustOpen(t, d, smallSegments())
		if err := p.put(j, "a1"); err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
		p.check(t, waits(t, d))
		p.checkRefused(t, d)
	})
	return failed
}

func (p *past) acknowledged() (ids []uuid.UUID) {
	for _, id := range p.tried {
		if p.acked[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// refusedIDs is what was refused, as Read tells.
func refusedIDs(t tester, d files) (ids []uuid.UUID) {
	t.Helper()
	for e, err := range read(d) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Refused != nil {
			ids = append(ids, e.Command.ID)
		}
	}
	return ids
}

// TestNoTrustAfterFsync wants an fsync that failed not to be asked again: the disk says then that all is
// well, and has nothing.
func TestNoTrustAfterFsync(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		d := newDisk(seed)
		p := newPast()
		j := mustOpen(t, d, quiet())
		p.put(j, "alice")
		d.fail(2) // the fsync after the write
		if err := p.put(j, "alice"); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		for range 3 {
			if err := p.put(j, "alice"); err != nil {
				t.Fatal(err)
			}
		}
		if names, _ := d.List(); len(names) != 2 {
			t.Fatalf("it went on in the same segment: %v", names)
		}
		d = d.powerLoss()
		j.Close()
		wantIDs(t, "without the one that failed", waits(t, d), p.acknowledged())
	}
}

// TestFailThenPower lets a call fail, and the power go some calls later.
func TestFailThenPower(t *testing.T) {
	t.Parallel()
	for seed := range uint64(16) {
		for first := 1; first <= 8; first++ {
			for then := 1; then <= 12; then++ {
				d := newDisk(seed)
				j := mustOpen(t, d, smallSegments())
				p := newPast()
				p.put(j, "alice")
				p.put(j, "alice")
				d.fail(first)
				p.put(j, "alice") // in a new segment
				d.failOff(then)
				p.put(j, "alice")
				p.put(j, "alice")
				j.Close()
				d = d.powerLoss()
				p.check(t, waits(t, d))
				mustClose(t, mustOpen(t, d, smallSegments()))
			}
		}
	}
}

// TestDiskFull wants a disk that takes nothing not to fill with beginnings, and the journal to go on when
// there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	o := quiet()
	o.MaxBytes = 2000 // what failed must not count for ever
	j := mustOpen(t, d, o)
	defer j.Close()
	p := newPast()
	p.put(j, "alice")
	full := &fullDisk{disk: d}
	j.dir = full
	full.full.Store(true)
	j.mu.Lock()
	j.active.file = &fullFile{j.active.file, full}
	j.mu.Unlock()
	for range 100 {
		if err := p.put(j, "alice"); !errors.Is(err, errNoSpace) {
			t.Fatal(err)
		}
	}
	if names, _ := d.List(); len(names) != 1 {
		t.Fatalf("%d files after 100 failures", len(names))
	}
	full.full.Store(false)
	if err := p.put(j, "alice"); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "what was acknowledged", waits(t, d), p.acknowledged())
	if n, _, _ := j.Waiting(); n != 2 {
		t.Fatalf("%d wait", n)
	}
}
