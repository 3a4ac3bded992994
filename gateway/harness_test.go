package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/leaktest"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/observe/trace"
	"llm-gateway/gateway/provider"
	"llm-gateway/ledger"
)

// The secret and algorithm of all test gateways.
const (
	testSecret = "a secret that only the tests know"
	testShards = 4
)

// options say how a test's gateway differs from the usual one.
type options struct {
	balance   string // of a new account; "" = 100
	policy    gateway.ReservePolicy
	providers map[string]provider.Provider // nil = the simulated one
	missing   map[string]string
	routing   gateway.Routing
	retry     gateway.Retry
	failing   gateway.Resilience
	caching   gateway.Caching
	book      *domain.PriceBook                   // nil = the built-in one
	sell      *domain.SellBook                    // nil = sold at cost
	wrap      func(gateway.Ledger) gateway.Ledger // between the gateway and its ledger
	facts     func(gateway.Facts) gateway.Facts   // the same for reading
	views     func(gateway.Projections) gateway.Projections
	balances  gateway.Balances   // nil = no cache
	journal   gateway.Journal    // nil = none
	spool     gateway.Spool      // nil = deny
	owned     func() bool        // nil = always
	ledgerNow func() time.Time   // the ledger's clock; nil = time.Now
	share     *env               // another gateway, whose ledger this one uses too
	keys      gateway.Keys       // API keys
	belongs   gateway.Belongings // nil = nobody knows whose a provider's ids are
	edge      gateway.Edge
	sharedIDs bool                                  // SHARED_PROVIDER_IDS=allow
	array     bool                                  // MODELS_FORMAT=array
	ready     func(context.Context) error           // nil = ready
	degraded  func(context.Context) []string        // nil = nothing is away
	listen    func(http.Handler) *httptest.Server   // nil = on loopback
	now       func() time.Time                      // nil = time.Now
	tokens    func(*testing.T) *gateway.Tokens      // nil = HS256 with testSecret
	tracer    trace.Tracer                          // nil = none
	noMetrics bool                                  // PROMETHEUS_ENABLED=false
	overages  bool                                  // the test expects some
	limits    gateway.RateLimits                    // the zero value: none
	inFlight  gateway.InFlight                      // the zero value: no bounds
	traffic   *health.Traffic                       // nil = one that nobody asks
	open      func(reservation domain.Command) bool // reservations that the test leaves open
	more      func(*testing.T, *options)            // adds what must be made where the gateway is (in a bubble); nil = nothing
}

// env is a gateway under test, over a ledger in memory.
type env struct {
	t       *testing.T
	o       options
	memory  *ledger.Memory
	asked   *commandLog
	views   *projected
	gw      *gateway.Gateway
	tokens  *gateway.Tokens
	server  *httptest.Server
	client  *http.Client
	logs    *lockedBuffer
	metrics *observe.Metrics
	book    *domain.PriceBook

	mu       sync.Mutex
	finished *sync.Cond
	ended    int
	scan     *leaktest.Scan // for what no log, metric or error may tell
}

// start makes a gateway and serves it. When the test ends, the money is audited.
func start(t *testing.T, o options) *env {
	t.Helper()
	if o.more != nil {
		o.more(t, &o)
	}
	e := &env{t: t, o: o, logs: &lockedBuffer{}, book: o.book, metrics: observe.NewMetrics()}
	e.finished = sync.NewCond(&e.mu)
	if e.book == nil {
		e.book = pricebook.Builtin()
	}
	if o.share != nil {
		e.memory, e.asked, e.views = o.share.memory, o.share.asked, o.share.views
	} else {
		if o.ledgerNow == nil {
			o.ledgerNow = time.Now
		}
		e.memory = ledger.NewMemory(uuid.New(), testShards, "USD", o.ledgerNow)
		e.views = newProjected(e.memory)
		e.asked = &commandLog{Ledger: e.memory, views: e.views}
	}
	e.tokens = e.makeTokens()
	e.gw = e.makeGateway()
	listen := o.listen
	if listen == nil {
		listen = httptest.NewServer
	}
	e.server = listen(http.HandlerFunc(e.serve))
	e.scan = leaktest.New()
	e.scan.Secret("the signing secret", testSecret)
	e.client = e.server.Client()
	e.client.Transport = e.scan.Transport(e.client.Transport, func(what string) { t.Error(what) })
	t.Cleanup(func() {
		e.server.Close()
		e.gw.Close()
		e.drain()
		if o.share == nil {
			e.memory.Close()
		}
		e.audit()
	})
	return e
}

func (e *env) makeTokens() *gateway.Tokens {
	if e.o.tokens != nil {
		return e.o.tokens(e.t)
	}
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		e.t.Fatal(err)
	}
	return tokens
}

func (e *env) makeGateway() *gateway.Gateway {
	o := e.o
	if o.balance == "" {
		o.balance = "100"
	}
	if o.keys == nil {
		o.keys = keyring{}
	}
	if o.policy == "" {
		o.policy = gateway.ReserveCap
	}
	if o.providers == nil {
		o.providers = map[string]provider.Provider{"simulated": provider.NewSimulated()}
	}
	var appends gateway.Ledger = e.asked
	if o.wrap != nil {
		appends = o.wrap(appends)
	}
	var facts gateway.Facts = e.memory
	if o.facts != nil {
		facts = o.facts(facts)
	}
	var views gateway.Projections = e.views
	if o.views != nil {
		views = o.views(views)
	}
	if n, ok := o.journal.(*notebook); ok && n == nil {
		o.journal = nil
	}
	g, err := gateway.New(gateway.Config{
		Ledger: appends, Facts: facts, Projections: views, Balances: o.balances, Journal: o.journal, Spool: o.spool, Owned: o.owned, Keys: o.keys, Tokens: e.tokens,
		Catalog: func() *gateway.Catalog {
			return &gateway.Catalog{Prices: e.book, Sell: o.sell, Providers: o.providers, Missing: o.missing, Routing: o.routing}
		}, Retry: o.retry, Resilience: o.failing, Caching: o.caching,
		Belongings: o.belongs, SharedIDs: o.sharedIDs, Edge: o.edge,
		Owner: uuid.New(), Currency: "USD", DefaultBalance: domain.MustAmount(o.balance), ReservePolicy: o.policy,
		ModelsArray: o.array, Ready: o.ready, Degraded: o.degraded, Version: "test", Environment: "development",
		Metrics: e.metrics, NoMetrics: o.noMetrics, Tracer: o.tracer, Log: slog.New(slog.NewJSONHandler(e.logs, nil)), Now: o.now,
		Limits: o.limits, InFlight: o.inFlight, Traffic: o.traffic,
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return g
}

// serve is the gateway's handler, and counts the requests that have ended.
func (e *env) serve(w http.ResponseWriter, r *http.Request) {
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.ended++
		e.finished.Broadcast()
	}()
	e.gw.Handler().ServeHTTP(w, r)
}

// await waits until so many requests have ended, whether or not their clients were still there.
func (e *env) await(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.ended < n {
		e.finished.Wait()
	}
}

// lockedBuffer is a log that many goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// keyring is a Keys: identities by key.
type keyring map[string]*gateway.Identity

// Lookup implements gateway.Keys.
func (k keyring) Lookup(_ context.Context, hash [sha256.Size]byte) (*gateway.Identity, error) {
	for key, who := range k {
		if gateway.HashKey(key) == hash {
			return who, nil
		}
	}
	return nil, nil
}

// revocable is a keyring that changes.
type revocable struct {
	mu     sync.Mutex
	ring   keyring
	looked int
	broken bool
}

// Lookup implements gateway.Keys.
func (k *revocable) Lookup(ctx context.Context, hash [sha256.Size]byte) (*gateway.Identity, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.looked++; k.broken {
		return nil, errors.New("the database is away")
	}
	return k.ring.Lookup(ctx, hash)
}

func (k *revocable) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.looked
}

// revoke takes a key out and returns how many look-ups there were.
func (k *revocable) revoke(key string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.ring, key)
	return k.looked
}

func (k *revocable) fail() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = true
}

// token signs a user's token, valid for an hour.
func (e *env) token(account string) string {
	e.t.Helper()
	token, err := e.tokens.Sign(account, gateway.RoleUser, time.Now(), time.Hour)
	if err != nil {
		e.t.Fatal(err)
	}
	e.scan.Credential(token)
	return token
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // the reading's: nil where the response ended as it should
}

func (a answer) json(path string) gjson.Result { return gjson.Get(a.body, path) }

// code is the error's code; "" where the answer is none.
func (a answer) code() string { return a.json("error.code").Str }

// id is the request's in the ledger, or uuid.Nil.
func (a answer) id() uuid.UUID {
	id, err := uuid.Parse(a.header.Get("x-billing-request-id"))
	if err != nil {
		return uuid.Nil
	}
	return id
}

// request makes a request as an account; with "" it has no credential.
func (e *env) request(method, account, path, body string) *http.Request {
	e.t.Helper()
	r, err := http.NewRequest(method, e.server.URL+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	if account != "" {
		r.Header.Set("Authorization", "Bearer "+e.token(account))
	}
	return r
}

// do sends a request. It may be called from any goroutine.
func (e *env) do(r *http.Request) answer {
	response, err := e.client.Do(r)
	if err != nil {
		e.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		return answer{err: err}
	}
	defer response.Body.Close() //nolint:errcheck // it has been read
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), err}
}

const (
	chatPath   = "/v1/chat/completions"
	streamPath = "/v1/chat/completions/stream"
)

func (e *env) post(account, path, body string) answer {
	e.t.Helper()
	return e.do(e.request(http.MethodPost, account, path, body))
}

func (e *env) chat(account, body string) answer {
	e.t.Helper()
	return e.post(account, chatPath, body)
}

func (e *env) get(account, path string) answer {
	e.t.Helper()
	return e.do(e.request(http.MethodGet, account, path, ""))
}

// chatBody is a body of one user message, with more fields if wanted: `,"n":2`.
func chatBody(model, prompt, more string) string {
	return `{"model":"` + model + `","messages":[{"role":"user","content":"` + prompt + `"}]` + more + `}`
}

// streamed are the parts of an event stream.
type streamed struct {
	data     []string // without [DONE]
	comments []string
	done     bool   // [DONE] came, and came last
	failure  string // the code of an error event, "" where there is none
}

// events takes a stream apart, and fails where it is not made of `data: ...` and comment frames.
func (a answer) events(t *testing.T) streamed {
	t.Helper()
	var s streamed
	if a.body != "" && a.err == nil && !strings.HasSuffix(a.body, "\n\n") {
		t.Errorf("the stream ends in the middle of a frame: %.200q", a.body[max(0, len(a.body)-200):])
	}
	for frame := range strings.SplitSeq(strings.TrimSuffix(a.body, "\n\n"), "\n\n") {
		data, isData := strings.CutPrefix(frame, "data: ")
		switch {
		case s.done:
			t.Errorf("after [DONE] comes %.200q", frame)
		case strings.Contains(frame, "\n"):
			t.Errorf("a frame of several lines: %.200q", frame)
		case strings.HasPrefix(frame, ": "):
			s.comments = append(s.comments, frame[2:])
		case data == "[DONE]":
			s.done = true
		case isData && gjson.Valid(data):
			s.data = append(s.data, data)
			if failed := gjson.Get(data, "error"); failed.IsObject() {
				s.failure = failed.Get("code").String() + failed.Get("type").String()
			}
		case a.body != "":
			t.Errorf("what is %.200q?", frame)
		}
	}
	return s
}

// bill is the comment before [DONE]; the zero Result where there is none.
func (s streamed) bill(t *testing.T) gjson.Result {
	t.Helper()
	if len(s.comments) != 1 {
		t.Errorf("%d comments: %q", len(s.comments), s.comments)
		return gjson.Result{}
	}
	text, ok := strings.CutPrefix(s.comments[0], "billing ")
	if !ok || !gjson.Valid(text) {
		t.Errorf("the bill is %q", s.comments[0])
	}
	return gjson.Parse(text)
}

// raw sends bytes over a connection of its own and returns all that comes back.
func (e *env) raw(request string) string {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.server.Listener.Addr().String())
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it has been read
	if _, err := io.WriteString(conn, request); err != nil {
		e.t.Fatal(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.CloseWrite(); err != nil {
			e.t.Fatal(err)
		}
	}
	out, _ := io.ReadAll(conn) // a reset is an answer too
	return string(out)
}
