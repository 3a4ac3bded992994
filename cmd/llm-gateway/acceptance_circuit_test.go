package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// circuitFile is an UPSTREAMS file: `down`, where nobody listens, with two models and one that has a fallback;
// `mute`, which never answers a TLS handshake; and `acme`, the replaying server, with `steady` and others.
func circuitFile(down, mute, replay string, others ...string) string {
	model := func(name, price string) string {
		return "      - {model: " + name + ", context: 128000, max_output: 4096, prices: {input: \"" + price + "\", output: \"" + price + "\"}}\n"
	}
	more := ""
	for _, name := range others {
		more += model(name, "2")
	}
	return "upstreams:\n" +
		"  - name: down\n    base_url: " + down + "/v1\n    models:\n" + model("fickle", "1") + model("fickle-too", "1") + model("backed", "1") +
		"  - name: mute\n    base_url: " + mute + "/v1\n    timeouts: {connect: 300ms}\n    models:\n" + model("silent", "1") +
		"  - name: acme\n    base_url: " + replay + "/v1\n    api_key: k-openai\n    models:\n" + model("steady", "2") + more +
		"fallbacks:\n  backed: [steady]\n  silent: [steady]\n  claude-haiku-4-5-20251001: [steady]\n"
}

// failing is some gateways before the replaying server and such a file.
type failing struct {
	t      *testing.T
	all    []*served
	file   string // UPSTREAMS
	down   string // where nobody listens
	mute   string // who never answers
	dbURL  string
	replay string
	client *http.Client
	token  string
}

func startFailing(t *testing.T, n int, env ...string) *failing {
	t.Helper()
	readRecordings(t)
	f := &failing{t: t, replay: startReplay(t, "--auth", "k"), client: newClient(t), token: tokenFor(t, "fred")}
	closed, mute := listenLocal(t), listenLocal(t)
	closed.Close() //nolint:errcheck // nobody is to listen there
	f.file, f.down, f.mute = filepath.Join(t.TempDir(), "upstreams.yaml"), "http://"+closed.Addr().String(), "https://"+mute.Addr().String()
	writeFile(t, f.file, circuitFile(f.down, f.mute, f.replay, "other"))
	f.all, f.dbURL = gateways(t, n, append([]string{"UPSTREAMS=" + f.file, "ANTHROPIC_BASE_URL=" + f.replay, "ANTHROPIC_API_KEY=k-anthropic", "BILLING_DEFAULT_BALANCE=1000",
		"LOG_LEVEL=ERROR"}, env...)...)
	return f
}

// ask asks a gateway for a recording. The filler bounds what it used.
func (f *failing) ask(g int, model, marker string, stream bool) reply {
	f.t.Helper()
	return chat(f.t.Context(), f.client, f.all[g].url, f.token, chatBody(model, strings.Repeat("x", 8000)+" "+marker, stream, ""))
}

// want asks, and the answer must have a status and, where it failed, a code.
func (f *failing) want(g int, model, marker string, stream bool, status int, code string) reply {
	f.t.Helper()
	got := f.ask(g, model, marker, stream)
	if got.status != status || got.code != code {
		f.t.Errorf("gateway %d, %s %s: %v; want %d %s", g, model, marker, &got, status, code)
	}
	return got
}

// calls is how often the provider was called with a nonce.
func (f *failing) calls(nonce string) int {
	f.t.Helper()
	_, text := fetch(f.t, f.client, f.replay+"/__log?n="+nonce, "")
	return len(gjson.Parse(text).Array())
}

// state is what a gateway says of a circuit; "" where it says nothing.
func (f *failing) state(g int, provider, model string) string {
	f.t.Helper()
	status, text := fetch(f.t, f.client, f.all[g].url+"/health/circuit-breakers", "")
	if status != http.StatusOK || strings.Contains(text, "k-anthropic") {
		f.t.Errorf("circuits: %d %s", status, text)
	}
	for _, c := range gjson.Get(text, "circuit_breakers").Array() {
		if c.Get("provider").Str == provider && c.Get("model").Str == model {
			return c.Get("state").Str
		}
	}
	return ""
}

// halfOpen waits until a circuit is.
func (f *failing) halfOpen(g int, provider, model string) {
	f.t.Helper()
	eventually(f.t, readyLimit, "half open", func() bool { return f.state(g, provider, model) == "half_open" })
}

// TestCircuitsThroughBinary drives every state of a circuit, in one gateway and in three. The states are each
// process's own: what one has learned, the others learn for themselves, so an outage costs the provider the
// threshold times the gateways.
func TestCircuitsThroughBinary(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d gateways", n), func(t *testing.T) {
			t.Parallel()
			f := startFailing(t, n, "RETRY_ENABLED=false", "CIRCUIT_BREAKER_FAILURE_THRESHOLD=3", "CIRCUIT_BREAKER_RECOVERY_TIMEOUT=5")
			for g := range f.all {
				f.modelFails(g)
			}
			if got := f.calls("outage"); got != 3*n {
				t.Errorf("the provider got %d calls in the outage", got)
			}
			for g := range f.all {
				f.modelRecovers(g)
				f.providerFails(g)
				f.streamsBreak(g)
				f.slowedDown(g)
			}
			a := auditLedger(t, f.dbURL)
			if want := n * (3 + 1 + 2 + 3 + 1 + 3 + 5); len(a.open()) != 0 || len(a.lives) != want {
				t.Errorf("%d open, %d requests in the ledger, want %d: what a circuit refuses does not get there", len(a.open()), len(a.lives), want)
			}
			verified(t, "DATABASE_URL="+f.dbURL)
		})
	}
}

// modelFails: three failures open the model's circuit, and no other.
func (f *failing) modelFails(g int) {
	f.t.Helper()
	if got := f.state(g, "anthropic", claude); got != "" {
		f.t.Errorf("gateway %d: %s before it has called anything", g, got)
	}
	for range 3 {
		f.want(g, claude, claudeOne+";n=outage;fault=529", false, http.StatusBadGateway, "upstream_error")
	}
	shut := f.want(g, claude, claudeOne+";n=outage", false, http.StatusServiceUnavailable, "circuit_open")
	if wait, err := strconv.Atoi(shut.header.Get("Retry-After")); err != nil || wait < 1 || wait > 5 || shut.request != "" {
		f.t.Errorf("retry after %q, request %q", shut.header.Get("Retry-After"), shut.request)
	}
	if got := f.state(g, "anthropic", claude) + " " + f.state(g, "anthropic", ""); got != "open closed" {
		f.t.Errorf("gateway %d: the model's and the provider's are %s", g, got)
	}
	f.want(g, "claude-haiku-4-5-20251001", claudeOne+";n=other", false, http.StatusOK, "")
}

// modelRecovers: the first probe fails, the second does not.
func (f *failing) modelRecovers(g int) {
	f.t.Helper()
	f.halfOpen(g, "anthropic", claude)
	f.want(g, claude, claudeOne+fmt.Sprintf(";n=probe%d;fault=500", g), false, http.StatusBadGateway, "upstream_error")
	f.want(g, claude, claudeOne+fmt.Sprintf(";n=probe%d", g), false, http.StatusServiceUnavailable, "circuit_open")
	f.halfOpen(g, "anthropic", claude)
	f.want(g, claude, claudeOne+fmt.Sprintf(";n=probe%d", g), false, http.StatusOK, "")
	if got := f.state(g, "anthropic", claude); got != "closed" || f.calls(fmt.Sprintf("probe%d", g)) != 2 {
		f.t.Errorf("gateway %d: %s after %d calls", g, got, f.calls(fmt.Sprintf("probe%d", g)))
	}
}

// providerFails: where nobody listens, no model is called any more; one with a fallback is served by that.
func (f *failing) providerFails(g int) {
	f.t.Helper()
	for _, model := range []string{"fickle", "fickle-too", "fickle"} {
		f.want(g, model, openAIOne, false, http.StatusBadGateway, "upstream_error")
	}
	for _, model := range []string{"fickle", "fickle-too"} {
		f.want(g, model, openAIOne, false, http.StatusServiceUnavailable, "circuit_open")
	}
	got := f.want(g, "backed", openAIOne+";n=backed", false, http.StatusOK, "")
	if state := f.state(g, "down", "") + f.state(g, "down", "fickle"); state != "open" {
		f.t.Errorf("gateway %d: %s", g, state)
	}
	if l := auditLedger(f.t, f.dbURL).lives[got.request]; l == nil || !slices.Equal(l.attempts, []string{"acme 200"}) {
		f.t.Errorf("the fallback: %+v", l)
	}
}

// streamsBreak: streams that begin and break off are failures, and what they delivered is charged.
func (f *failing) streamsBreak(g int) {
	f.t.Helper()
	var cut [3]reply
	for i := range cut {
		cut[i] = f.ask(g, "other", "cas:oas-chat-usage-1;fault=drop@5", true)
	}
	f.want(g, "other", "cas:oas-chat-usage-1", true, http.StatusServiceUnavailable, "circuit_open")
	lives := auditLedger(f.t, f.dbURL).lives
	for i := range cut {
		if l := lives[cut[i].request]; cut[i].status != http.StatusOK || cut[i].complete || l == nil || l.commits != 1 || l.source != "counted" {
			f.t.Errorf("a cut stream: %v, in the ledger %+v", &cut[i], l)
		}
	}
}

// slowedDown: a provider that wants fewer calls, or refuses the request, is no failing one.
func (f *failing) slowedDown(g int) {
	f.t.Helper()
	for _, status := range []int{429, 400, 429, 429} {
		if got := f.ask(g, "steady", openAIOne+fmt.Sprintf(";fault=%d", status), false); got.status != status {
			f.t.Errorf("%d: %v", status, &got)
		}
	}
	f.want(g, "steady", openAIOne, false, http.StatusOK, "")
}

// TestCircuitsReload: SIGHUP keeps the circuits of what stays in the catalog, and forgets those of what has gone.
func TestCircuitsReload(t *testing.T) {
	t.Parallel()
	f := startFailing(t, 1, "RETRY_ENABLED=false", "CIRCUIT_BREAKER_FAILURE_THRESHOLD=1", "CIRCUIT_BREAKER_RECOVERY_TIMEOUT=3600")
	f.want(0, "other", openAIOne+";n=reload;fault=500", false, http.StatusBadGateway, "upstream_error")
	f.reload("newcomer", "other", "newcomer")
	f.want(0, "other", openAIOne+";n=reload", false, http.StatusServiceUnavailable, "circuit_open")
	if got := f.state(0, "acme", "other"); got != "open" || f.calls("reload") != 1 {
		t.Errorf("after a reload it is %q, and was called %d times", got, f.calls("reload"))
	}
	f.reload("another", "newcomer", "another")
	if got := f.state(0, "acme", "other"); got != "" {
		t.Errorf("it is not in the catalog, and is %q", got)
	}
	f.reload("third", "other", "third")
	f.want(0, "other", openAIOne+";n=reload", false, http.StatusOK, "")
}

// reload puts other models into the file, and waits until one of them can be called.
func (f *failing) reload(there string, models ...string) {
	f.t.Helper()
	writeFile(f.t, f.file, circuitFile(f.down, f.mute, f.replay, models...))
	if err := f.all[0].cmd.Process.Signal(syscall.SIGHUP); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, readyLimit, "the new file", func() bool { return f.ask(0, there, openAIOne, false).status == http.StatusOK })
}

// TestTimeoutsThroughBinary: each time-out, what a client is told, what is charged, and whether it is tried
// again: no connection at the same provider, no answer only at another.
func TestTimeoutsThroughBinary(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d gateways", n), func(t *testing.T) {
			t.Parallel()
			timeouts(t, n)
		})
	}
}

func timeouts(t *testing.T, n int) {
	f := startFailing(t, n, "RETRY_BASE_DELAY=0.01", "UPSTREAM_FIRST_BYTE_TIMEOUT=1500ms", "UPSTREAM_IDLE_TIMEOUT=1500ms", "UPSTREAM_TIMEOUT=4s")
	hung := f.want(0, claude, claudeOne+";n=hang;fault=hang", false, http.StatusGatewayTimeout, "upstream_timeout")
	backed := f.want(1%n, "claude-haiku-4-5-20251001", openAIOne+";n=hang-once;fault=hang;times=1", false, http.StatusOK, "")
	silent := f.want(2%n, "silent", openAIOne+";n=silent", false, http.StatusOK, "")
	stalled := f.ask(0, "steady", "cas:oas-chat-usage-1;n=stall;fault=stall@4", true)
	total := f.ask(1%n, "steady", "cas:oas-chat-usage-1;n=total;d=700", true)
	a := auditLedger(t, f.dbURL)
	if l := a.lives[hung.request]; l == nil || l.commits != 0 || l.reason != "provider_error" {
		t.Errorf("no first byte: %+v", l)
	}
	for name, c := range map[string]struct {
		got  reply
		want []string
	}{
		"no first byte":                        {backed, []string{"anthropic 0", "acme 200"}},
		"no connection":                        {silent, []string{"mute 0", "mute 0", "mute 0", "acme 200"}},
		"nothing more came":                    {stalled, []string{"acme 200"}},
		"it went on for longer than it may be": {total, []string{"acme 200"}},
	} {
		if l := a.lives[c.got.request]; l == nil || l.commits != 1 || !slices.Equal(l.attempts, c.want) {
			t.Errorf("%s: %+v", name, l)
		}
	}
	for name, got := range map[string]reply{"idle": stalled, "total": total} {
		if l := a.lives[got.request]; got.status != http.StatusOK || got.complete || got.code != "upstream_timeout" || l.source != "counted" {
			t.Errorf("%s: %v; in the ledger %+v", name, &got, l)
		}
	}
	if total.took < 4*time.Second || len(a.open()) != 0 {
		t.Errorf("%s; %d are open", total.took, len(a.open()))
	}
	verified(t, "DATABASE_URL="+f.dbURL)
}

// TestRetryBudgetThroughBinary: in an outage a provider gets a fifth more calls, and one a second, not three
// times as many. Each gateway has a budget of its own, for the calls that it makes.
func TestRetryBudgetThroughBinary(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d gateways", n), func(t *testing.T) {
			t.Parallel()
			f := startFailing(t, n, "RETRY_BASE_DELAY=0", "CIRCUIT_BREAKER_ENABLED=false")
			const requests = 30 // of each gateway
			began := time.Now()
			for i := range n * requests {
				f.want(i%n, claude, claudeOne+fmt.Sprintf(";n=budget%d;fault=503", i%n), false, http.StatusBadGateway, "upstream_error")
			}
			most := 10 + requests/5 + int(time.Since(began).Seconds())
			for g := range f.all {
				if retries := f.calls(fmt.Sprint("budget", g)) - requests; retries < 10 || retries > most {
					t.Errorf("gateway %d: %d retries of %d requests in %s; want at most %d", g, retries, requests, time.Since(began), most)
				}
				if _, text := fetch(t, f.client, f.all[g].url+"/health/circuit-breakers", ""); gjson.Get(text, "enabled").Bool() {
					t.Errorf("circuits: %s", text)
				}
			}
		})
	}
}
