package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// inWorld runs a test on the fake clock, with a sweeper that is driven step by step.
func inWorld(t *testing.T, test func(t *testing.T, w *world, l *link, s *stepper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := w.link()
		c := &counts{}
		test(t, w, l, &stepper{counts: c, Rounds: &Rounds{Store: NewStore(l), Ledger: w, Log: quiet, Hooks: c.hooks(), observed: c.observed}})
	})
}

// stepper drives Rounds as a sweeper does.
type stepper struct {
	*Rounds
	*counts

	errs []error
}

// run goes on for a time of the fake clock.
func (s *stepper) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		pause, err := s.Step(context.Background())
		if err != nil {
			s.errs = append(s.errs, err)
		}
		pass(pause)
	}
}

// untilSwept goes on until something was refunded, and says how long that took.
func (s *stepper) untilSwept(t *testing.T, most time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for s.get(&s.swept) == 0 {
		if time.Since(began) > most {
			t.Fatalf("nothing was refunded within %s", most)
		}
		pause, err := s.Step(context.Background())
		if err != nil {
			s.errs = append(s.errs, err)
		}
		if s.get(&s.swept) > 0 {
			break
		}
		pass(pause)
	}
	return time.Since(began)
}

// TestWholeTerm refunds what has no owner, after a whole term and not long after it, and leaves the
// living alone.
func TestWholeTerm(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, l *link, s *stepper) {
		o := startIn(t, l)
		defer o.Close()
		dead, lapsed := uuid.New(), uuid.New()
		w.reserve(t, dead, 3)
		w.reserve(t, lapsed, 3)
		w.reserve(t, o.id, 3)
		w.leases[ownerLease(lapsed)] = row{lapsed, time.Now().Add(-time.Second)}
		if took := s.untilSwept(t, time.Minute); took < OwnerTerm || took > OwnerTerm+Every {
			t.Errorf("it took %s", took)
		}
		s.run(time.Hour)
		w.want(t, dead, 0, 3)
		w.want(t, lapsed, 0, 3)
		w.want(t, o.id, 3, 0)
		if s.swept != 6 || s.failures != 0 || w.appended != 6 {
			t.Errorf("%d swept, %d failed, %d appended", s.swept, s.failures, w.appended)
		}
	})
}

// TestBreaks breaks what a sweeper sees, nine seconds after it began: then it needs a whole term again.
func TestBreaks(t *testing.T) {
	t.Parallel()
	outage := func(s state) func(*world, *link) {
		return func(_ *world, l *link) {
			l.become(s)
			time.AfterFunc(Every+time.Second/2, func() { l.become(well) })
		}
	}
	for name, c := range map[string]struct {
		does   func(w *world, l *link)
		breaks bool
	}{
		"nothing":                         {func(*world, *link) {}, false},
		"a look that fails":               {outage(broken), true},
		"a look that hangs":               {outage(silent), true},
		"a look that cannot be cancelled": {outage(frozen), true},
		"a server that began later":       {func(w *world, _ *link) { w.change(func() { w.started = time.Now() }) }, true},
		"a server that began earlier": {func(w *world, _ *link) {
			w.change(func() { w.started = w.started.Add(-time.Hour) })
		}, true},
		"a server's clock that jumps":     {func(w *world, _ *link) { w.change(func() { w.ahead += 20 * time.Second }) }, true},
		"a server's clock that moves":     {func(w *world, _ *link) { w.change(func() { w.ahead += time.Second }) }, false},
		"a server's clock that goes back": {func(w *world, _ *link) { w.change(func() { w.ahead -= time.Hour }) }, false},
		"a process that freezes":          {func(*world, *link) { pass(lookGap) }, true},
		"a process that is slow":          {func(*world, *link) { pass(lookGap - Every) }, false},
		"a process that freezes in a look": {func(_ *world, l *link) {
			l.mu.Lock()
			l.freeze = lookTime + time.Millisecond
			l.mu.Unlock()
		}, true},
		"looks that are slow": {func(_ *world, l *link) {
			l.mu.Lock()
			l.slow = lookTime - time.Millisecond
			l.mu.Unlock()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world, l *link, s *stepper) {
				dead := uuid.New()
				w.reserve(t, dead, 1)
				s.run(OwnerTerm - time.Second)
				broke := time.Now()
				c.does(w, l)
				s.untilSwept(t, time.Minute)
				took := time.Since(broke)
				if whole := took >= OwnerTerm; whole != c.breaks {
					t.Errorf("it took %s", took)
				}
				if took > OwnerTerm+2*Every+2*lookTime+time.Second {
					t.Errorf("it took long: %s", took)
				}
			})
		})
	}
}

// TestBacklog brings back far more than one look, at once and by full batches, but no more at once.
func TestBacklog(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
		dead := uuid.New()
		const n = 3*LookLimit + 10
		w.reserve(t, dead, n)
		w.slow = time.Millisecond
		s.untilSwept(t, time.Minute)
		s.run(100 * time.Millisecond)
		w.want(t, dead, 0, n)
		if w.most != inFlight || s.acts != 4 || s.swept != n {
			t.Errorf("%d at once, %d looks, %d swept", w.most, s.acts, s.swept)
		}
		s.run(time.Minute)
		if s.acts > 4+int(time.Minute/Every)+1 || w.appended != n {
			t.Errorf("it hurries without a reason: %d looks, %d appended", s.acts, w.appended)
		}
	})
}

// TestSlowLedger acts on a look only while it is fresh; the answers of a slow ledger are sights of
// Postgres, so that it goes on without a new count.
func TestSlowLedger(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
		dead := uuid.New()
		const n, slow = 4 * inFlight, 2 * time.Second
		w.reserve(t, dead, n)
		w.slow = slow
		s.untilSwept(t, time.Minute)
		if s.swept > 2*inFlight {
			t.Errorf("%d were refunded on a look that is older than %s", s.swept, actTime)
		}
		s.run(2 * slow)
		w.want(t, dead, 0, n)
		if s.looks > int(OwnerTerm/Every)+1 {
			t.Errorf("the count began anew: %d looks that may not be acted on", s.looks)
		}
	})
}

// TestFreezesWhileActing freezes a sweeper amid its releases: only what the ledger has been handed is
// released, and then the count starts anew.
func TestFreezesWhileActing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
		dead := uuid.New()
		const n = 2 * inFlight
		w.reserve(t, dead, n)
		w.slow = time.Minute
		s.times = usual
		s.times.append = time.Hour // the ledger answers when the process thaws
		s.untilSwept(t, 5*time.Minute)
		w.want(t, dead, n-inFlight, inFlight)
		w.slow = 0
		s.run(OwnerTerm - time.Second)
		w.want(t, dead, n-inFlight, inFlight)
		s.run(2 * OwnerTerm)
		w.want(t, dead, 0, n)
	})
}

// TestSomebodyIsFaster settles what a look has found, before it is released.
func TestSomebodyIsFaster(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
		dead := uuid.New()
		requests := w.reserve(t, dead, 8)
		w.append = func(c domain.Command) error {
			if i := slices.Index(requests, c.Op.Request()); i%2 == 0 {
				mustAppend(t, w.Memory, c.Account, settle(requests[i], "0.5"))
			}
			return nil
		}
		s.run(time.Minute)
		if got := w.states(dead); got[domain.ReservationSettled] != 4 || got[domain.ReservationExpired] != 4 {
			t.Errorf("%v", got)
		}
		if s.swept != 4 || s.failures != 0 {
			t.Errorf("%d swept, %d failed", s.swept, s.failures)
		}
	})
}

// TestLedgerFails ends a round at what concerns all, and goes on at what concerns one.
func TestLedgerFails(t *testing.T) {
	t.Parallel()
	refusal := &domain.Rejection{Reason: domain.RejectAccountUnknown}
	for name, c := range map[string]struct {
		err  error
		away bool
	}{
		"unavailable":      {fmt.Errorf("%w: a connection broke", domain.ErrUnavailable), true},
		"overloaded":       {domain.ErrOverloaded, true},
		"closed":           {ledger.ErrClosed, true},
		"silent":           {context.DeadlineExceeded, true},
		"tail lost":        {ledger.ErrTailLost, false},
		"tail unknown":     {ledger.ErrTailUnknown, false},
		"another refusal":  {refusal, false},
		"cannot be stored": {errors.New("the ledger cannot store this"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
				dead := uuid.New()
				const n = 2 * inFlight
				bad := w.reserve(t, dead, n)[0]
				w.append = func(cmd domain.Command) error {
					if cmd.Op.Request() == bad || c.away {
						return c.err
					}
					return nil
				}
				s.run(OwnerTerm + 2*Every)
				if c.away && (s.failures != 1 || len(s.errs) != 1 || w.appended > inFlight) {
					t.Errorf("%d failed, %d errors, %d appended", s.failures, len(s.errs), w.appended)
				}
				if !c.away {
					w.want(t, dead, 1, n-1)
					if s.failures == 0 || len(s.errs) > 0 || s.swept != n-1 {
						t.Errorf("%d failed, errors %v, %d swept", s.failures, s.errs, s.swept)
					}
				}
				w.append = nil
				s.run(Every)
				if open := w.states(dead)[domain.ReservationOpen]; c.away && open != n || !c.away && open != 0 {
					t.Errorf("after a round that failed, %d are open", open)
				}
				s.run(2 * OwnerTerm)
				w.want(t, dead, 0, n)
			})
		})
	}
}

// TestLostAnswer loses the answer to a release that happened: the next look finds it done.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
		dead := uuid.New()
		w.reserve(t, dead, 2)
		w.lose = true
		s.run(time.Minute)
		w.want(t, dead, 0, 2)
		if s.swept != 1 || s.failures != 1 || w.appended != 2 {
			t.Errorf("%d swept, %d failed, %d appended", s.swept, s.failures, w.appended)
		}
	})
}

// TestStepEnds ends a step: what the ledger has been handed is waited for, and nothing more is begun.
func TestStepEnds(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
		dead := uuid.New()
		w.reserve(t, dead, 2*inFlight)
		s.run(OwnerTerm)
		w.slow = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		began := time.Now()
		_, err := s.Step(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v, after %s", err, time.Since(began))
		}
		w.want(t, dead, inFlight, inFlight)
		if s.swept != inFlight || s.failures != 0 {
			t.Errorf("%d swept, %d failed", s.swept, s.failures)
		}
	})
}

// TestTidies tidies up when nothing else is to be done, in bounded bites, and sweeps on where it cannot.
func TestTidies(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world, _ *link, s *stepper) {
		w.answers = 2*tidyLimit + 1
		s.run(OwnerTerm)
		if w.tidied > 0 {
			t.Error("it tidies up before it may sweep")
		}
		s.run(3*tidyPause + Every)
		if w.answers != 0 || w.tidied != 3 {
			t.Errorf("%d are left after %d bites", w.answers, w.tidied)
		}
		s.run(tidyEvery - Every)
		if w.tidied != 4 {
			t.Errorf("it tidied up %d times", w.tidied)
		}
		w.untidy = errors.New("no right to do so")
		dead := uuid.New()
		w.reserve(t, dead, 1)
		s.run(10 * tidyEvery)
		w.want(t, dead, 0, 1)
		if w.tidied != 14 || s.failures != 10 || len(s.errs) != 0 {
			t.Errorf("it tidied up %d times, %d failed, %v", w.tidied, s.failures, s.errs)
		}
	})
}
