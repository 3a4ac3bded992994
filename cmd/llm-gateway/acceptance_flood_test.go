package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// The flood: more streams than a gateway has slots for.
const (
	floodSlots   = 20
	floodAccount = 5               // slots of one account
	floodStreams = 120             // at once
	floodSlow    = 2 * floodSlots  // connections to each gateway whose bodies do not come to their end
	floodWait    = time.Second     // IN_FLIGHT_WAIT
	floodQuick   = 5 * time.Second // for a refusal, its wait included, on a loaded machine
)

// TestStreamFlood: of more streams at once than there are slots for, as many as there are go on to their end;
// the others get a quick 503, and so does an account at its own bound while others are served. When the streams
// have ended their slots are free, also those of clients that went away. All the while more connections than there
// are slots send bodies slowly, which take none.
func TestStreamFlood(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d gateways", n), func(t *testing.T) {
			t.Parallel()
			streamFlood(t, n)
		})
	}
}

// streamFlood floods n gateways evenly. Each has slots of its own.
func streamFlood(t *testing.T, n int) {
	ours, others := n*floodAccount, n*(floodSlots-floodAccount) // slots: of the account at its bound, and beside it
	p := newSlowProvider(t, 1)
	all, url := gateways(t, n, "OPENAI_BASE_URL="+p.URL, "OPENAI_API_KEY=upstream-key", "BILLING_DEFAULT_BALANCE="+loadBalance, "RATE_LIMIT_STORAGE=memory",
		fmt.Sprint("MAX_IN_FLIGHT=", floodSlots), fmt.Sprint("MAX_IN_FLIGHT_PER_ACCOUNT=", floodAccount), "IN_FLIGHT_WAIT="+floodWait.String())
	client := newClient(t)
	stream := func(ctx context.Context, g int, account string) reply {
		return chat(ctx, client, all[g%n].url, tokenFor(t, account), chatBody(loadModel, "slowly", true, `,"max_completion_tokens":100`))
	}
	hangUp := sendSlowly(t, all)
	ctx, leave := context.WithCancel(t.Context())
	var (
		mu      sync.Mutex
		ended   sync.WaitGroup
		replies []reply
	)
	send := func(ctx context.Context, g int, account string) {
		ended.Go(func() {
			r := stream(ctx, g, account)
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
	for i := range 2 * ours {
		send(ctx, i, "greedy")
	}
	eventually(t, settleLimit, "the account's own bound refuses", func() bool { return refused() == ours && p.calls.Load() == int64(ours) })
	for i := range floodStreams {
		send(t.Context(), i, fmt.Sprint("many", i))
	}
	eventually(t, settleLimit, "all that there is no slot for are refused", func() bool { return refused() == ours+floodStreams-others })
	if calls := int(p.calls.Load()); calls != ours+others {
		t.Errorf("%d streams are under way, with %d slots", calls, ours+others)
	}
	readsInFlood(t, client, all)
	leave()
	for i := range ours {
		send(t.Context(), i, fmt.Sprint("late", i))
	}
	eventually(t, settleLimit, "the slots of those who went are taken", func() bool { return p.calls.Load() == int64(ours+others+ours) })
	close(p.finish)
	ended.Wait()
	hangUp()
	counted := 0
	for g, s := range all {
		if r := stream(t.Context(), g, "after"); r.status != http.StatusOK || !r.complete {
			t.Errorf("gateway %d after the flood: %v", g, &r)
		}
		counted += s.metric(client, `rate_limit_requests_total{result="refused",scope="in_flight"}`)
		s.stop()
	}
	if verified(t, "DATABASE_URL="+url); counted != ours+floodStreams-others {
		t.Errorf("%d refusals are counted", counted)
	}
}

// sendSlowly opens connections to all gateways for calls of one account, whose bodies they read and which do not
// come, until hangUp.
func sendSlowly(t *testing.T, all []*served) (hangUp func()) {
	t.Helper()
	token, slow := tokenFor(t, "sloth"), []net.Conn{}
	for i := range len(all) * floodSlow {
		conn, err := net.Dial("tcp", strings.TrimPrefix(all[i%len(all)].url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
		if err := conn.SetDeadline(time.Now().Add(settleLimit)); err != nil {
			t.Fatal(err)
		}
		// A server says 100 when it begins to read the body.
		if _, err := fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n", token); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			t.Fatalf("a slow sender: %q %v", line, err)
		}
	}
	return func() {
		for _, conn := range slow {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// readsInFlood: what is no model call is answered all the same.
func readsInFlood(t *testing.T, client *http.Client, all []*served) {
	t.Helper()
	for i, path := range []string{"/health", "/v1/models", "/billing/balance"} {
		if status, text := fetch(t, client, all[i%len(all)].url+path, tokenFor(t, "many1")); status != http.StatusOK {
			t.Errorf("%s in the flood: %d %s", path, status, text)
		}
	}
}
