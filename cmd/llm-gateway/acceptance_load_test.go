package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/gateway/provider"
)

const (
	loadModel       = "gpt-4o-mini"
	loadConnections = 64
	loadAccounts    = 12
	loadBalance     = "1000"
)

// loadPrices are gpt-4o-mini's, in dollars per token, as its provider publishes them; reasoning is
// billed as output. They are written here again so that the price book is checked too.
var loadPrices = map[string]string{"input": "0.00000015", "cached_input": "0.000000075", "output": "0.0000006", "reasoning": "0.0000006"}

// witness is an upstream that remembers the usage of every answer it served, by the answer's id.
type witness struct {
	*httptest.Server
	mu     sync.Mutex
	served map[string]usage
	calls  int
	odd    []string // what no witness should have to tell
}

// newWitness serves the simulated provider as if it were OpenAI.
func newWitness(t testing.TB) *witness {
	w := &witness{served: map[string]usage{}}
	upstream := provider.Handler(provider.NewSimulated())
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tape := &tape{ResponseWriter: rw}
		upstream.ServeHTTP(tape, r)
		w.note(r, tape.text.Bytes())
	}))
	t.Cleanup(w.Close)
	return w
}

// settings point a gateway to it.
func (w *witness) settings() []string {
	return []string{"OPENAI_BASE_URL=" + w.URL, "OPENAI_API_KEY=upstream-key"}
}

// note reads what went out over the wire: the last JSON object with a usage is the answer's.
func (w *witness) note(r *http.Request, wire []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if r.Header.Get("Authorization") != "Bearer upstream-key" {
		w.odd = append(w.odd, "a call with the credential "+r.Header.Get("Authorization"))
	}
	for line := range bytes.SplitSeq(wire, []byte("\n")) {
		data := bytes.TrimPrefix(line, []byte("data: "))
		if !bytes.Contains(data, []byte(`"usage":{`)) {
			continue
		}
		var a struct {
			ID    string
			Usage usage
		}
		if err := json.Unmarshal(data, &a); err != nil {
			w.odd = append(w.odd, err.Error())
		}
		if _, twice := w.served[a.ID]; twice {
			w.odd = append(w.odd, "the answer "+a.ID+" was served twice")
		}
		w.served[a.ID] = a.Usage
	}
}

// tape keeps what is written.
type tape struct {
	http.ResponseWriter
	text bytes.Buffer
}

func (t *tape) Write(p []byte) (int, error) {
	t.text.Write(p)
	return t.ResponseWriter.Write(p)
}

// Unwrap lets the handler flush.
func (t *tape) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// loadBody is the i-th request: every one has a prompt of its own, so an answer's id of its own.
func loadBody(i int) string {
	prompt := fmt.Sprintf("nonce %d sim:tokens=%d", i, 1+i*7%61)
	more := ""
	if i%5 == 0 {
		prompt += fmt.Sprintf(" sim:cached=%d", i%23) + strings.Repeat(" and so on", i%11)
	}
	if i%7 == 0 {
		prompt += " sim:reasoning=11"
	}
	if i%3 == 0 {
		more += fmt.Sprintf(`,"max_completion_tokens":%d`, 10+i%40)
	}
	if i%13 == 0 {
		more += `,"n":2`
	}
	stream := i%2 == 1
	if stream && i%4 == 1 {
		more += `,"stream_options":{"include_usage":true}`
	}
	return chatBody(loadModel, prompt, stream, more)
}

func loadAccount(i int) string { return fmt.Sprintf("load-%d", i%loadAccounts) }

// sendLoad sends n requests over so many connections, in turn to each of the gateways, and returns
// what came of each.
func sendLoad(t testing.TB, bases []string, n int) []reply {
	t.Helper()
	sent := 0
	return sendWhile(t, bases, func() bool { sent++; return sent <= n })
}

// sendWhile sends requests as sendLoad does, as long as more says so.
func sendWhile(t testing.TB, bases []string, more func() bool) []reply {
	t.Helper()
	client := newClient(t)
	tokens := make([]string, loadAccounts)
	for i := range tokens {
		tokens[i] = tokenFor(t, loadAccount(i))
	}
	var replies []*reply
	next, wait := make(chan *reply), sync.WaitGroup{}
	var mu sync.Mutex
	for range loadConnections {
		wait.Go(func() {
			for r := range next {
				mu.Lock()
				i := len(replies)
				replies = append(replies, r)
				mu.Unlock()
				*r = chat(t.Context(), client, bases[i/2%len(bases)], tokens[i%loadAccounts], loadBody(i))
			}
		})
	}
	for more() {
		next <- new(reply)
	}
	close(next)
	wait.Wait()
	out := make([]reply, len(replies))
	for i, r := range replies {
		out[i] = *r
	}
	return out
}

// TestTenThousandRequests: every request that a client sent has its reserve, its commit and, where
// something was left, its refund; what was billed is what the witness served, to the last digit.
func TestTenThousandRequests(t *testing.T) {
	n := sized(2000, 10_000)
	w := newWitness(t)
	env := append(w.settings(), "BILLING_DEFAULT_BALANCE="+loadBalance)
	all, url := gateways(t, 2, env...)
	env = append(env, "DATABASE_URL="+url)
	bases := []string{all[0].url, all[1].url}
	var beside sync.WaitGroup
	beside.Go(func() { verified(t, env...) }) // while it is being written
	begin := time.Now()
	replies := sendLoad(t, bases, n)
	took := time.Since(begin)
	beside.Wait()
	t.Logf("%d requests at %d connections over %d gateways in %s: %.0f/s", n, loadConnections, len(all), took.Round(time.Millisecond), float64(n)/took.Seconds())
	verified(t, env...)
	checkLoad(t, auditLedger(t, url), replies, w)
	publishedAt(t, url).audit(t)
	auditProjections(t, url)
	rebuiltEqual(t, env)
	for _, s := range all {
		s.stop()
	}
	verified(t, env...)
	begin = time.Now()
	a := auditLedger(t, url)
	t.Logf("%d events audited in %s", a.events, time.Since(begin).Round(time.Millisecond))
}

// checkLoad holds the ledger against the clients and the witness.
func checkLoad(t testing.TB, a *audit, replies []reply, w *witness) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(a.lives) != len(replies) || w.calls != len(replies) || len(w.odd) != 0 {
		t.Errorf("%d requests, %d in the ledger, %d at the provider; %.300v", len(replies), len(a.lives), w.calls, w.odd)
	}
	perAccount, told, seen := map[string]*big.Rat{}, new(big.Rat), map[string]bool{}
	for i := range replies {
		r := &replies[i]
		l, used := a.lives[r.request], w.served[r.answer]
		if r.status != http.StatusOK || !r.complete || r.err != nil || l == nil || seen[r.request] {
			t.Fatalf("request %d: %v; in the ledger %+v", i, r, l)
		}
		seen[r.request] = true
		want := priced(a, used)
		if l.commits != 1 || l.source != "provider" || l.account != loadAccount(i) || l.stream != (i%2 == 1) ||
			!sameMeters(l.meters, used) || l.commit.Cmp(want) != 0 || a.rat(r.cost).Cmp(want) != 0 {
			t.Fatalf("request %d (%s): served %+v for %s, told %s, billed %+v", i, r.request, used, want.FloatString(12), r.cost, l)
		}
		if r.usage != nil && *r.usage != used {
			t.Errorf("request %d: the client was told %+v, served %+v", i, *r.usage, used)
		}
		told.Add(told, a.rat(r.cost))
		if perAccount[l.account] == nil {
			perAccount[l.account] = a.rat(loadBalance)
		}
		perAccount[l.account].Sub(perAccount[l.account], want)
	}
	whole := new(big.Rat)
	for _, used := range w.served {
		whole.Add(whole, priced(a, used))
	}
	if revenue := a.balance("platform:revenue"); revenue.Cmp(whole) != 0 || told.Cmp(whole) != 0 {
		t.Errorf("served for %s, billed %s, told %s", whole, revenue, told)
	}
	for name, left := range perAccount {
		if row := a.rows[name]; row[0].Cmp(left) != 0 || row[1].Sign() != 0 {
			t.Errorf("%s has %s and %s reserved, should have %s", name, row[0], row[1], left)
		}
	}
	t.Logf("%d answers for %s USD; %d accounts", len(w.served), whole.FloatString(12), len(perAccount))
}

// disjoint counts the tokens of a usage, each once.
func disjoint(u usage) map[string]int64 {
	return map[string]int64{"input": u.Prompt - u.In.Cached, "cached_input": u.In.Cached,
		"output": u.Completion - u.Out.Reasoning, "reasoning": u.Out.Reasoning}
}

// priced is what a usage costs.
func priced(a *audit, u usage) *big.Rat {
	sum := new(big.Rat)
	for meter, n := range disjoint(u) {
		sum.Add(sum, new(big.Rat).Mul(new(big.Rat).SetInt64(n), a.rat(loadPrices[meter])))
	}
	return sum
}

// sameMeters compares what was billed with a usage; all other meters must be 0 but for `requests`.
func sameMeters(billed map[string]int64, u usage) bool {
	want := disjoint(u)
	for meter, n := range billed {
		if n != want[meter] && (meter != "requests" || n != 1) {
			return false
		}
	}
	return len(billed) > len(want)
}
