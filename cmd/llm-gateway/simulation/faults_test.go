package simulation

import (
	"time"
)

// What goes wrong beside single calls.

const (
	mostCrashes = 4
	mostFreezes = 3
)

// chance is true so many times out of so many.
func (w *world) chance(n, of int) bool { return n > 0 && w.s.rng.IntN(of) < n }

// between is a time at random.
func (w *world) between(from, to time.Duration) time.Duration {
	return from + time.Duration(w.s.rng.Int64N(int64(to-from)))
}

// decide says what becomes of the call that was picked; false: it waits on.
func (w *world) decide(q *parked) (fate, bool) {
	if w.quiet || q.twin { // twins may be more than are seen: the next ones must not fare otherwise
		return goOn, true
	}
	if w.strike(q) {
		return 0, false
	}
	if w.chance(w.plan.delays, 1000) {
		q.after = time.Now().Add(w.delay())
		w.s.trace.notef("%s is held up until %s", q.name, q.after.Sub(w.s.trace.began))
		return 0, false
	}
	b := boundaries[q.kind]
	if w.isAway(b.needs) && q.kind != kindAnswer {
		return failBefore, true
	}
	if len(b.faults) > 0 && w.chance(w.plan.faults[q.kind], 1000) {
		return b.faults[w.s.rng.IntN(len(b.faults))], true
	}
	return goOn, true
}

func (w *world) delay() time.Duration {
	switch n := w.s.rng.IntN(10); {
	case n < 5:
		return w.between(time.Millisecond, 50*time.Millisecond)
	case n < 8 || !w.plan.longDelays:
		return w.between(50*time.Millisecond, 800*time.Millisecond)
	case n < 9:
		return w.between(time.Second, 5*time.Second)
	}
	return w.between(5*time.Second, 15*time.Second)
}

// strike lets something happen to the process of a call, or to a service, at this very call. It says
// whether the call is gone or waits on because of it.
func (w *world) strike(q *parked) bool {
	if w.chance(w.plan.outages, 10_000) {
		w.outage()
	}
	if w.chance(w.plan.drops, 10_000) {
		w.tally["the topic was deleted"]++
		w.s.trace.notef("the topic is deleted")
		w.broker.drop()
	}
	p := q.proc
	if p == nil || q.loose || p.isDead() {
		return false
	}
	switch {
	case w.crashes < mostCrashes && w.chance(w.plan.crashes, 10_000):
		w.crashes++
		w.crash(p, q)
		return true
	case w.freezes < mostFreezes && w.chance(w.plan.freezes, 10_000):
		w.freezes++
		d := w.between(time.Second, 25*time.Second)
		w.tally["a process froze at "+kindNames[q.kind]]++
		w.s.trace.notef("%s freezes for %s, at: %s", p.name, d, q.name)
		p.freeze(d)
		return !q.loose
	case !p.told && p.takesRequests() && w.chance(w.plan.stops, 10_000):
		w.stop(p)
	}
	return false
}

// crash kills a process at a call, which may have left it just before.
func (w *world) crash(p *process, q *parked) {
	w.tally["a process died at "+kindNames[q.kind]]++
	w.s.trace.notef("%s dies, at: %s", p.name, q.name)
	for _, f := range boundaries[q.kind].faults {
		if f == failAfter && q.kind != kindAppend && w.s.rng.IntN(2) == 0 {
			w.s.trace.notef("%s has left it", q.name)
			w.s.release(q, failAfter)
			w.s.settle()
		}
	}
	p.die()
	w.restart(p.on)
}

// restart begins another process on a machine, soon or not.
func (w *world) restart(m *machine) {
	w.later(w.between(100*time.Millisecond, 20*time.Second), func() {
		if m.process == nil {
			m.start()
		}
	})
}

// stop lets a process end in order.
func (w *world) stop(p *process) {
	p.told = true
	w.tally["a process was told to end"]++
	w.s.trace.notef("%s is told to end", p.name)
	ended := make(chan struct{})
	go func() {
		p.stop()
		close(ended)
	}()
	w.watch(p, ended, nil)
}

// watch looks from time to time whether a process has ended, until that is no longer to be expected.
func (w *world) watch(p *process, ended, enough <-chan struct{}) {
	w.later(watchTime, func() {
		select {
		case <-ended:
			if !p.isDead() {
				w.s.trace.notef("%s has ended", p.name)
				p.die()
				w.restart(p.on)
			}
			return
		default:
		}
		select {
		case <-enough:
		default:
			if !p.isDead() {
				w.watch(p, ended, enough)
			}
		}
	})
}

const watchTime = 100 * time.Millisecond

// outage takes a service away for a while.
func (w *world) outage() {
	s := service(1 + w.s.rng.IntN(int(services)-1))
	d := w.between(100*time.Millisecond, 12*time.Second)
	w.tally[serviceNames[s]+" was away"]++
	w.s.trace.notef("%s is away for %s", serviceNames[s], d)
	w.mu.Lock()
	now := time.Now()
	if until := now.Add(d); until.After(w.away[s]) {
		w.away[s] = until
	}
	if s == postgres {
		w.outages = append(w.outages, span{now, w.away[s]})
	}
	w.mu.Unlock()
	if w.s.rng.IntN(2) == 0 {
		return
	}
	switch s {
	case redis:
		w.s.trace.notef("and has forgotten everything")
		w.cache.flush()
	case postgres:
		w.s.trace.notef("and begins anew")
		w.database.restart()
	}
}

// calm ends everything that goes wrong, and lets every machine run.
func (w *world) calm() {
	w.s.trace.notef("calm")
	w.quiet, w.calmed = true, time.Now()
	w.mu.Lock()
	w.away = [services]time.Time{}
	for i := range w.outages {
		if o := &w.outages[i]; o.to.After(w.calmed) {
			o.to = w.calmed
		}
	}
	w.mu.Unlock()
	for _, q := range w.s.waiting() {
		q.after = time.Time{}
	}
	for _, m := range w.machines {
		if m.process != nil {
			m.process.thaw()
		}
	}
}
