package reconcile

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
)

// Quantity is something that providers count.
type Quantity string

// quantities are all that are compared, in the order of reports, and what each is in the ledger.
var quantities = []struct {
	name     Quantity
	inLedger func(m *domain.Meters) int64
}{
	{"requests", func(m *domain.Meters) int64 { return m[domain.Requests] }},
	{"input_tokens", func(m *domain.Meters) int64 { return m.InputTokens() }},
	{"uncached_input_tokens", func(m *domain.Meters) int64 { return m[domain.Input] + m[domain.AudioIn] + m[domain.ImageIn] }},
	{"cached_input_tokens", func(m *domain.Meters) int64 { return m[domain.CachedInput] + m[domain.CachedAudioIn] }},
	{"cache_write_5m_tokens", func(m *domain.Meters) int64 { return m[domain.CacheWrite5m] }},
	{"cache_write_1h_tokens", func(m *domain.Meters) int64 { return m[domain.CacheWrite1h] }},
	{"audio_input_tokens", func(m *domain.Meters) int64 { return m[domain.AudioIn] + m[domain.CachedAudioIn] }},
	{"output_tokens", func(m *domain.Meters) int64 { return m.OutputTokens() }},
	{"audio_output_tokens", func(m *domain.Meters) int64 { return m[domain.AudioOut] }},
	{"web_searches", func(m *domain.Meters) int64 { return m[domain.WebSearch] }},
}

// Row is what an export says of one model in one bucket of time.
type Row struct {
	Start, End time.Time // UTC; End is the first instant after it
	Model      string    // "" where the export does not tell models apart
	Counts     map[Quantity]int64
	Cost       *domain.Amount
}

func (r *Row) empty() bool { return len(r.Counts) == 0 && r.Cost == nil }

// File is an export, read.
type File struct {
	Provider string
	Currency string    // of its costs; "" where it has none
	From, To time.Time // from its first bucket's start on, and before its last one's end
	Rows     []Row
	Rounded  int  // numbers that are finer than 1e-12
	Foreign  int  // rows of other services and of credits, which were left out
	More     bool // its last page says that there is another one
	Wide     bool // it has rows of several days each: it tells nothing by day
	of       *form
}

// form is how a provider's exports are read.
type form struct {
	ledger   string   // the provider's name in the ledger
	start    []string // columns, the first one that is there counts
	end      []string
	last     []string // the last day that a row is of
	model    func(r record) string
	counts   func(r record) map[Quantity]string
	cost     func(r record) (text, currency string, cents int)
	foreign  func(r record) bool       // nil: everything in it is the provider's models
	family   func(model string) string // of a model in the ledger, where the export only names families
	wholeDay bool                      // its rows are no buckets: it covers whole days
}

// forms are the providers, by the name that `reconcile` takes.
var forms = map[string]*form{"openai": openAI, "anthropic": anthropic, "google": google}

// LedgerName is what a provider is called in the ledger; "" of a provider that is not known.
func LedgerName(provider string) string {
	if f := forms[provider]; f != nil {
		return f.ledger
	}
	return ""
}

// Read reads a provider's export: JSON (pages one after another, an array, or an object a line) or CSV.
// Errors are ErrFile and ErrNumber, and name the row.
func Read(provider string, r io.Reader) (*File, error) {
	of := forms[provider]
	if of == nil {
		return nil, fmt.Errorf("%w: the providers are openai, anthropic and google, not %.40q", ErrFile, provider)
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrFile, MaxFile)
	}
	recs, more, err := records(text, of.start)
	if err != nil {
		return nil, err
	}
	f := &File{Provider: provider, More: more, of: of}
	for i, rec := range recs {
		if err := f.add(rec); err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
	}
	if !slices.ContainsFunc(f.Rows, func(r Row) bool { return !r.empty() }) {
		return nil, fmt.Errorf("%w: it has no usage or cost in a form of %s that is known", ErrFile, provider)
	}
	return f, nil
}

// add reads one record.
func (f *File) add(rec record) error {
	if f.of.foreign != nil && f.of.foreign(rec) {
		f.Foreign++
		return nil
	}
	row := Row{Model: f.of.model(rec), Counts: map[Quantity]int64{}}
	for name, text := range f.of.counts(rec) {
		d, err := parseDecimal(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if row.Counts[name], err = d.whole(); err != nil {
			return fmt.Errorf("%s of %.40s: %w", name, text, err)
		}
	}
	if err := f.addCost(rec, &row); err != nil {
		return err
	}
	known, err := f.times(rec, &row)
	switch {
	case err != nil:
		return err
	case !known && row.empty():
		return nil // a page's own fields
	case !known:
		return fmt.Errorf("%w: it has none of the columns %s", ErrFile, strings.Join(f.of.start, ", "))
	}
	f.cover(&row)
	f.Rows = append(f.Rows, row)
	return nil
}

func (f *File) addCost(rec record, row *Row) error {
	text, currency, cents := f.of.cost(rec)
	if text == "" {
		return nil
	}
	d, err := parseDecimal(text)
	if err != nil {
		return fmt.Errorf("cost: %w", err)
	}
	cost, rounded, err := d.money(cents)
	if err != nil {
		return fmt.Errorf("cost: %w", err)
	}
	if rounded {
		f.Rounded++
	}
	currency = strings.ToUpper(currency)
	if f.Currency != "" && f.Currency != currency {
		return fmt.Errorf("%w: a cost in %.10q after one in %s", ErrFile, currency, f.Currency)
	}
	f.Currency, row.Cost = currency, &cost
	return nil
}

// times reads a row's bucket; false where the record has no time.
func (f *File) times(rec record, row *Row) (known bool, err error) {
	text := rec.first(f.of.start)
	if text == "" {
		return false, nil
	}
	if row.Start, err = parseTime(text); err != nil {
		return false, err
	}
	row.End = row.Start.Truncate(24 * time.Hour).Add(24 * time.Hour)
	if text := rec.first(f.of.end); text != "" && !f.of.wholeDay {
		if row.End, err = parseTime(text); err != nil {
			return false, err
		}
	}
	if text := rec.first(f.of.last); text != "" {
		last, err := parseTime(text)
		if err != nil {
			return false, err
		}
		if last.After(row.End) { // a day's row may name the day after it
			row.End, f.Wide = last.Truncate(24*time.Hour).Add(24*time.Hour), true
		}
	}
	if !row.End.After(row.Start) {
		return false, fmt.Errorf("%w: it ends at %.40q, before it begins at %.40q", ErrFile, rec.first(f.of.end), rec.first(f.of.start))
	}
	return true, nil
}

// cover widens the time that the file is of.
func (f *File) cover(row *Row) {
	start := row.Start
	if f.of.wholeDay {
		start = start.Truncate(24 * time.Hour)
	}
	if f.From.IsZero() || start.Before(f.From) {
		f.From = start
	}
	if row.End.After(f.To) {
		f.To = row.End
	}
}

// Between narrows the file to the rows that begin at from or later, and before to; zero times change nothing. Rows
// of several days must end by then, too.
func (f *File) Between(from, to time.Time) {
	if !from.IsZero() {
		f.From = from
	}
	if !to.IsZero() {
		f.To = to
	}
	f.Rows = slices.DeleteFunc(f.Rows, func(r Row) bool {
		return r.Start.Before(f.From) || !r.Start.Before(f.To) || f.Wide && r.End.After(f.To)
	})
}

// first is the first of some columns that has a text.
func (r record) first(columns []string) string {
	for _, c := range columns {
		if r[c] != "" {
			return r[c]
		}
	}
	return ""
}

// counted picks the columns that a record has, by the quantity that each is.
func counted(columns map[Quantity][]string) func(record) map[Quantity]string {
	return func(r record) map[Quantity]string {
		out := map[Quantity]string{}
		for name, from := range columns {
			if text := r.first(from); text != "" {
				out[name] = text
			}
		}
		return out
	}
}

// timeForms are how exports write a time: of APIs, of BigQuery in JSON and CSV, and dates.
var timeForms = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05 MST", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", time.DateOnly}

// parseTime reads a time, or Unix seconds. One that names no zone is UTC.
func parseTime(text string) (time.Time, error) {
	const longest = 12 // digits of Unix seconds
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && len(text) <= longest {
		return time.Unix(n, 0).UTC(), nil
	}
	for _, form := range timeForms {
		if t, err := time.Parse(form, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %.40q is no time", ErrFile, text)
}
