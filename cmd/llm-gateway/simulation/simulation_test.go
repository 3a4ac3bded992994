package simulation

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/gateway/provider"
)

// outcome is what one run came to.
type outcome struct {
	seed       uint64
	hash       uint64
	steps      int
	violations []violation
	tally      tally
	trace      *trace
}

// simulate runs one seed. keep keeps the lines of its trace.
func simulate(t *testing.T, seed uint64, b bug, keep bool) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrace(keep)
		w := newWorld(seed, b, tr, sync.OnceValue(t.TempDir))
		e := w.play()
		o = outcome{seed: seed, steps: w.s.steps, trace: tr}
		o.violations, o.tally = audit(e)
		o.tally.add(w.tally)
		o.hash = tr.hash.Sum64()
	})
	return o
}

// number is a setting from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

const (
	usualSeeds = 3000
	enoughTime = 90 * time.Second // after it no new seed begins, unless SEEDS says how many: a slow machine runs fewer
	enoughBad  = 3                // failing seeds, after which no new one begins
)

// campaign runs many seeds, on all processors.
type campaign struct {
	t     *testing.T
	next  uint64
	until func(ran uint64) bool

	mu    sync.Mutex // guards all below, and next
	ran   uint64
	steps int
	bad   []outcome
	tally tally
}

// take hands out the next seed; false: it is enough.
func (c *campaign) take() (seed uint64, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bad) >= enoughBad || c.until(c.ran) {
		return 0, false
	}
	c.ran++
	c.next++
	return c.next - 1, true
}

func (c *campaign) note(o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps += o.steps
	c.tally.add(o.tally)
	if len(o.violations) > 0 {
		c.bad = append(c.bad, o)
		fmt.Fprintf(os.Stderr, "seed %d: %s\n", o.seed, o.violations[0])
	}
}

// run runs it, and reports.
func (c *campaign) run() {
	c.tally = tally{}
	began := time.Now()
	c.t.Run("seeds", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for seed, more := c.take(); more; seed, more = c.take() {
					c.note(simulate(t, seed, noBug, false))
				}
			})
		}
	})
	took := time.Since(began)
	c.t.Logf("%d seeds, %d steps, %s: %.0f seeds/s\n%s", c.ran, c.steps, took.Round(time.Millisecond), float64(c.ran)/took.Seconds(), c.tally)
	for i, o := range c.bad {
		c.report(o, i == 0)
	}
}

// report tells how to see a failure again; of the first one, what happened.
func (c *campaign) report(o outcome, trace bool) {
	for _, v := range o.violations {
		c.t.Errorf("seed %d: %s", o.seed, v)
	}
	c.t.Errorf("again: SEED=%d SEEDS=1 go test -run '^TestSimulation$' -v ./cmd/llm-gateway/simulation", o.seed)
	if trace {
		again := simulate(c.t, o.seed, noBug, true)
		c.t.Logf("what happened (the same again: %t):\n%s", again.hash == o.hash, again.trace)
	}
}

// TestSimulation runs SEEDS seeds from SEED on, and wants every promise kept in all of them. One seed
// alone shows its trace.
func TestSimulation(t *testing.T) {
	seed, seeds := number(t, "SEED", 1), number(t, "SEEDS", usualSeeds)
	if seeds == 1 {
		o := simulate(t, seed, noBug, true)
		t.Logf("%s\n%s", o.trace, o.tally)
		for _, v := range o.violations {
			t.Errorf("seed %d: %s", seed, v)
		}
		return
	}
	warmUp()
	began := time.Now()
	c := &campaign{t: t, next: seed, until: func(ran uint64) bool {
		return ran >= seeds || os.Getenv("SEEDS") == "" && time.Since(began) > enoughTime
	}}
	c.run()
	if c.ran >= usualSeeds {
		checkTally(t, c.tally)
	}
}

// warmUp makes what runs share and what takes a while, outside of any bubble.
func warmUp() {
	allMetrics()
	allTokens()
	provider.CountText("sim-small", word)
}

// TestSoak runs new seeds for SOAK minutes.
func TestSoak(t *testing.T) {
	minutes := number(t, "SOAK", 0)
	if minutes == 0 {
		t.Skip("SOAK says for how many minutes it runs; `make soak` sets it")
	}
	warmUp()
	began, told := time.Now(), time.Now()
	seed := number(t, "SEED", uint64(began.UnixNano()))
	fmt.Fprintf(os.Stderr, "from seed %d on\n", seed)
	c := &campaign{t: t, next: seed, until: func(ran uint64) bool {
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%d seeds in %s\n", ran, time.Since(began).Round(time.Second))
		}
		return time.Since(began) > time.Duration(minutes)*time.Minute
	}}
	c.run()
}

// replayed is how many seeds TestReplay runs twice, where REPLAYS does not say.
const replayed = 100

// TestReplay holds that a seed decides everything: two runs of it have the same trace.
func TestReplay(t *testing.T) {
	t.Parallel()
	warmUp()
	for seed := range number(t, "REPLAYS", replayed) {
		first, second := simulate(t, seed, noBug, true), simulate(t, seed, noBug, true)
		if first.hash != second.hash {
			t.Errorf("seed %d: %s", seed, first.trace.apart(second.trace))
		}
	}
}
