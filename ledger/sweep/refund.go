package sweep

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// round refunds the orphans of one look. The fields below mu are guarded by it, and so is the watch.
type round struct {
	*Rounds
	ctx   context.Context
	until time.Time // the look is too old after this

	mu       sync.Mutex
	left     []Orphan
	refunded int
	odd      error // the first failure of an orphan alone
	away     error // the first failure that ends the round
}

// sweep refunds orphans, many at once, and says whether there are more that the next look should find
// soon. An error means that the ledger is away.
func (r *Rounds) sweep(ctx context.Context, began time.Time, orphans []Orphan) (more bool, err error) {
	s := &round{Rounds: r, ctx: ctx, until: began.Add(r.times.act), left: orphans}
	var wait sync.WaitGroup
	for range min(inFlight, len(orphans)) {
		wait.Go(s.work)
	}
	wait.Wait()
	if s.refunded > 0 && r.Hooks.Swept != nil {
		r.Hooks.Swept(s.refunded)
	}
	if s.away != nil {
		return false, s.away
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	r.tell(s.odd)
	// Without progress there is nothing to hurry for.
	return s.refunded > 0 && (len(s.left) > 0 || len(orphans) >= LookLimit), nil
}

func (s *round) work() {
	for {
		o, ok := s.next()
		if !ok {
			return
		}
		s.refund(o)
	}
}

// next hands out an orphan, as long as the look is fresh and the lease is held. Both are asked of the
// clock, so that a process that was stopped refunds nothing when it goes on.
func (s *round) next() (Orphan, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.left) == 0 || s.away != nil || s.ctx.Err() != nil || s.Now().After(s.until) {
		return Orphan{}, false
	}
	o := s.left[0]
	s.left = s.left[1:]
	return o, true
}

// refund releases one reservation. Not on the round's context: what was handed over is waited for, so
// that it is told of.
func (s *round) refund(o Orphan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.times.append)
	defer cancel()
	began := s.Now()
	out, err := s.Ledger.Append(ctx, domain.Command{
		ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: o.Account,
		Op: domain.Release{RequestID: o.RequestID, Reason: domain.RefundExpired},
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.watch.answered(began)
		s.refunded++
		s.Log.Warn("a reservation was refunded: the gateway that made it has gone", "billing_request_id", o.RequestID,
			"account", o.Account, "amount", refunded(out), "owner", o.Owner)
	case tooLate(err):
		s.watch.answered(began)
	case isAway(err):
		keep(&s.away, err)
	default:
		keep(&s.odd, err)
	}
}

func keep(first *error, err error) {
	if *first == nil {
		*first = err
	}
}

func refunded(out domain.Outcome) string {
	if len(out.Events) == 0 {
		return ""
	}
	return out.Events[0].Event.Amount.String()
}

// tooLate says whether somebody settled or refunded it before.
func tooLate(err error) bool {
	r := new(domain.Rejection)
	return errors.As(err, &r) && (r.Reason == domain.RejectAlreadySettled || r.Reason == domain.RejectReservationUnknown)
}

// isAway says whether a failure concerns the whole ledger, and not this orphan or its shard alone.
func isAway(err error) bool {
	if errors.Is(err, ledger.ErrTailLost) || errors.Is(err, ledger.ErrTailUnknown) {
		return false
	}
	for _, whole := range []error{domain.ErrUnavailable, domain.ErrOverloaded, ledger.ErrClosed, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, whole) {
			return true
		}
	}
	return false
}

// tell logs the beginning and the end of rounds that leave something.
func (r *Rounds) tell(odd error) {
	if failing := odd != nil; failing != r.failing {
		r.failing = failing
		if failing {
			r.Log.Error("an orphan cannot be refunded; it is tried again", "error", odd)
		} else {
			r.Log.Info("all orphans can be refunded again")
		}
	}
	if odd != nil {
		r.failed(context.Background(), odd)
	}
}
