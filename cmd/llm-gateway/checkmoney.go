package main

import (
	"context"
	"strings"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// oldPrices is the age of a price book that has missed changes.
const oldPrices = 90 * 24 * time.Hour

func (p *production) money() {
	s := p.settings
	if _, info, err := openPriceBook(s.PriceBook, s.Currency); err == nil {
		p.prices(info.AsOf)
	}
	p.either(s.SellBook != "", "SELL_BOOK", "customers pay by it", verdictWarn, "not set: customers pay what the providers charge, and nothing is earned")
	p.either(s.DefaultBalance.Sign() == 0, "BILLING_DEFAULT_BALANCE", "0: nobody is given money by logging in", verdictWarn,
		s.DefaultBalance.String()+" "+s.Currency+" is given to every new account: to whoever your issuer gives a token")
	if s.Degraded == degradedSpool {
		p.okf("BILLING_DEGRADED", "spool: while Postgres is away calls go on within what Redis knew; what is not covered then becomes an overage, which you bear")
	} else {
		p.okf("BILLING_DEGRADED", "deny: while Postgres is away model calls answer 503")
	}
	p.skipf("checkpoint", "run `llm-gateway ledger verify` every night, and keep what it prints outside of the database")
}

// prices judges the book itself, as of the day on which its prices were collected.
func (p *production) prices(collected string) {
	asOf, err := time.Parse(time.DateOnly, collected)
	p.either(err == nil && p.now.Sub(asOf) < oldPrices, "PRICE_BOOK", "its prices are of "+collected, verdictWarn,
		"its prices are of "+or(collected, "an unknown day")+": compare them (`llm-gateway price diff`), or customers pay what providers no longer charge")
	if p.catalog == nil {
		return
	}
	var without []string
	for _, m := range p.catalog.now().Prices.Models() {
		if _, err := m.Price(p.now); err != nil {
			without = append(without, m.Name)
		}
	}
	p.either(len(without) == 0, "prices", "every model has one today", verdictWarn, "no price today, so not called: "+strings.Join(without[:min(len(without), 5)], ", "))
}

// recorded holds the prices of the files against those that the ledger has recorded.
func (p *production) recorded(ctx context.Context) {
	if p.settings.DatabaseURL == "" || p.catalog == nil || !p.settings.Billing {
		p.skipf("price record", "DATABASE_URL is not set, or nothing is billed, or the files cannot be used: the prices are compared with no ledger's")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	d, err := externalDatabase(p.settings)
	if err != nil {
		return // it has been told
	}
	l, err := ledger.OpenReader(ctx, ledger.Config{URL: string(d.URL), Role: d.Role, Pooled: d.Pooled})
	if err != nil {
		p.skipf("price record", "there is no ledger to compare the prices with yet")
		return
	}
	defer l.Close()
	var record domain.PriceRecord
	if err := l.ReadPrices(ctx, &record); err != nil {
		p.failf("price record", "it cannot be read: %s", reason(err))
		return
	}
	p.compare(ctx, l, &record)
}

func (p *production) compare(ctx context.Context, l chargedLedger, record *domain.PriceRecord) {
	now := p.catalog.now()
	changed := 0
	for book, versions := range map[string]domain.Versions{domain.BookCost: domain.CostVersions(now.Prices), domain.BookSell: domain.SellVersions(now.Sell)} {
		if d := record.Next(book, versions); d != nil {
			changed += len(d.Changes)
		}
	}
	switch {
	case !record.Begun():
		p.warnf("price record", "the ledger has recorded no prices yet; serve records them at its start")
		return
	case changed == 0:
		p.okf("price record", "the ledger has recorded the prices that the files say")
		return
	}
	if err := refuseBackdated(ctx, l, append(record.Repriced(now.Prices), record.Resold(now.Sell)...), nil); err != nil {
		p.failf("price record", "serve would not start: %s", err)
		return
	}
	p.warnf("price record", "%d prices or more are others than the ledger has recorded last (`llm-gateway price log`); serve records them at its start or SIGHUP", changed)
}

func (p *production) providers(ctx context.Context) {
	if p.catalog == nil {
		return // it has been told why
	}
	all := *p.catalog.serving.Load()
	if len(all) == 0 {
		p.failf("providers", "no provider's key is set, and UPSTREAMS names none: nothing can be called")
	}
	answers := askProviders(ctx, probes(all), p.timeout)
	for i := range answers {
		one := &answers[i]
		p.either(one.OK, "provider "+one.Provider, "it takes the key", verdictFail, one.Problem)
		p.either(strings.HasPrefix(one.URL, "https://") || !one.OK, "provider "+one.Provider+" TLS", "https", verdictWarn, "http: keys and prompts can be read on the way")
	}
}
