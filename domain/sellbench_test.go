package domain_test

import (
	"fmt"
	"testing"
	"time"

	"llm-gateway/domain"
)

// BenchmarkSellBook makes a large sell book: at every start and SIGHUP one is made.
func BenchmarkSellBook(b *testing.B) {
	const models, groups, entries = 400, 32, 6
	day := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	var costs []domain.Model
	for i := range models {
		var r domain.Rates
		r.Set(domain.Input, domain.MustAmount("0.000001"))
		r.Set(domain.Output, domain.MustAmount("0.000004"))
		costs = append(costs, domain.Model{Provider: "openai", Name: fmt.Sprint("model-", i), Mode: domain.ModeChat, Context: 100_000, MaxOutput: 10_000,
			Versions: []domain.PriceVersion{{Rates: r}, {From: day, Rates: r}}})
	}
	book, err := domain.NewPriceBook(costs)
	if err != nil {
		b.Fatal(err)
	}
	rules := func(markup int) domain.SellRules {
		base := domain.MustAmount(fmt.Sprint(markup))
		out := domain.SellRules{Markup: &base}
		for i := range entries {
			later := domain.MustAmount(fmt.Sprint(markup + i + 1))
			out.Dated = append(out.Dated, domain.SellChange{From: day.AddDate(0, i, 0), Rules: domain.SellRules{Markup: &later}})
		}
		return out
	}
	var all []domain.SellGroup
	for i := range groups {
		all = append(all, domain.SellGroup{Name: fmt.Sprint("group-", i), Accounts: []string{fmt.Sprint("account-", i)}, SellRules: rules(i % 8)})
	}
	for b.Loop() {
		if _, err := domain.NewSellBook(book, rules(20), all); err != nil {
			b.Fatal(err)
		}
	}
}
