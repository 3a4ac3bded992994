package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

var auditVerb = verb{
	name: "audit", args: "REQUEST | --all [--json]",
	summary: "explain one request's charge from its events, or calculate every charge again; exit status 1 if anything differs",
	about: `REQUEST is the x-billing-request-id of an answer. With --all every charge in the ledger is calculated again from
its meters and its price version, as the books have it (PRICE_BOOK, UPSTREAMS and SELL_BOOK, all versions of all models). A
version that is not in the books any more is named; its charges are checked by their own lines. It reads beside whoever
is writing, and changes nothing.`,
	run: runAudit,
}

func runAudit(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	all := fs.Bool("all", false, "calculate every charge in the ledger again")
	asJSON := jsonFlag(fs)
	values, err := a.parseAny(fs, args)
	switch {
	case err != nil:
		return err
	case len(values) > 1:
		return a.usage("too many arguments: %.60q", values[1])
	case *all && len(values) > 0:
		return a.usage("give REQUEST or --all, not both")
	case *all:
		return runAuditAll(ctx, a, *asJSON)
	case len(values) == 0:
		return a.usage("REQUEST or --all is missing")
	}
	id, err := uuid.Parse(values[0])
	if err != nil || id == uuid.Nil {
		return a.usage("REQUEST is the x-billing-request-id of an answer, such as 0198c2f4-5d1a-7c3b-8a51-3f0a9d7be201, not %.60q", values[0])
	}
	return runAuditOne(ctx, a, id, *asJSON)
}

// priceVersions are all that can be charged by now, by ID.
func (a *app) priceVersions() (func(id string) *domain.PriceVersion, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	catalog, err := openCatalog(s, a.sources)
	if err != nil {
		return nil, err
	}
	now := catalog.now()
	all := domain.VersionsOf(now.Prices, now.Sell)
	listed := func(id string) *domain.PriceVersion { return all[id] }
	var cached sync.Map // by ID; at most one for each version, region and per cent
	return func(id string) *domain.PriceVersion {
		if v := listed(id); v != nil {
			return v
		}
		if v, known := cached.Load(id); known {
			return v.(*domain.PriceVersion)
		}
		v := domain.CachedVersion(id, listed)
		if v != nil {
			cached.Store(id, v)
		}
		return v
	}, nil
}

// errDiffers ends `audit` where something is not as it should be; what, has been printed.
var errDiffers = errors.New("the audit found differences")

func runAuditAll(ctx context.Context, a *app, asJSON bool) error {
	version, err := a.priceVersions()
	if err != nil {
		return err
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		line := newProgressLine(a.stderr, "auditing")
		report, err := r.Audit(ctx, version, line.shard)
		line.clear()
		if err != nil {
			return err
		}
		if asJSON {
			err = a.printJSON(report)
		} else {
			a.printAuditReport(report, r.Meta().Currency)
		}
		if err == nil && !report.Clean {
			err = errDiffers
		}
		return err
	})
}

// printAuditReport prints what was found, the differences first.
func (a *app) printAuditReport(r *ledger.AuditReport, currency string) {
	for _, d := range r.Differences {
		for _, p := range d.Problems {
			fmt.Fprintf(a.stdout, "%s %s of %s: %s\n", d.Position, d.RequestID, d.Account, p)
		}
	}
	if more := r.Differ - int64(len(r.Differences)); more > 0 {
		fmt.Fprintf(a.stdout, "and %d more that differ\n", more)
	}
	for _, u := range r.Unlisted {
		fmt.Fprintf(a.stdout, "price version %s is not in the book: %d charges, the first at %s, checked by their own lines\n", u.PriceVersion, u.Charges, u.First)
	}
	verdict := "all as calculated again"
	if !r.Clean {
		verdict = fmt.Sprintf("%d differ", r.Differ)
	}
	fmt.Fprintf(a.stdout, "%d charges of %s %s: %s, in %s\n", r.Charges, r.Amount, currency, verdict, time.Duration(r.Millis)*time.Millisecond)
}

// auditOut is the JSON of `audit REQUEST`: what GET /billing/requests/{id} answers with, and what calculating
// it again came to.
type auditOut struct {
	*gateway.RequestView
	Cost    *costOut   `json:"cost,omitempty"` // where that is not what was paid
	Recheck recheckOut `json:"recheck"`
}

// costOut is what a request cost the operator.
type costOut struct {
	PriceVersion string        `json:"price_version"`
	Lines        []domain.Line `json:"lines"`
}

// recheckOut is about the charge; without one it is equal.
type recheckOut struct {
	Equal    bool     `json:"equal"`
	Problems []string `json:"problems"`
	Unlisted []string `json:"unlisted"` // price versions that the book does not have
}

func runAuditOne(ctx context.Context, a *app, id uuid.UUID, asJSON bool) error {
	version, err := a.priceVersions()
	if err != nil {
		return err
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		account, err := r.AccountOf(ctx, id)
		if err != nil {
			return err
		}
		if account == "" {
			return fmt.Errorf("there is no request %s in this ledger", id)
		}
		events, err := r.Witnessed(ctx, account, id)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return fmt.Errorf("request %s has a reservation and no events: `ledger verify` says what else is wrong", id)
		}
		charge := pastCharge(events)
		out := auditOut{gateway.NewRequestView(events, r.Meta().Currency), costOf(charge), recheck(charge, version)}
		if asJSON {
			err = a.printJSON(out)
		} else {
			err = a.printAudit(&out)
		}
		if err == nil && (!out.Recheck.Equal || out.Chain != "valid") {
			err = errDiffers
		}
		return err
	})
}

// pastCharge is what a request was charged; nil where it was not.
func pastCharge(events []domain.Witnessed) (charge *domain.PastCharge) {
	for i := range events {
		e := &events[i].Event
		var d *domain.CommitData
		switch data := e.Data.(type) {
		case *domain.CommitData:
			d = data
		case *domain.OverageData:
			d = &data.CommitData
		default:
			continue
		}
		taken := e.Amount
		if charge != nil { // the rest of a charge that exceeded its reserve
			taken = taken.Add(charge.Amount)
		}
		past := domain.NewPastCharge(d, taken)
		charge = &past
	}
	return charge
}

func costOf(charge *domain.PastCharge) *costOut {
	if charge == nil || charge.CostVersion == "" && domain.SameLines(charge.Lines, charge.CostLines) {
		return nil
	}
	return &costOut{cmp.Or(charge.CostVersion, charge.PriceVersion), charge.CostLines}
}

// recheck calculates the charge of a request again.
func recheck(charge *domain.PastCharge, version func(string) *domain.PriceVersion) recheckOut {
	out := recheckOut{Equal: true, Problems: []string{}, Unlisted: []string{}}
	if charge != nil {
		again := charge.Recheck(version)
		out.Equal = len(again.Problems) == 0
		out.Problems, out.Unlisted = append(out.Problems, again.Problems...), append(out.Unlisted, again.Unlisted...)
	}
	return out
}
