package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"llm-gateway/domain"
)

// printAudit prints the life of one request for a person to read.
func (a *app) printAudit(o *auditOut) error {
	rows := [][]string{
		{"request", o.RequestID.String()}, {"account", o.UserID}, {"state", string(o.State)},
		{"model", cmp.Or(o.Model, "-") + " served as " + cmp.Or(o.ModelServed, "-") + " by " + cmp.Or(o.Provider, "-")},
		{"price version", o.PriceVersion},
		{"reserved", o.Reserved.String() + " " + o.Currency + " for at most " + number(o.Bound.Input) + " input and " + number(o.Bound.Output) + " output tokens"},
		{"charged", o.Charged.String() + " " + o.Currency},
		{"of that beyond the reserve", o.Overage.String() + " " + o.Currency},
		{"given back", strings.TrimSpace(o.Refunded.String() + " " + o.Currency + " " + string(o.RefundReason))},
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	sections := []struct {
		title string
		rows  [][]string
	}{
		{"the bound, and why", lineRows(o.Bound.Lines)},
		{"attempts", attemptRows(o.Attempts)},
		{"usage", o.usageRows()},
		{"the charge", o.chargeRows()},
		{"what it cost", o.costRows()},
		{"events", o.eventRows()},
	}
	for _, s := range sections {
		if len(s.rows) == 0 {
			continue
		}
		fmt.Fprintf(a.stdout, "\n%s:\n", s.title)
		if err := a.printTable(s.rows); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stdout, "\nhash chain: %s\ncalculated again: %s\n", o.Chain, o.Recheck)
	return nil
}

// String is what came of it, in one line.
func (r recheckOut) String() string {
	said := "equal"
	if !r.Equal {
		said = strings.Join(r.Problems, "; ")
	}
	if len(r.Unlisted) > 0 {
		said += " (by its own lines: the book does not have " + strings.Join(r.Unlisted, ", ") + ")"
	}
	return said
}

func lineRow(m domain.Meter, quantity int64, unit, amount domain.Amount, version string) []string {
	row := []string{"  " + m.String(), strconv.FormatInt(quantity, 10), "x " + unit.String(), "= " + amount.String()}
	if version != "" {
		row = append(row, version)
	}
	return row
}

func lineRows(lines []domain.Line) (rows [][]string) {
	for _, l := range lines {
		rows = append(rows, lineRow(l.Meter, l.Quantity, l.UnitPrice, l.Amount, l.PriceVersion))
	}
	return rows
}

func attemptRows(attempts []domain.Attempt) (rows [][]string) {
	for _, t := range attempts {
		rows = append(rows, []string{"  " + t.Provider, t.Model, "status " + strconv.Itoa(t.Status), strconv.FormatInt(t.Millis, 10) + " ms", t.Error})
	}
	return rows
}

// usageRows put what the provider reported beside what it was understood as.
func (o *auditOut) usageRows() (rows [][]string) {
	if o.UsageSource == "" {
		return nil
	}
	reported := string(o.Reported)
	if o.Reported == nil {
		reported = "nothing that was kept"
	}
	rows = append(rows, []string{"  the provider reported", reported})
	understood := "  understood as"
	if o.UsageSource == domain.UsageCounted {
		understood = "  counted here by " + cmp.Or(o.CountedBy, "-")
	}
	for i := range domain.MeterCount {
		if n := o.Meters[domain.Meter(i)]; n > 0 {
			rows = append(rows, []string{understood, domain.Meter(i).String() + " " + strconv.FormatInt(n, 10)})
			understood = ""
		}
	}
	return rows
}

func (o *auditOut) chargeRows() (rows [][]string) {
	for _, l := range o.Lines {
		rows = append(rows, lineRow(l.Meter, l.Quantity, l.UnitPrice, domain.Amount(l.Amount), l.PriceVersion))
	}
	return rows
}

func (o *auditOut) costRows() (rows [][]string) {
	switch {
	case o.Cost == nil:
		return nil
	case len(o.Cost.Lines) == 0:
		return [][]string{{"  nothing: no provider was called"}}
	}
	return append(lineRows(o.Cost.Lines), []string{"  by " + o.Cost.PriceVersion})
}

// eventRows are the events, with the balances around each.
func (o *auditOut) eventRows() [][]string {
	rows := [][]string{{"  POSITION", "KIND", "AMOUNT", "AVAILABLE", "RESERVED", "TIME", "HASH", "CHAIN"}}
	for _, e := range o.Events {
		change := func(before, after domain.Amount) string { return before.String() + " -> " + after.String() }
		rows = append(rows, []string{"  " + e.Position, string(e.Kind), domain.Amount(e.Amount).String(),
			change(domain.Amount(e.Before.Balance), domain.Amount(e.After.Balance)),
			change(domain.Amount(e.Before.Reserved), domain.Amount(e.After.Reserved)),
			e.OccurredAt.Format("2006-01-02T15:04:05.000000Z"), e.Hash[:16], e.Chain})
	}
	return rows
}
