package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// keyed makes a request with an idempotency key.
func (e *env) keyed(account, key, path, body string) *http.Request {
	e.t.Helper()
	r := e.request(http.MethodPost, account, path, body)
	r.Header.Set("Idempotency-Key", key)
	return r
}

func (e *env) ask(account, key, path, body string) answer {
	e.t.Helper()
	return e.do(e.keyed(account, key, path, body))
}

// charges is how often an account was charged, and whether anything of it is still reserved.
func (e *env) charges(account string) (n int) {
	e.t.Helper()
	for _, id := range e.asked.reserved(account) {
		if l := e.life(account, id); l.commit != nil || l.overage != nil {
			n++
		}
	}
	return n
}

// checkReplayed: a is what the first was answered with, and says that it is a repeat.
func checkReplayed(t *testing.T, name string, first, a answer) {
	t.Helper()
	if a.status != http.StatusOK || a.err != nil || a.body != first.body || a.header.Get("idempotent-replayed") != "true" || a.id() != first.id() {
		t.Errorf("%s: %d %v, of %s, replayed: %q:\n%.500q\nfirst, of %s:\n%.500q", name, a.status, a.err, a.id(), a.header.Get("idempotent-replayed"), a.body, first.id(), first.body)
	}
	for _, header := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "x-billing-cost", "x-billing-position"} {
		if a.header.Get(header) != first.header.Get(header) {
			t.Errorf("%s: %s is %q, was %q", name, header, a.header.Get(header), first.header.Get(header))
		}
	}
	if first.header.Get("idempotent-replayed") != "" {
		t.Errorf("%s: the first says that it is a repeat", name)
	}
}

// watchedSimulated is the simulated provider, watched.
func watchedSimulated() (*spy, map[string]provider.Provider) {
	s := &spy{Provider: provider.NewSimulated()}
	return s, map[string]provider.Provider{"simulated": s}
}

// TestReplays: a repeat gets the first answer, byte for byte, with its id, cost and position, here and on
// another gateway; the provider is called once, and charged is once. Neither an empty nor a frozen account
// keeps anybody from the answer that was paid for.
func TestReplays(t *testing.T) {
	t.Parallel()
	watched, providers := watchedSimulated()
	e := start(t, options{providers: providers})
	other := start(t, options{providers: providers, share: e})
	for name, c := range map[string]struct{ path, body string }{
		"whole":            {chatPath, chatBody("sim-small", "hello", "")},
		"choices":          {chatPath, chatBody("sim-large", "sim:reasoning=40", `,"n":3`)},
		"free":             {chatPath, chatBody("sim-free", "hello", "")},
		"streamed":         {streamPath, chatBody("sim-small", "hello", "")},
		"with its usage":   {chatPath, chatBody("sim-small", "hello", `,"stream":true,"stream_options":{"include_usage":true}`)},
		"nothing streamed": {streamPath, chatBody("sim-small", "sim:tokens=0", "")},
		"usage counted":    {streamPath, chatBody("sim-small", "sim:nousage", "")},
	} {
		account, before := "whose-"+strings.ReplaceAll(name, " ", "-"), watched.count()
		first := e.ask(account, "k-1", c.path, c.body)
		if first.status != 200 {
			t.Fatalf("%s: %d %s", name, first.status, first.body)
		}
		checkReplayed(t, name, first, e.ask(account, "k-1", c.path, c.body))
		checkReplayed(t, name+", elsewhere", first, other.ask(account, "k-1", c.path, c.body))
		if available := e.account(account).Available; !available.IsZero() {
			e.append(account, domain.Debit{Amount: available, Data: domain.MovementData{Reference: "all of it", Actor: "test"}})
		}
		checkReplayed(t, name+", with nothing left", first, e.ask(account, "k-1", c.path, c.body))
		e.freeze(account, true)
		checkReplayed(t, name+", frozen", first, other.ask(account, "k-1", c.path, c.body))
		if n := watched.count() - before; n != 1 || e.charges(account) != 1 {
			t.Errorf("%s: %d calls, %d charges", name, n, e.charges(account))
		}
		if a := e.ask(account, "k-2", c.path, c.body); a.status != http.StatusForbidden {
			t.Errorf("%s: a new key of a frozen account: %d %s", name, a.status, a.body)
		}
	}
	for line := range strings.Lines(e.logs.String()) {
		if replayed := strings.Contains(line, `"replayed":true`); strings.Contains(line, `"status":200`) && (!replayed && !strings.Contains(line, `"cost"`) || !strings.Contains(line, `"billing_request_id"`)) {
			t.Errorf("the log says %s", line)
		}
	}
}

// TestReplaysPassTheGate: an early no is for new requests; what has been paid for is not kept back by it.
func TestReplaysPassTheGate(t *testing.T) {
	t.Parallel()
	g := startGated(t, options{})
	body := chatBody("sim-flat", "x", "")
	first := g.ask("gate", "k", chatPath, body)
	g.append("gate", domain.Debit{Amount: g.account("gate").Available, Data: domain.MovementData{Reference: "all of it", Actor: "test"}})
	g.cache.says("0", false)
	for _, refused := range []int{http.StatusPaymentRequired, http.StatusForbidden} {
		g.clock.pass(2 * time.Second)
		if a := g.chat("gate", body); a.status != refused {
			t.Errorf("a new request: %d %s", a.status, a.body)
		}
		checkReplayed(t, "the gate says no", first, g.ask("gate", "k", chatPath, body))
		g.freeze("gate", true)
		g.cache.says("0", true)
	}
	if got := g.verdicts(); got != "no=2" {
		t.Errorf("the gate's verdicts: %s", got)
	}
}

// TestKeysOfOthers: a key is one account's own.
func TestKeysOfOthers(t *testing.T) {
	t.Parallel()
	watched, providers := watchedSimulated()
	e := start(t, options{providers: providers})
	body := chatBody("sim-small", "hello", "")
	a, b := e.ask("anna", "k", chatPath, body), e.ask("bert", "k", chatPath, body)
	if a.status != 200 || b.status != 200 || a.id() == b.id() || b.header.Get("idempotent-replayed") != "" || watched.count() != 2 {
		t.Errorf("%d %s, %d %s, %d calls", a.status, a.id(), b.status, b.id(), watched.count())
	}
	if e.charges("anna") != 1 || e.charges("bert") != 1 {
		t.Errorf("%d and %d charges", e.charges("anna"), e.charges("bert"))
	}
	c := e.chat("anna", body) // without a key nothing is a repeat
	if c.id() == a.id() || e.charges("anna") != 2 {
		t.Errorf("without a key: %s, %d charges", c.id(), e.charges("anna"))
	}
}

// TestKeysReused: a key that asked for one thing does not ask for another, while the first runs and
// afterwards.
func TestKeysReused(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	held := &scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
		<-gate
		return provider.NewSimulated().Complete(ctx, r)
	}}
	watched := &spy{Provider: held, called: make(chan struct{}, 9)}
	e := start(t, options{providers: map[string]provider.Provider{"simulated": watched}})
	body := chatBody("sim-small", "hello", "")
	others := map[string]struct{ path, body string }{
		"another prompt": {chatPath, chatBody("sim-small", "hello!", "")}, "a blank more": {chatPath, body + " "},
		"another model": {chatPath, chatBody("sim-large", "hello", "")}, "a stream": {chatPath, chatBody("sim-small", "hello", `,"stream":true`)},
		"the same, at the streaming address": {streamPath, body},
	}
	check := func(when string) {
		for name, c := range others {
			a := e.ask("carl", "k", c.path, c.body)
			checkError(t, name+when, a, http.StatusUnprocessableEntity, "invalid_request_error", "idempotency_key_reused")
			if a.json("error.param").Str != "Idempotency-Key" || a.header.Get("Retry-After") != "" || a.id().String() == "" {
				t.Errorf("%s%s: %s %v", name, when, a.body, a.header)
			}
		}
	}
	done := make(chan answer)
	go func() { done <- e.ask("carl", "k", chatPath, body) }()
	<-watched.called
	check(", while it runs")
	close(gate)
	first := <-done
	check(", afterwards")
	checkReplayed(t, "the same", first, e.ask("carl", "k", chatPath, body))
	if watched.count() != 1 || e.charges("carl") != 1 {
		t.Errorf("%d calls, %d charges", watched.count(), e.charges("carl"))
	}
	// Both addresses ask for the same where the body asks for a stream: it is one request.
	body = chatBody("sim-small", "hello", `,"stream":true`)
	first = e.ask("carl", "s", chatPath, body)
	checkReplayed(t, "the same stream", first, e.ask("carl", "s", streamPath, body))
}

// TestKeyInProgress: while the first runs, here or elsewhere, a repeat is told to come again, whether or
// not the balance affords another.
func TestKeyInProgress(t *testing.T) {
	t.Parallel()
	for path, body := range map[string]string{chatPath: chatBody("sim-flat", "hello", ""), streamPath: chatBody("sim-flat", "sim:tokens=3", "")} {
		gate := make(chan struct{})
		held := &scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
			<-gate
			return provider.NewSimulated().Complete(ctx, r)
		}, stream: func(ctx context.Context, r provider.Request) (provider.Stream, error) {
			<-gate
			return provider.NewSimulated().Stream(ctx, r)
		}}
		watched := &spy{Provider: held, called: make(chan struct{}, 9)}
		o := options{balance: "0.01", providers: map[string]provider.Provider{"simulated": watched}}
		e := start(t, o)
		o.share = e
		other := start(t, o)
		done := make(chan answer)
		go func() { done <- e.ask("dora", "k", path, body) }()
		<-watched.called
		for name, on := range map[string]*env{"here": e, "elsewhere": other} {
			a := on.ask("dora", "k", path, body)
			checkError(t, path+" "+name, a, http.StatusConflict, "conflict_error", "request_in_progress")
			if a.header.Get("Retry-After") == "" || a.json("error.param").Str != "Idempotency-Key" {
				t.Errorf("%s %s: %v %s", path, name, a.header, a.body)
			}
		}
		close(gate)
		first := <-done
		checkReplayed(t, path, first, other.ask("dora", "k", path, body))
		if watched.count() != 1 || e.charges("dora") != 1 {
			t.Errorf("%s: %d calls, %d charges", path, watched.count(), e.charges("dora"))
		}
	}
}

// TestReleasedKeys: a request that gave everything back has no answer to repeat: its key is free.
func TestReleasedKeys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path string
		first      *provider.Error
		status     int
	}{
		{"the provider failed", chatPath, &provider.Error{Kind: provider.KindUpstream, Provider: "simulated", Status: 500}, 502},
		{"the provider failed to stream", streamPath, &provider.Error{Kind: provider.KindUpstream, Provider: "simulated", Status: 500}, 502},
		{"the provider refused", chatPath, &provider.Error{Kind: provider.KindRejected, Provider: "simulated", Status: 400}, 400},
		{"the provider timed out", streamPath, &provider.Error{Kind: provider.KindTimeout, Provider: "simulated"}, 504},
	} {
		failed := false
		fails := func() error {
			if failed {
				return nil
			}
			failed = true
			return c.first
		}
		p := &scripted{complete: func(ctx context.Context, r provider.Request) (*provider.Completion, error) {
			if err := fails(); err != nil {
				return nil, err
			}
			return provider.NewSimulated().Complete(ctx, r)
		}, stream: func(ctx context.Context, r provider.Request) (provider.Stream, error) {
			if err := fails(); err != nil {
				return nil, err
			}
			return provider.NewSimulated().Stream(ctx, r)
		}}
		e := start(t, options{providers: map[string]provider.Provider{"simulated": p}})
		body := chatBody("sim-small", "hello", "")
		if a := e.ask("emil", "k", c.path, body); a.status != c.status {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
		// Free means free: it may ask for something else as well.
		second := e.ask("emil", "k", c.path, chatBody("sim-small", "hello again", ""))
		if second.status != 200 || second.header.Get("idempotent-replayed") != "" || e.charges("emil") != 1 {
			t.Errorf("%s: then %d %s, %d charges", c.name, second.status, second.body, e.charges("emil"))
		}
		checkReplayed(t, c.name, second, e.ask("emil", "k", c.path, chatBody("sim-small", "hello again", "")))
	}
}

// TestRefusedKeys: what never reserved anything has not taken its key.
func TestRefusedKeys(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "0.001"})
	body := chatBody("sim-flat", "x", "")
	for i, want := range []int{402, 402, 200, 200} {
		if i == 2 {
			e.credit("flora", "1")
		}
		if a := e.ask("flora", "k", chatPath, body); a.status != want || (a.header.Get("idempotent-replayed") != "") != (i == 3) {
			t.Errorf("%d: %d %s", i, a.status, a.body)
		}
	}
	for _, bad := range []string{"{", chatBody("no-such-model", "x", "")} {
		if a := e.ask("flora", "k2", chatPath, bad); a.status < 400 {
			t.Errorf("%s: %d", bad, a.status)
		}
	}
	if a := e.ask("flora", "k2", chatPath, body); a.status != 200 || e.charges("flora") != 2 {
		t.Errorf("%d %s, %d charges", a.status, a.body, e.charges("flora"))
	}
}

// TestHostileKeys are refused before anything happens.
func TestHostileKeys(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	body := chatBody("sim-small", "x", "")
	for name, lines := range map[string]string{
		"empty": "Idempotency-Key:\r\n", "blank": "Idempotency-Key:   \t \r\n", "256 bytes": "Idempotency-Key: " + strings.Repeat("k", 256) + "\r\n",
		"32 KB": "Idempotency-Key: " + strings.Repeat("k", 32<<10) + "\r\n", "a tab": "Idempotency-Key: a\tb\r\n",
		"U+0080": "Idempotency-Key: a\u0080\r\n", "an umlaut": "Idempotency-Key: schlüssel\r\n", "not UTF-8": "Idempotency-Key: a\xff\r\n",
		"two": "Idempotency-Key: a\r\nIdempotency-Key: b\r\n", "the same twice": "idempotency-key: a\r\nIDEMPOTENCY-KEY: a\r\n",
		"one and an empty one": "Idempotency-Key: a\r\nIdempotency-Key:\r\n",
	} {
		got := e.raw("POST " + chatPath + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + e.token("gus") + "\r\n" + lines +
			"Content-Length: " + itoa(int64(len(body))) + "\r\n\r\n" + body)
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, `"param":"Idempotency-Key","code":"invalid_value"`) {
			t.Errorf("%s: %s", name, got)
		}
	}
	for name, key := range map[string]string{"NUL": "a\x00b", "a line end": "a\nX-Other: b", "DEL": "a\x7f"} {
		got := e.raw("POST " + chatPath + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + e.token("gus") + "\r\nIdempotency-Key: " + key + "\r\n" +
			"Content-Length: " + itoa(int64(len(body))) + "\r\n\r\n" + body)
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") && name != "a line end" { // which only ends the header
			t.Errorf("%s: %s", name, got)
		}
	}
	if n := len(e.asked.reserved("gus")); n != 1 { // that of the line end
		t.Errorf("%d reserves", n)
	}
	for _, key := range []string{strings.Repeat("k", 255), "a b, c;d=\"e\"\\", "'; DROP TABLE ledger_events; --", "0"} {
		first := e.ask("hugo", key, chatPath, body)
		checkReplayed(t, key, first, e.ask("hugo", key, chatPath, body))
	}
	if n := e.charges("hugo"); n != 4 {
		t.Errorf("%d charges for four keys", n)
	}
}

// TestOneKeyAtOnce: 256 requests with one key on two gateways: one call of the provider, one charge, and
// everybody who was answered has the same answer.
func TestOneKeyAtOnce(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, streamPath} {
		watched, providers := watchedSimulated()
		e := start(t, options{providers: providers, balance: "1"})
		gateways := []*env{e, start(t, options{providers: providers, balance: "1", share: e})}
		body := chatBody("sim-flat", "sim:tokens=5 sim:pace=1ms", "")
		var mu sync.Mutex
		got, bodies := map[string]int{}, map[string]bool{}
		together(256, func(i int) {
			a := gateways[i%2].ask("ida", "one", path, body)
			mu.Lock()
			defer mu.Unlock()
			got[fmt.Sprint(a.status, a.code())]++
			if a.status == 200 {
				bodies[a.body] = true
			}
		})
		if watched.count() != 1 || e.charges("ida") != 1 || e.available("ida") != "0.99" {
			t.Errorf("%s: %d calls, %d charges, %s left", path, watched.count(), e.charges("ida"), e.available("ida"))
		}
		if got["200"] == 0 || got["200"]+got["409request_in_progress"] != 256 || len(bodies) != 1 {
			t.Errorf("%s: %v, %d different answers", path, got, len(bodies))
		}
	}
}

// TestKeysEnd: a day after its settlement a key is new.
func TestKeysEnd(t *testing.T) {
	t.Parallel()
	now := &clock{at: time.Now()}
	watched, providers := watchedSimulated()
	e := start(t, options{providers: providers, now: now.now, ledgerNow: now.now})
	body := chatBody("sim-small", "hello", "")
	first := e.ask("jutta", "k", chatPath, body)
	now.pass(24*time.Hour - time.Microsecond)
	checkReplayed(t, "within a day", first, e.ask("jutta", "k", chatPath, body))
	now.pass(time.Microsecond)
	second := e.ask("jutta", "k", chatPath, chatBody("sim-small", "something else", ""))
	if second.status != 200 || second.id() == first.id() || second.header.Get("idempotent-replayed") != "" || watched.count() != 2 || e.charges("jutta") != 2 {
		t.Errorf("after a day: %d %s, %d calls, %d charges", second.status, second.body, watched.count(), e.charges("jutta"))
	}
	now.pass(time.Hour)
	checkReplayed(t, "the second", second, e.ask("jutta", "k", chatPath, chatBody("sim-small", "something else", "")))
}

// TestAnswersTooLongToKeep: they go out whole, and are charged once; a repeat is told what became of them.
func TestAnswersTooLongToKeep(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	whole := func(size int) *scripted {
		body := `{"choices":[],"x":"` + strings.Repeat("x", size-len(`{"choices":[],"x":""}`)) + `"}`
		return &scripted{complete: func(context.Context, provider.Request) (*provider.Completion, error) {
			return &provider.Completion{Body: []byte(body), Report: provider.Report{Usage: &domain.Usage{Input: 9, Output: 3}}}, nil
		}}
	}
	stream := func(size int) *scripted { // in frames of 1 KiB
		frame := `{"x":"` + strings.Repeat("x", 1024-len(`data: {"x":""}`)-2) + `"}`
		return &scripted{stream: func(context.Context, provider.Request) (provider.Stream, error) {
			list := append(repeated(frame, size/1024), repeated(`{}`, size%1024)...)
			return &chunks{list: list, burst: true, report: provider.Report{Usage: &domain.Usage{Input: 9, Output: 3}}}, nil
		}}
	}
	for _, c := range []struct {
		name, path string
		p          *scripted
		kept       bool
	}{
		{"whole, as long as is kept", chatPath, whole(most), true}, {"whole, a byte more", chatPath, whole(most + 1), false},
		{"whole, much more", chatPath, whole(4 * most), false},
		{"streamed, as long as is kept", streamPath, stream(most), true}, {"streamed, a frame more", streamPath, stream(most + 1), false},
		{"streamed, much more", streamPath, stream(3 * most), false},
	} {
		watched := &spy{Provider: c.p}
		e := start(t, options{providers: map[string]provider.Provider{"simulated": watched}})
		body := chatBody("sim-small", "hello", "")
		first := e.ask("karl", "k", c.path, body)
		if first.status != 200 || first.err != nil || c.path == streamPath && !first.events(t).done {
			t.Fatalf("%s: %d %v", c.name, first.status, first.err)
		}
		for range 2 {
			a := e.ask("karl", "k", c.path, body)
			if c.kept {
				checkReplayed(t, c.name, first, a)
				continue
			}
			checkError(t, c.name, a, http.StatusConflict, "conflict_error", "response_not_kept")
			if !strings.Contains(a.body, first.id().String()) || a.header.Get("Retry-After") != "" {
				t.Errorf("%s: %s %v", c.name, a.body, a.header)
			}
		}
		if watched.count() != 1 || e.charges("karl") != 1 {
			t.Errorf("%s: %d calls, %d charges", c.name, watched.count(), e.charges("karl"))
		}
	}
}

// TestReplaysNeedTheLedger: where a kept answer cannot be read, nobody is given another one.
func TestReplaysNeedTheLedger(t *testing.T) {
	t.Parallel()
	var away bool
	watched, providers := watchedSimulated()
	e := start(t, options{providers: providers, facts: func(f gateway.Facts) gateway.Facts { return &switched{Facts: f, away: &away} }})
	body := chatBody("sim-small", "hello", "")
	first := e.ask("lena", "k", chatPath, body)
	away = true
	checkError(t, "away", e.ask("lena", "k", chatPath, body), 503, "service_unavailable", "ledger_unavailable")
	away = false
	checkReplayed(t, "back", first, e.ask("lena", "k", chatPath, body))
	if watched.count() != 1 {
		t.Errorf("%d calls", watched.count())
	}
}
