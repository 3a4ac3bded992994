package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// TestOrder wants each account's commands one after the other, in the order of the Puts, also from one life
// to the next, and different accounts at once, up to a bound, those that came first first.
func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const accounts, each = 2 * inFlight, 5
		d := newDisk(1)
		want := map[string][]uuid.UUID{}
		put := func(j *Journal) {
			for range each {
				for a := range accounts {
					c := release(fmt.Sprint("account-", a))
					want[c.Account] = append(want[c.Account], c.ID)
					mustPut(t, j, c)
				}
			}
		}
		j := mustOpen(t, d, smallSegments())
		put(j)
		mustClose(t, j)
		o := smallSegments()
		g := watch(&o)
		j = mustOpen(t, d, o)
		put(j)

		var mu sync.Mutex
		var began []string
		b := &booker{before: func(_ context.Context, c domain.Command) error {
			mu.Lock()
			began = append(began, c.Account)
			mu.Unlock()
			<-time.After(time.Second)
			return nil
		}}
		drainAll(t, j, g, b.append)
		b.check(t)
		for a, ids := range want {
			wantIDs(t, a, b.ids(a), ids)
		}
		if b.most != inFlight {
			t.Errorf("%d were in flight at once", b.most)
		}
		first := began[:inFlight]
		slices.Sort(first)
		if first = slices.Compact(first); len(first) != inFlight || slices.Contains(first, fmt.Sprint("account-", inFlight)) {
			t.Errorf("began with %v", first)
		}
		if names, _ := d.List(); len(names) != 0 {
			t.Errorf("left: %v", names)
		}
		mustClose(t, j)
	})
}

// TestOneAfterTheOther wants a ledger that takes one command at a time to get them in the order of the Puts,
// whatever their accounts.
func TestOneAfterTheOther(t *testing.T) {
	t.Parallel()
	var l = newLines()
	var want, got []int64
	for i := range int64(20) {
		l.add([]string{"a", "b", "a", "c"}[i%4], entry{segment: &segment{}, at: i})
		want = append(want, i)
	}
	for q := l.take(time.Now()); q != nil; q = l.take(time.Now()) {
		got = append(got, l.booked(q).at)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// TestRetriesQueue wants an account that failed to go behind those that are ready when its pause is over.
func TestRetriesQueue(t *testing.T) {
	t.Parallel()
	l := newLines()
	now := time.Now()
	l.add("stuck", entry{segment: &segment{}})
	l.failed(l.take(now), now)
	l.add("well", entry{segment: &segment{}})
	if q := l.take(now.Add(firstPause - 1)); q.account != "well" || l.take(now) != nil {
		t.Errorf("%s is taken within its pause", q.account)
	}
	l.add("new", entry{segment: &segment{}})
	if q := l.take(now.Add(firstPause)); q.account != "new" {
		t.Errorf("%s is taken first", q.account)
	}
	if q := l.take(now.Add(firstPause)); q.account != "stuck" {
		t.Errorf("%s is taken", q.account)
	}
}

// TestNeverSkips lets the ledger fail in every way that decides nothing, and wants the same command again,
// after pauses that grow to their bound, while other accounts go on.
func TestNeverSkips(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{domain.ErrUnavailable, fmt.Errorf("%w: wrapped", domain.ErrOverloaded),
		context.DeadlineExceeded, context.Canceled, errors.New("nobody foresaw this")} {
		synctest.Test(t, func(t *testing.T) {
			o := quiet()
			g := watch(&o)
			j := mustOpen(t, newDisk(1), o)
			stuck := []domain.Command{release("stuck"), release("stuck")}
			for _, c := range stuck {
				mustPut(t, j, c)
			}
			mustPut(t, j, release("other"))
			var times []time.Time
			var tried []uuid.UUID
			b := &booker{before: func(_ context.Context, c domain.Command) error {
				if c.Account != "stuck" {
					return nil
				}
				times, tried = append(times, time.Now()), append(tried, c.ID)
				if len(times) < 15 {
					return failure
				}
				return nil
			}}
			end := run(t, j, b.append)
			synctest.Wait()
			if got := b.ids("other"); len(got) != 1 {
				t.Errorf("%v: another account was held up", failure)
			}
			g.until(t, "empty", empty)
			end()
			wantIDs(t, "booked", b.ids("stuck"), []uuid.UUID{stuck[0].ID, stuck[1].ID})
			wantIDs(t, "tried", tried, append(slices.Repeat([]uuid.UUID{stuck[0].ID}, 15), stuck[1].ID))
			for i, pause := 1, firstPause; i < 15; i, pause = i+1, min(2*pause, longPause) {
				if got := times[i].Sub(times[i-1]); got != pause {
					t.Errorf("%v: pause %d was %s, not %s", failure, i, got, pause)
				}
			}
			mustClose(t, j)
		})
	}
}

// TestEndOfAnOutage wants all accounts to be tried at once when one of them shows that the ledger is back,
// and those that fail for ever not to hold up others.
func TestEndOfAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := quiet()
		g := watch(&o)
		j := mustOpen(t, newDisk(1), o)
		const accounts = 100
		for i := range accounts {
			mustPut(t, j, release(fmt.Sprint("stuck-", i)))
			mustPut(t, j, release(fmt.Sprint("well-", i)))
		}
		var isAway, stuckToo atomic.Bool
		isAway.Store(true)
		stuckToo.Store(true)
		var mu sync.Mutex
		var booked []time.Time
		b := &booker{before: func(_ context.Context, c domain.Command) error {
			<-time.After(time.Duration(len(c.Account)+int(c.ID[15]>>2)) * time.Millisecond) // so that they pause out of step
			if isAway.Load() || stuckToo.Load() && c.Account[:5] == "stuck" {
				return domain.ErrUnavailable
			}
			mu.Lock()
			defer mu.Unlock()
			booked = append(booked, time.Now())
			return nil
		}}
		end := run(t, j, b.append)
		<-time.After(5 * time.Minute)
		isAway.Store(false)
		back := time.Now()
		g.until(t, "the well are booked", func(n int, _ int64) bool { return n == accounts })
		if took := time.Since(back); took > longPause {
			t.Errorf("that took %s", took)
		}
		if took := booked[accounts-1].Sub(booked[0]); took > time.Second {
			t.Errorf("%s from the first to the last, which did not hear of it", took)
		}
		stuckToo.Store(false)
		back = time.Now()
		g.until(t, "all are booked", empty)
		if took := time.Since(back); took > longPause {
			t.Errorf("that took %s", took)
		}
		end()
		b.check(t)
		mustClose(t, j)
	})
}

// TestHangs wants a try to end after tryTime, and the command to be tried again.
func TestHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := quiet()
		g := watch(&o)
		j := mustOpen(t, newDisk(1), o)
		mustPut(t, j, release("alice"))
		began := time.Now()
		tries := 0
		b := &booker{before: func(ctx context.Context, _ domain.Command) error {
			if tries++; tries == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		drainAll(t, j, g, b.append)
		if took := time.Since(began); took != tryTime+firstPause {
			t.Errorf("that took %s", took)
		}
		mustClose(t, j)
	})
}

// TestAnswersAfterTheEnd wants an answer that comes when Run is to end to count, and a command without one to
// wait, unchanged, for the next Run.
func TestAnswersAfterTheEnd(t *testing.T) {
	t.Parallel()
	for _, answer := range []error{nil, context.Canceled, &domain.Rejection{Reason: domain.RejectInvalid}} {
		synctest.Test(t, func(t *testing.T) {
			o := quiet()
			g := watch(&o)
			j := mustOpen(t, newDisk(1), o)
			c := release("alice")
			mustPut(t, j, c)
			ctx, cancel := context.WithCancel(context.Background())
			err := j.Run(ctx, func(ctx context.Context, _ domain.Command) (domain.Outcome, error) {
				cancel()
				<-ctx.Done()
				<-time.After(time.Minute)
				return domain.Outcome{}, answer
			})
			if err != nil {
				t.Fatal(err)
			}
			n, _, _ := j.Waiting()
			if decided := !errors.Is(answer, context.Canceled); decided != (n == 0) {
				t.Errorf("%v: %d wait", answer, n)
			}
			if n > 0 {
				b := &booker{}
				drainAll(t, j, g, b.append)
				wantIDs(t, "afterwards", b.ids(""), []uuid.UUID{c.ID})
			}
			mustClose(t, j)
		})
	}
}

// TestRunsOnce wants one Run at a time, none after Close, and Close to end it.
func TestRunsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, newDisk(1), quiet())
		mustPut(t, j, release("alice"))
		hangs := func(ctx context.Context, _ domain.Command) (domain.Outcome, error) {
			<-ctx.Done()
			return domain.Outcome{}, ctx.Err()
		}
		ended := make(chan error)
		go func() { ended <- j.Run(context.Background(), hangs) }()
		synctest.Wait()
		if err := j.Run(context.Background(), hangs); !errors.Is(err, ErrRunning) {
			t.Errorf("twice: %v", err)
		}
		go j.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		mustClose(t, j)
		if err := j.Run(context.Background(), hangs); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestUnreadableRecord wants a record that has rotted since it was written to stay, with its account, and
// the others to go on.
func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1)
		j := mustOpen(t, d, quiet())
		defer j.Close()
		for _, a := range []string{"rotten", "rotten", "well"} {
			mustPut(t, j, release(a))
		}
		d.mu.Lock()
		rotten := &d.names[segmentName(1)].seen[headerSize+frameSize]
		*rotten ^= 1
		d.mu.Unlock()
		b := &booker{}
		end := run(t, j, b.append)
		<-time.After(time.Hour)
		if n, _, _ := j.Waiting(); n != 2 || len(b.ids("well")) != 1 {
			t.Errorf("%d wait", n)
		}
		d.mu.Lock()
		*rotten ^= 1
		d.mu.Unlock()
		<-time.After(longPause)
		synctest.Wait()
		if n, _, _ := j.Waiting(); n != 0 || len(b.ids("rotten")) != 2 {
			t.Errorf("%d wait", n)
		}
		end()
	})
}

// TestPutWhileDraining lets many put while Run drains, into small segments, and wants all to be booked, in
// order, and nothing to be left.
func TestPutWhileDraining(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := smallSegments()
	var drained atomic.Int64
	o.Hooks.Drained = func(n int) { drained.Add(int64(n)) }
	g := watch(&o)
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	b := &booker{}
	end := run(t, j, b.append)
	const accounts, each = 16, 40
	want := make([][]uuid.UUID, accounts)
	var wait sync.WaitGroup
	for a := range accounts {
		wait.Go(func() {
			for range each {
				c := release(fmt.Sprint("account-", a))
				if err := j.Put(t.Context(), c); err != nil {
					t.Error(err)
				}
				want[a] = append(want[a], c.ID)
			}
		})
	}
	wait.Wait()
	g.until(t, "the journal is empty", empty)
	end()
	b.check(t)
	for a, ids := range want {
		wantIDs(t, "an account", b.ids(fmt.Sprint("account-", a)), ids)
	}
	if n, bytes, oldest := j.Waiting(); n != 0 || bytes != 0 || !oldest.IsZero() || drained.Load() != accounts*each {
		t.Errorf("%d wait, %d bytes, since %s; %d drained", n, bytes, oldest, drained.Load())
	}
	mustClose(t, j)
	if names, _ := directory(dir).List(); !slices.Equal(names, []string{lockName}) {
		t.Errorf("left: %v", names)
	}
}

// TestFull wants a full journal to refuse, and to take again what fits when segments have drained.
func TestFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := smallSegments()
		o.MaxBytes = 3000
		g := watch(&o)
		d := newDisk(1)
		j := mustOpen(t, d, o)
		n := 0
		var err error
		for err == nil {
			if err = j.Put(t.Context(), release("alice")); err == nil {
				n++
			}
		}
		if _, bytes, _ := j.Waiting(); !errors.Is(err, ErrFull) || n < 10 || bytes > o.MaxBytes || bytes < o.MaxBytes-300 {
			t.Fatalf("full after %d, %d bytes: %v", n, bytes, err)
		}
		size := 0
		for _, node := range d.names {
			size += len(node.seen)
		}
		if _, bytes, _ := j.Waiting(); int64(size) != bytes {
			t.Errorf("%d bytes are told, %d are there", bytes, size)
		}
		b := &booker{before: func(ctx context.Context, _ domain.Command) error {
			if n--; n == 5 { // some have drained
				mustPut(t, j, release("bob"))
			}
			return nil
		}}
		drainAll(t, j, g, b.append)
		mustPut(t, j, release("alice"))
		mustClose(t, j)
	})
}
