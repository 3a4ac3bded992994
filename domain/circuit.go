package domain

import (
	"slices"
	"time"
)

// CircuitState says whether calls of a provider, or of one of its models, are let through.
type CircuitState string

// The states. Half open lets a bounded number of calls through, the probes, whose ends decide.
const (
	CircuitClosed   CircuitState = "closed"
	CircuitHalfOpen CircuitState = "half_open"
	CircuitOpen     CircuitState = "open"
)

// CircuitRules say when a circuit opens and when it lets a probe through. All are above 0.
type CircuitRules struct {
	Failures int           // in a row, until it opens
	Recovery time.Duration // from opening to the first probe; and how long a probe is waited for
	Probes   int           // let through at once while it is half open
}

// CallEnd is what the end of a call says of whom it called.
type CallEnd int

// The ends. What says nothing of the provider (the client left, the request was wrong) neither opens nor
// closes anything.
const (
	EndedUnknown CallEnd = iota
	EndedWell
	EndedBadly
)

// Pass is the leave for one call. It is of the state that gave it: once that has passed, so has what the
// call can say. The zero Pass is that of a circuit that was always closed.
type Pass struct {
	generation, probe uint64
}

// Circuit is a circuit breaker: pure, told the time, and not safe for concurrent use. Its clock may stand
// still or run backwards; then it stays open for no longer than the recovery time after that.
//
// Tests: a table of its steps, and random walks against the rules by rapid.
type Circuit struct {
	rules      CircuitRules
	state      CircuitState
	failures   int // in a row
	opened     time.Time
	generation uint64 // of the state, from 0
	probes     []probe
	lastProbe  uint64
}

// probe is a probe under way.
type probe struct {
	id    uint64
	began time.Time
}

// NewCircuit is a closed one.
func NewCircuit(rules CircuitRules) *Circuit { return &Circuit{rules: rules, state: CircuitClosed} }

// State is the state at a time. An open circuit whose recovery time has passed is half open.
func (c *Circuit) State(now time.Time) CircuitState {
	if c.state == CircuitOpen {
		if now.Before(c.opened) { // the clock was put back
			c.opened = now
		}
		if now.Sub(c.opened) >= c.rules.Recovery {
			c.enter(CircuitHalfOpen)
		}
	}
	return c.state
}

// Failures is how many calls in a row have ended badly.
func (c *Circuit) Failures() int { return c.failures }

// OpenedAt is when it was last opened; not while it is closed.
func (c *Circuit) OpenedAt() time.Time { return c.opened }

// Refuses says that a call would not be let through now, and when one will be: now, where that hangs on a
// probe under way.
func (c *Circuit) Refuses(now time.Time) (until time.Time, refused bool) {
	switch c.State(now) {
	case CircuitOpen:
		return c.opened.Add(c.rules.Recovery), true
	case CircuitHalfOpen:
		c.forget(now)
		return now, len(c.probes) >= c.rules.Probes
	}
	return now, false
}

// Admit gives leave for a call, whose end is then to be reported.
func (c *Circuit) Admit(now time.Time) (Pass, bool) {
	if _, refused := c.Refuses(now); refused {
		return Pass{}, false
	}
	pass := Pass{generation: c.generation}
	if c.state == CircuitHalfOpen {
		c.lastProbe++
		pass.probe = c.lastProbe
		c.probes = append(c.probes, probe{pass.probe, now})
	}
	return pass, true
}

// forget gives up on probes that have taken too long: others may try, so that one call without an end does
// not keep everybody out.
func (c *Circuit) forget(now time.Time) {
	c.probes = slices.DeleteFunc(c.probes, func(p probe) bool {
		return now.Before(p.began) || now.Sub(p.began) >= c.rules.Recovery
	})
}

// Begun says that an answer has begun to come. Where that was a probe, calls are let through again, on trial:
// the next failure opens the circuit. A long answer is not waited for. The pass it returns replaces the other.
func (c *Circuit) Begun(p Pass) Pass {
	if p.probe == 0 || p.generation != c.generation {
		return p
	}
	c.enter(CircuitClosed)
	c.failures = c.rules.Failures - 1
	return Pass{generation: c.generation}
}

// Ended takes in how a call ended. Each pass is to be reported once; what comes from an earlier state changes
// nothing.
func (c *Circuit) Ended(p Pass, end CallEnd, now time.Time) {
	if p.generation != c.generation {
		return
	}
	c.probes = slices.DeleteFunc(c.probes, func(one probe) bool { return one.id == p.probe })
	switch end {
	case EndedUnknown:
	case EndedWell:
		c.failures = 0
		if c.state != CircuitClosed {
			c.enter(CircuitClosed)
		}
	default:
		if c.failures++; c.state == CircuitHalfOpen || c.failures >= c.rules.Failures {
			c.enter(CircuitOpen)
			c.opened = now
		}
	}
}

// enter changes the state; what was given leave before it no longer counts.
func (c *Circuit) enter(s CircuitState) {
	c.state, c.probes = s, nil
	c.generation++
}
