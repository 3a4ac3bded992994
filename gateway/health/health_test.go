package health

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const every = 15 * time.Second

// told is one change that a checker told of.
type told struct {
	name     string
	from, to State
}

// world is a checker of things whose states the test sets.
type world struct {
	*Checker
	states  map[string]*atomic.Value // of Result
	changes []told
	began   time.Time
}

func start(t *testing.T, more ...Check) *world {
	t.Helper()
	w := &world{states: map[string]*atomic.Value{}, began: time.Now()}
	c := Config{Every: every, Changed: func(name string, from State, now *Component) {
		w.changes = append(w.changes, told{name, from, now.State})
	}}
	for _, name := range []string{"needed", "spare"} {
		w.states[name] = &atomic.Value{}
		w.states[name].Store(Result{State: Up})
		c.Checks = append(c.Checks, Check{Name: name, Needed: name == "needed",
			Run: func(context.Context) Result { return w.states[name].Load().(Result) }})
	}
	c.Checks = append(c.Checks, more...)
	w.Checker = Start(t.Context(), c)
	t.Cleanup(w.Close)
	return w
}

// at is the last report.
func (w *world) at(t *testing.T) *Report {
	t.Helper()
	synctest.Wait()
	r, old := w.Last()
	if r == nil || old {
		t.Fatalf("%v after %s: %v, old %v", r, time.Since(w.began), r, old)
	}
	return r
}

// next lets one more check happen.
func next() {
	<-time.After(every)
	synctest.Wait()
}

func TestSinceAndStates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		if r := w.at(t); r.State != Up || !r.Since.Equal(w.began) {
			t.Errorf("at first: %+v", r)
		}
		next()
		next()
		w.states["spare"].Store(Result{State: Down, Detail: "gone", Latency: 1500 * time.Microsecond, Facts: map[string]any{"lag": 3}})
		next()
		went := w.at(t).At
		next()
		r := w.at(t)
		c := r.Components["spare"]
		if r.State != Degraded || c.State != Down || !c.Since.Equal(went) || !r.Since.Equal(went) || c.Detail != "gone" || *c.Latency != 1.5 || c.Facts["lag"] != 3 {
			t.Errorf("something that is not needed is down: %+v, %+v", r, c)
		}
		if c := r.Components["needed"]; !c.Since.Equal(w.began) || c.Latency != nil {
			t.Errorf("what did not change: %+v", c)
		}
		w.states["needed"].Store(Result{State: Down})
		w.states["spare"].Store(Result{State: Unknown})
		next()
		if r := w.at(t); r.State != Down {
			t.Errorf("something that is needed is down: %+v", r)
		}
		w.states["needed"].Store(Result{State: Up})
		next()
		if r := w.at(t); r.State != Up { // nobody's fault that the spare is unknown
			t.Errorf("at last: %+v", r)
		}
		want := []told{{"needed", "", Up}, {"spare", "", Up}, {"spare", Up, Down}, {"needed", Up, Down}, {"spare", Down, Unknown}, {"needed", Down, Up}}
		if !slices.Equal(w.changes, want) {
			t.Errorf("told %v, want %v", w.changes, want)
		}
	})
}

// TestHungAndBroken: a check that hangs is down in time, holds no other up, and is not started again while
// it hangs; one that panics is down; one that gives up when its time is over is what it says.
func TestHungAndBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var started atomic.Int32
		release := make(chan struct{})
		w := start(t, Check{Name: "hung", Run: func(context.Context) Result {
			started.Add(1)
			<-release
			return Result{State: Up}
		}}, Check{Name: "broken", Run: func(context.Context) Result { panic("oh") }},
			Check{Name: "slow", Run: func(ctx context.Context) Result {
				<-ctx.Done()
				<-time.After(sayTime / 2) // a question that is withdrawn does not end at once
				return Result{State: Unknown, Detail: ctx.Err().Error()}
			}})
		for range 3 {
			<-time.After(CheckTime)
			synctest.Wait()
			r := w.at(t)
			if r.Took > float64(CheckTime.Milliseconds()) || r.Components["needed"].State != Up || r.Components["hung"].State != Down || r.Components["broken"].State != Down {
				t.Errorf("%+v %+v", r, r.Components["broken"])
			}
			if c := r.Components["slow"]; c.State != Unknown {
				t.Errorf("what it says is not heard: %+v", c)
			}
			<-time.After(every - CheckTime)
		}
		if started.Load() != 1 {
			t.Errorf("it was started %d times while it hung", started.Load())
		}
		close(release)
		next()
		next()
		if r := w.at(t); r.Components["hung"].State != Up || started.Load() < 2 {
			t.Errorf("when it came back: %+v", r.Components["hung"])
		}
		w.Close()
		<-time.After(sayTime) // what was withdrawn has ended
	})
}

// TestProvidersChange: providers come and go, also under a component's name, and are never needed.
func TestProvidersChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		names := []string{"needed", "p"}
		k := Start(t.Context(), Config{Every: every, Checks: []Check{{Name: "needed", Needed: true, Run: func(context.Context) Result { return Result{State: Up} }}},
			Providers: func() (out []Check) {
				for _, name := range names {
					out = append(out, Check{Name: name, Needed: true, Run: func(context.Context) Result { return Result{State: Down, Detail: name} }})
				}
				return out
			}})
		t.Cleanup(k.Close)
		synctest.Wait()
		if r, _ := k.Last(); r.State != Degraded || r.Components["needed"].State != Up || r.Providers["needed"].Detail != "needed" || len(r.Providers) != 2 {
			t.Errorf("%+v", r)
		}
		names = []string{"q"}
		next()
		next()
		if r, _ := k.Last(); len(r.Providers) != 1 || r.Providers["q"].State != Down || len(k.running) != 2 {
			t.Errorf("%+v, %d checks are known", r, len(k.running))
		}
	})
}

func TestHistory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		synctest.Wait()
		for n := 1; n <= 2*Kept+7; n++ {
			past := w.History()
			if len(past) != min(n, Kept) {
				t.Fatalf("after %d checks there are %d", n, len(past))
			}
			for i, p := range past {
				if want := w.began.Add(time.Duration(n-1-i) * every); !p.At.Equal(want) || p.State != Up || !maps.Equal(p.Components, map[string]State{"needed": Up, "spare": Up}) {
					t.Fatalf("after %d, number %d: %+v, want one of %s", n, i, p, want)
				}
			}
			next()
			synctest.Wait()
		}
	})
}

// TestOld: a report says that it is old, where the process slept.
func TestOld(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := &Checker{c: Config{Every: every, Now: func() time.Time { return now }}}
	if r, old := k.Last(); r != nil || old {
		t.Errorf("%v %v before the first", r, old)
	}
	k.keep(&Report{State: Up, At: now})
	if _, old := k.Last(); old {
		t.Error("it is old at once")
	}
	now = now.Add(4 * every)
	if _, old := k.Last(); !old {
		t.Error("it is not old after a minute")
	}
}

func TestTraffic(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	clock := func() time.Time { return now }
	for _, c := range []struct {
		ok, failed int
		want       State
	}{
		{0, 0, Unknown}, {1, 0, Up}, {0, 1, Degraded}, {0, 2, Degraded}, {0, 3, Down}, {1, 3, Degraded},
		{91, 9, Up}, {90, 10, Degraded}, {0, 1000, Down}, {1000, 0, Up},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			traffic := NewTraffic(clock)
			for range c.ok {
				traffic.Add("p", "m", "", 30*time.Millisecond)
			}
			for range c.failed {
				traffic.Add("p", "m", "timeout", time.Minute)
			}
			r := traffic.Judge("p")
			if r.State != c.want || (r.State == Up) != (r.Detail == "") || c.ok > 0 && r.Latency != 30*time.Millisecond {
				t.Errorf("%+v", r)
			}
			if other := traffic.Judge("q"); other.State != Unknown {
				t.Errorf("another one's traffic: %+v", other)
			}
		})
	}
}

// TestTrafficPasses: what is older than the window does not count, and what is younger does.
func TestTrafficPasses(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	traffic := NewTraffic(func() time.Time { return now })
	for range 5 {
		traffic.Add("p", "m", "upstream 500", 0)
	}
	now = now.Add(Window - Window/slots)
	if r := traffic.Judge("p"); r.State != Down {
		t.Errorf("within the window: %+v", r)
	}
	traffic.Add("p", "m", "", time.Second)
	if r := traffic.Judge("p"); r.State != Degraded || r.Facts["calls"] != 6 {
		t.Errorf("with a call that went well: %+v", r)
	}
	now = now.Add(Window / slots)
	if r := traffic.Judge("p"); r.State != Up || r.Facts["calls"] != 1 {
		t.Errorf("when the failures have passed: %+v", r)
	}
	now = now.Add(Window)
	if r := traffic.Judge("p"); r.State != Unknown {
		t.Errorf("when all has passed: %+v", r)
	}
	for n := range 2 * maxModels {
		traffic.Add(fmt.Sprint("p", n), "m", "", 0)
	}
	if traffic.kept != maxModels || len(traffic.all) != maxModels {
		t.Errorf("%d models of %d providers are remembered", traffic.kept, len(traffic.all))
	}
}

// TestRecovered is the table of what counts when a circuit has closed. A step is who, of the provider p, and
// what: fails and succeeds are calls that took no time, slow is a failure that took a minute; closes is its
// circuit, all's is the provider's own. A step is a second after the one before.
func TestRecovered(t *testing.T) {
	t.Parallel()
	for steps, want := range map[string]struct {
		state State
		calls string // failed of all; "" = there were none
	}{
		"m fails, m fails, m fails":                                            {Down, "3 of 3"},
		"m fails, m fails, m fails, m succeeds":                                {Degraded, "3 of 4"},
		"m fails, m fails, m fails, m succeeds, m closes":                      {Up, "0 of 1"},
		"m fails, m fails, m fails, m closes, m succeeds":                      {Up, "0 of 1"},
		"m fails, m fails, m fails, m closes":                                  {Up, "0 of 0"}, // a probe's answer has begun
		"m succeeds, m fails, m fails, m closes":                               {Up, "0 of 1"},
		"m fails, m succeeds, m closes, m fails":                               {Degraded, "1 of 2"},
		"m fails, m closes, m fails, m fails, m fails":                         {Down, "3 of 3"},
		"m fails, m closes, m fails, m closes, m succeeds":                     {Up, "0 of 1"},
		"m fails, n fails, m succeeds, m closes":                               {Degraded, "1 of 2"}, // n may be away
		"m fails, n fails, m succeeds, m closes, n closes":                     {Up, "0 of 1"},
		"n succeeds, m fails, n fails, m fails, all closes":                    {Up, "0 of 1"},
		"m fails, all closes, n fails":                                         {Degraded, "1 of 1"},
		"m succeeds, m fails, m closes, m slow, m succeeds":                    {Up, "0 of 2"}, // it began before
		"m fails, all closes, n slow, n succeeds":                              {Up, "0 of 1"},
		"m fails, m closes, n slow, n succeeds":                                {Degraded, "1 of 2"},
		"m closes, m slow, m succeeds, long after, m slow, m succeeds":         {Degraded, "1 of 2"},
		"m fails, m succeeds, m closes, long after":                            {Unknown, ""},
		"m fails, m fails, m fails, long after, m closes":                      {Up, "0 of 0"},
		"m fails, m fails, m fails, m closes, long after, n succeeds, n fails": {Degraded, "1 of 2"},
	} {
		now := time.Unix(1_800_000_000, 0)
		traffic := NewTraffic(func() time.Time { return now })
		for step := range strings.SplitSeq(steps, ", ") {
			now = now.Add(time.Second)
			switch who, what, _ := strings.Cut(step, " "); what {
			case "fails":
				traffic.Add("p", who, "upstream 500", 0)
			case "slow":
				traffic.Add("p", who, "timeout", time.Minute)
			case "succeeds":
				traffic.Add("p", who, "", 0)
			case "closes":
				traffic.Recovered("p", strings.TrimPrefix(who, "all"))
			case "after":
				now = now.Add(Window + Window/slots)
			default:
				t.Fatal(step)
			}
		}
		r := traffic.Judge("p")
		calls := ""
		if r.Facts != nil {
			calls = fmt.Sprintf("%d of %d", r.Facts["failed"], r.Facts["calls"])
		}
		if r.State != want.state || calls != want.calls || (r.State == Up) != (r.Detail == "") {
			t.Errorf("%s: %+v", steps, r)
		}
		if other := traffic.Judge("q"); other.State != Unknown {
			t.Errorf("%s: another one's: %+v", steps, other)
		}
	}
}

// TestProbe: nobody is probed who has traffic, and nobody twice within the pause.
func TestProbe(t *testing.T) {
	t.Parallel()
	now, asked := time.Unix(1_800_000_000, 0), 0
	clock := func() time.Time { return now }
	traffic := NewTraffic(clock)
	answer := Result{State: Down, Detail: "it refuses the key (401)"}
	probe := NewProbe(func(context.Context, string) Result { asked++; return answer }, clock)
	check := Provider("p", traffic, probe, func(string) []Circuit { return nil })
	for range 10 {
		if r := check.Run(t.Context()); r.State != Down || r.Detail != answer.Detail {
			t.Errorf("%+v", r)
		}
	}
	if asked != 1 {
		t.Errorf("probed %d times at once", asked)
	}
	traffic.Add("p", "m", "", 0)
	now, answer = now.Add(ProbeEvery/2), Result{State: Up}
	if r := check.Run(t.Context()); r.State != Up || asked != 1 {
		t.Errorf("with traffic: %+v, asked %d", r, asked)
	}
	now = now.Add(ProbeEvery)
	if r := check.Run(t.Context()); r.State != Up || asked != 2 {
		t.Errorf("after the pause: %+v, asked %d", r, asked)
	}
	if r := Provider("p", NewTraffic(clock), nil, nil).Run(t.Context()); r.State != Unknown || r.Facts != nil {
		t.Errorf("without a probe: %+v", r)
	}
}

// TestCircuitsOfProvider is the table of what circuits make of a provider's state.
func TestCircuitsOfProvider(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	own := func(state string) Circuit { return Circuit{State: state, OpenedAt: now, LastError: "unreached"} }
	models := make([]Circuit, namedModels+1)
	for i := range models {
		models[i] = Circuit{Model: fmt.Sprint("m", i), State: "half_open", OpenedAt: now, LastError: "529"}
	}
	for _, c := range []struct {
		name           string
		circuits       []Circuit
		traffic, state State
		detail         string
	}{
		{"none", nil, Up, Up, ""},
		{"its own is open", []Circuit{own(CircuitOpen)}, Unknown, Down, "it is not called: its circuit is open; the last failure: unreached"},
		{"its own is open, and a model's", append(models[:1:1], own(CircuitOpen)), Up, Down, "it is not called: its circuit is open; the last failure: unreached"},
		{"its own is half open", []Circuit{own("half_open")}, Up, Degraded, "its circuit is half open: one call at a time is let through"},
		{"models' are", models, Up, Degraded, "6 of its models have circuits that are not closed: m0, m1, m2, m3, m4"},
		{"it is down already", models[:1], Down, Down, "1 of its models have circuits that are not closed: m0; as before"},
	} {
		r := Result{State: c.traffic, Facts: map[string]any{"calls": 7}, Latency: time.Second}
		if c.traffic == Down {
			r.Detail = "as before"
		}
		got := leftAlone(r, c.circuits)
		if got.State != c.state || got.Detail != c.detail || got.Facts["calls"] != 7 || got.Latency != time.Second || (got.Facts["circuits"] == nil) != (len(c.circuits) == 0) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	check := Provider("p", NewTraffic(nil), nil, func(name string) []Circuit { return []Circuit{{Model: name, State: CircuitOpen}} })
	if r := check.Run(t.Context()); r.State != Degraded || !strings.Contains(r.Detail, "not closed: p") {
		t.Errorf("another provider's circuits: %+v", r)
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	s := NewSampler(t.TempDir())
	first := s.Sample()
	burn(20 * time.Millisecond)
	second := s.Sample()
	if second.Goroutines < 1 || second.Heap <= 0 || second.Cores < 1 || second.Unknown == nil {
		t.Errorf("%+v", second)
	}
	if len(second.Unknown) > 0 {
		t.Skipf("this platform does not tell %v", second.Unknown)
	}
	if *second.CPUSeconds <= *first.CPUSeconds || *second.CPUShare <= 0 || *second.RSS < second.Heap/4 || *second.MemoryTotal < *second.RSS ||
		*second.Descriptors < 3 || *second.MaxDescriptors < int64(*second.Descriptors) || *second.DiskTotal < *second.DiskFree || *second.DiskFree <= 0 {
		t.Errorf("%+v", second)
	}
}

// burn uses the CPU.
func burn(d time.Duration) {
	text := ""
	for began := time.Now(); time.Since(began) < d; {
		text = fmt.Sprintf("%.10s", text+"x")
	}
}
