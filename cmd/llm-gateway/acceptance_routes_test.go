package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// routesFile is an UPSTREAMS file: a provider that is down, with a model that falls back to OpenAI's, and
// OpenAI itself with two keys, of which the first is refused; one with two keys that are both good; and a compatible
// one, of which more are further models.
func routesFile(down, openai, busy, more string) string {
	return `upstreams:
  - name: down
    base_url: ` + down + `/v1
    timeouts: {connect: 1s}
    models:
      - model: fickle
        context: 128000
        max_output: 4096
        prices: {input: "1", output: "2"}
  - name: openai
    base_url: ` + openai + `/v1
    keys:
      - {api_key: refused-openai, weight: 1}
      - {api_key: k-openai, weight: 0}
  - name: busy
    base_url: ` + busy + `/v1
    keys:
      - {api_key: one-openai, weight: 1}
      - {api_key: two-openai, weight: 0}
    models:
      - model: popular
        context: 128000
        max_output: 4096
        prices: {input: "3", output: "4"}
  - name: acme
    base_url: ` + openai + `/v1
    api_key: k-openai
    models:
      - model: steady
        context: 128000
        max_output: 4096
        prices: {input: "3", output: "4"}
` + more + `fallbacks:
  fickle: [gpt-4o]
`
}

// routed are gateways before the replaying server, with such a file. The other one takes any key.
type routed struct {
	t            *testing.T
	all          []*served
	dbURL        string
	file         string
	replay, busy string
	client       *http.Client
	token        string
}

func startRouted(t *testing.T, n int, env ...string) *routed {
	t.Helper()
	readRecordings(t)
	closed := listenLocal(t)
	r := &routed{t: t, file: filepath.Join(t.TempDir(), "upstreams.yaml"), replay: startReplay(t, "--auth", "k"), busy: startReplay(t), client: newClient(t),
		token: tokenFor(t, "router")}
	closed.Close() //nolint:errcheck // nobody is to listen there
	writeFile(t, r.file, routesFile("http://"+closed.Addr().String(), r.replay, r.busy, ""))
	r.all, r.dbURL = gateways(t, n, append([]string{"UPSTREAMS=" + r.file, "ANTHROPIC_BASE_URL=" + r.replay, "ANTHROPIC_API_KEY=k-anthropic",
		"BILLING_DEFAULT_BALANCE=1000", "LOG_LEVEL=ERROR"}, env...)...)
	return r
}

// ask asks a gateway for a recording of OpenAI's or Anthropic's. The filler bounds what it used.
func (r *routed) ask(g int, model, marker string) reply {
	r.t.Helper()
	return chat(r.t.Context(), r.client, r.all[g].url, r.token, chatBody(model, strings.Repeat("x", 8000)+" "+marker, false, ""))
}

// routeCase is one request and how it must go.
type routeCase struct {
	name, model, marker string
	status              int
	tried               []string      // provider and status of every attempt
	provider            string        // of the price; "" = nothing was charged
	least               time.Duration // that it takes
}

// routeSoon is less than the Retry-After that must not be waited for.
const routeSoon = 30 * time.Second

func (r *routed) check(cases []routeCase) {
	r.t.Helper()
	got := make([]reply, len(cases))
	for i, c := range cases {
		got[i] = r.ask(i%len(r.all), c.model, c.marker)
	}
	a := auditLedger(r.t, r.dbURL)
	for i, c := range cases {
		l := a.lives[got[i].request]
		if l == nil || got[i].status != c.status || got[i].took < c.least || got[i].took > routeSoon {
			r.t.Errorf("%s: %v after %s; in the ledger %+v", c.name, &got[i], got[i].took, l)
			continue
		}
		charges := map[bool]int{true: 1}[c.provider != ""]
		if l.reserves != 1 || l.commits != charges || l.provider != c.provider || c.provider != "" && !strings.HasPrefix(l.priceVersion, c.provider+"/") {
			r.t.Errorf("%s: in the ledger %+v", c.name, *l)
		}
		if charges == 1 && !slices.Equal(l.attempts, c.tried) {
			r.t.Errorf("%s: tried %q, want %q", c.name, l.attempts, c.tried)
		}
		if charges == 0 && l.reason != "provider_error" {
			r.t.Errorf("%s: refunded for %q", c.name, l.reason)
		}
	}
	if len(a.open()) != 0 {
		r.t.Errorf("%d requests are open", len(a.open()))
	}
}

const (
	claude    = "claude-sonnet-4-5-20250929"
	openAIOne = "cas:oa-chat-basic-1"
	claudeOne = "cas:an-book"
)

// TestRetriesThroughBinary: a provider that fails before its first byte is asked again, another key or another
// provider is tried, and whatever it takes is one reservation and one charge, at the price of who answered.
func TestRetriesThroughBinary(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d gateways", n), func(t *testing.T) {
			t.Parallel()
			r := startRouted(t, n, "RETRY_BASE_DELAY=0.01", "RETRY_MAX_DELAY=60")
			r.check([]routeCase{
				{"two failures", claude, claudeOne + ";n=two;fault=503;times=2", 200, []string{"anthropic 503", "anthropic 503", "anthropic 200"}, "anthropic", 0},
				{"three failures", claude, claudeOne + ";n=three;fault=503;times=3", 502, nil, "", 0},
				{"told when", claude, claudeOne + ";n=when;fault=429;ra=1;times=1", 200, []string{"anthropic 429", "anthropic 200"}, "anthropic", time.Second},
				{"told when, beside a failure", claude, claudeOne + ";n=then;fault=503;ra=1;times=1", 200, []string{"anthropic 503", "anthropic 200"}, "anthropic", time.Second},
				{"told too late", claude, claudeOne + ";n=late;fault=429;ra=90;times=1", 429, nil, "", 0},
				{"told when, with another key", "popular", openAIOne + ";n=busy;fault=429;ra=60;times=1", 200, []string{"busy 429", "busy 200"}, "busy", 0},
				{"a request that is wrong", claude, claudeOne + ";n=wrong;fault=400;times=1", 400, nil, "", 0},
				{"a compatible upstream", "steady", openAIOne + ";n=steady;fault=500;times=1", 200, []string{"acme 500", "acme 200"}, "acme", 0},
				{"a key that is refused", "gpt-4o", openAIOne + ";n=key", 200, []string{"openai 401", "openai 200"}, "openai", 0},
				{"a provider that is down", "fickle", openAIOne + ";n=down", 200,
					[]string{"down 0", "down 0", "down 0", "openai 401", "openai 200"}, "openai", 0},
			})
			verified(t, "DATABASE_URL="+r.dbURL)
		})
	}
}

// TestNoRetriesThroughBinary: with RETRY_ENABLED=false the first failure is the client's to see.
func TestNoRetriesThroughBinary(t *testing.T) {
	t.Parallel()
	r := startRouted(t, 1, "RETRY_ENABLED=false")
	r.check([]routeCase{
		{"one failure", claude, claudeOne + ";n=one;fault=503;times=1", 502, nil, "", 0},
		{"told when", claude, claudeOne + ";n=when;fault=429;ra=1;times=1", 429, nil, "", 0},
		{"none", claude, claudeOne + ";n=none", 200, []string{"anthropic 200"}, "anthropic", 0},
	})
}

// TestReloadThroughBinary: after SIGHUP the file is in force, and requests before it were priced by the old one.
func TestReloadThroughBinary(t *testing.T) {
	t.Parallel()
	r := startRouted(t, 1)
	if got := r.ask(0, "newcomer", openAIOne+";n=before"); got.status != http.StatusNotFound || got.code != "model_not_found" {
		t.Errorf("before it is there: %v", &got)
	}
	const newcomer = "      - model: newcomer\n        context: 128000\n        max_output: 4096\n        prices: {input: \"5\", output: \"6\"}\n"
	writeFile(t, r.file, routesFile("http://127.0.0.1:1", r.replay, r.busy, newcomer))
	if err := r.all[0].cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	var got reply
	eventually(t, readyLimit, "the new model", func() bool {
		got = r.ask(0, "newcomer", openAIOne+";n=after")
		return got.status == http.StatusOK
	})
	l := auditLedger(t, r.dbURL).lives[got.request]
	if l == nil || l.commits != 1 || l.provider != "acme" || !strings.HasPrefix(l.priceVersion, "acme/newcomer@launch") {
		t.Errorf("served by the new model: %+v", l)
	}
}
