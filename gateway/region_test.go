package gateway_test

import (
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// placedServer is Anthropic; what its answers say of where and how fast is what the request's text says.
func placedServer(t *testing.T) provider.Provider {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told := strings.TrimSpace(gjson.GetBytes(body, "messages.0.content").Str)
		if told != "" {
			told = "," + told
		}
		const usage = `{"input_tokens":1000,"cache_creation_input_tokens":0,"cache_read_input_tokens":200,"output_tokens":100%s}`
		if !gjson.GetBytes(body, "stream").Bool() {
			w.Header().Set("content-type", "application/json")
			fmt.Fprintf(w, `{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":`+usage+`}`, told)
			return
		}
		w.Header().Set("content-type", "text/event-stream")
		fmt.Fprintf(w, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":"+usage+"}}\n\n", told)
		io.WriteString(w, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":100}}\n\n"+ //nolint:errcheck // the test's own client
			"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
	}))
	t.Cleanup(server.Close)
	p, err := provider.NewAnthropic(provider.Config{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRegionsAreCharged: the factor that the answer tells of, or that was asked for where it tells nothing, and
// never more than was reserved.
func TestRegionsAreCharged(t *testing.T) {
	t.Parallel()
	costs, markup := pricebook.Builtin(), domain.MustAmount("50")
	sell, err := domain.NewSellBook(costs, domain.SellRules{}, []domain.SellGroup{{Name: "g", Accounts: []string{"sold"}, SellRules: domain.SellRules{Markup: &markup}}})
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, options{book: costs, sell: sell, providers: map[string]provider.Provider{"anthropic": placedServer(t)}})
	factor := map[string]*big.Rat{"": big.NewRat(1, 1), "us": big.NewRat(11, 10), "fast": big.NewRat(2, 1), "us+fast": big.NewRat(22, 10)}
	for _, c := range []struct{ asks, told, region string }{
		{``, ``, ""},
		{``, `\"inference_geo\":\"not_available\"`, ""},
		{``, `\"inference_geo\":\"global\",\"speed\":\"standard\"`, ""},
		{``, `\"inference_geo\":\"us\"`, "us"}, // the workspace's own choice
		{``, `\"inference_geo\":\"mars\"`, ""}, // has no factor
		{`,"inference_geo":"global"`, ``, ""},
		{`,"inference_geo":"us"`, ``, "us"},
		{`,"inference_geo":"us"`, `\"inference_geo\":\"us\"`, "us"},
		{`,"inference_geo":"us"`, `\"inference_geo\":\"not_available\"`, "us"},
		{`,"speed":"fast"`, ``, "fast"},
		{`,"speed":"fast"`, `\"speed\":\"fast\",\"inference_geo\":\"us\"`, "us+fast"},
		{`,"speed":"fast"`, `\"speed\":\"standard\"`, ""}, // it was not
		{`,"speed":"fast","inference_geo":"us"`, ``, "us+fast"},
	} {
		for _, account := range []string{"plain", "sold"} {
			for _, stream := range []string{"", `,"stream":true`} {
				body := fmt.Sprintf(`{"model":"claude-opus-5","max_tokens":100,"messages":[{"role":"user","content":"%s"}]%s%s}`, c.told, c.asks, stream)
				a := e.post(account, "/v1/messages", strings.ReplaceAll(body, `"content":""`, `"content":"  "`))
				if a.status != 200 {
					t.Fatalf("%s: %d %s", body, a.status, a.body)
				}
				l := e.life(account, a.id())
				d, r := l.commitData(), l.reserve
				want := new(big.Rat).Mul(plainCost(t, costs, "claude-opus-5", d.Meters, time.Now()), factor[c.region])
				if account == "sold" {
					want.Mul(want, big.NewRat(3, 2))
				}
				if d.Region != c.region || ratOf(l.commit).Cmp(want) != 0 || r.Amount.Less(l.commit.Amount) {
					t.Errorf("%s %s told %s: charged %s in %q of %s reserved, want %s in %q", account, c.asks, c.told, l.commit.Amount, d.Region, r.Amount, want.FloatString(12), c.region)
				}
				version := domain.VersionsOf(costs, sell)
				past := domain.NewPastCharge(d, l.commit.Amount)
				if again := past.Recheck(func(id string) *domain.PriceVersion { return version[id] }); len(again.Problems)+len(again.Unlisted) > 0 {
					t.Errorf("calculated again: %+v", again)
				}
			}
		}
	}
	if logs := e.logs.String(); !strings.Contains(logs, "no factor for") || !strings.Contains(logs, "mars") {
		t.Error("a region without a factor was not logged")
	}
}

// TestRegionsAreBounded: what asks for a dear region reserves for it, and what has no price is refused by name.
func TestRegionsAreBounded(t *testing.T) {
	t.Parallel()
	e := start(t, options{providers: map[string]provider.Provider{"anthropic": placedServer(t)}})
	ask := func(model, more string) answer {
		return e.post("ann", "/v1/messages", `{"model":"`+model+`","max_tokens":100,"messages":[{"role":"user","content":"   "}]`+more+`}`)
	}
	reserved := func(more string) *big.Rat {
		return rat(e.life("ann", ask("claude-opus-5", more).id()).reserve.Amount)
	}
	base := reserved(`,"inference_geo":"global","service_tier":"standard_only"`)
	for more, want := range map[string]*big.Rat{`,"inference_geo":"us"`: big.NewRat(11, 10), ``: big.NewRat(11, 10), // the workspace may have chosen
		`,"speed":"fast"`: big.NewRat(22, 10), `,"speed":"fast","inference_geo":"global"`: big.NewRat(2, 1)} {
		// The bodies differ by some bytes, each of which is bounded as a token.
		got := new(big.Rat).Quo(reserved(more+`,"service_tier":"standard_only"`), base)
		if low, high := new(big.Rat).Mul(want, big.NewRat(96, 100)), new(big.Rat).Mul(want, big.NewRat(104, 100)); got.Cmp(low) < 0 || got.Cmp(high) > 0 {
			t.Errorf("%s reserves %s times what the usual does, want about %s", more, got.FloatString(4), want.FloatString(2))
		}
	}
	for _, c := range []struct{ model, more, param string }{
		{"claude-haiku-4-5", `,"inference_geo":"us"`, "inference_geo"}, {"claude-haiku-4-5", `,"speed":"fast"`, "speed"},
		{"claude-opus-5", `,"inference_geo":"eu"`, "inference_geo"}, {"claude-opus-5", `,"inference_geo":"fast"`, "inference_geo"},
		{"claude-opus-5", `,"speed":"us"`, "speed"}, {"claude-opus-5", `,"speed":"swift"`, "speed"}, {"claude-sonnet-5", `,"speed":"fast"`, "speed"},
	} {
		if a := ask(c.model, c.more); a.status != 400 || !strings.Contains(a.body, "`"+c.param+"` is not supported") {
			t.Errorf("%s%s: %d %s", c.model, c.more, a.status, a.body)
		}
	}
}
