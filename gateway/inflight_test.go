package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/gateway"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider"
)

// TestSlots: who gets a slot at once, who after a wait, and who does not.
func TestSlots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		most  gateway.InFlight
		holds string // one slot for each letter, by account
		asks  string // one request for each letter, at once
		frees int    // slots of those that are given back after half of the wait
		got   int    // of the requests that ask
	}{
		{"no bounds", gateway.InFlight{}, "aaaa", "aabb", 0, 4},
		{"room for two more", gateway.InFlight{Most: 4, Wait: time.Second}, "ab", "ccc", 0, 2},
		{"no room", gateway.InFlight{Most: 2, Wait: time.Second}, "ab", "ccc", 0, 0},
		{"no wait", gateway.InFlight{Most: 2}, "ab", "c", 2, 0},
		{"room after a wait", gateway.InFlight{Most: 2, Wait: time.Second}, "ab", "ccc", 2, 2},
		{"an account's room", gateway.InFlight{PerAccount: 2, Wait: time.Second}, "aa", "aabbb", 0, 2},
		{"an account's room after a wait", gateway.InFlight{PerAccount: 2, Wait: time.Second}, "aa", "aab", 2, 3},
		{"an account at its bound holds nobody up", gateway.InFlight{Most: 4, PerAccount: 2, Wait: time.Second}, "aab", "aac", 0, 1},
		{"an account fills no queue", gateway.InFlight{Most: 3, PerAccount: 1, Wait: time.Second}, "abc", "aaaaaaaad", 3, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := gateway.NewSlots(c.most, observe.NewMetrics())
			var held []func()
			for _, account := range c.holds {
				leave, err := s.Enter(t.Context(), string(account))
				if err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				held = append(held, leave)
			}
			began := time.Now()
			var mu sync.Mutex
			var wait sync.WaitGroup
			got := 0
			for _, account := range c.asks {
				wait.Go(func() {
					_, err := s.Enter(t.Context(), string(account))
					mu.Lock()
					defer mu.Unlock()
					if refused := new(gateway.Error); err == nil {
						got++
					} else if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || refused.Code != "overloaded" || refused.RetryAfter < 1 {
						t.Errorf("%s: %v", c.name, err)
					}
				})
			}
			synctest.Wait()
			<-time.After(c.most.Wait / 2) // of the bubble
			for _, leave := range held[:c.frees] {
				leave()
			}
			if wait.Wait(); got != c.got || time.Since(began) > c.most.Wait {
				t.Errorf("%s: %d have a slot after %s, not %d", c.name, got, time.Since(began), c.got)
			}
		})
	}
}

// TestSlotQueue: the queue has a bound; whoever goes leaves it; and when all have left nothing is kept.
func TestSlotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gateway.NewSlots(gateway.InFlight{Most: 1, Wait: time.Minute}, observe.NewMetrics())
		leave, err := s.Enter(t.Context(), "first")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		for i := range gateway.MaxQueued {
			go s.Enter(ctx, fmt.Sprint("account", i)) //nolint:errcheck // it waits
		}
		synctest.Wait()
		if _, err := s.Enter(t.Context(), "one too many"); err == nil {
			t.Error("the queue has no bound")
		}
		cancel()
		synctest.Wait()
		leave()
		if taken, accounts, waiting := s.Kept(); taken+accounts+waiting != 0 {
			t.Errorf("%d, %d, %d are kept", taken, accounts, waiting)
		}
	})
}

// panicking is a provider that panics where the prompt says so.
type panicking struct{ provider.Provider }

// Complete implements provider.Provider.
func (p panicking) Complete(ctx context.Context, r provider.Request) (*provider.Completion, error) {
	if bytes.Contains(r.Body, []byte("panic")) {
		panic("a defect")
	}
	return p.Provider.Complete(ctx, r)
}

// TestSlotEndings: a call's slot is free again whichever way it ends.
func TestSlotEndings(t *testing.T) {
	t.Parallel()
	e := start(t, options{inFlight: gateway.InFlight{Most: 1, PerAccount: 1, Wait: 20 * time.Second},
		providers: map[string]provider.Provider{"simulated": panicking{provider.NewSimulated()}}})
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"whole":          {chatPath, chatBody("sim-small", "x", ""), 200},
		"streamed":       {streamPath, chatBody("sim-small", "x", ""), 200},
		"broken off":     {streamPath, chatBody("sim-small", "sim:cut=2", ""), 200},
		"malformed":      {chatPath, `{`, 400},
		"unknown model":  {chatPath, chatBody("nothing", "x", ""), 404},
		"panicked":       {chatPath, chatBody("sim-small", "panic", ""), 500},
		"failed":         {chatPath, chatBody("sim-small", "sim:status=500", ""), 502},
		"tokens counted": {"/v1/messages/count_tokens", `{"model":"sim-small","messages":[{"role":"user","content":"x"}]}`, 200},
	} {
		if a := e.post("alice", c.path, c.body); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if a := e.chat("alice", chatBody("sim-small", "still there?", "")); a.status != 200 {
			t.Errorf("after %s: %d %s", name, a.status, a.body)
		}
	}
}
