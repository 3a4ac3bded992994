package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"llm-gateway/domain"
)

const (
	// outageTime is how long a ledger that was away is left alone by those who need not wait for it.
	outageTime = time.Second
	// outageAfter is what a failure must have taken to be remembered: one that comes at once costs nobody
	// a wait, and may be of one shard only.
	outageAfter = 500 * time.Millisecond
)

// outage remembers that the ledger is away, so that not every request waits to find out. Whatever it
// answers, to whom ever, ends that; so does time: then one goes to see, and the others wait for what it
// finds. It goes by this process's own clock: what it remembers is in no event.
type outage struct {
	log *slog.Logger

	mu       sync.Mutex
	until    time.Time // when the next one may go to see; zero: the ledger is there
	answered time.Time // when it last was
	spooled  int       // requests that went on without it since it was
	last     time.Time // when the last of them did
}

// unreachable says that the ledger decided nothing because it is away. One that is merely busy, or was
// closed, is not.
func unreachable(err error) bool {
	return errors.Is(err, domain.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// answers says that an error is the ledger's own answer: it is there.
func answers(err error) bool {
	rejection := new(domain.Rejection)
	return err == nil || errors.As(err, &rejection) && rejection.Reason != domain.RejectInvalid // which is found before it is asked
}

// away says whether the ledger is to be left alone.
func (o *outage) away() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Now().Before(o.until)
}

// try says whether the caller may ask the ledger. While it is away one caller may at a time.
func (o *outage) try() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if now.Before(o.until) {
		return false
	}
	if !o.until.IsZero() {
		o.until = now.Add(reserveTime + outageTime) // unless it is heard of before
	}
	return true
}

// report takes in what came of asking the ledger. A failure that began before its last answer is old.
func (o *outage) report(began time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	switch {
	case answers(err):
		o.over(now)
	case began.Before(o.answered):
	case !o.until.IsZero() || unreachable(err) && now.Sub(began) >= outageAfter:
		if until := now.Add(outageTime); o.until.Before(until) { // else somebody has gone to see
			o.until = until
		}
	}
}

// over notes that the ledger is there. Where that was not remembered, it may be another account's that is
// not: those go on without it until none has for a while.
func (o *outage) over(now time.Time) {
	remembered := !o.until.IsZero()
	o.until, o.answered = time.Time{}, now
	if o.spooled > 0 && (remembered || now.Sub(o.last) >= outageTime) {
		o.log.Info("requests are reserved in the ledger again; those that went on without it are booked from the journal", "spooled", o.spooled)
		o.spooled = 0
	}
}

// without notes a request that goes on without the ledger.
func (o *outage) without() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.spooled == 0 {
		o.log.Warn("the ledger cannot be asked: requests go on within the balances that Redis knows, and are spooled to the journal")
	}
	o.spooled, o.last = o.spooled+1, time.Now()
}
