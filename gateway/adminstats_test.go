package gateway_test

import (
	"fmt"
	"math/big"
	"net/http"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
)

const marginPath = "/admin/stats"

// startShops is a gateway where shops pay half as much again, friends half, and everybody else the cost.
func startShops(t *testing.T) *env {
	t.Helper()
	costs, half, more := pricebook.Builtin(), domain.MustAmount("-50"), domain.MustAmount("50")
	sell, err := domain.NewSellBook(costs, domain.SellRules{}, []domain.SellGroup{
		{Name: "retail", Accounts: []string{"shop-*"}, SellRules: domain.SellRules{Markup: &more}},
		{Name: "friends", Accounts: []string{"friend"}, SellRules: domain.SellRules{Markup: &half}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return start(t, options{book: costs, sell: sell})
}

// TestAdminStats: margins by every group are what the ledger's commits say, and sum to the total.
func TestAdminStats(t *testing.T) {
	t.Parallel()
	e := startShops(t)
	amounts, costs := map[string]*big.Rat{}, map[string]*big.Rat{}
	at := func(sums map[string]*big.Rat, key string) *big.Rat {
		if sums[key] == nil {
			sums[key] = new(big.Rat)
		}
		return sums[key]
	}
	for i, account := range []string{"shop-1", "shop-2", "friend", "anybody", "shop-1", "shop-1"} {
		model := []string{"sim-small", "sim-large", "sim-free"}[i%3]
		a := e.chat(account, chatBody(model, fmt.Sprintf("x sim:tokens=%d", 10+i), []string{"", `,"stream":true`}[i%2]))
		l := e.life(account, a.id())
		for _, key := range []string{"", account, model} {
			at(amounts, key).Add(at(amounts, key), ratOf(l.commit))
			for _, line := range l.commitData().CostLines {
				at(costs, key).Add(at(costs, key), rat(line.Amount))
			}
		}
	}
	for query, keys := range map[string][]string{
		"group_by=account": {"shop-1", "shop-2", "friend", "anybody"}, "group_by=model": {"sim-small", "sim-large", "sim-free"},
		"": {""}, "group_by=hour": {""}, "group_by=provider": {""}, "group_by=account&account=friend": {"friend"},
		"account=shop-1": {"shop-1"}, "group_by=model&limit=1": nil,
	} {
		a := e.admin(http.MethodGet, marginPath+"?"+query, "")
		if a.status != 200 || a.json("behind").Raw != "0" || a.json("currency").Str != "USD" || a.json("user_id").Exists() {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		if keys == nil {
			if a.json("data.#").Int() != 1 || !a.json("more").Bool() || ratText(t, a.json("total.amount").Str).Cmp(at(amounts, "")) != 0 {
				t.Errorf("%s: %s", query, a.body)
			}
			continue
		}
		if a.json("data.#").Int() != int64(len(keys)) || a.json("more").Bool() {
			t.Errorf("%s: %s", query, a.body)
		}
		for _, row := range a.json("data").Array() {
			key := row.Get("account").Str + row.Get("model").Str
			if key == "" {
				key = keys[0]
			}
			if ratText(t, row.Get("amount").Str).Cmp(at(amounts, key)) != 0 || ratText(t, row.Get("cost").Str).Cmp(at(costs, key)) != 0 {
				t.Errorf("%s, %q: %s", query, key, row.Raw)
			}
		}
		sumToTotal(t, query, &a)
	}
}

// sumToTotal: each row's margin is what is left of its amount, and the rows sum to the total.
func sumToTotal(t *testing.T, query string, a *answer) {
	t.Helper()
	sums, requests := map[string]*big.Rat{"amount": {}, "cost": {}, "margin": {}}, int64(0)
	for _, row := range append(a.json("data").Array(), a.json("total")) {
		paid, left := ratText(t, row.Get("amount").Str), ratText(t, row.Get("margin").Str)
		if new(big.Rat).Add(left, ratText(t, row.Get("cost").Str)).Cmp(paid) != 0 {
			t.Errorf("%s: %s", query, row.Raw)
		}
	}
	for _, row := range a.json("data").Array() {
		for name, sum := range sums {
			sum.Add(sum, ratText(t, row.Get(name).Str))
		}
		requests += row.Get("requests").Int()
	}
	for name, sum := range sums {
		if sum.Cmp(ratText(t, a.json("total."+name).Str)) != 0 || requests != a.json("total.requests").Int() {
			t.Errorf("%s: the rows do not sum to %s", query, a.json("total").Raw)
		}
	}
}

// TestAdminStatsPercent: a third of what a shop pays is margin, a friend costs as much again as it pays, and of
// nothing there is no share. The tokens are the meters'.
func TestAdminStatsPercent(t *testing.T) {
	t.Parallel()
	e := startShops(t)
	for account, want := range map[string]string{"shop-9": `"33.33"`, "friend": `"-100.00"`, "anybody": `"0.00"`} {
		a := e.chat(account, chatBody("sim-small", "x sim:tokens=10", ""))
		m := e.life(account, a.id()).commitData().Meters
		row := e.admin(http.MethodGet, marginPath+"?account="+account, "").json("total")
		if row.Get("margin_percent").Raw != want || row.Get("tokens").Raw != fmt.Sprintf(`{"input":%d,"output":%d}`, m.InputTokens(), m.OutputTokens()) {
			t.Errorf("%s: %s", account, row.Raw)
		}
	}
	e.chat("free", chatBody("sim-free", "x", ""))
	a := e.admin(http.MethodGet, marginPath+"?account=free", "")
	if a.json("total.margin_percent").Raw != "null" || a.json("total.amount").Raw != `"0"` || a.json("total.requests").Int() != 1 || a.json("account").Str != "free" {
		t.Error(a.body)
	}
}

// TestAdminStatsRefuses: only administrators see costs, and only what there is can be asked for.
func TestAdminStatsRefuses(t *testing.T) {
	t.Parallel()
	e := startShops(t)
	e.chat("shop-1", chatBody("sim-small", "x", ""))
	if a := e.get("shop-1", marginPath); a.status != 403 || a.code() != "forbidden" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, path := range []string{"/billing/stats", "/billing/stats?group_by=model"} {
		if a := e.get("shop-1", path); a.status != 200 || a.json("total.cost").Exists() || a.json("data.0.cost").Exists() || a.json("data.0.margin").Exists() {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	if a := e.get("shop-1", "/billing/stats?group_by=account"); a.status != 400 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for query, want := range map[string]string{
		"group_by=week": "400 invalid_value", "group_by=,": "400 invalid_value", "group_by=or": "400 invalid_value", "from=x": "400 invalid_value",
		"limit=0": "400 invalid_value", "limit=10001": "400 invalid_value", "account=%00": "400 invalid_value", "account=nobody": "404 account_not_found",
		"from=2026-01-02&to=2026-01-01": "400 invalid_value", "group_by=hour&from=2020-01-01": "400 invalid_value",
	} {
		if a := e.admin(http.MethodGet, marginPath+"?"+query, ""); fmt.Sprintf("%d %s", a.status, a.code()) != want {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// TestAdminStatsBehind: a projection that stands still says so, and how far behind it is.
func TestAdminStatsBehind(t *testing.T) {
	t.Parallel()
	e := startShops(t)
	e.chat("shop-1", chatBody("sim-small", "x", ""))
	before := e.admin(http.MethodGet, marginPath, "").json("total").Raw
	e.views.setStopped(true)
	e.chat("shop-1", chatBody("sim-small", "x", ""))
	a := e.admin(http.MethodGet, marginPath, "")
	if a.json("total").Raw != before || a.json("behind").Int() < 2 || a.header.Get("x-billing-behind") != a.json("behind").Raw {
		t.Errorf("%v %s, before %s", a.header, a.body, before)
	}
	e.views.setStopped(false)
	if a := e.admin(http.MethodGet, marginPath+"?from="+time.Now().UTC().Format(time.DateOnly), ""); a.json("total.requests").Int() != 2 {
		t.Error(a.body)
	}
}
