package reconcile

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes a report for people: each value that differs, then the totals of all.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s from %s to %s, by UTC day: %d of %d lines differ\n", r.Provider, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339),
		r.Differences, len(r.Lines))
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nDAY\tMODEL\tVALUE\tEXPORT\tLEDGER\tDIFFERENCE\t")
	for i := range r.Lines {
		if r.Lines[i].Differs {
			r.Lines[i].write(t, r.Lines[i].Day, r.Lines[i].name(), r.Currency, false)
		}
	}
	r.Totals.write(t, "total", "", r.Currency, true)
	return t.Flush()
}

// name is the model of a line, and what is special about it.
func (l *Line) name() string {
	name := l.Model
	if name == "" {
		name = "(no model)"
	}
	if l.LedgerModel != "" {
		name += " = " + l.LedgerModel
	}
	return printable(name)
}

// remark says what may explain a line.
func (l *Line) remark() string {
	var words []string
	switch {
	case l.Unknown:
		words = append(words, "not in the ledger")
	case l.Side == FileOnly:
		words = append(words, "not in the ledger on this day")
	case l.Side == LedgerOnly:
		words = append(words, "not in the export")
	}
	if l.Counted > 0 {
		words = append(words, fmt.Sprintf("requests counted by the gateway itself: %d", l.Counted))
	}
	return strings.Join(words, "; ")
}

// write writes the values of a line that differ, or all.
func (l *Line) write(w io.Writer, day, model, currency string, all bool) {
	remark := l.remark()
	row := func(name, file, ledger, difference string) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", day, model, name, file, ledger, difference, remark)
		day, model, remark = "", "", ""
	}
	for _, n := range l.Counts {
		if n.Differs || all {
			row(string(n.Name), strconv.FormatInt(n.File, 10), strconv.FormatInt(n.Ledger, 10), signed(strconv.FormatInt(n.Difference, 10)))
		}
	}
	if c := l.Cost; c != nil && (c.Differs || all) {
		row("cost "+currency, c.File.String(), c.Ledger.String(), signed(c.Difference.String()))
	}
}

func signed(number string) string {
	if number == "0" || strings.HasPrefix(number, "-") {
		return number
	}
	return "+" + number
}

// printable keeps an export's text from moving a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
