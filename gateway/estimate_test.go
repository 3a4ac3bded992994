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

// TestEstimateOfOtherSurfaces: completions and embeddings, by the models' own API and by way of another: what is
// estimated is what is reserved, the input is counted, and what has no output has one cost.
func TestEstimateOfOtherSurfaces(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	const completions, embeddings = "/v1/completions", "/v1/embeddings"
	for _, c := range []struct {
		query, path, body string
		input             int64 // as counted; 0: by a vocabulary that is not public
		vectors           bool
	}{
		{"?surface=completions", completions, `{"model":"davinci-002","prompt":"one two three"}`, 3, false},
		{"?surface=completions", completions, `{"model":"babbage-002","prompt":["one two","three"],"n":2,"best_of":4,"max_tokens":5,"suffix":" end"}`, 5, false},
		{"?surface=completions", completions, `{"model":"davinci-002","prompt":[1,2,3],"max_tokens":7,"echo":true,"stream":true}`, 3, false},
		{"?surface=completions", completions, `{"model":"gpt-4o","prompt":"one two","max_tokens":9}`, 9, false},
		{"?surface=completions", completions, `{"model":"claude-sonnet-4-5-20250929","prompt":"one two","max_tokens":9}`, 0, false},
		{"?surface=embeddings", embeddings, `{"model":"text-embedding-3-small","input":"one two three"}`, 3, true},
		{"?surface=embeddings", embeddings, `{"model":"text-embedding-3-small","input":["one","two three"],"dimensions":8}`, 3, true},
		{"?surface=embeddings", embeddings, `{"model":"text-embedding-3-small","input":[[1,2,3],[4]]}`, 4, true},
		{"?surface=embeddings", embeddings, `{"model":"gemini-embedding-2","input":"one two three"}`, 0, true},
		{"?surface=embed_content&model=gemini-embedding-2", "/v1beta/models/gemini-embedding-2:embedContent", `{"content":{"parts":[{"text":"one two three"}]}}`, 0, true},
		{"?surface=embed_content&model=text-embedding-3-small", "/v1beta/models/text-embedding-3-small:embedContent", `{"content":{"parts":[{"text":"one two three"}]}}`, 3, true},
	} {
		a := e.post("lou", estimatePath+c.query, c.body)
		if a.status != 200 || !a.json("accepted").Bool() {
			t.Errorf("%s %s: %d %s", c.query, c.body, a.status, a.body)
			continue
		}
		l := e.life("lou", e.post("lou", c.path, c.body).id())
		d := l.reserve.Data.(*domain.ReserveData)
		if a.json("reserve.amount").Raw != l.reserve.Amount.String() || a.json("price_version").Str != d.PriceVersion || a.json("surface").Str != d.Surface ||
			a.json("reserve.output").Int() != d.Bound.Output || a.json("reserve.input").Int() != d.Bound.Input {
			t.Errorf("%s %s: estimated %s, reserved %s %+v", c.query, c.body, a.body, l.reserve.Amount, d.Bound)
		}
		input := a.json("input_tokens").Int()
		if input < 1 || input > d.Bound.Input || c.input > 0 && input != c.input || a.json("counted_by").Str == "" {
			t.Errorf("%s %s: %d tokens, by %q", c.query, c.body, input, a.json("counted_by").Str)
		}
		least, most := domain.MustAmount(a.json("least.amount").Raw), domain.MustAmount(a.json("most.amount").Raw)
		if least.IsZero() || most.Less(least) || l.reserve.Amount.Less(most) || least.Equal(most) != c.vectors || a.json("most.output").Int() != d.Bound.Output ||
			c.vectors && d.Bound.Output != 0 || a.json("least.output").Int() != 0 {
			t.Errorf("%s %s: from %s to %s of %s; %s", c.query, c.body, least, most, l.reserve.Amount, a.body)
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
		{"?surface=completions", `{"model":"sim-small","prompt":"x","n":1000}`, 400, "invalid_value"},
		{"?surface=completions", `{"model":"sim-small","prompt":[1,2]}`, 400, "unsupported_parameter"},
		{"?surface=completions", `{"prompt":"x"}`, 400, "invalid_value"},
		{"?surface=embeddings", `{"model":"sim-small","input":"x"}`, 400, "unsupported_parameter"},
		{"?surface=embeddings", `{"model":"no-such","input":"x"}`, 404, "model_not_found"},
		{"?surface=embeddings", `{"model":"text-embedding-3-small","input":[]}`, 400, ""},
		{"?surface=embeddings", `{"model":"text-embedding-3-small","input":"x","dimensions":-1}`, 400, ""},
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
