package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"llm-gateway/cmd/llm-gateway/reconcile"
	"llm-gateway/domain"
	"llm-gateway/ledger"
)

var reconcileVerb = verb{
	name: "reconcile", args: "openai|anthropic|google FILE [--from TIME] [--to TIME] [--tolerance N] [--cost-tolerance AMOUNT] [--provider NAMES] [--json]",
	summary: "hold a provider's own usage or cost export against the ledger; exit status 1 if they differ",
	about: `FILE is JSON or CSV, by model: of OpenAI, pages of organization/usage/* or organization/costs, one after
another, or the dashboard's export; of Anthropic, pages of usage_report/messages or cost_report, or the
console's export; of Google, rows of the Cloud Billing export from BigQuery, or the console's cost table,
whose days are those of Pacific time, and whose rows of a whole month are compared as such. What the file
tells is compared with what the ledger's charges say of the same models and UTC days: tokens by kind,
requests, and the provider's price. A difference is what the export has more. Requests that ran over
midnight can be on another day in the ledger: such differences cancel out in the totals. Without --from
and --to it is the time that the file covers.`,
	run: runReconcile,
}

// reconciling is what `reconcile` is called with.
type reconciling struct {
	provider  string
	path      string
	from, to  time.Time
	tolerance reconcile.Tolerance
	names     []string // of the provider in the ledger
	asJSON    bool
}

func (a *app) parseReconcile(args []string) (*reconciling, error) {
	fs := a.flags()
	r := &reconciling{}
	from := fs.String("from", "", "the first `TIME`: 2026-11-01, or an RFC 3339 time; dates are UTC")
	to := fs.String("to", "", "the first `TIME` after it")
	fs.Int64Var(&r.tolerance.Count, "tolerance", 0, "by how many tokens, requests or searches a value may differ")
	cost := fs.String("cost-tolerance", "0", "by what `AMOUNT` a cost may differ")
	names := fs.String("provider", "", "the provider's `NAMES` in the ledger, with commas, where it has others there (UPSTREAMS)")
	fs.BoolVar(&r.asJSON, "json", false, "print JSON")
	values, err := a.parse(fs, args, "PROVIDER", "FILE")
	if err != nil {
		return nil, err
	}
	r.provider, r.path = values[0], values[1]
	own := reconcile.LedgerName(r.provider)
	if own == "" {
		return nil, a.usage("the providers are openai, anthropic and google, not %.40q", r.provider)
	}
	if r.names = strings.FieldsFunc(*names, func(c rune) bool { return c == ',' || c == ' ' }); len(r.names) == 0 {
		r.names = []string{own}
	}
	if r.tolerance.Cost, err = domain.ParseAmount(*cost); err != nil || r.tolerance.Cost.Sign() < 0 || r.tolerance.Count < 0 {
		return nil, a.usage("a tolerance is 0 or more")
	}
	if r.from, err = a.pointInTime("from", *from); err != nil {
		return nil, err
	}
	if r.to, err = a.pointInTime("to", *to); err != nil {
		return nil, err
	}
	if !r.from.IsZero() && !r.to.IsZero() && !r.from.Before(r.to) {
		return nil, a.usage("--from must be before --to")
	}
	return r, nil
}

// pointInTime reads a flag's time; "" is the zero time.
func (a *app) pointInTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, a.usage("--%s is a time like 2026-11-01T00:00:00Z, or a date like 2026-11-01, not %.40q", name, text)
}

func runReconcile(ctx context.Context, a *app, args []string) error {
	r, err := a.parseReconcile(args)
	if err != nil {
		return err
	}
	file, err := r.read()
	if err != nil {
		return err
	}
	return withReader(ctx, a, func(l *ledger.Reader) error {
		book := reconcile.NewBook(r.names...)
		if err := l.EachCharge(ctx, file.From, file.To, book.Add); err != nil {
			return err
		}
		report, err := reconcile.Compare(file, book, l.Meta().Currency, r.tolerance)
		if err != nil {
			return err
		}
		if r.asJSON {
			err = a.printJSON(report)
		} else {
			err = report.WriteText(a.stdout)
		}
		if err == nil && report.Differences > 0 {
			err = errors.New("the export and the ledger differ")
		}
		return err
	})
}

// read reads the export, and narrows it to the time that is asked for.
func (r *reconciling) read() (*reconcile.File, error) {
	f, err := os.Open(r.path) //nolint:gosec // the caller names the file
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	file, err := reconcile.Read(r.provider, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.path, err)
	}
	file.Between(r.from, r.to)
	if !file.From.Before(file.To) {
		return nil, fmt.Errorf("%s: it has nothing in the time that is asked for", r.path)
	}
	return file, nil
}
