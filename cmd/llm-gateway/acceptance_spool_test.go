package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"llm-gateway/migrations/pgtest"
)

// TestSpool: with BILLING_DEGRADED=spool requests go on while Postgres is away, within the balance that
// Redis knew, and not beyond; when it is back each of them is in the ledger, once, at its cost.
func TestSpool(t *testing.T) {
	t.Parallel()
	const affords, asked, clients, left = 20, 48, 8, "0.009"
	direct := pgtest.URL(t)
	post, through := newGatePost(t, direct)
	s, client, token := startServe(t, "DATABASE_URL="+through, "BILLING_DEGRADED=spool", "BILLING_DEFAULT_BALANCE=0.219"), newClient(t), tokenFor(t, "spooled")
	first := chat(t.Context(), client, s.url, token, chatBody(flatModel, "all is well", false, "")) // 0.01
	if first.status != http.StatusOK {
		t.Fatalf("%v", &first)
	}
	eventually(t, settleLimit, "Redis knows the balance", func() bool {
		status, body := fetch(t, client, s.url+"/billing/balance", token)
		return status == http.StatusOK && strings.Contains(body, `"balance":0.209,`) && strings.Contains(body, `"behind":0`)
	})
	post.set(cut)
	replies := make([]reply, asked)
	began := time.Now()
	atOnce(clients, func(c int) {
		for i := c; i < asked; i += clients {
			body := chatBody(flatModel, fmt.Sprint("spooled ", i), i%2 == 0, "")
			for range clients { // on a busy machine Redis may be too late for one, which is told to come again
				if replies[i] = chat(t.Context(), client, s.url, token, body); replies[i].status != http.StatusServiceUnavailable {
					break
				}
			}
		}
	})
	t.Logf("%d requests without Postgres in %s", asked, time.Since(began).Round(time.Millisecond))
	ready(t, client, s.url, `"degraded":["postgres","journal"]`)
	listed := parsed[[]journaledOut](t, []string{"DATA_DIR=" + s.cmd.Dir + "/data"}, "ledger", "journal")
	served := spooledReplies(t, replies)
	if served != affords || len(listed) < affords {
		t.Errorf("%d were served, the balance affords %d; the journal lists %d", served, affords, len(listed))
	}
	post.set(open)
	var a *audit
	eventually(t, settleLimit, "all that was spooled is in the ledger", func() bool {
		a = auditLedger(t, direct)
		return len(a.open()) == 0 && len(a.lives) >= 1+affords
	})
	for i := range replies {
		if r := &replies[i]; r.status == http.StatusOK && (a.lives[r.request] == nil || a.lives[r.request].commits != 1) {
			t.Errorf("%v is in the ledger as %+v", r, a.lives[r.request])
		}
	}
	a.has("spooled", left)
	verified(t, "DATABASE_URL="+direct)
	eventually(t, settleLimit, "it is as before", func() bool {
		status, body := fetch(t, client, s.url+"/ready", "")
		return status == http.StatusOK && !strings.Contains(body, "degraded")
	})
}

// ready sees that a gateway says it is ready, and what it does without.
func ready(t *testing.T, client *http.Client, base, degraded string) {
	t.Helper()
	if status, body := fetch(t, client, base+"/ready", ""); status != http.StatusOK || !strings.Contains(body, degraded) {
		t.Errorf("/ready says %d %s", status, body)
	}
}

// spooledReplies counts what was served, and sees that all others were refused for want of money.
func spooledReplies(t *testing.T, replies []reply) (served int) {
	t.Helper()
	for i := range replies {
		switch r := &replies[i]; {
		case r.status == http.StatusOK && r.complete && r.cost == "0.01" && r.position == "":
			served++
		case r.status != http.StatusPaymentRequired:
			t.Errorf("%v", r)
		}
	}
	return served
}
