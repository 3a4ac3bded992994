package health

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Bounds of what is remembered of traffic.
const (
	// Window is how far back traffic counts.
	Window = 5 * time.Minute
	// slots cut the window up.
	slots = 10
	// maxProviders bounds how many providers are remembered; names come from the catalog.
	maxProviders = 1024
	// fewCalls is how many calls must all have failed before a provider counts as down.
	fewCalls = 3
	// degradedShare of the calls that failed makes a provider degraded: one in so many.
	degradedShare = 10
)

// Traffic remembers how the calls of the last minutes went, by provider. It is safe for concurrent use.
type Traffic struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]*window
}

// window is a ring of short spans.
type window struct{ spans [slots]span }

type span struct {
	number     int64 // of the span since the epoch
	ok, failed int
	took       time.Duration // of those that went well, to the first byte or the whole answer
	last       string        // how the last one failed
}

// NewTraffic remembers nothing yet. now is nil for time.Now.
func NewTraffic(now func() time.Time) *Traffic {
	if now == nil {
		now = time.Now
	}
	return &Traffic{now: now, all: map[string]*window{}}
}

// Add takes in one call of a provider: how it failed, in a word from a closed list, or "", and what it took.
func (t *Traffic) Add(provider, failure string, took time.Duration) {
	number := t.now().UnixNano() / int64(Window/slots)
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.all[provider]
	if w == nil {
		if len(t.all) >= maxProviders {
			return
		}
		w = &window{}
		t.all[provider] = w
	}
	s := &w.spans[number%slots]
	if s.number != number {
		*s = span{number: number}
	}
	if failure != "" {
		s.failed, s.last = s.failed+1, failure
		return
	}
	s.ok, s.took = s.ok+1, s.took+took
}

// seen adds up the window of a provider.
func (t *Traffic) seen(provider string) (sum span) {
	number := t.now().UnixNano() / int64(Window/slots)
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.all[provider]
	if w == nil {
		return span{}
	}
	for _, s := range w.spans {
		if s.number <= number-slots {
			continue
		}
		sum.ok, sum.failed, sum.took = sum.ok+s.ok, sum.failed+s.failed, sum.took+s.took
		if s.last != "" && s.number >= sum.number {
			sum.number, sum.last = s.number, s.last
		}
	}
	return sum
}

// Judge says how a provider is by the calls of the window; Unknown where there were none.
func (t *Traffic) Judge(provider string) Result {
	s := t.seen(provider)
	all := s.ok + s.failed
	if all == 0 {
		return Result{State: Unknown, Detail: "no calls in the last " + Window.String()}
	}
	r := Result{State: Up, Facts: map[string]any{"calls": all, "failed": s.failed}}
	if s.ok > 0 {
		r.Latency = s.took / time.Duration(s.ok)
	}
	switch {
	case s.ok == 0 && all >= fewCalls:
		r.State = Down
	case s.failed*degradedShare >= all:
		r.State = Degraded
	}
	if r.State != Up {
		r.Detail = fmt.Sprintf("%d of %d calls failed in the last %s; the last one: %s", s.failed, all, Window, s.last)
	}
	return r
}

// ProbeEvery is how often one provider is probed at most, and only while there are no calls of it.
const ProbeEvery = 5 * time.Minute

// Probe asks providers something that is free, seldom, where nobody calls them. It is safe for concurrent
// use.
type Probe struct {
	ask func(ctx context.Context, provider string) Result
	now func() time.Time

	mu   sync.Mutex
	last map[string]probed
}

type probed struct {
	at     time.Time
	result Result
}

// NewProbe asks by ask, which must cost nothing. now is nil for time.Now.
func NewProbe(ask func(ctx context.Context, provider string) Result, now func() time.Time) *Probe {
	if now == nil {
		now = time.Now
	}
	return &Probe{ask: ask, now: now, last: map[string]probed{}}
}

// look is what came of the last probe of a provider, which is made now where there was none for ProbeEvery.
func (p *Probe) look(ctx context.Context, provider string) Result {
	now := p.now()
	p.mu.Lock()
	last, asked := p.last[provider]
	due := !asked || now.Sub(last.at) >= ProbeEvery
	if due && !asked && len(p.last) >= maxProviders {
		clear(p.last)
	}
	if due {
		last = probed{now, Result{State: Down, Detail: "the probe has not been answered"}}
		p.last[provider] = last
	}
	p.mu.Unlock()
	if !due {
		return last.result
	}
	r := p.ask(ctx, provider)
	r.Facts = map[string]any{"probed_at": now.UTC()}
	p.mu.Lock()
	p.last[provider] = probed{now, r}
	p.mu.Unlock()
	return r
}
