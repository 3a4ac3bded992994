package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/provider"
)

func (w *town) circuits() string         { return circuitsOf(w.get("", "/health/circuit-breakers").body) }
func circuitIn(body, name string) string { return gjson.Get(body, name).String() }

// circuitsOf are those that are not closed, or have failures, as name=state/failures/error.
func circuitsOf(body string) string {
	var out []string
	for _, c := range gjson.Get(body, "circuit_breakers").Array() {
		name := strings.TrimSuffix(c.Get("provider").Str+"/"+c.Get("model").Str, "/")
		if c.Get("state").Str != "closed" || c.Get("failures").Int() != 0 {
			out = append(out, fmt.Sprintf("%s=%s/%d/%s", name, c.Get("state").Str, c.Get("failures").Int(), c.Get("last_error").Str))
		}
	}
	return strings.Join(out, " ")
}

// breakable is a town whose circuits open at the third failure, for a minute.
func breakable(t *testing.T, o options) (*town, *clock) {
	t.Helper()
	c := &clock{at: time.Now()}
	o.now, o.traffic = c.now, health.NewTraffic(c.now)
	o.failing.Circuits = domain.CircuitRules{Failures: 3, Recovery: time.Minute}
	return newTown(t, o), c
}

// fail lets the next calls of a house fail.
func (w *town) fail(house string, fails ...*provider.Error) {
	h := w.houses[house]
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails = slices.Clone(fails)
}

// three are three failures alike.
func three(e provider.Error) (out []*provider.Error) {
	for range 3 {
		one := e
		out = append(out, &one)
	}
	return out
}

// TestCircuitOfAModel: a model that fails three times is not called for a minute; its provider's other models
// are. Nothing reaches the ledger meanwhile. Then one call decides.
func TestCircuitOfAModel(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, streamPath} {
		w, c := breakable(t, options{})
		w.fail("a", three(*down(500))...)
		ask := func(model string, want int) answer {
			a := w.post("bert", path, chatBody(model, "hello", ""))
			if a.status != want {
				t.Errorf("%s: %s: %d %s", path, model, a.status, a.body)
			}
			return a
		}
		for range 3 {
			ask("k-a", 502)
		}
		asked := len(w.asked.reserved("bert"))
		c.pass(20*time.Second + time.Nanosecond)
		shut := ask("k-a", 503)
		checkError(t, "open", shut, 503, "service_unavailable", "circuit_open")
		if want := "The model k-a of the provider a has failed too often and is left alone for now. Please retry later."; shut.json("error.message").Str != want {
			t.Errorf("told %s", shut.body)
		}
		if got := shut.header.Get("Retry-After"); got != "40" {
			t.Errorf("retry after %s", got)
		}
		if calls, now := w.calls("a"), len(w.asked.reserved("bert")); calls != 3 || now != asked {
			t.Errorf("%d calls, %d reserves of %d", calls, now, asked)
		}
		ask("a/m", 200)
		if got := w.circuits(); got != "a/k-a=open/3/500" {
			t.Error(got)
		}
		c.pass(40 * time.Second)
		if got := w.circuits(); got != "a/k-a=half_open/3/500" {
			t.Error(got)
		}
		w.fail("a", down(503))
		ask("k-a", 502)
		ask("k-a", 503)
		c.pass(time.Minute)
		ask("k-a", 200)
		ask("k-a", 200)
		if got := w.circuits(); got != "" {
			t.Error(got)
		}
		if n := strings.Count(w.logs.String(), `"a circuit is `); n != 5 { // it opened twice, was half open twice, and closed
			t.Errorf("%d changes were logged:\n%s", n, w.logs)
		}
	}
}

// TestCircuitOfAProvider: one that is not reached is not called for any of its models, and others serve what
// they have in common, without an attempt at it.
func TestCircuitOfAProvider(t *testing.T) {
	t.Parallel()
	w, _ := breakable(t, options{routing: gateway.Routing{Weights: onlyA, Fallbacks: map[string][]string{"k-b": {"k-a"}}}})
	w.fail("a", three(provider.Error{Kind: provider.KindUpstream, Unreached: true})...)
	for _, model := range []string{"k-a", "a/m", "k-a"} {
		if a := w.chat("carl", chatBody(model, "hello", "")); a.status != 502 {
			t.Errorf("%s: %d", model, a.status)
		}
	}
	if got := w.circuits(); got != "a=open/3/unreached" {
		t.Error(got)
	}
	for _, model := range []string{"k-a", "a/m"} {
		shut := w.chat("carl", chatBody(model, "hello", ""))
		checkError(t, model, shut, 503, "service_unavailable", "circuit_open")
		if want := "The provider a has failed too often and is left alone for now. Please retry later."; shut.json("error.message").Str != want {
			t.Errorf("%s: told %s", model, shut.body)
		}
	}
	a := w.chat("carl", chatBody("m", "hello", ""))
	if l := w.life("carl", a.id()); a.status != 200 || attemptsOf(l) != "b/m:200" {
		t.Errorf("%d %s", a.status, attemptsOf(l))
	}
	w.fail("b", down(500))
	if a := w.chat("carl", chatBody("k-b", "hello", "")); a.status != 502 { // what b said, not that a was left out
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestProviderIsUpAgain: when its circuit has closed, a provider is judged by what came since, a model's circuit or
// its own, at the next look; what failed of models whose circuits did not close still counts.
func TestProviderIsUpAgain(t *testing.T) {
	t.Parallel()
	for name, failed := range map[string]provider.Error{"a model's": *down(500), "its own": {Kind: provider.KindUpstream, Unreached: true}} {
		for _, path := range []string{chatPath, streamPath} {
			w, c := breakable(t, options{})
			state := func(want health.State) {
				t.Helper()
				if r := health.Provider("a", w.o.traffic, nil, w.gw.Circuits).Run(t.Context()); r.State != want {
					t.Errorf("%s, %s: %+v", name, path, r)
				}
			}
			ask := func(model string) {
				t.Helper()
				w.post("pia", path, chatBody(model, "hello", ""))
			}
			w.fail("a", three(failed)...)
			for range 3 {
				ask("k-a")
			}
			state(health.Down)
			c.pass(time.Minute)
			state(health.Down) // half open, and nothing has gone well
			ask("k-a")
			state(health.Up)
			ask("k-a")
			state(health.Up)
			w.fail("a", &failed)
			ask("a/m")
			state(health.Degraded)
		}
	}
}

// TestBothCircuitsAreOpen: a model's opened first, then its provider's; what is told is the larger of the two. Where
// several targets are left alone, it is the first that is told of.
func TestBothCircuitsAreOpen(t *testing.T) {
	t.Parallel()
	w, _ := breakable(t, options{routing: gateway.Routing{Weights: onlyA, Fallbacks: map[string][]string{"k-a": {"k-b"}}}})
	for house, model := range map[string]string{"a": "a/k-a", "b": "k-b"} {
		w.fail(house, three(*down(500))...)
		for range 3 {
			w.chat("olaf", chatBody(model, "hello", ""))
		}
	}
	told := func(model, want string) {
		t.Helper()
		if a := w.chat("olaf", chatBody(model, "hello", "")); !strings.HasPrefix(a.json("error.message").Str, want+" has failed too often") {
			t.Errorf("%s: %d %s", model, a.status, a.body)
		}
	}
	told("k-a", "The model k-a of the provider a")
	w.fail("a", three(provider.Error{Kind: provider.KindUpstream, Unreached: true})...)
	for range 3 {
		w.chat("olaf", chatBody("a/m", "hello", ""))
	}
	told("k-a", "The provider a")
	told("k-b", "The model k-b of the provider b")
}

// TestCircuitOpensMeanwhile: it opens between the attempts of one request. That one is told what the provider
// said, and gets everything back.
func TestCircuitOpensMeanwhile(t *testing.T) {
	t.Parallel()
	w, _ := breakable(t, options{retry: gateway.Retry{Attempts: 9}})
	w.fail("a", slices.Repeat(three(*down(500)), 3)...)
	a := w.chat("dora", chatBody("k-a", "hello", ""))
	if l := w.life("dora", a.id()); a.status != 502 || w.calls("a") != 3 || l.String() != "reserve refund(provider_error)" {
		t.Errorf("%d after %d calls: %s", a.status, w.calls("a"), l)
	}
}

// TestCircuitAndKey: a request with a key goes to the ledger, which may have its answer; if it has none, it is
// refunded.
func TestCircuitAndKey(t *testing.T) {
	t.Parallel()
	w, _ := breakable(t, options{})
	first := w.ask("emil", "one", chatPath, chatBody("k-a", "hello", ""))
	w.fail("a", three(*down(500))...)
	for range 3 {
		w.chat("emil", chatBody("k-a", "hello", ""))
	}
	if again := w.ask("emil", "one", chatPath, chatBody("k-a", "hello", "")); again.status != 200 || again.body != first.body {
		t.Errorf("the repeat: %d %s", again.status, again.body)
	}
	for range 2 { // its key is free again
		other := w.ask("emil", "two", chatPath, chatBody("k-a", "hello", ""))
		checkError(t, "another", other, 503, "service_unavailable", "circuit_open")
		if l := w.life("emil", other.id()); l.String() != "reserve refund(provider_error)" || other.header.Get("Retry-After") != "60" {
			t.Errorf("%s, retry after %s", l, other.header.Get("Retry-After"))
		}
	}
}

// TestWhatOpensNoCircuit: what says nothing of the provider, or that it is well.
func TestWhatOpensNoCircuit(t *testing.T) {
	t.Parallel()
	for name, failed := range map[string]provider.Error{
		"a wrong request":   *down(400),
		"an unknown model":  *down(404),
		"too many requests": *down(429),
		"no credit":         *down(402),
		"a refused key":     {Kind: provider.KindAuth, Status: 401},
		"the client left":   {Kind: provider.KindCanceled},
	} {
		w, _ := breakable(t, options{})
		w.fail("a", slices.Repeat(three(failed), 3)...)
		for range 9 {
			w.chat("fips", chatBody("k-a", "hello", ""))
		}
		if got := w.circuits(); got != "" || w.calls("a") != 9 {
			t.Errorf("%s: %s after %d calls", name, got, w.calls("a"))
		}
	}
	for name, failed := range map[string]provider.Error{
		"502 timeout":   {Kind: provider.KindTimeout},
		"503 overload":  *down(529),
		"504 broken":    {Kind: provider.KindUpstream, Status: 200},
		"505 reset":     {Kind: provider.KindUpstream},
		"506 cut first": {Kind: provider.KindCut, Status: 200},
	} {
		w, _ := breakable(t, options{})
		w.fail("a", three(failed)...)
		for range 3 {
			w.post("fips", streamPath, chatBody("k-a", "hello", ""))
		}
		if got := w.circuits(); !strings.HasPrefix(got, "a/k-a=open/3/") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestCutStreamsOpenACircuit: a stream that begins well and breaks off has failed, and what it delivered is charged.
func TestCutStreamsOpenACircuit(t *testing.T) {
	t.Parallel()
	c := &clock{at: time.Now()}
	e := start(t, options{now: c.now, failing: gateway.Resilience{Circuits: domain.CircuitRules{Failures: 3, Recovery: time.Minute}}})
	for range 3 {
		a := e.post("gesa", streamPath, chatBody("sim-small", "sim:cut=3", ""))
		if l := e.life("gesa", a.id()); l.commit == nil {
			t.Errorf("%s: %s", a.body, l)
		}
	}
	checkError(t, "cut", e.chat("gesa", chatBody("sim-small", "hello", "")), 503, "service_unavailable", "circuit_open")
	c.pass(time.Minute)
	if a := e.post("gesa", streamPath, chatBody("sim-small", "sim:cut=3", "")); a.status != 200 { // the probe
		t.Errorf("%d %s", a.status, a.body)
	}
	checkError(t, "cut again", e.chat("gesa", chatBody("sim-small", "hello", "")), 503, "service_unavailable", "circuit_open")
}

// TestOneProbe: of many at once, one is let through while it has not been answered.
func TestOneProbe(t *testing.T) {
	t.Parallel()
	w, c := breakable(t, options{})
	w.fail("a", three(*down(500))...)
	for range 3 {
		w.chat("hans", chatBody("k-a", "hello", ""))
	}
	c.pass(time.Minute)
	const many = 20
	var open, passed atomic.Int64
	var all sync.WaitGroup
	hung := make(chan struct{})
	w.houses["a"].wait = hung
	for range many {
		all.Go(func() {
			a := w.chat("hans", chatBody("k-a", "hello", ""))
			switch {
			case a.status == 200:
				passed.Add(1)
			case a.code() == "circuit_open" && a.header.Get("Retry-After") == "2":
				if open.Add(1) == many-1 {
					close(hung) // all others have been refused
				}
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if passed.Load() != 1 || open.Load() != many-1 || w.calls("a") != 4 {
		t.Errorf("%d passed, %d were refused, %d calls", passed.Load(), open.Load(), w.calls("a"))
	}
	if got := w.circuits(); got != "" {
		t.Error(got)
	}
}

// TestRetriesHaveABudget: in an outage each provider gets its calls, and few more.
func TestRetriesHaveABudget(t *testing.T) {
	t.Parallel()
	c := &clock{at: time.Now()}
	w := newTown(t, options{now: c.now, retry: gateway.Retry{Attempts: 3}, failing: gateway.Resilience{RetryPercent: 20}})
	w.fail("a", slices.Repeat(three(*down(500)), 100)...)
	for range 50 {
		if a := w.chat("ines", chatBody("k-a", "hello", "")); a.status != 502 {
			t.Fatal(a.body)
		}
	}
	if n := w.calls("a"); n != 50+10+50/5 {
		t.Errorf("%d calls for 50 requests", n)
	}
	w.fail("a")
	c.pass(time.Minute)
	w.fail("a", down(500))
	if a := w.chat("ines", chatBody("k-a", "hello", "")); a.status != 200 {
		t.Errorf("later: %d %s", a.status, a.body)
	}
	metrics := w.get("", "/metrics").body
	for _, want := range []string{`llm_provider_retries_total{provider="a",result="made"} 21`, `llm_provider_retries_total{provider="a",result="spared"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestCircuitsAreShown: to everybody, with times, and in the metrics.
func TestCircuitsAreShown(t *testing.T) {
	t.Parallel()
	w, c := breakable(t, options{})
	w.fail("a", three(*down(500))...)
	for range 3 {
		w.chat("jana", chatBody("k-a", "hello", ""))
	}
	body := w.get("", "/health/circuit-breakers").body
	opened, retry := circuitIn(body, "circuit_breakers.1.opened_at"), circuitIn(body, "circuit_breakers.1.retry_at")
	if opened != c.now().UTC().Format(time.RFC3339Nano) || retry != c.now().Add(time.Minute).UTC().Format(time.RFC3339Nano) {
		t.Errorf("%s, %s: %s", opened, retry, body)
	}
	if n := gjson.Get(body, "circuit_breakers.#").Int(); n != 4 || circuitIn(body, "enabled") != "true" { // a, a/k-a, b, c
		t.Errorf("%d: %s", n, body)
	}
	if metrics := w.get("", "/metrics").body; !strings.Contains(metrics, `llm_provider_circuit_state{model="k-a",provider="a"} 2`) {
		t.Error("the metric does not say it")
	}
	if none := newTown(t, options{}).get("", "/health/circuit-breakers"); none.status != http.StatusOK || circuitIn(none.body, "enabled") != "false" {
		t.Errorf("%d %s", none.status, none.body)
	}
}

// TestMoneyWhateverFails lets three providers fail in all ways and at random, on a clock that jumps: each request is
// charged once, or refunded whole, or was refused before the ledger knew of it; and no provider was called that the
// charge does not tell of. The audit at the end adds up the money.
func TestMoneyWhateverFails(t *testing.T) {
	t.Parallel()
	kinds := []*provider.Error{nil, down(500), down(429), down(400), {Kind: provider.KindUpstream, Unreached: true}, {Kind: provider.KindTimeout},
		{Kind: provider.KindTimeout, Unreached: true}, {Kind: provider.KindCut, Status: 200}, {Kind: provider.KindAuth, Status: 401}, {Kind: provider.KindCanceled}}
	w, c := breakable(t, options{balance: "1000", retry: gateway.Retry{Attempts: 3}, failing: gateway.Resilience{RetryPercent: 50},
		routing: gateway.Routing{Fallbacks: map[string][]string{"k-a": {"k-b"}}}})
	began, n := c.now(), 0
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 20).Draw(rt, "requests") {
			for name := range w.houses {
				var fails []*provider.Error
				for range rapid.IntRange(0, 4).Draw(rt, "failures of "+name) {
					if kind := rapid.SampledFrom(kinds).Draw(rt, "kind"); kind != nil {
						one := *kind
						fails = append(fails, &one)
					} else {
						fails = append(fails, nil)
					}
				}
				w.fail(name, fails...)
			}
			if c.pass(time.Duration(rapid.IntRange(-20, 40).Draw(rt, "seconds")) * time.Second); c.now().Sub(began).Abs() > 20*time.Minute {
				c.pass(began.Sub(c.now())) // tokens are valid for so long
			}
			n++
			key := ""
			if rapid.IntRange(0, 3).Draw(rt, "keyed") == 0 {
				key = fmt.Sprint("key-", n)
			}
			w.checkEnding(rt, key, rapid.SampledFrom([]string{chatPath, streamPath}).Draw(rt, "path"), rapid.SampledFrom([]string{"m", "k-a", "k-b"}).Draw(rt, "model"))
		}
	})
}

func (w *town) checkEnding(t *rapid.T, key, path, model string) {
	before := w.calls("a") + w.calls("b") + w.calls("c")
	r := w.request(http.MethodPost, "kurt", path, chatBody(model, "hello", `,"max_completion_tokens":5`))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	a := w.do(r)
	calls := w.calls("a") + w.calls("b") + w.calls("c") - before
	if a.id() == uuid.Nil {
		if a.code() != "circuit_open" || key != "" || calls != 0 {
			t.Fatalf("%d %s after %d calls", a.status, a.body, calls)
		}
		return
	}
	l := w.life("kurt", a.id())
	switch {
	case a.status == 200 && (l.commit == nil || len(l.commitData().Attempts) != calls):
		t.Fatalf("%s: %d calls, and %+v", l, calls, l.commitData())
	case a.status != 200 && (l.commit != nil || l.refund == nil):
		t.Fatalf("%d %s: %s", a.status, a.body, l)
	case a.code() == "circuit_open" && calls != 0:
		t.Fatalf("open after %d calls", calls)
	}
}
