package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// The flood: more streams than a gateway has slots for.
const (
	floodSlots   = 20
	floodAccount = 5               // slots of one account
	floodStreams = 120             // at once
	floodWait    = time.Second     // IN_FLIGHT_WAIT
	floodQuick   = 5 * time.Second // for a refusal, its wait included, on a loaded machine
)

// TestStreamFlood: of more streams at once than there are slots for, as many as there are go on to their end;
// the others get a quick 503, and so does an account at its own bound while others are served. When the streams
// have ended their slots are free, also those of clients that went away.
func TestStreamFlood(t *testing.T) {
	t.Parallel()
	p := newSlowProvider(t, 1)
	all, url := gateways(t, 1, "OPENAI_BASE_URL="+p.URL, "OPENAI_API_KEY=upstream-key", "BILLING_DEFAULT_BALANCE="+loadBalance, "RATE_LIMIT_STORAGE=memory",
		fmt.Sprint("MAX_IN_FLIGHT=", floodSlots), fmt.Sprint("MAX_IN_FLIGHT_PER_ACCOUNT=", floodAccount), "IN_FLIGHT_WAIT="+floodWait.String())
	s, client := all[0], newClient(t)
	stream := func(ctx context.Context, account string) reply {
		return chat(ctx, client, s.url, tokenFor(t, account), chatBody(loadModel, "slowly", true, `,"max_completion_tokens":100`))
	}
	ctx, leave := context.WithCancel(t.Context())
	var mu sync.Mutex
	var ended sync.WaitGroup
	var replies []reply
	send := func(ctx context.Context, account string) {
		ended.Go(func() {
			r := stream(ctx, account)
			mu.Lock()
			defer mu.Unlock()
			replies = append(replies, r)
		})
	}
	refused := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for i := range replies {
			if r := &replies[i]; r.status == http.StatusServiceUnavailable && r.code == "overloaded" && r.header.Get("Retry-After") != "" && r.took < floodQuick {
				n++
			} else if r.status != http.StatusOK {
				t.Errorf("%v after %s", r, r.took)
			}
		}
		return n
	}
	for range 2 * floodAccount {
		send(ctx, "greedy")
	}
	eventually(t, settleLimit, "the account's own bound refuses", func() bool { return refused() == floodAccount && p.calls.Load() == floodAccount })
	for i := range floodStreams {
		send(t.Context(), fmt.Sprint("many", i))
	}
	eventually(t, settleLimit, "all that there is no slot for are refused", func() bool {
		return refused() == floodAccount+floodStreams-(floodSlots-floodAccount)
	})
	if n := p.calls.Load(); n != floodSlots {
		t.Errorf("%d streams are under way, with %d slots", n, floodSlots)
	}
	for _, path := range []string{"/health", "/v1/models", "/billing/balance"} {
		if status, text := fetch(t, client, s.url+path, tokenFor(t, "many1")); status != http.StatusOK {
			t.Errorf("%s in the flood: %d %s", path, status, text)
		}
	}
	leave()
	for i := range floodAccount {
		send(t.Context(), fmt.Sprint("late", i))
	}
	eventually(t, settleLimit, "the slots of those who went are taken", func() bool { return p.calls.Load() == floodSlots+floodAccount })
	close(p.finish)
	ended.Wait()
	if r := stream(t.Context(), "after"); r.status != http.StatusOK || !r.complete {
		t.Errorf("after the flood: %v", &r)
	}
	if n := s.metric(client, `rate_limit_requests_total{result="refused",scope="in_flight"}`); n != floodAccount+floodStreams-(floodSlots-floodAccount) {
		t.Errorf("%d refusals are counted", n)
	}
	s.stop()
	verified(t, "DATABASE_URL="+url)
}
