package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

const (
	// recordTime bounds what a start, or a SIGHUP, waits for the record of prices.
	recordTime = 5 * time.Second
	// maxRecordTries bounds the events of one recording, and how often another one may come in between.
	maxRecordTries = 1000
)

// chargedLedger says what was charged by other prices.
type chargedLedger interface {
	ChargedOtherwise(ctx context.Context, prices []domain.Repricing) (*ledger.Charged, error)
}

// priceLedger is the part of a ledger that prices are recorded in.
type priceLedger interface {
	Append(ctx context.Context, c domain.Command) (domain.Outcome, error)
	ReadPrices(ctx context.Context, record *domain.PriceRecord) error
	chargedLedger
}

// priceRecorder keeps the ledger's record of prices as the catalog in use has them, and holds new ones
// against it. It is used by one goroutine at a time. nil records nothing and accepts everything: where nothing
// is billed there is no ledger.
type priceRecorder struct {
	ledger priceLedger
	actor  string
	log    *slog.Logger
	record domain.PriceRecord // as last read
	owing  bool               // the last change could not be recorded
}

// newPriceRecorder records as the gateway of this host.
func newPriceRecorder(l priceLedger, log *slog.Logger) *priceRecorder {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &priceRecorder{ledger: l, actor: domain.CleanText("gateway:"+host, domain.MaxForeignText), log: log}
}

// begin holds the prices of a start against what was recorded last, and records them. Only prices that are
// dated backwards into charged time are an error. A ledger without a record is taken as it is.
func (p *priceRecorder) begin(ctx context.Context, c *gateway.Catalog) error {
	if err := p.accepts(ctx, nil, c); err != nil {
		return fmt.Errorf("%w; what was charged is not priced anew: begin the new price later, or put the old one back (docs/prices.md)", err)
	}
	p.save(ctx, c, "start")
	return nil
}

// accepts refuses a catalog that prices charged time otherwise than it was charged. What it was priced by
// is what the ledger has recorded, or where it has not, the catalog before; nil = none, and then nothing is
// refused. What is sold is held against the catalog before, which knows more of it; at a start there is none.
func (p *priceRecorder) accepts(ctx context.Context, before, next *gateway.Catalog) error {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	unread := p.ledger.ReadPrices(ctx, &p.record)
	if errors.Is(unread, domain.ErrRecord) { // the ledger is broken, and says where: no price is at fault
		p.log.Error("new prices are not compared with those that the ledger has recorded", "error", unread)
		return nil
	}
	record := &p.record
	if !record.Begun() {
		if before == nil {
			p.log.Info("no prices were recorded in this ledger so far; those of what it has charged are not compared")
			return nil
		}
		record = domain.RecordOf(before.Prices)
	}
	var resold []domain.Repricing
	if before == nil {
		resold = record.Resold(next.Sell)
	} else {
		resold = next.Sell.Resold(before.Sell, before.Prices)
	}
	return refuseBackdated(ctx, p.ledger, append(record.Repriced(next.Prices), resold...), unread)
}

// refuseBackdated is the error of prices by which something was charged otherwise. Where the ledger cannot
// say, only prices to come are taken: nothing can have been charged by them.
func refuseBackdated(ctx context.Context, l chargedLedger, prices []domain.Repricing, unread error) error {
	if unread != nil {
		soon := time.Now().Add(clockTolerance)
		if i := slices.IndexFunc(prices, func(r domain.Repricing) bool { return !r.From.After(soon) }); i >= 0 {
			return fmt.Errorf("it cannot be known whether the price of %s is dated backwards into charged time: %w", prices[i].String(), unread)
		}
		return nil
	}
	found, err := l.ChargedOtherwise(ctx, prices)
	switch {
	case err != nil:
		first := slices.MinFunc(prices, func(a, b domain.Repricing) int { return a.From.Compare(b.From) })
		return fmt.Errorf("it cannot be known whether the price of %s is dated backwards into charged time: %w", first.String(), err)
	case found != nil:
		return fmt.Errorf("the price of %s is dated backwards into charged time: %s charged at %s by %s",
			found.String(), found.Position, found.OccurredAt.Format(time.RFC3339), found.By)
	}
	return nil
}

// save records the prices of a catalog. What cannot be recorded now is owed, and said.
func (p *priceRecorder) save(ctx context.Context, c *gateway.Catalog, reason string) {
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	cost, sell := domain.CostVersions(c.Prices), domain.SellVersions(c.Sell)
	changes, err := recordPrices(ctx, p.ledger, &p.record, p.actor, reason, func(r *domain.PriceRecord) *domain.PricesData {
		if d := r.Next(domain.BookCost, cost); d != nil {
			return d
		}
		return r.Next(domain.BookSell, sell)
	})
	if changes > 0 {
		p.log.Info("a change of prices was recorded in the ledger", "versions", changes, "position_seq", p.record.Last)
	}
	if err != nil {
		p.log.Error("a change of prices was not recorded in the ledger; it is tried again", "error", err)
	}
	p.owing = err != nil
}

// owes says whether the last change is still to be recorded.
func (p *priceRecorder) owes() bool { return p != nil && p.owing }

// recordPrices appends events until next finds nothing more to record, and says how many versions changed.
// Where somebody else recorded first, what is left to record is found anew.
func recordPrices(ctx context.Context, l priceLedger, record *domain.PriceRecord, actor, reason string, next func(*domain.PriceRecord) *domain.PricesData) (changes int, err error) {
	for range maxRecordTries {
		if err := l.ReadPrices(ctx, record); err != nil {
			return changes, err
		}
		d := next(record)
		if d == nil {
			return changes, nil
		}
		op := domain.RecordPrices{After: record.Last, Data: domain.AccountData{Prices: d, Actor: actor, Reason: reason}}
		_, err := l.Append(ctx, domain.Command{ID: newCommandID(), Account: domain.PricesAccount, Op: op})
		moved := new(domain.Rejection)
		switch {
		case errors.As(err, &moved) && moved.Reason == domain.RejectPricesMoved:
		case err != nil:
			return changes, err
		default:
			changes += len(d.Changes)
		}
	}
	return changes, fmt.Errorf("not done after %d events", maxRecordTries)
}
