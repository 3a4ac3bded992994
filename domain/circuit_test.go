package domain_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"llm-gateway/domain"
)

var circuitRules = domain.CircuitRules{Failures: 3, Recovery: time.Minute, Probes: 2}

// TestCircuitSteps walks through circuits. A step is a call that is let in (`a=` and a name for its pass) or
// refused (`refused`), its end (`a ok`, `a bad`, `a ?`, `a begun`), or time (`+30s`); after it the state is as
// written.
func TestCircuitSteps(t *testing.T) {
	t.Parallel()
	const opened = "a= closed, b= closed, c= closed, a bad closed, b bad closed, c bad open"
	for name, steps := range map[string]string{
		"failures in a row open it":           opened + ", refused open, +59s open, refused open",
		"a success between them":              "a= closed, a bad closed, b= closed, b bad closed, c= closed, c ok closed, d= closed, d bad closed, e= closed, e bad closed",
		"what says nothing changes nothing":   "a= closed, a bad closed, b= closed, b bad closed, c= closed, c ? closed, d= closed, d bad open",
		"after a while it probes":             opened + ", +60s half_open, p= half_open, q= half_open, refused half_open",
		"a good probe closes it":              opened + ", +60s half_open, p= half_open, q= half_open, p ok closed, q bad closed, r= closed, r bad closed, s= closed",
		"a bad probe opens it":                opened + ", +60s half_open, p= half_open, q= half_open, p bad open, q ok open, refused open, +59s open, +1s half_open",
		"a probe that says nothing":           opened + ", +60s half_open, p= half_open, q= half_open, p ? half_open, r= half_open, refused half_open",
		"probes without an end":               opened + ", +60s half_open, p= half_open, q= half_open, +60s half_open, r= half_open, s= half_open, refused half_open, p ok closed",
		"a probe's answer begins":             opened + ", +60s half_open, p= half_open, p begun closed, r= closed, s= closed, s ok closed, r bad closed, p ok closed",
		"a probe's answer breaks":             opened + ", +60s half_open, p= half_open, p begun closed, p bad open",
		"another call breaks on trial":        opened + ", +60s half_open, p= half_open, p begun closed, r= closed, r bad open, p ok open",
		"what began before is of no interest": "old= closed, " + opened + ", old ok open, +60s half_open, old ok half_open, old bad half_open, p= half_open, p ok closed, old bad closed",
		"begun is for probes":                 "a= closed, a begun closed, a bad closed, b= closed, b bad closed, c= closed, c begun closed, c bad open",
		"the clock is put back":               opened + ", -3600s open, refused open, +60s half_open, p= half_open, q= half_open, -7200s half_open, r= half_open",
		"the clock jumps ahead":               opened + ", +999999h half_open, p= half_open, p ok closed",
	} {
		c, now, passes := domain.NewCircuit(circuitRules), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), map[string]domain.Pass{}
		for step := range strings.SplitSeq(steps, ", ") {
			words := strings.Fields(step)
			walk(t, name+": "+step, c, &now, passes, words[:len(words)-1])
			if got := c.State(now); string(got) != words[len(words)-1] {
				t.Errorf("%s: after %q it is %s", name, step, got)
				break
			}
		}
	}
}

func walk(t *testing.T, name string, c *domain.Circuit, now *time.Time, passes map[string]domain.Pass, words []string) {
	t.Helper()
	made, begins := strings.CutSuffix(words[0], "=")
	moved, timed := time.ParseDuration(words[0])
	switch {
	case timed == nil:
		*now = now.Add(moved)
	case begins || made == "refused":
		pass, ok := c.Admit(*now)
		if passes[made] = pass; ok != begins {
			t.Errorf("%s: let in: %t", name, ok)
		}
	case words[1] == "begun":
		passes[words[0]] = c.Begun(passes[words[0]])
	default:
		c.Ended(passes[words[0]], map[string]domain.CallEnd{"ok": domain.EndedWell, "bad": domain.EndedBadly, "?": domain.EndedUnknown}[words[1]], *now)
	}
}

// flight is a call under way in a random walk.
type flight struct {
	pass  domain.Pass
	began time.Time
	probe bool
}

// TestCircuitProperty walks at random, on a clock that jumps both ways. However it goes: an open circuit lets
// nothing through until the recovery time, and something after it; half open there are never more probes
// under way than the rules say, not counting those given up on; closed it lets everything through, and has
// seen fewer failures in a row than open it.
func TestCircuitProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rules := domain.CircuitRules{Failures: rapid.IntRange(1, 5).Draw(t, "failures"), Recovery: time.Minute, Probes: rapid.IntRange(1, 3).Draw(t, "probes")}
		c, now := domain.NewCircuit(rules), time.Unix(1_700_000_000, 0)
		var under []*flight
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				under = checkAdmit(t, c, rules, now, under)
			case 2, 3:
				if len(under) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(under)-1).Draw(t, "which")
				checkEnd(t, c, rules, now, under[i])
				under = append(under[:i], under[i+1:]...)
			default:
				now = now.Add(time.Duration(rapid.IntRange(-90, 90).Draw(t, "seconds")) * time.Second)
				_, _ = c.Refuses(now)
				probes(under, rules, now)
				if c.State(now) == domain.CircuitOpen {
					if until, _ := c.Refuses(now); until.Sub(now) > rules.Recovery || !until.After(now) {
						t.Fatalf("open until %s at %s", until, now)
					}
				}
			}
		}
	})
}

// probes counts the probes under way, and gives up on those that it is time for.
func probes(under []*flight, rules domain.CircuitRules, now time.Time) (n int) {
	for _, f := range under {
		if f.probe = f.probe && !now.Before(f.began) && now.Sub(f.began) < rules.Recovery; f.probe {
			n++
		}
	}
	return n
}

func checkAdmit(t *rapid.T, c *domain.Circuit, rules domain.CircuitRules, now time.Time, under []*flight) []*flight {
	state, waiting := c.State(now), probes(under, rules, now)
	_, refuses := c.Refuses(now)
	pass, ok := c.Admit(now)
	if refuses == ok {
		t.Fatalf("refuses %t, admits %t", refuses, ok)
	}
	switch {
	case state == domain.CircuitClosed && !ok, state == domain.CircuitOpen && ok:
		t.Fatalf("%s: let through %t", state, ok)
	case state == domain.CircuitHalfOpen && ok && waiting >= rules.Probes:
		t.Fatalf("probe %d of %d", waiting+1, rules.Probes)
	}
	if !ok {
		return under
	}
	return append(under, &flight{pass, now, state == domain.CircuitHalfOpen})
}

func checkEnd(t *rapid.T, c *domain.Circuit, rules domain.CircuitRules, now time.Time, f *flight) {
	before, failures := c.State(now), c.Failures()
	if rapid.Bool().Draw(t, "begins") {
		f.pass = c.Begun(f.pass)
		if state := c.State(now); state != before && (before != domain.CircuitHalfOpen || state != domain.CircuitClosed || c.Failures() != rules.Failures-1) {
			t.Fatalf("begun: from %s to %s with %d failures", before, state, c.Failures())
		}
		before, failures = c.State(now), c.Failures()
	}
	end := rapid.SampledFrom([]domain.CallEnd{domain.EndedUnknown, domain.EndedWell, domain.EndedBadly}).Draw(t, "end")
	c.Ended(f.pass, end, now)
	after := c.State(now)
	allowed := map[string]bool{
		"closed 2 open": failures+1 >= rules.Failures, "half_open 1 closed": true, "half_open 2 open": true,
	}
	if after != before && !allowed[fmt.Sprintf("%s %d %s", before, end, after)] {
		t.Fatalf("end %d: from %s to %s after %d failures", end, before, after, failures)
	}
	if after == domain.CircuitClosed && c.Failures() >= rules.Failures {
		t.Fatalf("closed after %d failures", c.Failures())
	}
}

// TestRetryBudget: c is a call, r a retry that is let through, x one that is not; + is a second, - one back.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	ten, hundred := strings.Repeat("r", 10), strings.Repeat("c", 100)
	for _, steps := range []string{
		ten + "x",
		"cccc" + ten + "x" + "c" + "rx",
		hundred + ten + strings.Repeat("r", 20) + "x",
		ten + "x+++++++++x+" + ten + "x",
		"rrrrr+++++rrrrrx+++++rrrrrx+++++rrrrrx",
		hundred + "+++++++++" + ten + strings.Repeat("r", 20) + "x+x" + "++++++++x+" + ten + "x",
		ten + "x-" + ten + "x",
		ten + "x" + strings.Repeat("+", 100_000) + ten + "x",
	} {
		var b domain.RetryBudget
		now := time.Unix(1_700_000_000, 999)
		for i, step := range steps {
			switch step {
			case 'c':
				b.Call(now)
			case '+':
				now = now.Add(time.Second)
			case '-':
				now = now.Add(-time.Second)
			default:
				if got := b.Retry(now, 20); got != (step == 'r') {
					t.Errorf("%.150s: step %d: %t", steps, i, got)
				}
			}
		}
	}
	for _, hostile := range []time.Time{{}, time.Unix(-5, 0), time.Unix(1<<62, 0)} {
		var b domain.RetryBudget
		b.Call(hostile)
		if !b.Retry(hostile, 20) {
			t.Errorf("%s: no retry", hostile)
		}
	}
}

// TestRetryBudgetProperty: where a retry is let through, those of the ten seconds are within the bound of their calls.
func TestRetryBudgetProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		percent := rapid.IntRange(0, 300).Draw(t, "percent")
		var b domain.RetryBudget
		var calls, retries [200]int64
		for second := range calls {
			now := time.Unix(1_700_000_000+int64(second), 0)
			calls[second] = int64(rapid.IntRange(0, 30).Draw(t, "calls"))
			for range calls[second] {
				b.Call(now)
			}
			for range rapid.IntRange(0, 40).Draw(t, "tries") {
				if b.Retry(now, percent) {
					retries[second]++
				}
			}
			var called, again int64
			for s := max(0, second-9); s <= second; s++ {
				called, again = called+calls[s], again+retries[s]
			}
			if retries[second] > 0 && again > 10+called*int64(percent)/100 {
				t.Fatalf("%d retries on %d calls at %d %%", again, called, percent)
			}
		}
	})
}
