package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"llm-gateway/migrations/pgtest"
)

// flatModel costs exactly 0.01 a request, whatever it says.
const flatModel = "sim-flat"

// atOnce runs all of them at the same moment.
func atOnce(n int, do func(i int)) {
	var wait sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wait.Go(func() {
			<-begin
			do(i)
		})
	}
	close(begin)
	wait.Wait()
}

// gateways starts so many gateways on one new schema, which they migrate themselves, all at once.
func gateways(t *testing.T, n int, env ...string) (all []*served, url string) {
	t.Helper()
	url = pgtest.Empty(t)
	for range n {
		all = append(all, launch(t, append(env, "DATABASE_URL="+url)...))
	}
	for _, s := range all {
		s.ready()
	}
	return all, url
}

// TestNobodyOverspends: of 256 requests at once on an account that affords 100, exactly 100 succeed.
func TestNobodyOverspends(t *testing.T) {
	for _, n := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("%d gateways", n), func(t *testing.T) { overspend(t, n) })
	}
}

func overspend(t *testing.T, n int) {
	const requests, affords, left = 256, 100, "0.009"
	all, url := gateways(t, n, "BILLING_DEFAULT_BALANCE=1.009")
	client, token, replies := newClient(t), tokenFor(t, "spender"), make([]reply, requests)
	atOnce(requests, func(i int) {
		replies[i] = chat(t.Context(), client, all[i%n].url, token, chatBody(flatModel, fmt.Sprint("request ", i), i/n%2 == 0, ""))
	})
	good, streams, refused := 0, 0, 0
	a := auditLedger(t, url)
	for i := range replies {
		r := &replies[i]
		switch {
		case r.status == http.StatusOK && r.complete && r.err == nil:
			good++
			if l := a.lives[r.request]; r.cost != "0.01" || l == nil || l.commits != 1 {
				t.Errorf("request %d: %v cost %s: %+v", i, r, r.cost, l)
			} else if l.stream {
				streams++
			}
		case r.status == http.StatusPaymentRequired && r.code == "insufficient_quota" && r.request == "":
			refused++
		default:
			t.Errorf("request %d: %v", i, r)
		}
	}
	t.Logf("%d succeeded (%d streamed), %d were refused", good, streams, refused)
	if good != affords || refused != requests-affords || len(a.lives) != affords {
		t.Errorf("%d succeeded and %d were refused, want %d and %d; the ledger has %d", good, refused, affords, requests-affords, len(a.lives))
	}
	a.has("spender", left)
	if revenue := a.balance("platform:revenue"); revenue.Cmp(a.rat("1")) != 0 {
		t.Errorf("revenue %s", revenue)
	}
	for _, s := range all {
		if status, body := fetch(t, client, s.url+"/billing/balance", token); status != http.StatusOK || !containsAll(body, `"balance":0.009`, `"reserved":0`) {
			t.Errorf("balance: %d %s", status, body)
		}
	}
	verified(t, "DATABASE_URL="+url)
}

// TestFirstTokenRace: however many first requests of an unknown account race, it is opened once.
func TestFirstTokenRace(t *testing.T) {
	const requests, subs, balance = 100, 10, "7.5"
	all, url := gateways(t, 2, "BILLING_DEFAULT_BALANCE="+balance)
	client, statuses := newClient(t), make([]string, requests)
	tokens := make([]string, subs)
	for i := range tokens {
		tokens[i] = tokenFor(t, fmt.Sprint("newcomer-", i))
	}
	atOnce(requests, func(i int) {
		base, token := all[i%2].url, tokens[i/2%subs]
		if i%4 < 2 {
			r := chat(t.Context(), client, base, token, chatBody("sim-free", "hello", i%3 == 0, ""))
			statuses[i] = fmt.Sprint(r.status, " ", r.complete, " ", &r)
			return
		}
		status, body := fetch(t, client, base+"/billing/balance", token)
		statuses[i] = fmt.Sprint(status, " ", containsAll(body, `"balance":`+balance), " ", body)
	})
	for i, s := range statuses {
		if s[:min(len(s), 8)] != "200 true" {
			t.Errorf("request %d: %s", i, s)
		}
	}
	a := auditLedger(t, url)
	if len(a.rows) != subs {
		t.Errorf("%d accounts", len(a.rows))
	}
	for i := range subs {
		name := fmt.Sprint("newcomer-", i)
		a.has(name, balance)
		if g := a.grants[name]; len(g) != 1 || g["opening"] != 1 {
			t.Errorf("%s was credited %v", name, g)
		}
	}
	verified(t, "DATABASE_URL="+url)
}
