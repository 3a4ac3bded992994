package domain

import "fmt"

// Window is one of the limits that a holder of quotas has.
type Window int

// The windows.
const (
	RequestsMinute Window = iota
	RequestsHour
	TokensMinute
)

// Windows is how many there are.
const Windows = 3

const (
	minutePeriod = 60_000
	hourPeriod   = 60 * minutePeriod
)

// Period is how long a window is, in milliseconds.
func (w Window) Period() int64 {
	if w == RequestsHour {
		return hourPeriod
	}
	return minutePeriod
}

// String says what is limited, as it is said to people.
func (w Window) String() string {
	return [...]string{"requests per minute", "requests per hour", "tokens per minute"}[w]
}

// Quotas are the limits of one holder (an account, an API key, or everybody together), by window; 0 = none.
type Quotas [Windows]int64

// Check refuses numbers that cannot be limits.
func (q Quotas) Check() error {
	for w, most := range q {
		if most < 0 || most > MaxQuota {
			return fmt.Errorf("%s must be from 0 (none) to %d", Window(w), MaxQuota)
		}
	}
	return nil
}

// Limit is the limit of a window; false where there is none.
func (q Quotas) Limit(w Window) (Limit, bool) {
	return Limit{q[w], w.Period()}, q[w] > 0
}

// None says that nothing is limited.
func (q Quotas) None() bool { return q == Quotas{} }

// QuotaChange is what is set for one account: by window, nil = what everybody has, 0 = no limit.
type QuotaChange [Windows]*int64

// Over is what applies where others have the usual.
func (c QuotaChange) Over(usual Quotas) Quotas {
	for w, most := range c {
		if most != nil {
			usual[w] = *most
		}
	}
	return usual
}

// Check refuses numbers that cannot be limits.
func (c QuotaChange) Check() error { return c.Over(Quotas{}).Check() }

// Quantities are what one request takes, by window.
type Quantities [Windows]int64

// OneRequest is a request that is expected to use so many tokens.
func OneRequest(tokens int64) Quantities {
	return Quantities{RequestsMinute: 1, RequestsHour: 1, TokensMinute: min(max(tokens, 0), maxTaken)}
}

// Negative takes so much out again.
func (q Quantities) Negative() (out Quantities) {
	for w := range q {
		out[w] = -q[w]
	}
	return out
}

// Levels are what a holder's buckets hold, by window.
type Levels [Windows]Level

// Refusal is a limit that a request does not fit into.
type Refusal struct {
	Window   Window
	Limit    Limit
	Quantity int64
	Wait     int64 // milliseconds until it would fit
	Never    bool  // it is more than the whole limit
}

// Refused finds what a request does not fit into: of several limits the one that takes longest. The levels
// are drained. nil: it fits into all of them.
func (q Quotas) Refused(levels Levels, want Quantities) *Refusal {
	var worst *Refusal
	for i := range q {
		w := Window(i)
		l, limited := q.Limit(w)
		if !limited {
			continue
		}
		if _, fits := l.Take(levels[w], want[w]); fits {
			continue
		}
		r := &Refusal{Window: w, Limit: l, Quantity: want[w], Wait: max(l.Wait(levels[w].Used, want[w]), 1), Never: want[w] > l.Most}
		if worst == nil || r.Never && !worst.Never || r.Never == worst.Never && r.Wait > worst.Wait {
			worst = r
		}
	}
	return worst
}

// Take puts what a request wants into all of the levels, brought to now, if it fits into each; otherwise into
// none of them.
func (q Quotas) Take(levels Levels, now int64, want Quantities) (Levels, bool) {
	drained := q.Drained(levels, now)
	if q.Refused(drained, want) != nil {
		return drained, false
	}
	return q.Adjust(drained, now, want), true
}

// Drained brings all levels to now. Those of no limit are empty.
func (q Quotas) Drained(levels Levels, now int64) (out Levels) {
	for i := range q {
		if l, limited := q.Limit(Window(i)); limited {
			out[i] = l.Drained(levels[i], now)
		}
	}
	return out
}

// Adjust puts so much more into all of the levels, brought to now, or takes it out.
func (q Quotas) Adjust(levels Levels, now int64, by Quantities) (out Levels) {
	for i := range q {
		if l, limited := q.Limit(Window(i)); limited {
			out[i] = l.Adjust(l.Drained(levels[i], now), by[i])
		}
	}
	return out
}

// AtLeast makes levels hold no less than others do, by window; both are as of the same time.
func (q Quotas) AtLeast(levels, others Levels) Levels {
	for i := range q {
		if l, limited := q.Limit(Window(i)); limited {
			levels[i].Used = max(levels[i].Used, min(others[i].Used, maxDebt*l.capacity()))
		}
	}
	return levels
}

// RateScope is whose limit it is.
type RateScope int

// The scopes. An account's and its key's are taken together or not at all; everybody's may be kept elsewhere.
const (
	RateAccount RateScope = iota
	RateKey
	RateAll
)

// RateScopes is how many there are.
const RateScopes = 3

// String is the scope in metrics.
func (s RateScope) String() string { return [...]string{"account", "key", "all"}[s] }

// RateAsk is what one request takes of limits.
type RateAsk struct {
	Account string
	Key     string             // of the API key; "" = none, and then it has no quotas
	Quotas  [RateScopes]Quotas // by scope
	Want    Quantities
}

// Own says whether the account or the key is limited.
func (a *RateAsk) Own() bool { return !a.Quotas[RateAccount].None() || !a.Quotas[RateKey].None() }

// RateTaken is what came of a taking: by scope, what the buckets hold now. Where it did not fit, they hold
// what they held before. After an error it is not known whether anything was taken.
type RateTaken struct {
	Fits   bool
	Levels [RateScopes]Levels // those of the scopes that were asked
	Err    error
}

// RateAdjustment puts more into the buckets that a request has taken from, or takes it out again.
type RateAdjustment struct {
	Ask RateAsk
	Own Quantities // for the account and its key
	All Quantities // for everybody
}

// Nothing says that it would change no bucket: tokens alone change nothing where they are not limited. Then no
// store looks at its buckets, and none brings them to now.
func (a *RateAdjustment) Nothing() bool {
	for i, q := range a.Ask.Quotas {
		by := a.Own
		if RateScope(i) == RateAll {
			by = a.All
		}
		for w := range q {
			if q[w] > 0 && by[w] != 0 {
				return false
			}
		}
	}
	return true
}

// Admission is what a cache answers a request in one round trip: a projected balance (Known: there is one),
// and what came of the limits. Each part fails by itself.
type Admission struct {
	Balance    CachedBalance
	Known      bool
	BalanceErr error
	Own, All   RateTaken
}
