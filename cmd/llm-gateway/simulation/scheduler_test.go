package simulation

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// fate is what becomes of a call at a boundary.
type fate uint8

const (
	goOn       fate = iota // it happens, and its answer comes back
	failBefore             // it does not happen, and an error comes back
	failAfter              // it happens, and an error comes back
	twice                  // it happens twice
	refused                // it does not happen, and the answer says so
	slow                   // it happens, and its answer takes its time
	dead                   // its process has died: it does not happen
	cancelled              // its caller no longer waits
)

var fateNames = [...]string{"goes on", "fails", "happens, but its answer is lost", "happens twice", "is refused",
	"is answered late", "dies", "is given up"}

func (f fate) String() string { return fateNames[f] }

// parked is a call that waits for its fate.
type parked struct {
	name   string   // tells it from all others that wait, but its twins
	twin   bool     // others may wait under its name, and have their fate with it
	proc   *process // whose call it is; nil: of the world outside
	flight *flight  // whose turn it must be in its lane; nil: it is in none
	kind   kind
	loose  bool      // it has left its process, whose freezing or death no longer holds it up
	after  time.Time // it is not to be picked before
	resume chan fate // has room for the one fate
}

// actor is the first word of the name: what goes on for one reason.
func (q *parked) actor() string {
	actor, _, _ := strings.Cut(q.name, " ")
	return actor
}

// scheduler steps everything, one call at a time. What it decides, it decides by the seed alone: the
// calls that wait are sorted by name, and nothing runs while it decides.
type scheduler struct {
	rng   *rand.Rand
	trace *trace
	wake  chan struct{} // has room for one: somebody has parked
	last  string        // the actor that was picked last
	steps int

	mu     sync.Mutex // guards all below
	parked []*parked
	over   bool // nothing happens any more
}

func newScheduler(seed uint64, t *trace) *scheduler {
	return &scheduler{rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), trace: t, wake: make(chan struct{}, 1)}
}

// park waits for the fate of a call, or for the end of its context.
func (s *scheduler) park(ctx context.Context, q *parked) fate {
	q.resume = make(chan fate, 1)
	s.mu.Lock()
	if s.over || q.proc != nil && q.proc.isDead() && !q.loose {
		s.mu.Unlock()
		return dead
	}
	s.parked = append(s.parked, q)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	select {
	case f := <-q.resume:
		return f
	case <-ctx.Done():
	}
	if q.proc != nil && !q.loose && q.proc.isZombie(time.Now()) {
		return <-q.resume // it cannot have looked at its context yet
	}
	s.remove(q)
	return cancelled
}

func (s *scheduler) remove(q *parked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked = slices.DeleteFunc(s.parked, func(p *parked) bool { return p == q })
}

// release lets a call, and its twins, have their fate.
func (s *scheduler) release(q *parked, f fate) {
	s.mu.Lock()
	var all []*parked
	s.parked = slices.DeleteFunc(s.parked, func(p *parked) bool {
		twin := p == q || p.name == q.name
		if twin {
			all = append(all, p)
		}
		return twin
	})
	s.mu.Unlock()
	for _, p := range all {
		p.resume <- f
	}
}

// waiting lists the calls that wait, in an order that does not depend on who came first: after one step,
// or at one instant, several may have come at the same time.
func (s *scheduler) waiting() []*parked {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.parked, func(a, b *parked) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(s.parked); i++ {
		if s.parked[i].name == s.parked[i-1].name && !s.parked[i].twin {
			panic("two calls wait under the name of " + s.parked[i].name)
		}
	}
	return slices.CompactFunc(slices.Clone(s.parked), func(a, b *parked) bool { return a.name == b.name })
}

// settle lets everything run until all of it waits.
func (s *scheduler) settle() []*parked {
	synctest.Wait()
	select {
	case <-s.wake:
	default:
	}
	return s.waiting()
}

// tick lets a little time pass, never the same, so that no two timers that begin in two steps end at the
// same instant.
func (s *scheduler) tick() { <-time.After(time.Microsecond + time.Duration(s.rng.IntN(1_000_000))) }

// idle lets time pass until somebody parks, or for so long.
func (s *scheduler) idle(most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	}
}

// pick chooses one of the calls that may go on: any, or, as often as stick says (in percent), one of the
// actor that was picked last.
func (s *scheduler) pick(ready []*parked, stick int) *parked {
	q := ready[s.rng.IntN(len(ready))]
	if s.rng.IntN(100) < stick {
		for _, other := range ready {
			if other.actor() == s.last {
				q = other
				break
			}
		}
	}
	s.last = q.actor()
	return q
}

// end lets every call fail from now on, and wakes all that wait.
func (s *scheduler) end() {
	s.mu.Lock()
	s.over = true
	all := s.parked
	s.parked = nil
	s.mu.Unlock()
	for _, q := range all {
		q.resume <- dead
	}
}
