package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
)

// TestSellPrice: what is reserved and charged is what the account pays, and the commit says beside it what
// that cost; without a rule for the account the two are one.
func TestSellPrice(t *testing.T) {
	t.Parallel()
	costs, markup := pricebook.Builtin(), domain.MustAmount("50")
	sell, err := domain.NewSellBook(costs, domain.SellRules{}, []domain.SellGroup{
		{Name: "retail", Accounts: []string{"shop-*"}, SellRules: domain.SellRules{Markup: &markup}}})
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, options{book: costs, sell: sell})
	_, cost, err := costs.Lookup("sim-small", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"shop-1", "anybody"} {
		paid := sell.Price(account, cost, time.Now())
		for _, more := range []string{"", `,"stream":true`} {
			a := e.chat(account, chatBody("sim-small", "hello sim:cached=1", more))
			l := e.life(account, a.id())
			d, r := l.commitData(), l.reserve.Data.(*domain.ReserveData)
			want := plainCost(t, costs, "sim-small", d.Meters, time.Now())
			version := ""
			if paid != cost {
				want, version = want.Mul(want, big.NewRat(3, 2)), cost.ID
			}
			if r.PriceVersion != paid.ID || d.PriceVersion != paid.ID || d.CostVersion != version || ratOf(l.commit).Cmp(want) != 0 {
				t.Errorf("%s: reserved by %s, charged by %s, cost %q; %s, want %s", account, r.PriceVersion, d.PriceVersion, d.CostVersion, l.commit.Amount, want)
			}
			sum := new(big.Rat)
			for _, line := range d.CostLines {
				sum.Add(sum, rat(line.Amount))
			}
			if sum.Cmp(plainCost(t, costs, "sim-small", d.Meters, time.Now())) != 0 {
				t.Errorf("%s: the cost lines are %+v", account, d.CostLines)
			}
		}
	}
}

// TestCostIsWithheld: what a request cost the operator is told to nobody but the role admin, where it is not what is
// paid; what is withheld is named, and the hashes are still those of the whole events.
func TestCostIsWithheld(t *testing.T) {
	t.Parallel()
	costs := pricebook.Builtin()
	sell, err := domain.NewSellBook(costs, domain.SellRules{}, []domain.SellGroup{
		{Name: "retail", Accounts: []string{"shop-*"}, SellRules: domain.SellRules{Markup: new(domain.MustAmount("50"))}}})
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, options{book: costs, sell: sell})
	for _, c := range []struct {
		account, role string
		withheld      bool
	}{{"shop-1", gateway.RoleUser, true}, {"shop-1", gateway.RoleAdmin, false}, {"anybody", gateway.RoleUser, false}} {
		id := e.chat(c.account, chatBody("sim-small", "hello", "")).id()
		stored, err := e.memory.Request(t.Context(), c.account, id)
		if err != nil {
			t.Fatal(err)
		}
		a := e.as(c.role, c.account, "GET", "/billing/requests/"+id.String(), "")
		if want := map[bool]string{true: `["cost_lines","cost_version"]`}[c.withheld]; a.json("withheld").Raw != want || a.json("events.1.withheld").Raw != want || a.json("events.0.withheld").Exists() {
			t.Errorf("%+v: %s", c, a.body)
		}
		for i, shown := range a.json("events").Array() {
			whole, hidden := string(stored[i].Payload), strings.Contains(shown.Get("payload").Raw, "cost_")
			if i == 1 && c.withheld {
				var was, is map[string]any
				if json.Unmarshal([]byte(whole), &was) != nil || json.Unmarshal([]byte(shown.Get("payload").Raw), &is) != nil {
					t.Fatal(shown)
				}
				data := was["data"].(map[string]any)
				delete(data, "cost_lines")
				delete(data, "cost_version")
				if hidden || !reflect.DeepEqual(was, is) {
					t.Errorf("%+v: %s of %s", c, shown.Get("payload"), whole)
				}
			} else if shown.Get("payload").Raw != whole {
				t.Errorf("%+v: %s, not %s", c, shown.Get("payload"), whole)
			}
			if shown.Get("hash").Str != fmt.Sprintf("%x", stored[i].Hash) || shown.Get("chain").Str != "valid" {
				t.Errorf("%+v: %s", c, shown)
			}
		}
	}
}

// TestSellPriceOfTwoModels: where two models served, each part is paid and costs by its own versions.
func TestSellPriceOfTwoModels(t *testing.T) {
	t.Parallel()
	costs, markup := pricebook.Builtin(), domain.MustAmount("25")
	sell, err := domain.NewSellBook(costs, domain.SellRules{Markup: &markup}, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(context.Context, provider.Request) (*provider.Completion, error) {
		return &provider.Completion{Body: []byte(`{"choices":[]}`), Report: provider.Report{
			Model: "sim-large", Usage: &domain.Usage{Input: 9, Output: 5},
			Iterations: []chat.Iteration{{Model: "sim-small", Usage: domain.Usage{Input: 4, Output: 2}}, {Model: "sim-large", Usage: domain.Usage{Input: 5, Output: 3}}}}}, nil
	}
	e := start(t, options{book: costs, sell: sell, overages: true, providers: map[string]provider.Provider{"simulated": &scripted{complete: answer}}})
	l := e.life("zoe", e.chat("zoe", chatBody("sim-small", "hello", "")).id())
	d := l.commitData()
	_, small, _ := costs.Lookup("sim-small", time.Now())
	_, large, _ := costs.Lookup("sim-large", time.Now())
	if d.PriceVersion != sell.Price("zoe", small, time.Now()).ID || d.CostVersion != small.ID || len(d.Lines) != len(d.CostLines) || len(d.Lines) != 5 {
		t.Fatalf("%+v", d)
	}
	for i, line := range d.Lines {
		cost, version, ofCost := d.CostLines[i], "", ""
		if i >= 3 { // input, output and the request itself are the first model's
			version, ofCost = sell.Price("zoe", large, time.Now()).ID, large.ID
		}
		if line.PriceVersion != version || cost.PriceVersion != ofCost || line.Quantity != cost.Quantity ||
			rat(line.Amount).Cmp(new(big.Rat).Mul(rat(cost.Amount), big.NewRat(5, 4))) != 0 {
			t.Errorf("paid %+v, cost %+v", line, cost)
		}
	}
}
