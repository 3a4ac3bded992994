package gateway_test

import (
	"math/big"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
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
		paid := sell.Price(account, cost)
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
