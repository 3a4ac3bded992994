package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider"
)

// A provider that fails is left alone for a while, so that its callers learn so at once and it can recover.
//
// There are two circuits for a call, because there are two ways of failing. Where no connection comes about,
// nothing of the provider can be called: that counts against the provider, whichever of its models was asked.
// Where it does answer, and badly (a 5xx, a time-out, an answer that breaks off), that is what the outage of
// one model looks like: it counts against that model alone, and shows that the provider can be reached. So a
// model's outage never stops another model, and a provider that is away is found out by all its callers
// together. What a 4xx says is about the request or about a key, and what the client ends is about nobody:
// neither counts. A 429 asks to be called less, which Retry-After and the budget of retries see to.
//
// This is no library's breaker: gobreaker knows no time of the next probe, which Retry-After is to tell, and
// keeps everybody out until a probe has ended, which for a long stream is half an hour. domain.Circuit lets
// calls through again, on trial, when a probe's answer begins.
//
// The states are this process's own, and gone with it: each gateway learns for itself. They are not shared,
// because one gateway's broken network must not stop the others.

// Resilience says how providers that fail are treated. The zero value: as if they did not.
type Resilience struct {
	Circuits     domain.CircuitRules // Failures 0 = none
	RetryPercent int                 // how many retries a provider gets for a hundred calls; 0 = no bound
}

// circuitProbes is how many calls a half-open circuit lets through at once.
const circuitProbes = 1

// circuitKey names a circuit: a model's, or with "" its provider's. Both are names of the catalog, which
// bounds their number.
type circuitKey struct{ provider, model string }

// circuit is one that has seen a failure; those that have not are not kept.
type circuit struct {
	*domain.Circuit
	shown domain.CircuitState // what was logged and measured last
	last  string              // the kind of the last failure
}

// circuits are those of all providers and models, and their budgets of retries.
type circuits struct {
	rules   Resilience
	now     func() time.Time
	metrics *observe.Metrics
	traffic *health.Traffic // is told which have closed again
	log     *slog.Logger

	catalog atomic.Pointer[Catalog] // whose names they are; set under mu, read without it at each call

	mu      sync.Mutex
	of      map[circuitKey]*circuit
	budgets map[string]*domain.RetryBudget // by provider
}

func newCircuits(rules Resilience, now func() time.Time, metrics *observe.Metrics, traffic *health.Traffic, log *slog.Logger) *circuits {
	if rules.Circuits.Probes == 0 {
		rules.Circuits.Probes = circuitProbes
	}
	return &circuits{rules: rules, now: now, metrics: metrics, traffic: traffic, log: log, of: map[circuitKey]*circuit{}, budgets: map[string]*domain.RetryBudget{}}
}

func (c *circuits) off() bool { return c.rules.Circuits.Failures == 0 }

// keysOfTarget are the two circuits of a call, the provider's first.
func keysOfTarget(t *target) [2]circuitKey {
	name := t.upstream.Name()
	return [2]circuitKey{{name, ""}, {name, t.model.Name}}
}

// passage is the leave for one call of a target, from both its circuits.
type passage struct {
	keys   [2]circuitKey
	passes [2]domain.Pass
	ended  bool
}

// admit gives leave to call a target, or says when one may.
func (c *circuits) admit(t *target) (*passage, error) {
	p := &passage{keys: keysOfTarget(t)}
	if c.off() {
		return p, nil
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if open, until, refused := c.refuses(p.keys, now); refused {
		return nil, circuitOpen(open, until.Sub(now))
	}
	for i, key := range p.keys {
		if one := c.of[key]; one != nil {
			p.passes[i], _ = one.Admit(now)
			c.show(key, one, now)
		}
	}
	return p, nil
}

// refuses says that one of two circuits lets nothing through, which (the provider's, where both do), and until
// when.
func (c *circuits) refuses(keys [2]circuitKey, now time.Time) (open circuitKey, until time.Time, refused bool) {
	for _, key := range keys {
		one := c.of[key]
		if one == nil {
			continue
		}
		if next, no := one.Refuses(now); no {
			if !refused {
				open, refused = key, true
			}
			if next.After(until) {
				until = next
			}
		}
	}
	return open, until, refused
}

// shut says why no target of a call can be called now, where that is so. It takes no leave.
func (c *circuits) shut(targets []*target) error {
	if c.off() {
		return nil
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var first circuitKey
	var soonest time.Time
	for i, t := range targets {
		open, until, refused := c.refuses(keysOfTarget(t), now)
		if !refused {
			return nil
		}
		if i == 0 {
			first = open
		}
		if i == 0 || until.Before(soonest) {
			soonest = until
		}
	}
	return circuitOpen(first, soonest.Sub(now))
}

// circuitOpen is the failure of a call that was not made. Where the wait hangs on a probe under way, it is as
// short as any.
func circuitOpen(open circuitKey, wait time.Duration) *provider.Error {
	seconds := retryLater
	if wait > 0 {
		seconds = int(math.Ceil(wait.Seconds()))
	}
	e := &provider.Error{Kind: provider.KindOpen, Provider: open.provider, Model: open.model, RetryAfter: strconv.Itoa(seconds),
		Reason: "it has failed too often and is left alone for now"}
	if open.model != "" {
		e.Reason = "its model " + open.model + " has failed too often and is left alone for now"
	}
	return e
}

// begun takes in that an answer has begun.
func (c *circuits) begun(p *passage) {
	if c.off() || p == nil {
		return
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range p.keys {
		if one := c.of[key]; one != nil {
			p.passes[i] = one.Begun(p.passes[i])
			c.show(key, one, now)
		}
	}
}

// ended takes in how a call ended, once.
func (c *circuits) ended(p *passage, err error) {
	if c.off() || p == nil || p.ended {
		return
	}
	now := c.now()
	p.ended = true
	ends, kind := endsOf(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range p.keys {
		one := c.of[key]
		if one == nil && ends[i] == domain.EndedBadly {
			one = &circuit{Circuit: domain.NewCircuit(c.rules.Circuits), shown: domain.CircuitClosed}
			c.of[key] = one
		}
		if one == nil {
			continue
		}
		if ends[i] == domain.EndedBadly {
			one.last = kind
		}
		one.Ended(p.passes[i], ends[i], now)
		c.show(key, one, now)
	}
}

// endsOf says what the end of a call says of the provider and of the model, and the failure's kind.
func endsOf(err error) (ends [2]domain.CallEnd, kind string) {
	if err == nil {
		return [2]domain.CallEnd{domain.EndedWell, domain.EndedWell}, ""
	}
	failed := new(provider.Error)
	if !errors.As(err, &failed) {
		return ends, "" // ours
	}
	switch failed.Kind {
	case provider.KindCanceled, provider.KindOpen:
		return ends, ""
	case provider.KindRejected, provider.KindAuth:
		return [2]domain.CallEnd{domain.EndedWell, domain.EndedUnknown}, ""
	}
	if failed.Unreached {
		return [2]domain.CallEnd{domain.EndedBadly, domain.EndedUnknown}, "unreached"
	}
	kind = string(failed.Kind)
	if failed.Status >= http.StatusInternalServerError {
		kind = strconv.Itoa(failed.Status)
	}
	ends[1] = domain.EndedBadly
	if failed.Status != 0 { // it answered
		ends[0] = domain.EndedWell
	}
	return ends, kind
}

// show logs and measures a state, where it has changed. What failed before a circuit closes says nothing of now.
func (c *circuits) show(key circuitKey, one *circuit, now time.Time) {
	state := one.State(now)
	if state == one.shown {
		return
	}
	one.shown = state
	c.metrics.Circuit(key.provider, key.model, string(state))
	level := slog.LevelInfo
	switch state {
	case domain.CircuitOpen:
		level = slog.LevelWarn
	case domain.CircuitClosed:
		c.traffic.Recovered(key.provider, key.model)
	}
	c.log.Log(context.Background(), level, "a circuit is "+string(state), "provider", key.provider, "model", key.model, "failures", one.Failures(), "last_error", one.last)
}

// mayRetry says whether a provider may be called again, and counts that.
func (c *circuits) mayRetry(t *target) bool {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rules.RetryPercent == 0 || c.budget(t).Retry(now, c.rules.RetryPercent)
}

// called counts a call that is no retry.
func (c *circuits) called(t *target) {
	if c.rules.RetryPercent == 0 {
		return
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget(t).Call(now)
}

func (c *circuits) budget(t *target) *domain.RetryBudget {
	name := t.upstream.Name()
	if c.budgets[name] == nil {
		c.budgets[name] = &domain.RetryBudget{}
	}
	return c.budgets[name]
}

// keep forgets what a new catalog has no longer; what stays in it keeps its state.
func (c *circuits) keep(catalog *Catalog) {
	if catalog == c.catalog.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.catalog.Store(catalog)
	for key := range c.of {
		if catalog.Providers[key.provider] == nil || key.model != "" && len(catalog.Prices.Named(key.provider+"/"+key.model)) == 0 {
			delete(c.of, key)
			c.metrics.CircuitGone(key.provider, key.model)
		}
	}
	for name := range c.budgets {
		if catalog.Providers[name] == nil {
			delete(c.budgets, name)
		}
	}
}

// notClosed are the circuits of a provider that are not closed, in the order of models.
func (c *circuits) notClosed(provider string) (out []health.Circuit) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, one := range c.of {
		c.show(key, one, now)
		if key.provider != provider || one.shown == domain.CircuitClosed {
			continue
		}
		v := health.Circuit{Model: key.model, State: string(one.shown), OpenedAt: one.OpenedAt().UTC(), LastError: one.last}
		if until, _ := one.Refuses(now); one.shown == domain.CircuitOpen {
			v.RetryAt = new(until.UTC())
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b health.Circuit) int { return strings.Compare(a.Model, b.Model) })
	return out
}

// circuitView is one circuit as it is shown. Times are there where they mean something.
type circuitView struct {
	Provider  string              `json:"provider"`
	Model     string              `json:"model,omitempty"`
	State     domain.CircuitState `json:"state"`
	Failures  int                 `json:"failures"`
	OpenedAt  *time.Time          `json:"opened_at,omitempty"`
	RetryAt   *time.Time          `json:"retry_at,omitempty"`
	LastError string              `json:"last_error,omitempty"`
}

// view is every provider of the catalog, and each of its models that has failed, in the order of names.
func (c *circuits) view() []circuitView {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []circuitView{}
	for name := range c.catalog.Load().Providers {
		if c.of[circuitKey{name, ""}] == nil {
			out = append(out, circuitView{Provider: name, State: domain.CircuitClosed})
		}
	}
	for key, one := range c.of {
		c.show(key, one, now)
		v := circuitView{Provider: key.provider, Model: key.model, State: one.shown, Failures: one.Failures(), LastError: one.last}
		if v.State != domain.CircuitClosed {
			opened := one.OpenedAt().UTC()
			v.OpenedAt = &opened
		}
		if until, _ := one.Refuses(now); v.State == domain.CircuitOpen {
			until = until.UTC()
			v.RetryAt = &until
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b circuitView) int {
		if by := strings.Compare(a.Provider, b.Provider); by != 0 {
			return by
		}
		return strings.Compare(a.Model, b.Model)
	})
	return out
}
