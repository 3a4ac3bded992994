package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

var priceRerateVerb = verb{
	name: "price rerate", args: "--from DATE --to DATE [--account NAME] [--book FILE] [--sell FILE] [--correct --reason TEXT --actor NAME [--force] [--yes]] [--json]",
	summary: "what every charge of a period would have cost by another price book; as correction events only when told to",
	about: `Every charge that the ledger has from --from up to --to (not included; dates are UTC) is calculated again from
its meters, service tier and region by the price book in use, or by --book's and --sell's. The version that
applies is the one that is in force, in that book, when the charge's request was reserved: its event's time
less its latency. What had been corrected of a charge (credits and debits that --corrects its position) counts
as paid back or taken. What cannot be priced again is named, and left as it is.

It is a report, unless --correct is given. Then a credit or a debit is appended for each charge that differs,
which names the charge it corrects, with the reference rerate:REQUEST:HASH (of the price version). The same
call again, or after it was interrupted, corrects only what is left: nothing is corrected twice. It prints its
plan first, and asks, or wants --yes. A debit beyond what an account has available is refused without --force,
and named.`,
	run: runPriceRerate,
}

// rerating is what `price rerate` is called with.
type rerating struct {
	from, to      time.Time
	account       string
	book, sell    string // files; "" = those in use
	correct       bool
	reason, actor string
	force, yes    bool
	asJSON        bool
}

func (a *app) parseRerate(args []string) (*rerating, error) {
	fs, r := a.flags(), &rerating{}
	from := fs.String("from", "", "the first `DATE` (UTC), or RFC 3339 time (mandatory)")
	to := fs.String("to", "", "the first `DATE` after it (mandatory)")
	fs.StringVar(&r.account, "account", "", "only the charges of the account `NAME`")
	fs.StringVar(&r.book, "book", "", "the price book `FILE`, instead of the one in use")
	fs.StringVar(&r.sell, "sell", "", "the sell book `FILE`, instead of SELL_BOOK")
	fs.BoolVar(&r.correct, "correct", false, "append what corrects the charges that differ")
	fs.StringVar(&r.reason, "reason", "", "`TEXT` that says why, in every correction")
	fs.StringVar(&r.actor, "actor", "", "`NAME` of who does it, in every correction")
	fs.BoolVar(&r.force, "force", false, "take also what is beyond an account's available")
	fs.BoolVar(&r.yes, "yes", false, "do not ask")
	fs.BoolVar(&r.asJSON, "json", false, "print JSON")
	if _, err := a.parse(fs, args); err != nil {
		return nil, err
	}
	var err error
	if r.from, err = a.pointInTime("from", *from); err != nil {
		return nil, err
	}
	if r.to, err = a.pointInTime("to", *to); err != nil {
		return nil, err
	}
	return r, a.checkRerate(r)
}

func (a *app) checkRerate(r *rerating) error {
	switch {
	case r.from.IsZero() || r.to.IsZero():
		return a.usage("--from and --to are mandatory")
	case !r.from.Before(r.to):
		return a.usage("--from must be before --to")
	case r.account != "" && domain.CheckAccount(r.account) != nil:
		return a.usage("%s", domain.CheckAccount(r.account))
	case !r.correct && r.reason+r.actor == "" && !r.force && !r.yes:
		return nil
	case !r.correct:
		return a.usage("--reason, --actor, --force and --yes are about corrections: give --correct")
	case strings.TrimSpace(r.reason) == "" || r.actor == "":
		return a.usage("--correct wants --reason and --actor: who corrects these charges, and why")
	case r.asJSON && !r.yes:
		return a.usage("with --json nobody is asked: give --yes")
	}
	trial := domain.Credit{Amount: domain.MustAmount("1"), Data: domain.MovementData{Reference: domain.ReratePrefix, Reason: r.reason, Actor: r.actor}}
	if err := (domain.Command{ID: newCommandID(), Account: cmp.Or(r.account, actor), Op: trial}).Validate(); err != nil {
		return a.usage("%s", err)
	}
	return nil
}

// tariff is what charges are priced by again: the books in use, with the files that were named.
func (a *app) tariff(r *rerating) (domain.Tariff, error) {
	s, err := a.settings()
	if err != nil {
		return domain.Tariff{}, err
	}
	with := *s
	with.PriceBook, with.SellBook = cmp.Or(r.book, s.PriceBook), cmp.Or(r.sell, s.SellBook)
	catalog, err := openCatalog(&with, a.sources)
	if err != nil {
		return domain.Tariff{}, err
	}
	return domain.Tariff{Prices: catalog.now().Prices, Sell: catalog.now().Sell}, nil
}

// rerateOut is the JSON of `price rerate`.
type rerateOut struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Account  string    `json:"account,omitempty"`
	Currency string    `json:"currency"`
	*domain.RerateReport
	Corrected *correctedOut `json:"corrections,omitempty"` // with --correct
}

func runPriceRerate(ctx context.Context, a *app, args []string) error {
	r, err := a.parseRerate(args)
	if err != nil {
		return err
	}
	tariff, err := a.tariff(r)
	if err != nil {
		return err
	}
	if r.correct {
		return withLedger(ctx, a, func(l *ledger.Postgres) error { return a.correct(ctx, l, r, tariff) })
	}
	return withReader(ctx, a, func(l *ledger.Reader) error {
		out, _, err := a.rerate(ctx, l, r, tariff)
		if err != nil {
			return err
		}
		return a.printRerate(out, r.asJSON)
	})
}

// rerate makes the report, and says which events it is of.
func (a *app) rerate(ctx context.Context, l *ledger.Reader, r *rerating, tariff domain.Tariff) (*rerateOut, []ledger.Span, error) {
	spans, err := l.Spans(ctx, r.account, r.from, r.to)
	if err != nil {
		return nil, nil, err
	}
	rerater := domain.NewRerater(tariff)
	line := newProgressLine(a.stderr, "re-rating")
	defer line.clear()
	for _, s := range spans {
		if err := l.EachCharged(ctx, r.account, s, line.shard, func(c *domain.Charged) error { rerater.Add(c); return nil }); err != nil {
			return nil, nil, err
		}
	}
	return &rerateOut{From: r.from, To: r.to, Account: r.account, Currency: l.Meta().Currency, RerateReport: rerater.Report()}, spans, nil
}

func (a *app) printRerate(out *rerateOut, asJSON bool) error {
	if asJSON {
		return a.printJSON(out)
	}
	rows := [][]string{{"ACCOUNT", "MODEL", "DAY", "CHARGES", "CHARGED", "CORRECTED", "RE-RATED", "DIFFERENCE"}}
	row := func(account, model, day string, s *domain.RerateSums) []string {
		return []string{account, model, day, strconv.FormatInt(s.Charges, 10), s.Charged.String(), s.Corrected.String(), s.Rerated.String(), s.Difference.String()}
	}
	for i := range out.Rows {
		rows = append(rows, row(out.Rows[i].Account, out.Rows[i].Model, out.Rows[i].Day, &out.Rows[i].RerateSums))
	}
	if err := a.printTable(append(rows, row("total", "", "", &out.Total))); err != nil {
		return err
	}
	if out.RowsLeftOut > 0 {
		fmt.Fprintf(a.stdout, "%d charges of further rows are in the total alone: narrow it by --account, or to a shorter time\n", out.RowsLeftOut)
	}
	for i := range out.Unrated {
		u := &out.Unrated[i]
		fmt.Fprintf(a.stdout, "not re-rated: %d charges of %s %s, the first at %s: %s\n", u.Charges, u.Charged, out.Currency, u.First, u.Error())
	}
	if out.UnratedLeft > 0 {
		fmt.Fprintf(a.stdout, "not re-rated: %d charges more, for further reasons\n", out.UnratedLeft)
	}
	p := &out.Plan
	fmt.Fprintf(a.stdout, "amounts in %s; the version that applies is the one in force when a request was reserved. To correct it: %d credits of %s and %d debits of %s\n",
		out.Currency, p.Credits, p.Credited, p.Debits, p.Debited)
	return nil
}

// confirm asks whether to go on, where somebody is there to be asked.
func (a *app) confirm(r *rerating, p *domain.ReratePlan, currency string) error {
	if r.yes {
		return nil
	}
	if !isTerminal(os.Stdin) || !isTerminal(a.stderr) {
		return a.usage("nobody is there to be asked: give --yes to append these corrections")
	}
	fmt.Fprintf(a.stderr, "Append %d credits of %s %s and %d debits of %s %s? [y/N] ", p.Credits, p.Credited, currency, p.Debits, p.Debited, currency)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || strings.ToLower(strings.TrimSpace(answer)) != "y" {
		return errors.New("nothing was corrected")
	}
	return nil
}
