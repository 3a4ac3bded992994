package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// keyedAnswer is what a client with an Idempotency-Key saw.
type keyedAnswer struct {
	status           int
	body             string
	request, replays string // x-billing-request-id, idempotent-replayed
}

func askWithKey(t testing.TB, client *http.Client, base, token, key, body string) (a keyedAnswer) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Idempotency-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return a
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return keyedAnswer{resp.StatusCode, string(text), resp.Header.Get("x-billing-request-id"), resp.Header.Get("idempotent-replayed")}
}

// TestKeyOverGateways: of many requests with one key on two gateways one is served and charged, and all that
// come later get its answer, byte for byte, from either gateway, also when the one that served it is dead.
func TestKeyOverGateways(t *testing.T) {
	t.Parallel()
	all, url := gateways(t, 2)
	client, token := newClient(t), tokenFor(t, "careful")
	for key, stream := range map[string]bool{"whole": false, "streamed": true} {
		body := chatBody(flatModel, "once, please: "+key, stream, "")
		var mu sync.Mutex
		var first keyedAnswer
		served := 0
		atOnce(32, func(i int) {
			a := askWithKey(t, client, all[i%2].url, token, key, body)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case a.status == http.StatusOK && a.replays == "":
				first, served = a, served+1
			case a.status != http.StatusOK && (a.status != http.StatusConflict || !strings.Contains(a.body, "request_in_progress")):
				t.Errorf("%+v", a)
			}
		})
		if served != 1 {
			t.Fatalf("%s: %d were served", key, served)
		}
		for _, s := range all {
			if a := askWithKey(t, client, s.url, token, key, body); a.body != first.body || a.request != first.request || a.replays != "true" {
				t.Errorf("%s: again %+v, at first %+v", key, a, first)
			}
		}
		if a := askWithKey(t, client, all[0].url, token, key, chatBody(flatModel, "something else", stream, "")); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s, another body: %+v", key, a)
		}
	}
	all[0].kill()
	all[0].await(endLimit)
	if a := askWithKey(t, client, all[1].url, token, "whole", chatBody(flatModel, "once, please: whole", false, "")); a.replays != "true" {
		t.Errorf("by the other gateway: %+v", a)
	}
	a := auditLedger(t, url)
	if len(a.lives) != 2 {
		t.Errorf("%d requests are in the ledger", len(a.lives))
	}
	a.has("careful", "99.98")
	verified(t, "DATABASE_URL="+url)
}
