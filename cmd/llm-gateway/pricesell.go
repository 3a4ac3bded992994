package main

import (
	"flag"
	"fmt"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
)

const sellHelp = `With SELL_BOOK set, what is paid is shown beside what it costs: by accounts that are in no group of the sell
book, or by --group's or --account's. Then the models of UPSTREAMS are among those listed, too.`

// buyer is whose prices are shown.
type buyer struct {
	sell  *domain.SellBook // nil = everybody pays the cost
	group string           // "" = accounts that are in no group
}

// buyerFlags are how a verb is told whose prices to show.
type buyerFlags struct{ group, account *string }

func flagBuyer(fs *flag.FlagSet) buyerFlags {
	return buyerFlags{fs.String("group", "", "what accounts of the sell book's group `NAME` pay"),
		fs.String("account", "", "what the account `NAME` pays")}
}

// openPrices reads the price book, and with SELL_BOOK the models of UPSTREAMS and whose prices are asked for.
func (a *app) openPrices(f buyerFlags) (*domain.PriceBook, pricebook.Info, buyer, error) {
	s, err := a.settings()
	if err != nil {
		return nil, pricebook.Info{}, buyer{}, err
	}
	if *f.group != "" && *f.account != "" {
		return nil, pricebook.Info{}, buyer{}, a.usage("give --group or --account, not both")
	}
	book, info, err := openPriceBook(s.PriceBook, s.Currency)
	if err != nil || s.SellBook == "" {
		if err == nil && *f.group+*f.account != "" {
			err = a.usage("SELL_BOOK is not set: everybody pays the cost")
		}
		return book, info, buyer{}, err
	}
	catalog, err := openCatalog(s, a.sources)
	if err != nil {
		return nil, info, buyer{}, err
	}
	book = catalog.now().Prices
	b := buyer{catalog.now().Sell, *f.group}
	if *f.account != "" {
		b.group = b.sell.Group(*f.account)
	}
	if models := book.Models(); len(models) > 0 {
		if _, known := b.sell.Sales(b.group, &models[0].Versions[0]); !known {
			return nil, info, buyer{}, fmt.Errorf("SELL_BOOK %s has no group %.60q", s.SellBook, b.group)
		}
	}
	return book, info, b, nil
}

// String says who it is.
func (b *buyer) String() string {
	if b.group == "" {
		return "accounts in no group"
	}
	return "the group " + b.group
}

// saleOut is what is paid by one price version: part of `price list --json` and `price show --json`.
type saleOut struct {
	Group string `json:"group"` // of the sell book; "" = accounts that are in none
	versionOut
}

// sales lists what is paid for a cost that holds until a day; zero is for ever. None without a sell book.
func (b *buyer) sales(cost *domain.PriceVersion, until, now time.Time) (out []saleOut) {
	if b.sell == nil {
		return nil
	}
	all, _ := b.sell.Sales(b.group, cost)
	for i, s := range all {
		if !until.IsZero() && !s.From.Before(until) {
			break
		}
		ends := until
		if i+1 < len(all) && (ends.IsZero() || all[i+1].From.Before(ends)) {
			ends = all[i+1].From
		}
		from := s.From
		if from.Before(cost.From) {
			from = cost.From
		}
		sale := saleOut{b.group, versionView(s.Version, !now.Before(from) && (ends.IsZero() || now.Before(ends)))}
		sale.From = domain.StartText(from)
		out = append(out, sale)
	}
	return out
}

// paid is what is paid now for a cost that is in force; nil without a sell book.
func (b *buyer) paid(cost *domain.PriceVersion, now time.Time) *saleOut {
	for _, s := range b.sales(cost, time.Time{}, now) {
		if s.InForce {
			return &s
		}
	}
	return nil
}

// version is what is paid now for a cost that is in force; the cost without a sell book.
func (b *buyer) version(cost *domain.PriceVersion, now time.Time) *domain.PriceVersion {
	if b.sell == nil {
		return cost
	}
	paid := cost
	all, _ := b.sell.Sales(b.group, cost)
	for _, s := range all {
		if !now.Before(s.From) {
			paid = s.Version
		}
	}
	return paid
}

// printSales prints what is paid by one version of a cost.
func (a *app) printSales(sales []saleOut, to, currency string) error {
	for i := range sales {
		mark := ""
		if sales[i].InForce {
			mark = ", in force"
		}
		from := sales[i].From
		if from == "" {
			from = "launch"
		}
		fmt.Fprintf(a.stdout, "paid by %s from %s%s  (%s)\n", to, from, mark, sales[i].PriceVersion)
		if err := a.printTable(sales[i].rows(currency)); err != nil {
			return err
		}
	}
	return nil
}
