package gateway

import (
	"testing"
	"time"

	"llm-gateway/gateway/provider"
)

// TestRetryAfter: what is done after a failure of the n-th call.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := Retry{Attempts: 3, BaseDelay: time.Second, MaxDelay: 3 * time.Second}
	for _, c := range []struct {
		name   string
		failed provider.Error
		n      int
		keys   int
		again  bool
		most   time.Duration // the pause at most
		least  time.Duration
	}{
		{"no connection", provider.Error{Kind: provider.KindUpstream}, 0, 1, true, time.Second, 0},
		{"again", provider.Error{Kind: provider.KindUpstream}, 1, 1, true, 2 * time.Second, 0},
		{"no more", provider.Error{Kind: provider.KindUpstream}, 2, 1, false, 0, 0},
		{"500", provider.Error{Kind: provider.KindUpstream, Status: 500}, 0, 1, true, time.Second, 0},
		{"529", provider.Error{Kind: provider.KindUpstream, Status: 529}, 0, 1, true, time.Second, 0},
		{"a broken answer has been paid for", provider.Error{Kind: provider.KindUpstream, Status: 200}, 0, 1, false, 0, 0},
		{"an error event first", provider.Error{Kind: provider.KindCut, Status: 200}, 0, 1, true, time.Second, 0},
		{"408", provider.Error{Kind: provider.KindRejected, Status: 408}, 0, 1, true, time.Second, 0},
		{"429", provider.Error{Kind: provider.KindRejected, Status: 429}, 0, 1, true, time.Second, 0},
		{"429 that says when", provider.Error{Kind: provider.KindRejected, Status: 429, RetryAfter: "3"}, 0, 1, true, 3 * time.Second, 3 * time.Second},
		{"429 that asks for too much", provider.Error{Kind: provider.KindRejected, Status: 429, RetryAfter: "4"}, 0, 1, false, 0, 0},
		{"429 that asks for more than a number holds", provider.Error{Kind: provider.KindRejected, Status: 429, RetryAfter: "99999999999999999999"}, 0, 1, false, 0, 0},
		{"503 for more seconds than a duration holds", provider.Error{Kind: provider.KindUpstream, Status: 503, RetryAfter: "9223372037"}, 0, 1, false, 0, 0},
		{"503 until a date", provider.Error{Kind: provider.KindUpstream, Status: 503, RetryAfter: "Fri, 02 Jan 2026 03:04:07 GMT"}, 0, 1, true, 2 * time.Second, 2 * time.Second},
		{"503 until a date gone by", provider.Error{Kind: provider.KindUpstream, Status: 503, RetryAfter: "Fri, 02 Jan 2026 03:04:01 GMT"}, 0, 1, true, 0, 0},
		{"503 with nonsense", provider.Error{Kind: provider.KindUpstream, Status: 503, RetryAfter: "-7"}, 0, 1, true, time.Second, 0},
		{"429 with another key", provider.Error{Kind: provider.KindRejected, Status: 429, RetryAfter: "900"}, 0, 2, true, 0, 0},
		{"401 with another key", provider.Error{Kind: provider.KindAuth, Status: 401}, 0, 2, true, 0, 0},
		{"401 of the last key", provider.Error{Kind: provider.KindAuth, Status: 401}, 1, 2, false, 0, 0},
		{"400", provider.Error{Kind: provider.KindRejected, Status: 400}, 0, 1, false, 0, 0},
		{"404", provider.Error{Kind: provider.KindRejected, Status: 404}, 0, 1, false, 0, 0},
		{"time-out", provider.Error{Kind: provider.KindTimeout}, 0, 1, false, 0, 0},
		{"client gone", provider.Error{Kind: provider.KindCanceled}, 0, 1, false, 0, 0},
	} {
		for range 50 {
			pause, again := r.after(c.n, &c.failed, c.keys, now)
			if again != c.again || again && (pause < c.least || pause > c.most) {
				t.Errorf("%s: %s, %t; want %s to %s, %t", c.name, pause, again, c.least, c.most, c.again)
				break
			}
		}
	}
	if _, again := (Retry{}).after(0, &provider.Error{Kind: provider.KindUpstream}, 1, now); again {
		t.Error("nobody asked for retries")
	}
	if _, again := r.after(0, internal(nil), 1, now); again {
		t.Error("a panic is no provider's failure")
	}
	if pause, again := (Retry{Attempts: 99, BaseDelay: time.Hour, MaxDelay: time.Minute}).after(70, &provider.Error{Kind: provider.KindUpstream}, 1, now); !again || pause > time.Minute {
		t.Errorf("the 71st: %s, %t", pause, again)
	}
}

// TestPassesOn: what another provider may do better.
func TestPassesOn(t *testing.T) {
	t.Parallel()
	for kind, statuses := range map[provider.Kind]map[int]bool{
		provider.KindUpstream: {0: true, 200: true, 500: true, 529: true},
		provider.KindAuth:     {401: true, 403: true},
		provider.KindTimeout:  {0: true, 200: true},
		provider.KindCut:      {200: true},
		provider.KindCanceled: {0: false},
		provider.KindRejected: {400: false, 402: true, 404: true, 408: true, 413: false, 422: false, 429: true},
	} {
		for status, want := range statuses {
			if got := passesOn(&provider.Error{Kind: kind, Status: status}); got != want {
				t.Errorf("%s %d: %t", kind, status, got)
			}
		}
	}
}
