package gateway

import (
	"context"
	"sync"
	"time"

	"llm-gateway/domain"
)

const (
	// overrideFresh is how long an account's own limits are believed: a change takes effect within it, and at
	// once on the gateway that made it.
	overrideFresh = 5 * time.Second
	// overrideTime bounds one look-up, and what a call waits for it.
	overrideTime = 250 * time.Millisecond
	// overridePause is how long after one that failed no other is made: what was known last applies.
	overridePause = time.Second
	// overridesKept bounds the cache; a full one starts anew.
	overridesKept = 10_000
)

// Overrides are the limits that are set for single accounts.
type Overrides interface {
	// Quotas is what is set for an account; nothing where nothing is.
	Quotas(ctx context.Context, account string) (domain.QuotaChange, error)
	// SetQuotas sets that, all of it. It may be repeated; actor is who does it.
	SetQuotas(ctx context.Context, account, actor string, c domain.QuotaChange) error
}

// overrideCache spares the database a look-up per request. While that is away, what was known last applies,
// or what everybody has.
type overrideCache struct {
	source Overrides
	now    func() time.Time

	mu    sync.Mutex
	known map[string]*override
	after time.Time // nothing is looked up before
}

// override is what is known of one account. It is guarded by the cache's mu.
type override struct {
	change domain.QuotaChange
	until  time.Time
	done   chan struct{} // closed when it has been looked up for the first time
}

func newOverrideCache(source Overrides, now func() time.Time) *overrideCache {
	return &overrideCache{source: source, now: now, known: map[string]*override{}}
}

// find is what is set for an account. However many ask at once, one of them looks it up; the others go by
// what was known, or wait where that is nothing.
func (o *overrideCache) find(ctx context.Context, account string) domain.QuotaChange {
	found, mine := o.entry(account)
	if found == nil {
		return domain.QuotaChange{}
	}
	if mine {
		o.look(ctx, account, found)
	}
	<-found.done
	o.mu.Lock()
	defer o.mu.Unlock()
	return found.change
}

// entry finds what is known of an account. Where it is to be looked up, that is the caller's (mine) to do;
// nil where nothing is known and the database is left alone.
func (o *overrideCache) entry(account string) (found *override, mine bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	found = o.known[account]
	if found != nil && now.Before(found.until) || now.Before(o.after) {
		return found, false
	}
	if found == nil {
		if len(o.known) >= overridesKept {
			clear(o.known)
		}
		found = &override{done: make(chan struct{})}
		o.known[account] = found
	}
	found.until = now.Add(overrideFresh)
	return found, true
}

func (o *overrideCache) look(ctx context.Context, account string, found *override) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), overrideTime) // others wait, too
	defer cancel()
	change, err := o.source.Quotas(ctx, account)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		found.change = change
	} else {
		o.after = o.now().Add(overridePause)
		found.until = o.after
	}
	o.looked(found)
}

// looked lets go who waits for the first look-up.
func (o *overrideCache) looked(found *override) {
	select {
	case <-found.done:
	default:
		close(found.done)
	}
}

// set changes what is set for an account, and knows it from now on.
func (o *overrideCache) set(ctx context.Context, account, actor string, c domain.QuotaChange) error {
	if err := o.source.SetQuotas(ctx, account, actor, c); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if found := o.known[account]; found != nil {
		found.change, found.until = c, o.now().Add(overrideFresh)
		o.looked(found)
	}
	return nil
}
