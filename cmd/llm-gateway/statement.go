package main

import (
	"context"
	"time"
	_ "time/tzdata" // zones by name also where the machine has no database of them

	"llm-gateway/domain"
	"llm-gateway/gateway/statement"
	"llm-gateway/ledger"
)

var statementVerb = verb{
	name: "statement", args: "NAME --month 2026-11 [--tz ZONE] [--format json|csv|html]",
	summary: "print an account's statement of a month",
	about: `Opening balance, credits with their references, charges by day and model, debits, corrections, what was
reserved and refunded, closing balance: made from the events in the ledger, and checked against the sum of
all of them. The closing balance of a month is the opening balance of the next one in the same time zone.
The HTML page needs nothing from elsewhere and is made to be printed.`,
	run: runStatement,
}

// monthForm is how a month is written on the command line.
const monthForm = "2006-01"

func runStatement(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	monthText := fs.String("month", "", "the `MONTH`, such as 2026-11; mandatory")
	zoneName := fs.String("tz", "UTC", "the time `ZONE` that says when months and days begin, such as Europe/Berlin")
	formatName := fs.String("format", string(statement.JSON), "`FORMAT`: json, csv or html")
	name, err := a.parseName(fs, args)
	if err != nil {
		return err
	}
	format, err := statement.ParseFormat(*formatName)
	if err != nil {
		return a.usage("%s", err)
	}
	month, err := a.month(*monthText, *zoneName)
	if err != nil {
		return err
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		s, err := r.Statement(ctx, name, month)
		switch {
		case err != nil:
			return err
		case s == nil:
			return errNotOpen(name)
		}
		return statement.Write(a.stdout, s, format)
	})
}

// month is the month of a call, which must have begun.
func (a *app) month(text, zoneName string) (domain.Month, error) {
	zone, err := statement.Zone(zoneName)
	if err != nil {
		return domain.Month{}, a.usage("%s", err)
	}
	if text == "" {
		return domain.Month{}, a.usage("--month is mandatory, such as --month %s", a.now().In(zone).Format(monthForm))
	}
	month, err := domain.ParseMonth(text, zone)
	if err != nil {
		return month, a.usage("%s", err)
	}
	if month.From.After(a.now()) {
		return month, a.usage("%s has not begun yet; it begins at %s", text, month.From.Format(time.RFC3339))
	}
	return month, nil
}
