package gateway_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	limits "llm-gateway/gateway/limit"
)

// limitsOf are limits in memory.
func limitsOf(t *testing.T, account domain.Quotas) gateway.RateLimits {
	l := limits.New(limits.Config{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(l.Close)
	return gateway.RateLimits{Limiter: l, Account: account}
}

func (a answer) left(unit string) string { return a.header.Get("x-ratelimit-remaining-" + unit) }

// used is what an account has used of its limits, in whole requests and tokens.
func used(o options, account string) (requests, tokens int64) {
	a := domain.RateAsk{Account: account, Quotas: [domain.RateScopes]domain.Quotas{domain.RateAccount: o.limits.Account}}
	levels := o.limits.Limiter.Admit(context.Background(), a, false).Levels[domain.RateAccount]
	return levels[domain.RequestsHour].Used / domain.RequestsHour.Period(), levels[domain.TokensMinute].Used / domain.TokensMinute.Period()
}

// TestWhatCounts: which requests count against their limits, and how many of their tokens stay counted.
func TestWhatCounts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, body string
		keyed            bool
		status           int
		requests, tokens int64
	}{
		{"whole", chatPath, chatBody("sim-small", "sim:tokens=7", ""), false, 200, 1, -1},
		{"streamed", streamPath, chatBody("sim-small", "sim:tokens=7", ""), false, 200, 1, -1},
		{"broken off", streamPath, chatBody("sim-small", "sim:tokens=7 sim:cut=3", ""), false, 200, 1, -1},
		{"failed", chatPath, chatBody("sim-small", "sim:status=500", ""), false, 502, 1, 0},
		{"not affordable", chatPath, chatBody("sim-small", "x", `,"max_tokens":16000,"n":100`), false, 402, 1, 0},
		{"tokens counted", "/v1/messages/count_tokens", `{"model":"sim-small","messages":[{"role":"user","content":"x"}]}`, false, 200, 1, 0},
		{"with a key", chatPath, chatBody("sim-small", "sim:tokens=7", ""), true, 200, 1, -1},
		{"twice with a key", chatPath, chatBody("sim-small", "sim:tokens=7", ""), true, 200, 2, -1},
		{"malformed", chatPath, `{"model":`, false, 400, 0, 0},
		{"an unknown model", chatPath, chatBody("nothing", "x", ""), false, 404, 0, 0},
		{"an estimate", "/billing/estimate", chatBody("sim-small", "x", ""), false, 200, 0, 0},
	} {
		o := options{balance: "0.05", limits: limitsOf(t, domain.Quotas{0, 1000, 100_000_000})}
		bubble(t, o, func(t *testing.T, e *env) {
			var a answer
			for range max(c.requests, 1) {
				r := e.request(http.MethodPost, "alice", c.path, c.body)
				if c.keyed {
					r.Header.Set("Idempotency-Key", "k")
				}
				if a = e.do(r); a.status != c.status {
					t.Fatalf("%s: %d %s", c.name, a.status, a.body)
				}
			}
			synctest.Wait()
			if told := a.left("requests"); (told == "") != (c.requests == 0) || told != "" && told != itoa(1000-c.requests) {
				t.Errorf("%s: it is told that %q are left", c.name, told)
			}
			if c.tokens < 0 { // what was charged for
				d := e.life("alice", a.id()).commitData()
				c.tokens = d.Meters.InputTokens() + d.Meters.OutputTokens()
				if c.tokens < 3 {
					t.Fatalf("%s: %d tokens were charged", c.name, c.tokens)
				}
			}
			if requests, tokens := used(o, "alice"); requests != c.requests || tokens != c.tokens {
				t.Errorf("%s: %d requests and %d tokens are counted, not %d and %d", c.name, requests, tokens, c.requests, c.tokens)
			}
		})
	}
}

// TestExpectedTokens: what a request takes of a limit on tokens before it is known what it uses.
func TestExpectedTokens(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word ", 800) // 4,000 bytes
	for _, c := range []struct {
		name, body string
		limit      int64
		left       string
		status     int
	}{
		{"a maximum", chatBody("sim-flat", "x", `,"max_tokens":700`), 10_000, "9[0-9]{3}", 200},
		{"several choices", chatBody("sim-flat", "x", `,"max_tokens":700,"n":10`), 10_000, "2[0-9]{3}", 200},
		{"a long prompt", chatBody("sim-flat", long, `,"max_tokens":1`), 10_000, "8[0-9]{3}", 200},
		{"left open", chatBody("sim-flat", "x", ""), 10_000, "94[0-9]{2}", 200},
		{"left open, and little there", chatBody("sim-flat", "x", ""), 100, "0", 200},
		{"too large", chatBody("sim-flat", "x", `,"max_tokens":700`), 700, "700", 429},
		{"a prompt too large", chatBody("sim-flat", long, ""), 700, "700", 429},
	} {
		e := start(t, options{limits: limitsOf(t, domain.Quotas{0, 0, c.limit})})
		a := e.chat("alice", c.body)
		if matched := regexp.MustCompile("^" + c.left + "$").MatchString(a.left("tokens")); a.status != c.status || !matched {
			t.Errorf("%s: %d, %q are left, not %s", c.name, a.status, a.left("tokens"), c.left)
		}
		if large := a.header.Get("x-should-retry") == "false" && strings.Contains(a.body, "too large"); large != (c.status == 429) {
			t.Errorf("%s: %v %s", c.name, a.header, a.body)
		}
	}
}

// TestKeyLimits: a key's own limits count beside its account's, and the tightest is told.
func TestKeyLimits(t *testing.T) {
	t.Parallel()
	ring := keyring{"sk-tight": {Account: "ina", KeyID: "k1", Quotas: domain.Quotas{2, 0, 0}}, "sk-loose": {Account: "ina", KeyID: "k2"}}
	e := start(t, options{keys: ring, limits: limitsOf(t, domain.Quotas{0, 5, 0})})
	got := ""
	for _, key := range slices.Concat(slices.Repeat([]string{"sk-tight"}, 3), slices.Repeat([]string{"sk-loose"}, 4)) {
		r := e.request(http.MethodPost, "", chatPath, chatBody("sim-flat", "x", ""))
		r.Header.Set("Authorization", "Bearer "+key)
		a := e.do(r)
		got += fmt.Sprintf("%d/%s/%s ", a.status, a.header.Get("x-ratelimit-limit-requests"), a.left("requests"))
	}
	if want := "200/2/1 200/2/0 429/2/0 200/5/2 200/5/1 200/5/0 429/5/0 "; got != want {
		t.Errorf("%s\nnot %s", got, want)
	}
}

// shelf is an Overrides in memory that can be away, or slow.
type shelf struct {
	mu     sync.Mutex
	set    map[string]domain.QuotaChange
	looked int
	away   bool
	until  chan struct{} // nil = at once
}

// Quotas implements gateway.Overrides.
func (s *shelf) Quotas(ctx context.Context, account string) (domain.QuotaChange, error) {
	s.mu.Lock()
	s.looked++
	away, until := s.away, s.until
	s.mu.Unlock()
	if until != nil {
		select {
		case <-until:
		case <-ctx.Done():
			return domain.QuotaChange{}, ctx.Err()
		}
	}
	if away {
		return domain.QuotaChange{}, errAway
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[account], nil
}

// SetQuotas implements gateway.Overrides.
func (s *shelf) SetQuotas(_ context.Context, account, _ string, c domain.QuotaChange) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errAway
	}
	s.set[account] = c
	return nil
}

func (s *shelf) change(away bool, until chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away, s.until = away, until
}

// TestOverrides: an account's own limits are looked up once in a few seconds, followed within them, believed
// while the database is away, and never waited for long.
func TestOverrides(t *testing.T) {
	t.Parallel()
	n := func(v int64) *int64 { return &v }
	source := &shelf{set: map[string]domain.QuotaChange{"own": {nil, n(50), nil}}}
	o := options{limits: limitsOf(t, domain.Quotas{0, 1000, 0})}
	o.limits.Overrides = source
	bubble(t, o, func(t *testing.T, e *env) {
		limitOf := func(account string) string {
			a := e.chat(account, chatBody("sim-flat", "x", ""))
			return a.header.Get("x-ratelimit-limit-requests")
		}
		expect := func(what, account, want string, looked int) {
			t.Helper()
			if got := limitOf(account); got != want || source.looked != looked {
				t.Errorf("%s: %s, not %s; %d look-ups, not %d", what, got, want, source.looked, looked)
			}
		}
		expect("an override", "own", "50", 1)
		expect("again", "own", "50", 1)
		expect("none", "other", "1000", 2)
		if err := source.SetQuotas(t.Context(), "own", "test", domain.QuotaChange{nil, n(70), nil}); err != nil {
			t.Fatal(err)
		}
		expect("a change that is not seen yet", "own", "50", 2)
		<-time.After(5 * time.Second)
		expect("a change", "own", "70", 3)
		source.change(true, nil)
		<-time.After(5 * time.Second)
		expect("away", "own", "70", 4)
		expect("left alone", "other", "1000", 4)
		expect("left alone, and not known", "third", "1000", 4)
		<-time.After(time.Second)
		expect("still away", "own", "70", 5)
		source.change(false, make(chan struct{}))
		<-time.After(5 * time.Second)
		began := time.Now()
		if expect("it hangs", "own", "70", 6); time.Since(began) > time.Second {
			t.Errorf("a call waited %s for its limits", time.Since(began))
		}
		source.change(false, nil)
		<-time.After(5 * time.Second)
		expect("back", "third", "1000", 7)
	})
}

// shared is a limits.Shared in memory beside a cache of balances.
type shared struct {
	*cache
	memory *limits.Memory
	slow   bool
}

// Admit implements limits.Shared.
func (s *shared) Admit(ctx context.Context, a *domain.RateAsk, balance bool) (out domain.Admission) {
	if s.slow {
		<-ctx.Done()
		return domain.Admission{BalanceErr: ctx.Err(), Own: domain.RateTaken{Err: ctx.Err()}, All: domain.RateTaken{Err: ctx.Err()}}
	}
	out.Own, out.All = s.memory.TakeOwn(a, time.Now().UnixMilli()), s.memory.TakeAll(a, time.Now().UnixMilli())
	if balance {
		out.Balance, out.Known, out.BalanceErr = s.Balance(ctx, a.Account)
	}
	return out
}

// Adjust implements limits.Shared.
func (s *shared) Adjust(context.Context, []domain.RateAdjustment) error { return nil }

// TestOneRoundTrip: limits and balance are asked for at once, the gate judges by that answer, and no limit
// makes a request succeed that its account cannot pay for.
func TestOneRoundTrip(t *testing.T) {
	t.Parallel()
	s := &shared{cache: &cache{}, memory: limits.NewMemory(100)}
	s.says("0", false)
	l := limits.New(limits.Config{Shared: s, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(l.Close)
	e := start(t, options{balance: "0", balances: s, limits: gateway.RateLimits{Limiter: l, Account: domain.Quotas{0, 3, 0}}})
	got := ""
	for range 5 {
		a := e.chat("alice", chatBody("sim-flat", "x", ""))
		got += fmt.Sprint(a.status, " ")
	}
	if asked, _ := s.count(); got != "402 402 402 429 429 " || asked != 5 || len(e.asked.reserved("alice")) != 0 {
		t.Errorf("%s; %d questions, %d reserves", got, asked, len(e.asked.reserved("alice")))
	}
}

// TestSlowLimits: a store that does not answer costs a request a short time, and memory decides.
func TestSlowLimits(t *testing.T) {
	t.Parallel()
	s := &shared{cache: &cache{}, memory: limits.NewMemory(100), slow: true}
	l := limits.New(limits.Config{Shared: s, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	l.Close()
	o := options{balances: s, limits: gateway.RateLimits{Limiter: l, Account: domain.Quotas{0, 2, 0}}}
	bubble(t, o, func(t *testing.T, e *env) {
		got, began := "", time.Now()
		for range 4 {
			a := e.chat("alice", chatBody("sim-flat", "x", ""))
			got += fmt.Sprint(a.status, " ")
		}
		if took := time.Since(began); got != "200 200 429 429 " || took > 4*260*time.Millisecond {
			t.Errorf("%s in %s", got, took)
		}
	})
}

// TestLimitsUnknownKey: a credential that is none costs nobody's limits.
func TestLimitsUnknownKey(t *testing.T) {
	t.Parallel()
	o := options{keys: keyring{}, limits: limitsOf(t, domain.Quotas{1, 1, 1})}
	e := start(t, o)
	for range 3 {
		r := e.request(http.MethodPost, "", chatPath, chatBody("sim-flat", "x", ""))
		r.Header.Set("Authorization", "Bearer sk-"+fmt.Sprintf("%x", sha256.Sum256(nil)))
		if a := e.do(r); a.status != http.StatusUnauthorized || a.left("requests") != "" {
			t.Errorf("%d %v", a.status, a.header)
		}
	}
}
