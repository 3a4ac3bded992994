// Package health knows how the gateway's components and providers are, by checks that run in the background.
//
// The problem: whoever operates a gateway asks what is away, since when, and what that costs; and asks most
// when things are slow. So no answer waits for a check: one goroutine checks at an interval, everything at
// once and each thing within a bound, and whoever asks is told what it saw last, with its age.
//
// Invariants:
//   - One check at a time, by one goroutine, which Close ends. A check that does not come back in time is
//     down, and is not started again before it has come back.
//   - Since is when the present state began, not when it was last seen.
//   - Nothing here costs a provider's money: providers are judged by the traffic that there is, and where
//     there is none by a probe that is free (Traffic, Probe).
//   - What failed before a circuit closed again says nothing of now.
//   - What a component says of itself has no credentials, hosts or prompts in it.
//
// Tests: the checker under testing/synctest, with checks that hang, panic and flap; the judgement of traffic
// as a table.
package health

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// State is how something is.
type State string

// The states, from the best. Unknown is what nobody can tell now: it is nobody's fault.
const (
	Up       State = "up"
	Unknown  State = "unknown"
	Degraded State = "degraded" // it works, and not all of it or not as fast as it should
	Down     State = "down"
)

// worse orders the states.
var worse = map[State]int{Up: 0, Unknown: 0, Degraded: 1, Down: 2}

// Result is what a check found.
type Result struct {
	State   State
	Detail  string         // why it is not up; in words of ours
	Latency time.Duration  // of the round trip; 0: none was made
	Facts   map[string]any // such as lag_events; JSON
}

// Check looks at one component. Run ends with its context, or is left behind.
type Check struct {
	Name string
	// Needed says that nothing is served without it: while it is down, so is the whole.
	Needed bool
	Run    func(ctx context.Context) Result
}

// Component is a checked thing as it is reported.
type Component struct {
	State   State          `json:"state"`
	Since   time.Time      `json:"since"` // when it came into this state
	Detail  string         `json:"detail,omitempty"`
	Latency *float64       `json:"latency_ms,omitempty"`
	Facts   map[string]any `json:"facts,omitempty"`
}

// Report is one check of everything.
type Report struct {
	State      State                 `json:"status"`
	Since      time.Time             `json:"since"`
	At         time.Time             `json:"checked_at"`
	Took       float64               `json:"took_ms"`
	Components map[string]*Component `json:"components"`
	Providers  map[string]*Component `json:"providers"`
	System     *System               `json:"-"`
}

// Past is one line of the history.
type Past struct {
	State      State            `json:"status"`
	At         time.Time        `json:"checked_at"`
	Took       float64          `json:"took_ms"`
	Components map[string]State `json:"components"`
	Providers  map[string]State `json:"providers"`
}

const (
	// Kept is how many checks the history has.
	Kept = 100
	// CheckTime bounds one check of everything.
	CheckTime = 3 * time.Second
	// sayTime is what is left of it for a check that ran out of time to say what that means: of a server that
	// hangs nobody knows how its clock is, and that is unknown, not down.
	sayTime = 250 * time.Millisecond
	// staleAfter is how many intervals old a report may be before it says so.
	staleAfter = 3
)

// Config says what is checked.
type Config struct {
	Every     time.Duration
	Checks    []Check
	Providers func() []Check // as configured now; nil = none. They are asked like components, and never needed.
	System    func() *System // nil = none
	// Changed is told of every state that is another than before; from is "" at first sight.
	Changed func(name string, from State, now *Component)
	// Reported is told of every report; nil = nobody is.
	Reported func(r *Report)
	Now      func() time.Time // nil = time.Now
}

// Checker checks. Start makes one; it is safe for concurrent use.
type Checker struct {
	c      Config
	cancel context.CancelFunc
	wait   sync.WaitGroup
	last   atomic.Pointer[Report]

	mu   sync.Mutex // of past
	past []Past     // a ring
	next int

	running map[string]*atomic.Bool // checks that have not come back; only the checker's goroutine has the map
}

// Start begins to check, at once and then at the interval, until Close.
func Start(ctx context.Context, c Config) *Checker {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Changed == nil {
		c.Changed = func(string, State, *Component) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	k := &Checker{c: c, cancel: cancel, running: map[string]*atomic.Bool{}}
	k.wait.Go(func() { k.run(ctx) })
	return k
}

// Close ends the checking. A check that is left behind ends with its own bounds.
func (k *Checker) Close() {
	k.cancel()
	k.wait.Wait()
}

func (k *Checker) run(ctx context.Context) {
	tick := time.NewTicker(k.c.Every)
	defer tick.Stop()
	for {
		k.check(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Last is the last report, nil before the first; old says that it is older than it should be, because this
// process was stopped or starved.
func (k *Checker) Last() (r *Report, old bool) {
	r = k.last.Load()
	return r, r != nil && k.c.Now().Sub(r.At) > staleAfter*k.c.Every+CheckTime
}

// History is the last checks, the latest first.
func (k *Checker) History() []Past {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]Past, 0, len(k.past))
	for i := range k.past {
		out = append(out, k.past[(k.next-1-i+2*len(k.past))%len(k.past)])
	}
	return out
}

// check looks at everything once. What was seen while the process ends is nobody's state.
func (k *Checker) check(ctx context.Context) {
	began := k.c.Now()
	var providers []Check
	if k.c.Providers != nil {
		providers = k.c.Providers()
	}
	all := k.ask(ctx, append(append([]Check{}, k.c.Checks...), ofProviders(providers)...))
	if ctx.Err() != nil {
		return
	}
	before := k.last.Load()
	if before == nil {
		before = &Report{}
	}
	r := &Report{At: began, Components: map[string]*Component{}, Providers: map[string]*Component{}}
	overall := Up
	for i, c := range k.c.Checks {
		r.Components[c.Name] = k.since(c.Name, before.Components[c.Name], all[i], began)
		overall = worst(overall, soften(all[i].State, c.Needed))
	}
	for i, c := range providers {
		r.Providers[c.Name] = k.since(ProviderPrefix+c.Name, before.Providers[c.Name], all[len(k.c.Checks)+i], began)
		overall = worst(overall, soften(all[len(k.c.Checks)+i].State, false))
	}
	r.State, r.Since = overall, began
	if before.State == overall {
		r.Since = before.Since
	}
	if k.c.System != nil {
		r.System = k.c.System()
	}
	r.Took = milliseconds(k.c.Now().Sub(began))
	k.keep(r)
	if k.c.Reported != nil {
		k.c.Reported(r)
	}
}

// ProviderPrefix is what providers' names begin with where they stand among components: in the log and in metrics.
const ProviderPrefix = "provider "

// ofProviders gives providers names that no component has.
func ofProviders(checks []Check) []Check {
	out := slices.Clone(checks)
	for i := range out {
		out[i].Name = ProviderPrefix + out[i].Name
	}
	return out
}

// soften is what the state of something means for the whole.
func soften(s State, needed bool) State {
	if s == Down && !needed {
		return Degraded
	}
	return s
}

func worst(a, b State) State {
	if worse[b] > worse[a] {
		return b
	}
	return a
}

// since makes a component of a result. Its state began when it changed, or now.
func (k *Checker) since(name string, before *Component, r Result, now time.Time) *Component {
	c := &Component{State: r.State, Since: now, Detail: r.Detail, Facts: r.Facts}
	if r.Latency > 0 {
		c.Latency = new(milliseconds(r.Latency))
	}
	from := State("")
	if before != nil {
		from = before.State
	}
	if from == c.State {
		c.Since = before.Since
		return c
	}
	k.c.Changed(name, from, c)
	return c
}

func (k *Checker) keep(r *Report) {
	p := Past{State: r.State, At: r.At, Took: r.Took, Components: states(r.Components), Providers: states(r.Providers)}
	k.last.Store(r)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.past) < Kept {
		k.past = append(k.past, p)
		k.next = len(k.past) % Kept
		return
	}
	k.past[k.next] = p
	k.next = (k.next + 1) % Kept
}

func states(all map[string]*Component) map[string]State {
	out := make(map[string]State, len(all))
	for name, c := range all {
		out[name] = c.State
	}
	return out
}

// ask runs checks at once, all within CheckTime, and returns their results in order.
func (k *Checker) ask(ctx context.Context, checks []Check) []Result {
	checking, stop := context.WithTimeout(ctx, CheckTime-sayTime)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, CheckTime)
	defer cancel()
	k.forget(checks)
	answers := make([]chan Result, len(checks))
	for i, c := range checks {
		busy := k.running[c.Name]
		if busy == nil {
			busy = &atomic.Bool{}
			k.running[c.Name] = busy
		}
		if !busy.CompareAndSwap(false, true) {
			continue // the one before has not come back
		}
		answers[i] = make(chan Result, 1)
		go func() { // ends with the check, which has a bounded context
			defer busy.Store(false)
			answers[i] <- guarded(checking, c)
		}()
	}
	out := make([]Result, len(checks))
	for i := range checks {
		out[i] = Result{State: Down, Detail: "it does not answer within " + CheckTime.String()}
		if answers[i] == nil {
			continue
		}
		select {
		case out[i] = <-answers[i]:
		case <-ctx.Done():
			select { // it may have come just now
			case out[i] = <-answers[i]:
			default:
			}
		}
	}
	return out
}

// forget drops what is known of checks that there are no more.
func (k *Checker) forget(checks []Check) {
	for name, busy := range k.running {
		if !busy.Load() && !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == name }) {
			delete(k.running, name)
		}
	}
}

// guarded makes a result of a panic.
func guarded(ctx context.Context, c Check) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			r = Result{State: Down, Detail: fmt.Sprintf("its check failed: %.80v", p)}
		}
	}()
	return c.Run(ctx)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
