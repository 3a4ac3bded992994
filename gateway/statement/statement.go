package statement

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
)

// Format is one way to write a statement.
type Format string

// The formats.
const (
	JSON Format = "json"
	CSV  Format = "csv"
	HTML Format = "html"
)

// ErrFormat and ErrZone are wrapped by the refusals of ParseFormat and Zone.
var (
	ErrFormat = errors.New("unknown format")
	ErrZone   = errors.New("unknown time zone")
)

// ParseFormat reads a format's name; "" is JSON.
func ParseFormat(name string) (Format, error) {
	switch f := Format(name); f {
	case "":
		return JSON, nil
	case JSON, CSV, HTML:
		return f, nil
	}
	return "", fmt.Errorf("%w: a statement is json, csv or html, not %.40q", ErrFormat, name)
}

// ContentType is the format's media type.
func (f Format) ContentType() string {
	switch f {
	case CSV:
		return "text/csv; charset=utf-8"
	case HTML:
		return "text/html; charset=utf-8"
	}
	return "application/json; charset=utf-8"
}

// maxZoneName is above the longest name in the time zone database.
const maxZoneName = 64

// Zone is the time zone of a name like Europe/Berlin; "" is UTC. Local is refused: what it means depends
// on the machine.
func Zone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if len(name) <= maxZoneName && name != "Local" {
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, fmt.Errorf("%w: a time zone is a name like Europe/Berlin or UTC, not %.40q", ErrZone, name)
}

// Write writes a statement.
func Write(w io.Writer, s *domain.Statement, f Format) error {
	switch f {
	case JSON:
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	case CSV:
		return writeCSV(w, s)
	case HTML:
		return page.Execute(w, viewOf(s))
	}
	return fmt.Errorf("%w: %.40q", ErrFormat, string(f))
}

// csvHead are the columns. The amounts of the lines from opening to the last before closing add up to
// closing; refund lines have no amount, because they move money within the balance.
var csvHead = []string{"line", "date", "time", "position", "reference", "reason", "corrects", "model", "requests", "input_tokens",
	"output_tokens", "amount", "moved_within", "currency"}

func writeCSV(w io.Writer, s *domain.Statement) error {
	rows := [][]string{csvHead, csvRow(s, "opening", csvDate(s, s.From), nil, s.Opening.Balance)}
	for _, l := range s.Credits {
		rows = append(rows, movementRow(s, "credit", &l))
	}
	for _, l := range s.Debits {
		rows = append(rows, movementRow(s, "debit", &l))
	}
	for _, l := range s.Corrections {
		rows = append(rows, movementRow(s, "correction", &l))
	}
	for _, c := range s.Charges {
		rows = append(rows, csvRow(s, "charge", c.Date, map[string]string{"model": safe(c.Model), "requests": strconv.FormatInt(c.Requests, 10),
			"input_tokens": strconv.FormatInt(c.InputTokens, 10), "output_tokens": strconv.FormatInt(c.OutputTokens, 10)}, c.Amount))
	}
	for _, r := range s.Refunds {
		rows = append(rows, csvRow(s, "refund", "", map[string]string{"reason": safe(string(r.Reason)), "requests": strconv.FormatInt(r.Count, 10),
			"moved_within": r.Amount.String(), "amount": ""}, domain.Zero))
	}
	closing := map[string]string{}
	if !s.Complete {
		closing["reason"] = "the month is not over"
	}
	rows = append(rows, csvRow(s, "closing", csvDate(s, s.To.Add(-time.Microsecond)), closing, s.Closing.Balance))
	return csv.NewWriter(w).WriteAll(rows)
}

func csvDate(s *domain.Statement, t time.Time) string {
	return t.In(zoneOf(s)).Format(time.DateOnly)
}

// zoneOf is the time zone of a statement; it was loaded when the statement was made.
func zoneOf(s *domain.Statement) *time.Location {
	if zone, err := Zone(s.TimeZone); err == nil {
		return zone
	}
	return time.UTC
}

func movementRow(s *domain.Statement, line string, l *domain.StatementLine) []string {
	return csvRow(s, line, l.Date, map[string]string{"time": l.Time.Format(time.RFC3339Nano), "position": l.Position,
		"reference": safe(l.Reference), "reason": safe(l.Reason), "corrects": safe(l.Corrects)}, l.Amount)
}

func csvRow(s *domain.Statement, line, date string, more map[string]string, amount domain.Amount) []string {
	row := make([]string, len(csvHead))
	for i, column := range csvHead {
		switch column {
		case "line":
			row[i] = line
		case "date":
			row[i] = date
		case "amount":
			row[i] = amount.String()
		case "currency":
			row[i] = s.Currency
		}
		if text, ok := more[column]; ok {
			row[i] = text
		}
	}
	return row
}

// safe keeps a spreadsheet from running a text: those that begin like a formula get an apostrophe.
func safe(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n", rune(text[0])) {
		return "'" + text
	}
	return text
}
