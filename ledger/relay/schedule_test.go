package relay

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// schedule is a random course of events: processes start, die, freeze, are cut off, and the topic
// disappears, while others append.
type schedule struct {
	*world

	rng       *rand.Rand
	processes []*process
}

const (
	mostProcesses = 3
	actions       = 25
)

// TestRandomSchedule wants the topic to be the ledger, whatever happened on the way.
func TestRandomSchedule(t *testing.T) {
	t.Parallel()
	for range 2 {
		seed := rand.Uint64()
		t.Run("", func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			runSchedule(t, seed)
		})
	}
}

func runSchedule(t *testing.T, seed uint64) {
	s := &schedule{world: newWorld(t), rng: rand.New(rand.NewPCG(seed, 0))}
	type action struct {
		name   string
		weight int
		do     func(p *process)
	}
	all := []action{
		{"append", 10, func(*process) { s.append(1 + s.rng.IntN(20)) }},
		{"append and feed", 10, func(p *process) {
			s.feed.Store(p.Relay)
			s.append(1 + s.rng.IntN(20))
		}},
		{"start", 2, func(*process) { s.add() }},
		{"end", 2, func(p *process) { s.remove(p); p.end(); s.add() }},
		{"die", 2, func(p *process) { s.remove(p); p.die(); s.add() }},
		{"freeze", 4, func(p *process) { p.wire.arm(1+s.rng.IntN(60), freeze) }},
		{"cut", 3, func(p *process) { p.wire.arm(1+s.rng.IntN(60), cut) }},
		{"away", 1, func(p *process) { p.wire.away() }},
		{"heal", 4, func(p *process) { p.wire.heal() }},
		{"pass", 6, func(*process) { sleep(t.Context(), time.Duration(s.rng.IntN(400))*time.Millisecond) }},
		{"delete the topic", 1, func(*process) { s.admin.DeleteTopic(t.Context(), s.config.Name) }},
		{"empty the topic", 1, func(*process) {
			s.calm()
			s.deleteRecords()
			s.settle()
		}},
	}
	sum := 0
	for _, a := range all {
		sum += a.weight
	}
	s.add()
	s.add()
	for range actions {
		n := s.rng.IntN(sum)
		for _, a := range all {
			if n -= a.weight; n < 0 {
				t.Log(a.name)
				a.do(s.any())
				break
			}
		}
	}
	s.calm()
}

func (s *schedule) any() *process { return s.processes[s.rng.IntN(len(s.processes))] }

func (s *schedule) remove(p *process) {
	s.processes = slices.DeleteFunc(s.processes, func(q *process) bool { return p == q })
}

// add starts another process; the oldest of too many dies.
func (s *schedule) add() {
	if len(s.processes) == mostProcesses {
		s.processes[0].die()
		s.remove(s.processes[0])
	}
	s.processes = append(s.processes, s.start())
}

// calm heals everything, and wants all to be well in the end.
func (s *schedule) calm() {
	for _, p := range s.processes {
		p.wire.heal()
	}
	s.add()
	s.append(3)
	s.settle()
}
