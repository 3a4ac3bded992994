package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// drawer is a ResponseCache that can be looked into, spoilt and broken.
type drawer struct {
	mu     sync.Mutex
	values map[string][]byte
	looked int
	err    error
}

// Get implements gateway.ResponseCache.
func (d *drawer) Get(_ context.Context, key string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked++
	return slices.Clone(d.values[key]), d.err
}

// Put implements gateway.ResponseCache.
func (d *drawer) Put(_ context.Context, key string, value []byte, _ time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.values == nil {
		d.values = map[string][]byte{}
	}
	d.values[key] = value
	return d.err
}

// each changes every value.
func (d *drawer) each(change func(key string, value []byte) []byte) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, value := range d.values {
		d.values[key] = change(key, slices.Clone(value))
	}
	return len(d.values)
}

func caching(d gateway.ResponseCache) gateway.Caching {
	return gateway.Caching{Store: d, Keep: time.Hour}
}

// askCached asks and wants a state of the cache.
func (e *env) askCached(account, path, body, want string, headers ...string) answer {
	e.t.Helper()
	r := e.request(http.MethodPost, account, path, body)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	a := e.do(r)
	if got := a.header.Get("x-cache"); got != want || a.status != 200 {
		e.t.Errorf("%s %s %q: %d, x-cache %q, want %q: %.200s", account, path, headers, a.status, got, want, a.body)
	}
	return a
}

// TestCacheHit: the same request gets the same bytes, the provider is not called, and the ledger has a request with
// the first one's meters, at the price of a hit, that cost nothing.
func TestCacheHit(t *testing.T) {
	t.Parallel()
	for _, percent := range []int{0, 10, 100} {
		for _, path := range []string{chatPath, streamPath} {
			o := caching(&drawer{})
			o.Percent = percent
			w := newTown(t, options{caching: o})
			first := w.askCached("lars", path, chatBody("k-a", "hello", ""), "miss")
			again := w.askCached("lars", path, ` {"messages" : [{"content":"hello", "role":"user"}],`+"\n"+`"model":"k-a"}`, "hit")
			if w.calls("a") != 1 || first.id() == again.id() {
				t.Errorf("%s: %d calls, %s and %s", path, w.calls("a"), first.id(), again.id())
			}
			strip := func(a answer) string { // but for the bill
				if path == chatPath {
					return a.body
				}
				s := a.events(t)
				if s.bill(t); !s.done {
					t.Errorf("%s", a.body)
				}
				return strings.Join(s.data, "\n")
			}
			if strip(first) != strip(again) {
				t.Errorf("%s: %s\nand %s", path, first.body, again.body)
			}
			checkHit(t, w.life("lars", first.id()), w.life("lars", again.id()), percent)
		}
	}
}

func checkHit(t *testing.T, first, again life, percent int) {
	t.Helper()
	a, b := first.commitData(), again.commitData()
	if again.commit == nil || b.Cache != domain.CacheHit || a.Cache != "" || b.Meters != a.Meters || len(b.Attempts) != 0 || len(b.CostLines) != 0 || b.Provider != a.Provider {
		t.Errorf("the hit is %s: %+v", again, b)
	}
	want := domain.Zero
	for _, l := range a.Lines {
		want = want.Add(l.Amount)
	}
	if want = want.Times(int64(percent)); !again.commit.Amount.Times(100).Equal(want) { // these prices divide
		t.Errorf("%d %%: charged %s of %s", percent, again.commit.Amount, first.commit.Amount)
	}
	if a.PriceVersion == b.PriceVersion || !strings.HasPrefix(b.PriceVersion, a.PriceVersion) {
		t.Errorf("%d %%: priced by %s, at first by %s", percent, b.PriceVersion, a.PriceVersion)
	}
	charge := domain.PastCharge{Amount: again.commit.Amount, Meters: b.Meters, Lines: b.Lines, CostLines: b.CostLines, PriceVersion: b.PriceVersion}
	if r := charge.Recheck(func(string) *domain.PriceVersion { return nil }); len(r.Problems) > 0 {
		t.Errorf("%d %%: %q", percent, r.Problems)
	}
}

// TestCacheMisses: what is another request, or another's, or is not to be kept.
func TestCacheMisses(t *testing.T) {
	t.Parallel()
	w := newTown(t, options{caching: caching(&drawer{})})
	ask := chatBody("k-a", "hello", "")
	w.askCached("mona", chatPath, ask, "miss")
	w.askCached("mona", chatPath, ask, "hit")
	w.askCached("nils", chatPath, ask, "miss") // another account
	w.askCached("mona", streamPath, ask, "miss")
	w.askCached("mona", chatPath, ask, "miss", "Anthropic-Beta: x")
	w.askCached("mona", chatPath, ask, "bypass", "Cache-Control: no-cache")
	w.askCached("mona", chatPath, ask, "bypass", "Cache-Control: max-age=0, No-Store")
	for i, other := range []string{chatBody("k-b", "hello", ""), chatBody("k-a", "hello ", ""), chatBody("k-a", "hello", `,"temperature":1`),
		chatBody("k-a", "hello", `,"temperature":1.0`), chatBody("k-a", "hello", `,"user":"u"`)} {
		if a := w.askCached("mona", chatPath, other, "miss"); a.status != 200 {
			t.Error(i)
		}
	}
	// A half surrogate is no character: decoded, each is U+FFFD, and these would be one request.
	for _, half := range []string{`\ud800`, `\udfff`, `\ufffd`} {
		w.askCached("mona", chatPath, chatBody("k-a", half, ""), "miss")
		w.askCached("mona", chatPath, chatBody("k-a", half, ""), "hit")
	}
	off := newTown(t, options{})
	off.askCached("mona", chatPath, ask, "")
	shared := caching(&drawer{})
	shared.Shared = true
	s := newTown(t, options{caching: shared})
	s.askCached("mona", chatPath, ask, "miss")
	s.askCached("nils", chatPath, ask, "hit")
	poor := newTown(t, options{caching: caching(&drawer{}), balance: "0.00001"})
	if a := poor.chat("olaf", ask); a.status != 402 {
		t.Errorf("%d", a.status)
	}
}

// TestCacheOfACappedCall: a call that the balance cuts down is another call than the kept one. The provider is asked,
// it costs what it costs, and the client is not told that it was a hit.
func TestCacheOfACappedCall(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, streamPath} {
		w := newTown(t, options{caching: caching(&drawer{}), balance: "0.013"})
		ask := chatBody("k-a", "hello", "")
		w.askCached("pia", path, ask, "miss")
		w.askCached("pia", path, ask, "hit")
		for w.askCached("pia", path, ask, "bypass", "Cache-Control: no-cache").header.Get("x-billing-output-cap") == "" {
			if w.calls("a") > 1000 {
				t.Fatal("the balance does not end")
			}
		}
		calls := w.calls("a")
		a := w.askCached("pia", path, ask, "miss")
		data := w.life("pia", a.id()).commitData()
		if a.header.Get("x-billing-output-cap") == "" || w.calls("a") != calls+1 || data.Cache != "" || len(data.Attempts) != 1 {
			t.Errorf("%s: capped at %q, %d calls more, in the ledger %+v", path, a.header.Get("x-billing-output-cap"), w.calls("a")-calls, data)
		}
	}
}

// TestCacheKeepsNothingBroken: errors, streams that break off, and clients that have not got all of it.
func TestCacheKeepsNothingBroken(t *testing.T) {
	t.Parallel()
	d := &drawer{}
	e := start(t, options{caching: caching(d)})
	e.post("paul", streamPath, chatBody("sim-small", "sim:cut=3", ""))
	e.chat("paul", chatBody("sim-small", "sim:status=500", ""))
	e.post("paul", streamPath, chatBody("sim-small", "sim:error=2", ""))
	if n := d.each(func(_ string, v []byte) []byte { return v }); n != 0 {
		t.Errorf("%d entries", n)
	}
}

// TestCacheWithKey: a request with a key that is answered from the cache is repeated like any other.
func TestCacheWithKey(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, streamPath} {
		w := newTown(t, options{caching: caching(&drawer{})})
		ask := chatBody("k-a", "hello", "")
		w.askCached("rita", path, ask, "miss")
		hit := w.askCached("rita", path, ask, "hit", "Idempotency-Key: one")
		repeat := w.ask("rita", "one", path, ask)
		if repeat.status != 200 || repeat.header.Get("idempotent-replayed") != "true" || repeat.id() != hit.id() || repeat.body != hit.body || w.calls("a") != 1 {
			t.Errorf("%s: %d %v\n%s\n%s", path, repeat.status, repeat.header, hit.body, repeat.body)
		}
	}
}

// TestSpoiltCache: entries that are none are misses, wherever they are spoilt, and another key's.
func TestSpoiltCache(t *testing.T) {
	t.Parallel()
	d := &drawer{}
	w := newTown(t, options{caching: caching(d)})
	ask, other := chatBody("k-a", "hello", ""), chatBody("k-a", "bye", "")
	good := w.askCached("sven", chatPath, ask, "miss")
	var entry []byte
	d.each(func(_ string, v []byte) []byte { entry = v; return v })
	w.askCached("sven", chatPath, other, "miss")
	spoil := []func(string, []byte) []byte{
		func(string, []byte) []byte { return nil },
		func(string, []byte) []byte { return []byte{} },
		func(string, []byte) []byte { return []byte("garbage that is longer than a digest of 32 bytes\n{}") },
		func(_ string, v []byte) []byte { return v[:len(v)/2] },
		func(_ string, v []byte) []byte { return append(v, ' ') },
	}
	for i := range entry {
		if i < 40 || i%17 == 0 {
			spoil = append(spoil, func(_ string, v []byte) []byte { v[min(i, len(v)-1)] ^= 1; return v })
		}
	}
	for i, s := range spoil {
		d.each(s)
		if a := w.askCached("sven", chatPath, ask, "miss"); gjsonContent(a) != gjsonContent(good) {
			t.Errorf("%d: %s", i, a.body)
		}
	}
	d.each(func(string, []byte) []byte { return entry }) // each has the first one's
	if a := w.askCached("sven", chatPath, other, "miss"); gjsonContent(a) == "" {
		t.Error("no answer")
	}
	w.askCached("sven", chatPath, ask, "hit")
}

func gjsonContent(a answer) string { return a.json("choices.0.message.content").Str }

// TestCacheAway: a cache that fails is left alone for a second, and nobody notices.
func TestCacheAway(t *testing.T) {
	t.Parallel()
	d, c := &drawer{err: errors.New("away")}, &clock{at: time.Now()}
	w := newTown(t, options{caching: caching(d), now: c.now})
	for range 5 {
		w.askCached("tina", chatPath, chatBody("k-a", "hello", ""), "miss")
	}
	if d.looked != 1 {
		t.Errorf("it was asked %d times", d.looked)
	}
	d.err = nil
	c.pass(time.Second)
	w.askCached("tina", chatPath, chatBody("k-a", "hello", ""), "miss")
	w.askCached("tina", chatPath, chatBody("k-a", "hello", ""), "hit")
}

// TestCacheWhileTheProviderIsAway: what is kept is answered while the circuit is open.
func TestCacheWhileTheProviderIsAway(t *testing.T) {
	t.Parallel()
	w, _ := breakable(t, options{caching: caching(&drawer{})})
	w.askCached("uwe", chatPath, chatBody("k-a", "hello", ""), "miss")
	w.fail("a", three(provider.Error{Kind: provider.KindUpstream, Unreached: true})...)
	for range 3 {
		w.chat("uwe", chatBody("k-a", "bye", ""))
	}
	if a := w.chat("uwe", chatBody("k-a", "bye", "")); a.code() != "circuit_open" {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.askCached("uwe", chatPath, chatBody("k-a", "hello", ""), "hit")
}

// TestMemoryCache: what is used makes what is not used leave, nothing is kept for too long, and it is bounded.
func TestMemoryCache(t *testing.T) {
	t.Parallel()
	c := &clock{at: time.Now()}
	const most = 10_000
	m := gateway.NewMemoryCache(most, c.now)
	put := func(key string, size int) {
		if err := m.Put(t.Context(), key, make([]byte, size), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	has := func(key string) bool {
		v, err := m.Get(t.Context(), key)
		return v != nil && err == nil
	}
	for i := range 100 {
		put(fmt.Sprint("k", i), 700)
		if !has("k0") {
			t.Fatalf("k0 was used last and left at %d", i)
		}
	}
	kept := 0
	for i := range 100 {
		if has(fmt.Sprint("k", i)) {
			kept++
		}
	}
	if kept < 5 || kept*(700+256) > most || has("k1") || !has("k99") {
		t.Errorf("%d are kept", kept)
	}
	put("k0", most)
	if has("k0") || !has("k99") {
		t.Error("what is too large took room, or left the old one")
	}
	put("k99", 1)
	c.pass(time.Minute)
	if has("k99") || has("k98") {
		t.Error("kept for too long")
	}
}
