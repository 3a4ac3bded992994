package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// house is a provider that fails as it is told, and otherwise answers like the simulated one.
type house struct {
	name string

	called chan struct{} // gets one for a call, if there is room
	wait   chan struct{} // a whole answer waits until it is closed; nil = it does not

	mu    sync.Mutex
	fails []*provider.Error // of the next calls, in order; nil = it answers
	asked []provider.Request
}

func (h *house) Name() string { return h.name }

func (h *house) Prepare(r *provider.Request) (provider.Terms, error) { return provider.Terms{}, nil }

func (h *house) next(r provider.Request) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, r)
	select {
	case h.called <- struct{}{}:
	default:
	}
	if len(h.fails) == 0 {
		return nil
	}
	failed := h.fails[0]
	if h.fails = h.fails[1:]; failed == nil {
		return nil
	}
	failed.Provider = h.name
	return failed
}

func (h *house) Complete(ctx context.Context, r provider.Request) (*provider.Completion, error) {
	if err := h.next(r); err != nil {
		return nil, err
	}
	if h.wait != nil {
		<-h.wait
	}
	return provider.NewSimulated().Complete(ctx, r)
}

func (h *house) Stream(ctx context.Context, r provider.Request) (provider.Stream, error) {
	err := h.next(r)
	if failed := new(provider.Error); errors.As(err, &failed) && failed.Kind == provider.KindCut {
		return &errorFirst{failed}, nil
	}
	if err != nil {
		return nil, err
	}
	return provider.NewSimulated().Stream(ctx, r)
}

// errorFirst is a stream whose first event is an error.
type errorFirst struct{ failed error }

func (b *errorFirst) Next() (provider.Chunk, error) { return provider.Chunk{}, b.failed }
func (b *errorFirst) More() bool                    { return false }
func (b *errorFirst) Report() provider.Report       { return provider.Report{} }
func (b *errorFirst) Close() error                  { return nil }

// town has three providers: of `m` at 1, 2 and 3 per million tokens, and each of a model of its own, k-a to
// k-c, at 10, 20 and 30.
type town struct {
	*env
	houses map[string]*house
}

func newTown(t *testing.T, o options) *town {
	t.Helper()
	out := &town{houses: map[string]*house{}}
	var models []domain.Model
	o.providers = map[string]provider.Provider{}
	for i, name := range []string{"a", "b", "c"} {
		out.houses[name] = &house{name: name, called: make(chan struct{}, 1)}
		o.providers[name] = out.houses[name]
		models = append(models, priced(name, "m", int64(i+1)), priced(name, "k-"+name, 10*int64(i+1)))
	}
	models[0].Upstream = "m-of-a"
	book, err := domain.NewPriceBook(models)
	if err != nil {
		t.Fatal(err)
	}
	o.book = book
	out.env = start(t, o)
	return out
}

// priced is a model at so many millionths a token.
func priced(house, name string, millionths int64) domain.Model {
	var rates domain.Rates
	unit := domain.MustAmount("0.000001").Times(millionths)
	rates.Set(domain.Input, unit)
	rates.Set(domain.Output, unit)
	return domain.Model{Provider: house, Name: name, Mode: domain.ModeChat, Context: 10_000, MaxOutput: 1_000,
		Versions: []domain.PriceVersion{{Rates: rates}}}
}

// attemptsOf are provider:status of a request's attempts.
func attemptsOf(l life) string {
	var out []string
	for _, a := range l.commitData().Attempts {
		out = append(out, fmt.Sprintf("%s/%s:%d", a.Provider, a.Model, a.Status))
	}
	return strings.Join(out, " ")
}

func down(status int) *provider.Error {
	kind := provider.KindUpstream
	if status >= 400 && status < 500 {
		kind = provider.KindRejected
	}
	return &provider.Error{Kind: kind, Status: status}
}

// onlyA sends `m` to a first, then to whoever else serves it.
var onlyA = map[string]int{"b": 0, "c": 0}

// TestRouting: where a request goes, what was tried, and by whose price it is charged.
func TestRouting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, model string
		routing     gateway.Routing
		fails       map[string][]*provider.Error
		status      int
		attempts    string
		millionths  int64 // of the charge's unit price
		reserved    int64 // of the reserve's
	}{
		{"as asked", "k-b", gateway.Routing{}, nil, 200, "b/k-b:200", 20, 20},
		{"by provider", "c/m", gateway.Routing{}, nil, 200, "c/m:200", 3, 3},
		{"an alias", "fast", gateway.Routing{Aliases: map[string]string{"fast": "k-a"}}, nil, 200, "a/k-a:200", 10, 10},
		{"weights", "m", gateway.Routing{Weights: map[string]int{"a": 0, "b": 0}}, nil, 200, "c/m:200", 3, 3},
		{"another provider of the model", "m", gateway.Routing{Weights: onlyA}, map[string][]*provider.Error{"a": {down(500)}}, 200, "a/m:500 b/m:200", 2, 3},
		{"all of them", "m", gateway.Routing{Weights: onlyA}, map[string][]*provider.Error{"a": {down(500)}, "b": {down(429)}}, 200, "a/m:500 b/m:429 c/m:200", 3, 3},
		{"a fallback", "k-b", gateway.Routing{Fallbacks: map[string][]string{"k-b": {"k-a"}}}, map[string][]*provider.Error{"b": {down(503)}}, 200, "b/k-b:503 a/k-a:200", 10, 20},
		{"a dearer fallback", "k-a", gateway.Routing{Fallbacks: map[string][]string{"k-a": {"k-c"}}}, map[string][]*provider.Error{"a": {down(0)}}, 200, "a/k-a:0 c/k-c:200", 30, 30},
		{"a fallback that is not needed", "k-a", gateway.Routing{Fallbacks: map[string][]string{"k-a": {"k-c"}}}, nil, 200, "a/k-a:200", 10, 30},
		{"fallback of an alias", "fast", gateway.Routing{Aliases: map[string]string{"fast": "k-a"}, Fallbacks: map[string][]string{"fast": {"k-b"}, "k-a": {"k-c"}}},
			map[string][]*provider.Error{"a": {down(0)}}, 200, "a/k-a:0 b/k-b:200", 20, 20},
		{"a wrong request is wrong everywhere", "k-a", gateway.Routing{Fallbacks: map[string][]string{"k-a": {"k-b"}}}, map[string][]*provider.Error{"a": {down(400)}}, 400, "", 0, 0},
		{"nobody answers", "k-a", gateway.Routing{Fallbacks: map[string][]string{"k-a": {"k-b"}}}, map[string][]*provider.Error{"a": {down(500)}, "b": {down(429)}}, 429, "", 0, 0},
	} {
		for _, path := range []string{"/v1/chat/completions", streamPath} {
			o := options{routing: c.routing}
			w := newTown(t, o)
			for name, fails := range c.fails {
				w.houses[name].fails = slices.Clone(fails)
			}
			a := w.post("ulla", path, chatBody(c.model, "hello", `,"max_completion_tokens":100`))
			if a.status != c.status {
				t.Errorf("%s: %d %s", c.name, a.status, a.body)
				continue
			}
			l := w.life("ulla", a.id())
			if c.status != 200 {
				if l.String() != "reserve refund(provider_error)" {
					t.Errorf("%s: %s", c.name, l)
				}
				continue
			}
			checkRouted(t, c.name, l, c.attempts, c.millionths, c.reserved)
		}
	}
}

func checkRouted(t *testing.T, name string, l life, attempts string, millionths, reserved int64) {
	t.Helper()
	unit := func(n int64) string { return domain.MustAmount("0.000001").Times(n).String() }
	d := l.commitData()
	last := attempts[strings.LastIndex(attempts, " ")+1:]
	if got := attemptsOf(l); got != attempts || !strings.HasPrefix(last, d.Provider+"/") {
		t.Errorf("%s: %s at %s; want %s", name, got, d.Provider, attempts)
	}
	if got := d.Lines[0].UnitPrice.String(); got != unit(millionths) {
		t.Errorf("%s: charged at %s", name, got)
	}
	bound := l.reserve.Data.(*domain.ReserveData)
	if got := bound.Bound.Lines[0].UnitPrice.String(); got != unit(reserved) || l.reserve.Amount.Less(l.commit.Amount) {
		t.Errorf("%s: reserved %s at %s", name, l.reserve.Amount, got)
	}
	version, _, _ := strings.Cut(d.PriceVersion, "@")
	if !strings.HasPrefix(last, version+":") {
		t.Errorf("%s: the price version %s is not that of %s", name, d.PriceVersion, last)
	}
}

// TestUpstreamsOwnName: what is sent has the name that the provider knows, and what is answered or logged the
// name that it goes by here.
func TestUpstreamsOwnName(t *testing.T) {
	t.Parallel()
	w := newTown(t, options{routing: gateway.Routing{Weights: onlyA}})
	w.houses["a"].fails = []*provider.Error{down(500)}
	if a := w.chat("vera", chatBody("m", "hello", "")); a.status != 200 {
		t.Fatal(a.body)
	}
	first, second := w.houses["a"].asked[0], w.houses["b"].asked[0]
	if first.Model != "m-of-a" || gjson.GetBytes(first.Body, "model").Str != "m-of-a" || second.Model != "m" {
		t.Errorf("%s %s, %s", first.Model, first.Body, second.Model)
	}
	if a := w.get("vera", "/v1/models"); strings.Count(a.body, `"id":"m"`) != 1 || strings.Contains(a.body, "m-of-a") {
		t.Errorf("%s", a.body)
	}
}

// TestRetries: the same provider is called again, after a pause, and the client sees the one that worked.
func TestRetries(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string][]*provider.Error{
		"5xx":         {down(500), down(503)},
		"no answer":   {down(0), down(0)},
		"429":         {down(429), {Kind: provider.KindRejected, Status: 429, RetryAfter: "0"}},
		"error event": {{Kind: provider.KindCut, Status: 200}},
	} {
		for _, path := range []string{"/v1/chat/completions", streamPath} {
			w := newTown(t, options{retry: gateway.Retry{Attempts: 3, BaseDelay: time.Millisecond, MaxDelay: time.Millisecond}})
			w.houses["a"].fails = slices.Clone(fails)
			a := w.post("wanda", path, chatBody("k-a", "hello", ""))
			l := w.life("wanda", a.id())
			if n := len(w.houses["a"].asked); a.status != 200 || n != len(fails)+1 || len(l.commitData().Attempts) != n {
				t.Errorf("%s at %s: %d after %d calls: %s", name, path, a.status, n, a.body)
			}
			for i, r := range w.houses["a"].asked {
				if r.Attempt != i || r.Order != w.houses["a"].asked[0].Order {
					t.Errorf("%s: call %d is %d of %d", name, i, r.Attempt, r.Order)
				}
			}
		}
	}
}

// TestClientLeavesInAPause: nobody is called for a client that has gone, and everything goes back.
func TestClientLeavesInAPause(t *testing.T) {
	t.Parallel()
	w := newTown(t, options{retry: gateway.Retry{Attempts: 3, BaseDelay: time.Hour, MaxDelay: time.Hour}})
	w.houses["a"].fails = []*provider.Error{{Kind: provider.KindRejected, Status: 429, RetryAfter: strconv.Itoa(3000)}}
	ctx, cancel := context.WithCancel(t.Context())
	r := w.request(http.MethodPost, "xenia", "/v1/chat/completions", chatBody("k-a", "hello", "")).WithContext(ctx)
	go func() {
		<-w.houses["a"].called
		cancel()
	}()
	if _, err := w.client.Do(r); err == nil { //nolint:bodyclose // there is none
		t.Fatal("it was answered")
	}
	w.await(1)
	ids := w.asked.reserved("xenia")
	if len(ids) != 1 || w.life("xenia", ids[0]).String() != "reserve refund(client_abort)" || w.calls("a") != 1 {
		t.Errorf("%v after %d calls", ids, w.calls("a"))
	}
}

func (w *town) calls(name string) int {
	h := w.houses[name]
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.asked)
}

// TestDearFallbackBeyondTheBalance: who cannot afford the fallback is served by the first alone, and told
// 402 only where that is beyond him too.
func TestDearFallbackBeyondTheBalance(t *testing.T) {
	t.Parallel()
	routing := gateway.Routing{Fallbacks: map[string][]string{"k-a": {"k-c"}}}
	w := newTown(t, options{routing: routing, balance: "0.005"}) // k-a needs about 0.003, k-c three times that
	a := w.chat("yola", chatBody("k-a", "hello", `,"max_completion_tokens":100`))
	if a.status != 200 {
		t.Fatal(a.body)
	}
	l := w.life("yola", a.id())
	if unit := l.reserve.Data.(*domain.ReserveData).Bound.Lines[0].UnitPrice; unit.String() != "0.00001" {
		t.Errorf("reserved at %s", unit)
	}
	w.houses["a"].fails = []*provider.Error{down(500)}
	if a := w.chat("yola", chatBody("k-a", "hello", `,"max_completion_tokens":100`)); a.status != 502 || w.calls("c") != 0 {
		t.Errorf("%d after %d calls of the fallback", a.status, w.calls("c"))
	}
	poor := newTown(t, options{routing: routing, balance: "0.000001"})
	checkError(t, "nothing is affordable", poor.chat("zoe", chatBody("k-a", "hello", `,"max_completion_tokens":100`)), 402, "insufficient_quota", "insufficient_quota")
}

// TestSharesByWeight: providers of one model get their share.
func TestSharesByWeight(t *testing.T) {
	t.Parallel()
	w := newTown(t, options{routing: gateway.Routing{Weights: map[string]int{"a": 3, "b": 1, "c": 0}}})
	for range 400 {
		if a := w.chat("anna", chatBody("m", "hello", `,"max_completion_tokens":1`)); a.status != 200 {
			t.Fatal(a.body)
		}
	}
	if a, b, c := w.calls("a"), w.calls("b"), w.calls("c"); a < 250 || a > 350 || a+b != 400 || c != 0 {
		t.Errorf("%d, %d and %d of 400; want about 300, 100 and none", a, b, c)
	}
}
