package gateway_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// TestOverspend: 256 requests at once on an account that affords fewer: exactly as many as it
// affords succeed, whole and streamed, on one gateway and on two over one ledger.
func TestOverspend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		balance  string
		affords  int
		gateways int
	}{{"1.000000000001", 100, 1}, {"0.37", 37, 2}, {"0.009999999999", 0, 2}, {"2.56", 256, 2}} {
		t.Run(c.balance, func(t *testing.T) {
			t.Parallel()
			e := start(t, options{balance: c.balance})
			gateways := []*env{e}
			for len(gateways) < c.gateways {
				gateways = append(gateways, start(t, options{balance: c.balance, share: e}))
			}
			var mu sync.Mutex
			got := map[string]int{}
			together(256, func(i int) {
				path := chatPath
				if i%3 == 0 {
					path = streamPath
				}
				// sim:pace makes the streams overlap with everything else.
				a := gateways[i%len(gateways)].post("quinn", path, chatBody("sim-flat", fmt.Sprintf("sim:tokens=3 sim:pace=%dms", i%4), ""))
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprint(a.status, a.code())]++
				if path == streamPath && a.status == 200 && !a.events(t).done {
					t.Errorf("a stream without [DONE]: %s", a.body)
				}
			})
			if got["200"] != c.affords || got["402insufficient_quota"] != 256-c.affords || len(got) > 2 {
				t.Errorf("%v; want %d of 256", got, c.affords)
			}
			left := domain.MustAmount(c.balance).Sub(domain.MustAmount("0.01").Times(int64(c.affords)))
			if e.available("quinn") != left.String() {
				t.Errorf("%s is left, want %s", e.available("quinn"), left)
			}
		})
	}
}

// TestOverspendByTokens is the same where costs are not known before: whatever succeeds, the
// account ends at or above zero, and holds that were larger than the cost come back.
func TestOverspendByTokens(t *testing.T) {
	t.Parallel()
	for _, policy := range []gateway.ReservePolicy{gateway.ReserveCap, gateway.ReserveRefuse} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			e := start(t, options{balance: "0.02", policy: policy})
			var mu sync.Mutex
			got := map[int]int{}
			together(64, func(i int) {
				a := e.chat("rosa", chatBody("sim-small", fmt.Sprintf("sim:tokens=%d", 100*i), ""))
				mu.Lock()
				defer mu.Unlock()
				got[a.status]++
			})
			if got[200] == 0 || got[200]+got[402] != 64 {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestReserveCap(t *testing.T) {
	t.Parallel()
	providers, upstream := both(t)
	// gpt-4o: 2.50 and 10 per million. The body is bounded by its exact count of tokens and 64.
	e := start(t, options{balance: "0.01", providers: providers})
	const tier = `,"service_tier":"default"`
	body := chatBody("gpt-4o", "sim:tokens=5000", tier)
	input, exact := provider.CountPrompt("gpt-4o", []byte(body))
	if !exact {
		t.Fatal("the prompt cannot be counted exactly")
	}
	const slack, template = 16, 64
	for _, c := range []struct {
		name, account, more string
		choices             int64
	}{{"whole", "sven-1", "", 1}, {"streamed", "sven-2", `,"stream":true`, 1}, {"choices", "sven-3", `,"n":3`, 3},
		{"nulls", "sven-4", `,"max_tokens":null,"max_completion_tokens":null`, 1}} {
		a := e.chat(c.account, chatBody("gpt-4o", "sim:tokens=5000", tier+c.more))
		// (0.01 - input x 0.0000025) / 0.00001 per choice, rounded down, less the slack
		want := (4000-(input+template))/4/c.choices - slack
		sent := gjson.Get(upstream.sent(), "max_completion_tokens").Int()
		if a.status != 200 || a.header.Get("x-billing-output-cap") != itoa(want) || sent != want {
			t.Fatalf("%s: %d, cap %s, sent %d, want %d: %s", c.name, a.status, a.header.Get("x-billing-output-cap"), sent, want, a.body)
		}
		if strings.Count(upstream.sent(), `"max_completion_tokens"`) != 1 {
			t.Errorf("%s: sent %s", c.name, upstream.sent())
		}
		l := e.life(c.account, a.id())
		d, r := l.commitData(), l.reserve.Data.(*domain.ReserveData)
		if d.Meters[domain.Output] != want*c.choices || d.FinishReason != "length" || r.MaxOutput != (want+slack)*c.choices ||
			r.Bound.Input != input+template {
			t.Errorf("%s: meters %v, finished by %s, bound %+v", c.name, d.Meters, d.FinishReason, r.Bound)
		}
	}
	// What is too little even for one token is refused, and so is what named its maximum.
	e.append("sven-1", domain.Debit{Amount: e.account("sven-1").Available, Data: domain.MovementData{Reference: "r", Actor: "t"}})
	for name, a := range map[string]answer{"nothing left": e.chat("sven-1", body),
		"a maximum": e.chat("sven-9", chatBody("gpt-4o", "x", `,"max_tokens":5000`))} {
		checkRefused(t, name, a)
	}
	if a := e.chat("sven-8", chatBody("gpt-4o", "sim:tokens=900", `,"max_tokens":900`+tier)); a.status != 200 || a.header.Get("x-billing-output-cap") != "" {
		t.Errorf("an affordable maximum: %d %s", a.status, a.body)
	}
}

func checkRefused(t *testing.T, name string, a answer) {
	t.Helper()
	m := a.json("error.message").Str
	if a.status != 402 || a.code() != "insufficient_quota" || a.json("error.type").Str != "insufficient_quota" ||
		!strings.Contains(m, "can cost up to 0.") || !strings.Contains(m, "your balance affords 0") {
		t.Errorf("%s: %d %s", name, a.status, a.body)
	}
}

func TestReserveRefuse(t *testing.T) {
	t.Parallel()
	watched := &spy{Provider: provider.NewSimulated()}
	e := start(t, options{balance: "0.005", policy: gateway.ReserveRefuse, providers: map[string]provider.Provider{"simulated": watched}})
	a := e.chat("tina", chatBody("sim-small", "x", ""))
	checkRefused(t, "no maximum", a)
	if m := a.json("error.message").Str; !strings.Contains(m, "balance affords 0.005.") {
		t.Error(m)
	}
	if watched.count() != 0 || e.available("tina") != "0.005" {
		t.Errorf("%d calls, %s left", watched.count(), e.available("tina"))
	}
	if a := e.chat("tina", chatBody("sim-small", "x", `,"max_tokens":1000`)); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestExactInput: a prompt of many bytes and few tokens is refused by its bytes and afforded by its
// tokens, so it is counted.
func TestExactInput(t *testing.T) {
	t.Parallel()
	prompt := strings.Repeat(" international", 2000) // 28,000 bytes, 2,000 tokens
	body := chatBody("sim-small", prompt, `,"max_tokens":10`)
	tokens, exact := provider.CountPrompt("sim-small", []byte(body))
	if !exact || tokens > 2100 {
		t.Fatalf("%d tokens, exact: %t", tokens, exact)
	}
	// 0.15 per million: 28,000 bytes are 0.0042, 2,100 tokens 0.000315
	e := start(t, options{balance: "0.0005", policy: gateway.ReserveRefuse})
	a := e.chat("ulf", body)
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	l := e.life("ulf", a.id())
	if got := l.reserve.Data.(*domain.ReserveData).Bound.Input; got != tokens+64 {
		t.Errorf("bounded by %d tokens, counted %d", got, tokens)
	}
	if a := e.chat("ulf2", chatBody("sim-small", prompt+prompt, `,"max_tokens":10`)); a.status != 402 {
		t.Errorf("twice as long: %d %s", a.status, a.body)
	}
	// What is not in the body as text cannot be counted: the context window bounds it.
	picture := `{"model":"sim-small","max_tokens":10,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y"}}]}]}`
	if a := e.chat("ulf3", picture); a.status != 402 {
		t.Errorf("a picture: %d %s", a.status, a.body)
	}
}

// TestDearestTier: a request that could be served at a dearer tier is bounded by that.
func TestDearestTier(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	bound := func(more string) string {
		a := e.chat("vera", chatBody("sim-large", "x", `,"max_tokens":84`+more))
		for _, line := range e.life("vera", a.id()).reserve.Data.(*domain.ReserveData).Bound.Lines {
			if line.Meter == domain.Output {
				return line.UnitPrice.String() + " x " + itoa(line.Quantity)
			}
		}
		return "none"
	}
	for more, want := range map[string]string{"": "0.00002 x 100", `,"service_tier":"auto"`: "0.00002 x 100", `,"service_tier":"priority"`: "0.00002 x 100",
		`,"service_tier":"default"`: "0.00001 x 100", `,"n":2`: "0.00002 x 200", `,"prediction":{"type":"content","content":"abc"}`: "0.00002 x 134"} {
		if got := bound(more); got != want {
			t.Errorf("%s: %s, want %s", more, got, want)
		}
	}
}
