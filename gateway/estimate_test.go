package gateway_test

import (
	"fmt"
	"net/http"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

const estimatePath = "/billing/estimate"

// TestEstimateIsTheReserve: what is estimated is what the request then reserves, and its cost lies between
// least and most.
func TestEstimateIsTheReserve(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for _, c := range []struct{ surface, path, body string }{
		{"", chatPath, chatBody("sim-small", "one two three sim:tokens=10", `,"max_tokens":20`)},
		{"?surface=chat_completions", chatPath, chatBody("sim-small", "one", "")},
		{"?surface=chat_completions", chatPath, chatBody("sim-large", "one", `,"n":3,"stream":true`)},
		{"?surface=messages", "/v1/messages", chatBody("sim-small", "one", `,"max_tokens":7`)},
		{"?surface=responses", "/v1/responses", `{"model":"sim-small","input":"one two","max_output_tokens":9}`},
		{"?surface=generate_content&model=sim-small", "/v1beta/models/sim-small:generateContent", `{"contents":[{"role":"user","parts":[{"text":"one"}]}]}`},
	} {
		before := len(e.asked.reserved("gus"))
		a := e.post("gus", estimatePath+c.surface, c.body)
		if a.status != 200 || !a.json("accepted").Bool() || a.json("output_cap").Raw != "null" || a.json("refusal").Exists() {
			t.Errorf("%s: %d %s", c.surface, a.status, a.body)
			continue
		}
		if got := len(e.asked.reserved("gus")); got != before || e.get("gus", "/billing/balance").json("reserved").Raw != "0" {
			t.Errorf("%s: the estimate reserved something", c.surface)
		}
		asked := e.post("gus", c.path, c.body)
		l := e.life("gus", asked.id())
		d := l.reserve.Data.(*domain.ReserveData)
		if a.json("reserve.amount").Raw != l.reserve.Amount.String() || a.json("price_version").Str != d.PriceVersion || a.json("surface").Str != d.Surface ||
			a.json("reserve.output").Int() != d.Bound.Output || a.json("reserve.input").Int() != d.Bound.Input {
			t.Errorf("%s: estimated %s, reserved %s %+v", c.surface, a.body, l.reserve.Amount, d.Bound)
		}
		cost := e.get("gus", "/billing/requests/"+asked.id().String()).json("charged").Str
		least, most := domain.MustAmount(a.json("least.amount").Raw), domain.MustAmount(a.json("most.amount").Raw)
		if domain.MustAmount(cost).Less(least) || most.Less(domain.MustAmount(cost)) || l.reserve.Amount.Less(most) {
			t.Errorf("%s: cost %s is not from %s to %s, or that is more than the reserve %s", c.surface, cost, least, most, l.reserve.Amount)
		}
	}
}

// TestEstimateCaps: the output would be cut, as it then is.
func TestEstimateCaps(t *testing.T) {
	t.Parallel()
	body := chatBody("sim-small", "x", "")
	e := start(t, options{balance: "0.001"})
	a := e.post("hal", estimatePath, body)
	asked := e.chat("hal", body)
	if a.json("output_cap").Raw != asked.header.Get("x-billing-output-cap") || a.json("output_cap").Int() < 1 ||
		a.json("reserve.amount").Raw != e.life("hal", asked.id()).reserve.Amount.String() || !a.json("accepted").Bool() {
		t.Errorf("%s\nthe request: %v", a.body, asked.header)
	}
	e = start(t, options{balance: "0.001", policy: gateway.ReserveRefuse})
	if a := e.post("hal", estimatePath, body); a.json("accepted").Bool() || a.json("refusal").Str != "insufficient_quota" ||
		a.json("available").Raw != "0.001" || a.json("output_cap").Raw != "null" {
		t.Error(a.body)
	}
	e = start(t, options{balance: "0"})
	if a := e.post("hal", estimatePath, body); a.json("accepted").Bool() || a.json("refusal").Str != "insufficient_quota" {
		t.Error(a.body)
	}
	if a := e.post("hal", estimatePath, chatBody("sim-free", "x", "")); !a.json("accepted").Bool() || a.json("most.amount").Raw != "0" {
		t.Error(a.body)
	}
}

func TestEstimateFrozen(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.get("ida", "/billing/balance") // opens it
	e.append("ida", domain.Configure{Data: domain.AccountData{Frozen: new(true), Actor: "test"}})
	if a := e.post("ida", estimatePath, chatBody("sim-small", "x", "")); a.status != 200 || a.json("accepted").Bool() || a.json("refusal").Str != "account_frozen" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestEstimateRefuses: what the request would be refused for, in OpenAI's shape whatever the surface.
func TestEstimateRefuses(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for _, c := range []struct {
		query, body string
		status      int
		code        string
	}{
		{"", `{`, 400, "invalid_json"},
		{"", `{"model":"sim-small","model":"sim-free"}`, 400, "duplicate_key"},
		{"", chatBody("no-such", "x", ""), 404, "model_not_found"},
		{"", chatBody("sim-small", "x", `,"max_tokens":-1`), 400, "invalid_value"},
		{"?surface=messages", `{"model":"sim-small","messages":[]}`, 400, ""},
		{"?surface=voice", chatBody("sim-small", "x", ""), 400, "invalid_value"},
		{"?surface=", chatBody("sim-small", "x", ""), 400, "invalid_value"},
		{"?surface=generate_content", `{"contents":[]}`, 400, "invalid_value"},
		{"?surface=embed_content&model=sim-small", `{"content":{"parts":[{"text":"x"}]}}`, 400, "unsupported_parameter"},
	} {
		a := e.post("joe", estimatePath+c.query, c.body)
		if a.status != c.status || c.code != "" && a.code() != c.code || !a.json("error.message").Exists() || a.json("type").Exists() {
			t.Errorf("%s %s: %d %s", c.query, c.body, a.status, a.body)
		}
	}
	if a := e.do(e.request(http.MethodPost, "", estimatePath, chatBody("sim-small", "x", ""))); a.status != 401 {
		t.Errorf("without a credential: %d %s", a.status, a.body)
	}
}

// TestEstimateSeesNobodysMoney: an estimate costs nothing, however often it is asked for.
func TestEstimateSeesNobodysMoney(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "0.5"})
	for i := range 20 {
		if a := e.post("kim", estimatePath, chatBody("sim-large", fmt.Sprint(i), "")); a.status != 200 {
			t.Error(a.body)
		}
	}
	if a := e.get("kim", "/billing/balance"); a.json("balance").Raw != "0.5" || a.json("reserved").Raw != "0" {
		t.Error(a.body)
	}
}
