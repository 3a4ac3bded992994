package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// A call that fails before its first byte has gone to the client is made again: with the same target after
// a pause where that may pass, then with the next target. All of it happens inside one reservation, and
// what each attempt came to is in the commit.

// Retry says how often a provider that failed is called again, and when. The zero value: never.
type Retry struct {
	Attempts  int           // calls of one target at most, the first included
	BaseDelay time.Duration // the first pause at most; each further one may be twice as long
	MaxDelay  time.Duration // no pause is longer; a provider that asks for more is not waited for
}

// attempts calls ask with one target after the other until it succeeds. ask fails with *provider.Error
// where another attempt may help.
func (h *hold) attempts(ask func() error) (err error) {
	k := h.call
	for _, t := range k.targets {
		failed := h.insistOn(t, ask)
		if err == nil || !isOpen(failed) { // what was said by who was called says more
			err = failed
		}
		if failed == nil || !passesOn(failed) {
			return failed
		}
	}
	if shut := h.g.circuits.shut(k.targets); shut != nil && isOpen(err) {
		return shut // it knows which of them is the first to be called again
	}
	return err
}

// isOpen says that a target was not called, because its circuit is open.
func isOpen(err error) bool {
	failed := new(provider.Error)
	return errors.As(err, &failed) && failed.Kind == provider.KindOpen
}

// insistOn calls one target, and again while that may help.
func (h *hold) insistOn(t *target, ask func() error) error {
	var err error
	for n := 0; ; n++ {
		leave, shut := h.g.circuits.admit(t)
		if shut != nil {
			if err == nil {
				err = shut
			}
			return err // of an attempt, if there was one: what the provider said says more
		}
		h.leave = leave // at once: the hold's end gives back what nothing else has
		if n == 0 {
			h.g.circuits.called(t)
		}
		h.call.target, t.request.Attempt, h.began = t, n, h.g.now()
		h.trying(t)
		if err = ask(); err == nil {
			return nil
		}
		h.attempted(err)
		h.g.circuits.ended(leave, err)
		pause, again := h.g.retry.after(n, err, keysOf(t.upstream), h.g.now())
		if !again || h.g.circuits.shut([]*target{t}) != nil || !h.g.affordsRetry(t, n, err) {
			return err
		}
		if !waits(h.ctx, pause) {
			return &provider.Error{Kind: provider.KindCanceled, Provider: t.upstream.Name(), Reason: context.Cause(h.ctx).Error()}
		}
	}
}

// affordsRetry says whether the provider's budget of retries allows one after the n-th call. What concerns a key
// alone is no outage: that is tried with each key whatever the budget.
func (g *Gateway) affordsRetry(t *target, n int, err error) bool {
	made := ofKey(err) && n+1 < keysOf(t.upstream) || g.circuits.mayRetry(t)
	g.metrics.Retried(t.upstream.Name(), made)
	return made
}

// ofKey says that a call failed for the key that it was made with.
func ofKey(err error) bool {
	failed := new(provider.Error)
	return errors.As(err, &failed) &&
		(failed.Kind == provider.KindAuth || failed.Status == http.StatusPaymentRequired || failed.Status == http.StatusTooManyRequests)
}

// keysOf is how many keys a provider has.
func keysOf(p provider.Provider) int {
	if keys, ok := p.(provider.Keys); ok {
		return len(keys)
	}
	return 1
}

// after says whether a call that failed is made again, and after which pause. Where there is another key,
// what concerns the key alone is no reason to wait.
func (r Retry) after(n int, err error, keys int, now time.Time) (time.Duration, bool) {
	failed := new(provider.Error)
	if !errors.As(err, &failed) || n+1 >= r.Attempts {
		return 0, false
	}
	if ofKey(err) && n+1 < keys {
		return 0, true
	}
	if !passes(failed) {
		return 0, false
	}
	if asked, ok := retryAfter(failed.RetryAfter, now); ok {
		return asked, asked <= r.MaxDelay
	}
	most := min(r.MaxDelay, r.BaseDelay<<min(n, 30))
	if most <= 0 {
		return 0, true
	}
	return rand.N(most), true //nolint:gosec // full jitter: it spreads load and guards nothing
}

// passes says whether a failure may be gone when the same is asked again, and cost nothing: no answer came,
// or one that says so. An answer that came and broke has been paid for, and a time-out has lasted too long
// already, unless it was for the connection.
func passes(e *provider.Error) bool {
	switch e.Kind {
	case provider.KindUpstream:
		return e.Status == 0 || e.Status >= http.StatusInternalServerError
	case provider.KindRejected:
		return e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests
	case provider.KindCut: // an error event before anything else
		return true
	case provider.KindTimeout:
		return e.Unreached
	}
	return false
}

// passesOn says whether another target may do what this one did not. What is wrong with the request
// itself is wrong everywhere.
func passesOn(err error) bool {
	failed := new(provider.Error)
	if !errors.As(err, &failed) || failed.Kind == provider.KindCanceled {
		return false
	}
	if failed.Kind != provider.KindRejected {
		return true
	}
	switch failed.Status {
	case http.StatusPaymentRequired, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return false
}

// retryAfter reads a Retry-After header: seconds, or a date. Seconds that are too many to count are as many as can
// be.
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(seconds) * time.Second, true
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(0, date.Sub(now)), true
	}
	return 0, false
}

// open opens a stream and waits for its first chunk: until that has come, the call can be made again.
// stream is nil where no attempt came to anything; otherwise err is what the first Next said.
func (h *hold) open(d *delivery) (stream provider.Stream, chunk provider.Chunk, err error) {
	failed := h.attempts(func() error {
		var refused error
		if stream, refused = h.call.target.stream(h.ctx); refused != nil {
			stream = nil
			return refused
		}
		chunk, err = d.next(stream)
		if err == nil || errors.Is(err, io.EOF) || stream.Report().Usage != nil {
			h.g.circuits.begun(h.leave)
			return nil
		}
		stream.Close() //nolint:errcheck // it has failed
		stream = nil
		return err
	})
	if stream == nil {
		err = failed
	}
	return stream, chunk, err
}

// attempted records how a call of the provider ended.
func (h *hold) attempted(err error) {
	a := domain.Attempt{Provider: h.call.upstream.Name(), Model: h.call.model.Name, Status: http.StatusOK,
		Millis: h.g.now().Sub(h.began).Milliseconds()}
	if failed := new(provider.Error); errors.As(err, &failed) {
		a.Status, a.Error = failed.Status, string(failed.Kind)
	}
	h.g.metrics.Attempt(h.call.model.Provider, a.Error)
	h.tried = append(h.tried, a)
	h.tellAttempt(&a)
	if word, counts := ofProvider(err); counts {
		h.g.traffic.Add(a.Provider, a.Model, word, h.g.now().Sub(h.began))
	}
}

// ofProvider says how a call failed in a word, "" = it did not, and whether it says anything of the provider:
// a client that went away, and a request that is refused for what it asks, do not.
func ofProvider(err error) (word string, counts bool) {
	failed := new(provider.Error)
	if !errors.As(err, &failed) {
		return "", err == nil
	}
	switch failed.Kind {
	case provider.KindCanceled:
		return "", false
	case provider.KindRejected:
		switch failed.Status {
		case http.StatusPaymentRequired, http.StatusRequestTimeout, http.StatusTooManyRequests:
			return "rejected " + strconv.Itoa(failed.Status), true
		}
		return "", true // it is there, and says no
	case provider.KindUpstream:
		if failed.Status >= http.StatusInternalServerError {
			return "upstream " + strconv.Itoa(failed.Status), true
		}
	}
	return string(failed.Kind), true
}
