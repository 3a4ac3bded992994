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
	// maxProviders bounds how many providers' probes are remembered, as maxModels does.
	maxProviders = 1024
	// maxModels bounds how many models of all providers are remembered; names come from the catalog.
	maxModels = 4096
	// fewCalls is how many calls must all have failed before a provider counts as down.
	fewCalls = 3
	// degradedShare of the calls that failed makes a provider degraded: one in so many.
	degradedShare = 10
)

// Traffic remembers how the calls of the last minutes went, by provider and model. It is safe for concurrent use.
type Traffic struct {
	now func() time.Time

	mu   sync.Mutex
	all  map[string]*past // by provider
	kept int              // models of all of them
}

// past is what is remembered of a provider.
type past struct {
	models    map[string]*window
	recovered time.Time // when its own circuit closed last
}

// window is a ring of short spans.
type window struct {
	spans     [slots]span
	recovered time.Time // when the model's circuit closed last
}

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
	return &Traffic{now: now, all: map[string]*past{}}
}

// Add takes in one call of a provider's model: how it failed, in a word from a closed list, or "", and what it took.
func (t *Traffic) Add(provider, model, failure string, took time.Duration) {
	now := t.now()
	number := spanOf(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	p, w := t.of(provider, model)
	if w == nil || failure != "" && (outdated(now, took, w.recovered) || outdated(now, took, p.recovered)) {
		return
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

// Recovered takes in that a circuit has closed, a model's or with "" its provider's own: calls go through again. What
// failed before says nothing of now, and counts no longer; nor does what began before and fails later.
func (t *Traffic) Recovered(provider, model string) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if model != "" {
		if _, w := t.of(provider, model); w != nil {
			w.recover(now)
		}
		return
	}
	p := t.all[provider]
	if p == nil {
		return // a circuit that was open has seen calls
	}
	p.recovered = now
	for _, w := range p.models {
		w.recover(now)
	}
}

// recover forgets what failed.
func (w *window) recover(now time.Time) {
	w.recovered = now
	for i := range w.spans {
		w.spans[i].failed, w.spans[i].last = 0, ""
	}
}

// outdated says that a call that failed now began before that time.
func outdated(now time.Time, took time.Duration, recovered time.Time) bool {
	return now.Add(-took).Before(recovered)
}

// of is what is remembered of a model and its provider; nil where there is no room for another.
func (t *Traffic) of(provider, model string) (*past, *window) {
	p := t.all[provider]
	if p != nil && p.models[model] != nil {
		return p, p.models[model]
	}
	if t.kept >= maxModels {
		return nil, nil
	}
	if p == nil {
		p = &past{models: map[string]*window{}}
		t.all[provider] = p
	}
	t.kept++
	p.models[model] = &window{}
	return p, p.models[model]
}

// spanOf is the number of the span that a time is in.
func spanOf(now time.Time) int64 { return now.UnixNano() / int64(Window/slots) }

// seen adds up the windows of a provider, and says whether a circuit has closed in that time.
func (t *Traffic) seen(provider string) (sum span, recovered bool) {
	now := t.now()
	number := spanOf(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.all[provider]
	if p == nil {
		return span{}, false
	}
	for _, w := range p.models {
		recovered = recovered || now.Sub(w.recovered) < Window
		for i := range w.spans {
			sum.add(&w.spans[i], number)
		}
	}
	return sum, recovered
}

// add adds a span, if it is in the window that ends with a span of that number.
func (s *span) add(more *span, number int64) {
	if more.number <= number-slots {
		return
	}
	s.ok, s.failed, s.took = s.ok+more.ok, s.failed+more.failed, s.took+more.took
	if more.last != "" && more.number >= s.number {
		s.number, s.last = more.number, more.last
	}
}

// Judge says how a provider is by the calls of the window; Unknown where there were none.
func (t *Traffic) Judge(provider string) Result { return judge(t.seen(provider)) }

// judge is the rule. Where a circuit has closed and nothing has ended since, an answer has begun to come.
func judge(s span, recovered bool) Result {
	all := s.ok + s.failed
	if all == 0 && !recovered {
		return Result{State: Unknown, Detail: "no calls in the last " + Window.String()}
	}
	r := Result{State: Up, Facts: map[string]any{"calls": all, "failed": s.failed}}
	if s.ok > 0 {
		r.Latency = s.took / time.Duration(s.ok)
	}
	switch {
	case s.failed == 0:
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
