package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	limits "llm-gateway/gateway/limit"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider"
	"llm-gateway/ledger"
)

// canned is an upstream that gives the same answer to every call, at once.
type canned struct{ media, body string }

// RoundTrip implements http.RoundTripper.
func (a canned) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {a.media}}, ContentLength: int64(len(a.body)), Request: r,
		Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

// sink is a client that takes everything at once.
type sink struct {
	discard
	status int
	last   []byte
}

func (s *sink) WriteHeader(status int)             { s.status = status }
func (s *sink) Write(b []byte) (int, error)        { s.last = b; return len(b), nil }
func (s *sink) FlushError() error                  { return nil }
func (s *sink) SetReadDeadline(t time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(t time.Time) error { return nil }

// BenchmarkServe is a billed request of the bench's form through the whole handler, with its log line and
// metrics, over a ledger in memory: what is ours, without the network, Postgres, Kafka and Redis.
func BenchmarkServe(b *testing.B) {
	own := domain.Quotas{domain.MaxQuota, domain.MaxQuota, domain.MaxQuota}
	whole := canned{"application/json", `{"id":"c","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini",` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":"Ganymede, Callisto and Io."},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":29,"completion_tokens":16,"total_tokens":45}}`}
	var events strings.Builder
	for i := range 16 {
		fmt.Fprintf(&events, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word%d\"}}]}\n\n", i)
	}
	events.WriteString("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" +
		"data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":29,\"completion_tokens\":16,\"total_tokens\":45}}\n\ndata: [DONE]\n\n")
	streamed := canned{"text/event-stream", events.String()}
	for _, mode := range []struct {
		name   string
		answer canned
		quotas domain.Quotas
	}{{"whole", whole, domain.Quotas{}}, {"streamed", streamed, domain.Quotas{}}, {"whole, limited", whole, own}, {"streamed, limited", streamed, own}} {
		b.Run(mode.name, func(b *testing.B) {
			g, token := benchGateway(b, mode.answer, mode.quotas)
			body := fmt.Appendf(nil, `{"model":"gpt-4o-mini","max_tokens":64,"stream":%t,"messages":[{"role":"system","content":"You are a concise assistant."},`+
				`{"role":"user","content":"Name the three largest moons of Jupiter, in one line."}]}`, mode.answer.media == streamed.media)
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, chatPath, bytes.NewReader(body))
				r.Header.Set("Authorization", "Bearer "+token)
				w := &sink{discard: discard{http.Header{}}}
				if g.Handler().ServeHTTP(w, r); w.status != http.StatusOK || w.Header().Get("x-billing-request-id") == "" {
					b.Fatalf("%d %s", w.status, w.last)
				}
			}
		})
	}
}

// benchGateway is a gateway as in production, before one upstream and over a ledger in memory, and a user's token.
func benchGateway(b *testing.B, upstream http.RoundTripper, quotas domain.Quotas) (*gateway.Gateway, string) {
	b.Helper()
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		b.Fatal(err)
	}
	token, err := tokens.Sign("alice", gateway.RoleUser, time.Now(), time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	openai, err := provider.NewOpenAI(provider.Config{BaseURL: "http://upstream", Transport: upstream})
	if err != nil {
		b.Fatal(err)
	}
	memory := ledger.NewMemory(uuid.New(), testShards, "USD", time.Now)
	b.Cleanup(memory.Close)
	catalog := &gateway.Catalog{Prices: pricebook.Builtin(), Providers: map[string]provider.Provider{"openai": openai}}
	limiter := limits.New(limits.Config{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	b.Cleanup(limiter.Close)
	c := gateway.Config{Ledger: memory, Facts: memory, Projections: newProjected(memory), Keys: keyring{}, Tokens: tokens,
		Catalog: func() *gateway.Catalog { return catalog }, Owner: uuid.New(), Currency: "USD", DefaultBalance: domain.MustAmount("1000000"),
		ReservePolicy: gateway.ReserveCap, Environment: "production", Metrics: observe.NewMetrics(), Log: slog.New(slog.NewJSONHandler(io.Discard, nil))} //nolint:sloglint // what a line costs is a request's
	if quotas != (domain.Quotas{}) {
		c.Limits = gateway.RateLimits{Limiter: limiter, Account: quotas}
	}
	g, err := gateway.New(c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(g.Close)
	return g, token
}
