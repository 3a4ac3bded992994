package simulation

import (
	"fmt"
	"time"

	"llm-gateway/domain"
)

// The bounds of a run, in its own time. Far less is enough, or something hangs.
const (
	activeTime = 5 * time.Minute  // until all clients have their answers
	quietTime  = 10 * time.Minute // until everything has come to rest after that
	renewTime  = 2 * time.Minute  // of quiet, after which processes that hold on to reservations are renewed
	mostSteps  = 30_000
)

// play runs the world from its beginning to its rest, and returns what it leaves behind.
func (w *world) play() *evidence {
	w.start()
	w.until(activeTime, w.served)
	w.calm()
	renewed := false
	w.until(quietTime, func() bool {
		if !renewed && time.Since(w.calmed) > renewTime {
			renewed = true
			w.renew()
		}
		return w.atRest() == ""
	})
	e := w.collect()
	e.note(w.s.trace)
	w.end()
	return e
}

// until steps until something is true, for so long at most.
func (w *world) until(most time.Duration, done func() bool) {
	end := time.Now().Add(most)
	for time.Now().Before(end) && w.s.steps < mostSteps {
		if waiting := w.s.settle(); !done() {
			w.step(waiting)
			continue
		}
		return
	}
}

// step lets one call have its fate, or time pass where none can.
func (w *world) step(waiting []*parked) {
	if w.doDue() {
		return
	}
	now, next := time.Now(), time.Second
	var ready []*parked
	for _, q := range waiting {
		if wait := w.holdUp(q, now); wait > 0 {
			next = min(next, wait)
			continue
		}
		ready = append(ready, q)
	}
	if len(w.due) > 0 {
		next = min(next, w.due[0].at.Sub(now))
	}
	if len(ready) == 0 {
		w.s.idle(next)
		return
	}
	w.s.steps++
	q := w.s.pick(ready, w.plan.stick)
	if f, decided := w.decide(q); decided {
		if f == goOn {
			w.s.trace.notef("%s", q.name)
		} else {
			w.s.trace.notef("%s: %s", q.name, f)
			w.tally[fmt.Sprintf("%s %s", kindNames[q.kind], f)]++
		}
		w.s.release(q, f)
	}
	w.s.tick()
}

// holdUp is how long a call is not to be picked.
func (w *world) holdUp(q *parked, now time.Time) time.Duration {
	wait := q.after.Sub(now)
	if q.flight != nil && !q.flight.foremost() {
		return time.Hour
	}
	if p := q.proc; p != nil && !q.loose {
		p.mu.Lock()
		wait = max(wait, p.frozen.Sub(now))
		p.mu.Unlock()
	}
	return wait
}

// served says whether all clients have ended.
func (w *world) served() bool {
	select {
	case <-w.idle:
		return true
	default:
		return false
	}
}

// atRest says what has not come to rest yet; "" where everything has.
func (w *world) atRest() string {
	if !w.served() {
		return "a client has no answer: " + w.unanswered()
	}
	for _, m := range w.machines {
		if m.process == nil || !m.process.takesRequests() {
			return m.name + " takes no requests"
		}
		if n := m.process.waiting(); n > 0 {
			return fmt.Sprintf("the journal of %s has %d commands", m.name, n)
		}
	}
	for _, q := range w.s.waiting() {
		if q.kind == kindAppend || q.kind == kindAnswer || q.kind == kindCacheWrite {
			return q.name + " waits"
		}
	}
	if open := w.openReservations(); len(open) > 0 {
		return "the money of a request is still reserved: " + w.requests[open[0].request]
	}
	return w.behind()
}

// unanswered names an attempt that has begun and not ended.
func (w *world) unanswered() string {
	for _, a := range w.order {
		if !a.began.IsZero() && a.ended.IsZero() {
			return a.name
		}
	}
	return "none that has begun"
}

// behind says which follower of the ledger is behind.
func (w *world) behind() string {
	for shard := range int32(w.plan.shards) {
		head := int64(len(w.eventsOf(shard)))
		if tail := w.broker.tail(shard); head > 0 && (tail == nil || tail.Seq != head) {
			return fmt.Sprintf("the topic does not end as shard %d does", shard)
		}
		if at := w.database.tables.position(shard); at.seq != head {
			return fmt.Sprintf("the projections are at %s, and the ledger at %d", domain.Position{Shard: shard, Seq: at.seq}, head)
		}
	}
	return ""
}

// renew ends all processes in order. What one could not settle stays reserved as long as it lives; all
// else should have gone by now.
func (w *world) renew() {
	for _, o := range w.openReservations() {
		if w.database.owned(o.owner) && !w.unended[o.request] {
			w.leaks = append(w.leaks, "the money of "+w.requests[o.request]+" is still reserved by an owner that lives")
		}
	}
	for _, m := range w.machines {
		if m.process != nil && m.process.takesRequests() && !m.process.told {
			w.stop(m.process)
		}
	}
}

// end ends everything, so that nothing is left of the run.
func (w *world) end() {
	close(w.over)
	w.s.end()
	for _, p := range w.processes {
		if p.isDead() {
			continue
		}
		p.mu.Lock()
		p.gone = true
		p.mu.Unlock()
		p.cancel()
		p.runs.Go(p.bury)
	}
	for _, p := range w.processes {
		p.runs.Wait()
	}
	w.clients.Wait()
	w.store.Close()
}
