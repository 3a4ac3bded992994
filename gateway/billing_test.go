package gateway_test

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// masked replaces what differs from run to run.
func masked(s string) string {
	s = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).ReplaceAllString(s, "ID")
	s = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z`).ReplaceAllString(s, "TIME")
	s = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(s, "HASH")
	return regexp.MustCompile(`"(\d+):(\d+)"`).ReplaceAllString(s, `"POSITION"`)
}

func TestBalance(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "100.000000000001"})
	const want = `{"user_id":"anna","balance":%s,"reserved":0,"currency":"USD","as_of":"TIME","position":"POSITION","behind":0}`
	if a := e.get("anna", "/billing/balance"); a.status != 200 || masked(a.body) != fmt.Sprintf(want, "100.000000000001") {
		t.Errorf("%d %s", a.status, a.body)
	}
	e.append("anna", domain.Debit{Amount: domain.MustAmount("99.000000000001"),
		Data: domain.MovementData{Reference: "r1", Actor: "test"}})
	for _, balance := range []string{"1", "0.99", "0.98"} {
		if a := e.get("anna", "/billing/balance"); masked(a.body) != fmt.Sprintf(want, balance) {
			t.Errorf("want %s: %s", balance, a.body)
		}
		if a := e.chat("anna", chatBody("sim-flat", "x", "")); a.status != 200 {
			t.Error(a.body)
		}
	}
	// 1 input token is 0.00000015: a float would show an exponent.
	e.append("anna", domain.Debit{Amount: domain.MustAmount("0.96999985"),
		Data: domain.MovementData{Reference: "r2", Actor: "test"}})
	if a := e.get("anna", "/billing/balance"); a.json("balance").Raw != "0.00000015" {
		t.Error(a.body)
	}
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	if a := e.get("bea", "/billing/transactions"); masked(a.body) != `{"user_id":"bea","transactions":[`+
		`{"id":"ID","amount":100,"description":"Credit: opening balance (opening)","timestamp":"TIME","model":null,"request_id":null}],`+
		`"limit":10,"offset":0,"as_of":"TIME","position":"POSITION","behind":0}` {
		t.Error(a.body)
	}
	e.chat("bea", chatBody("simulated/sim-flat", "x", ""))
	e.chat("bea", chatBody("sim-flat", "sim:status=500", "")) // refunded: no transaction
	e.append("bea", domain.Credit{Amount: domain.MustAmount("5.5"), Data: domain.MovementData{Reference: "inv-7", Actor: "test"}})
	e.append("bea", domain.Debit{Amount: domain.MustAmount("2"), Data: domain.MovementData{Reference: "c-1", Reason: "too <much>", Actor: "test"}})
	all := e.get("bea", "/billing/transactions?limit=1000").json("transactions").Array()
	want := []string{
		`{"id":"ID","amount":-2,"description":"Debit: too \u003cmuch\u003e (c-1)","timestamp":"TIME","model":null,"request_id":null}`,
		`{"id":"ID","amount":5.5,"description":"Credit: inv-7","timestamp":"TIME","model":null,"request_id":null}`,
		`{"id":"ID","amount":-0.01,"description":"Chat completion with simulated/sim-flat","timestamp":"TIME","model":"simulated/sim-flat","request_id":"ID"}`,
	}
	if len(all) != 4 {
		t.Fatalf("%d transactions: %s", len(all), all)
	}
	for i, line := range want {
		if masked(all[i].Raw) != line {
			t.Errorf("%d: %s\nwant %s", i, masked(all[i].Raw), line)
		}
	}
	for query, ids := range map[string]string{"?limit=2": "01", "?limit=2&offset=1": "12", "?offset=3": "3", "?offset=4": "",
		"?offset=10000000": "", "?limit=1000&offset=0": "0123", "?limit=&offset=": "0123"} {
		got := e.get("bea", "/billing/transactions"+query).json("transactions").Array()
		var order string
		for _, line := range got {
			for i := range all {
				if all[i].Get("id").Str == line.Get("id").Str {
					order += itoa(int64(i))
				}
			}
		}
		if order != ids {
			t.Errorf("%s gives %s, want %s", query, order, ids)
		}
	}
	for _, query := range []string{"limit=0", "limit=-1", "limit=1001", "limit=1e3", "limit=ten", "limit=1.5", "limit=99999999999999999999",
		"offset=-1", "offset=10000001", "offset=x", "limit=0x10"} {
		a := e.get("bea", "/billing/transactions?"+query)
		name, _, _ := strings.Cut(query, "=")
		if a.status != 400 || a.code() != "invalid_value" || a.json("error.param").Str != name {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestRequestView(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	asked := e.chat("carl", chatBody("sim-small", "one two three sim:tokens=10", `,"max_tokens":20`))
	path := "/billing/requests/" + asked.id().String()
	a := e.get("carl", path)
	input := asked.json("usage.prompt_tokens").Int()
	wantHead := fmt.Sprintf(`{"request_id":"ID","user_id":"carl","state":"settled","model":"sim-small","model_served":"sim-small",`+
		`"provider":"simulated","currency":"USD","reserved":%q,"charged":%q,"refunded":%q,"refund_reason":"remainder","usage_source":"provider","price_version":`,
		e.life("carl", asked.id()).reserve.Amount, asked.header.Get("x-billing-cost"), e.life("carl", asked.id()).refund.Amount)
	wantLines := fmt.Sprintf(`"meters":{"input":%d,"output":10,"requests":1},"lines":[{"meter":"input","quantity":%d,"unit_price":"0.00000015","amount":%s},`+
		`{"meter":"output","quantity":10,"unit_price":"0.0000006","amount":0.000006},{"meter":"requests","quantity":1,"unit_price":"0","amount":0}]`,
		input, input, domain.MustAmount("0.00000015").Times(input))
	if got := masked(a.body); a.status != 200 || !strings.HasPrefix(got, wantHead) || !strings.Contains(got, wantLines) {
		t.Errorf("%d %s\nwant %s ... %s", a.status, got, wantHead, wantLines)
	}
	checkEvents(t, e, a)
	for _, other := range []string{path, "/billing/requests/" + uuid.NewString()} {
		if b := e.get("mallory", other); b.status != 404 || b.code() != "request_not_found" || strings.Contains(b.body, "carl") {
			t.Errorf("another account reads %d %s", b.status, b.body)
		}
	}
	for _, id := range []string{"x", "00000000-0000-0000-0000-000000000000", "%00", "1%27%20or%201=1", strings.Repeat("a", 2000)} {
		if b := e.get("carl", "/billing/requests/"+id); b.status != 404 || b.code() != "request_not_found" {
			t.Errorf("%q: %d %s", id, b.status, b.body)
		}
	}
	failed := e.chat("carl", chatBody("sim-small", "sim:status=500", ""))
	b := e.get("carl", "/billing/requests/"+failed.id().String())
	if b.json("state").Str != "released" || b.json("refund_reason").Str != "provider_error" || b.json("charged").Raw != `"0"` ||
		b.json("lines").Raw != "[]" || b.json("meters").Raw != "{}" || b.json("events.#").Int() != 2 {
		t.Error(b.body)
	}
}

// checkEvents: the view shows the stored bytes with the hashes that are over them.
func checkEvents(t *testing.T, e *env, a answer) {
	t.Helper()
	stored, err := e.memory.Request(t.Context(), "carl", uuid.MustParse(a.json("request_id").Str))
	shown := a.json("events").Array()
	if err != nil || len(stored) != 3 || len(shown) != 3 {
		t.Fatalf("%d events, %d shown, %v", len(stored), len(shown), err)
	}
	for i, s := range shown {
		if s.Get("payload").Raw != string(stored[i].Payload) || s.Get("hash").Str != hex.EncodeToString(stored[i].Hash[:]) ||
			s.Get("position").Str != stored[i].Event.Position().String() || s.Get("amount").Raw != stored[i].Event.Amount.String() {
			t.Errorf("event %d is shown as %s\nstored %s", i, s.Raw, stored[i].Payload)
		}
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	providers, _ := both(t)
	e := start(t, options{})
	a := e.get("dora", "/v1/models")
	const small = `{"id":"sim-small","object":"model","created":1704067200,"owned_by":"simulated","permission":[],"root":"sim-small","parent":null}`
	if a.json("object").Str != "list" || a.json(`data.#.id`).Raw != `["sim-flat","sim-free","sim-large","sim-small"]` ||
		a.json("data.3").Raw != small {
		t.Error(a.body)
	}
	if b := e.get("dora", "/v1/models?format=array"); b.body != a.json("data").Raw {
		t.Error(b.body)
	}
	if b := e.get("dora", "/v1/models?format=xml"); b.status != 400 || b.code() != "invalid_value" {
		t.Errorf("%d %s", b.status, b.body)
	}
	e = start(t, options{array: true, providers: providers})
	list := e.get("dora", "/v1/models")
	if !gjson.Parse(list.body).IsArray() || e.get("dora", "/v1/models?format=openai").json("data").Raw != list.body {
		t.Error(list.body)
	}
	seen := map[string]bool{}
	for _, m := range gjson.Parse(list.body).Array() {
		seen[m.Get("id").Str] = true
		if owner := m.Get("owned_by").Str; owner != "openai" && owner != "simulated" {
			t.Errorf("%s cannot be called", m.Raw)
		}
	}
	for name, want := range map[string]bool{"gpt-4o": true, "sim-small": true, "o1-pro": true, "text-embedding-3-small": true, "claude-2.1": false} {
		if seen[name] != want {
			t.Errorf("%s is listed: %t", name, seen[name])
		}
	}
}

func TestProviderNotConfigured(t *testing.T) {
	t.Parallel()
	e := start(t, options{missing: map[string]string{"openai": "Set OPENAI_API_KEY."}})
	for model, what := range map[string]string{"gpt-4o": "OPENAI_API_KEY", "openai/gpt-4o": "OPENAI_API_KEY", "claude-2.1": "anthropic"} {
		a := e.chat("emil", chatBody(model, "x", ""))
		if a.status != 503 || a.code() != "provider_not_configured" || a.json("error.type").Str != "service_unavailable" ||
			!strings.Contains(a.json("error.message").Str, what) || a.header.Get("Retry-After") != "" {
			t.Errorf("%s: %d %s", model, a.status, a.body)
		}
	}
	e.untouched("no provider", "emil")
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "0"})
	if a := e.chat("free", chatBody("sim-free", "x", "")); a.status != 200 || a.header.Get("x-billing-cost") != "0" {
		t.Errorf("a free model at balance 0: %d %s", a.status, a.body)
	}
	if s := e.chat("free", chatBody("sim-free", "x", `,"stream":true`)).events(t); !s.done || s.bill(t).Get("cost").Str != "0" {
		t.Errorf("streamed: %+v", s)
	}
	if a := e.chat("free", chatBody("sim-flat", "x", "")); a.status != 402 || a.code() != "insufficient_quota" {
		t.Errorf("a priced model at balance 0: %d %s", a.status, a.body)
	}
	e.append("free", domain.Credit{Amount: domain.MustAmount("1"), Data: domain.MovementData{Reference: "r", Actor: "t"}})
	frozen := true
	e.append("free", domain.Configure{Data: domain.AccountData{Frozen: &frozen, Actor: "t"}})
	for _, model := range []string{"sim-flat", "sim-free"} {
		a := e.chat("free", chatBody(model, "x", ""))
		if a.status != 403 || a.code() != "account_frozen" || a.json("error.type").Str != "permission_error" {
			t.Errorf("%s of a frozen account: %d %s", model, a.status, a.body)
		}
	}
	if a := e.get("free", "/billing/balance"); a.status != 200 || a.json("balance").Raw != "1" {
		t.Errorf("a frozen account reads %d %s", a.status, a.body)
	}
	credit := domain.MustAmount("0.02")
	e.get("lent", "/billing/balance")
	e.append("lent", domain.Configure{Data: domain.AccountData{CreditLimit: &credit, Actor: "t"}})
	lent := func() int { return e.chat("lent", chatBody("sim-flat", "x", "")).status }
	if got := [3]int{lent(), lent(), lent()}; got != [3]int{200, 200, 402} || e.available("lent") != "-0.02" {
		t.Errorf("with a credit limit of two: %v, %s", got, e.available("lent"))
	}
	e.o.overages = true // below zero by credit, which the audit would call overspent
}

// TestOpeningRaces: however many first requests race, one grant is made.
func TestOpeningRaces(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "7"})
	other := start(t, options{balance: "7", share: e})
	together(64, func(i int) {
		on := e
		if i%2 == 1 {
			on = other
		}
		if a := on.get("fritz", "/billing/balance"); a.json("balance").Raw != "7" {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	if got := e.get("fritz", "/billing/transactions?limit=1000"); got.json("transactions.#").Int() != 1 {
		t.Error(got.body)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for path, want := range map[string]string{"/health": `{"billing":true,"environment":"development","status":"ok","version":"test"}`,
		"/live": `{"status":"alive"}`, "/ready": `{"status":"ready"}`} {
		if a := e.get("", path); a.status != 200 || a.body != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	e.chat("gerd", chatBody("sim-small", "sim:tokens=9", ""))
	e.chat("gerd", chatBody("no-such-model", "x", ""))
	a := e.get("", "/metrics")
	for _, want := range []string{`llm_requests_total{model="sim-small",status="200"} 1`, `llm_tokens_total{direction="output",model="sim-small"} 9`,
		`llm_requests_errors_total{code="model_not_found"} 1`, `ledger_overages_total{reason="beyond_bound"} 0`,
		`llm_provider_attempts_total{provider="simulated",result="ok"} 1`, `llm_time_to_first_byte_seconds_count{model="sim-small"} 1`} {
		if !strings.Contains(a.body, want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if strings.Contains(a.body, "no-such-model") {
		t.Error("a client made a label")
	}
}
