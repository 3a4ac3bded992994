package reconcile

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"llm-gateway/domain"
)

var update = flag.Bool("update", false, "write the reports in testdata")

// charged reads testdata/ledger.txt as the events of a ledger, those at from or later and before to.
func charged(t *testing.T, from, to time.Time) (events []*domain.Event) {
	t.Helper()
	text, err := os.ReadFile("testdata/ledger.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		at, err := time.Parse(time.RFC3339, words[0])
		if err != nil {
			t.Fatal(err)
		}
		d := domain.CommitData{Provider: words[1], ModelRequested: "alias", ModelServed: words[2], UsageSource: domain.UsageProvider}
		for pair := range strings.SplitSeq(words[3], ",") {
			name, n, _ := strings.Cut(pair, "=")
			meter, err := domain.ParseMeter(name)
			if err != nil {
				t.Fatal(err)
			}
			if d.Meters[meter], err = strconv.ParseInt(n, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		d.CostLines = []domain.Line{{Amount: domain.MustAmount(words[4])}}
		for _, word := range words[5:] {
			if search, ok := strings.CutPrefix(word, "search="); ok {
				amount := domain.MustAmount(search)
				d.CostLines = []domain.Line{{Amount: domain.MustAmount(words[4]).Sub(amount)}, {Meter: domain.WebSearch, Amount: amount}}
				continue
			}
			d.UsageSource = domain.UsageCounted
		}
		if !at.Before(from) && at.Before(to) {
			events = append(events, &domain.Event{Kind: domain.KindCommit, OccurredAt: at, Amount: domain.MustAmount("99"), Data: &d})
		}
	}
	return events
}

func bookOf(t *testing.T, provider string, events []*domain.Event) *Book {
	t.Helper()
	b := NewBook(LedgerName(provider))
	for _, e := range events {
		if err := b.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func readFile(t *testing.T, name string) *File {
	t.Helper()
	r, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // it was only read
	provider, _, _ := strings.Cut(strings.TrimSuffix(name, filepath.Ext(name)), "_")
	f, err := Read(provider, r)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return f
}

// TestReports holds each export in testdata against the ledger there; what must come of it is beside it.
func TestReports(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"openai_usage.json", "openai_costs.json", "openai_costs.csv", "anthropic_usage.json", "anthropic_cost.json",
		"anthropic_console.csv", "google.csv", "google.json", "google_costtable.csv"} {
		f := readFile(t, name)
		r, err := Compare(f, bookOf(t, f.Provider, charged(t, f.From, f.To)), "USD", Tolerance{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var text strings.Builder
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".report")
		if *update {
			if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text.String() != string(want) {
			t.Errorf("%s:\n%s\nnot\n%s", name, text.String(), want)
		}
	}
}

// TestTolerance: a value may differ by the tolerance, and not by more.
func TestTolerance(t *testing.T) {
	t.Parallel()
	f := readFile(t, "openai_usage.json")
	b := bookOf(t, "openai", charged(t, f.From, f.To))
	for tolerance, want := range map[int64]int{0: 3, 1: 2, 2: 2, 6: 2, 7: 1, 99: 1, 100: 0} {
		r, err := Compare(f, b, "USD", Tolerance{Count: tolerance})
		if err != nil || r.Differences != want {
			t.Errorf("with a tolerance of %d: %d differences, %v", tolerance, r.Differences, err)
		}
	}
	f = readFile(t, "openai_costs.csv")
	for tolerance, want := range map[string]int{"0": 2, "0.000001": 1, "0.00000099": 2, "2.25": 0} {
		r, err := Compare(f, b, "USD", Tolerance{Cost: domain.MustAmount(tolerance)})
		if err != nil || r.Differences != want {
			t.Errorf("with a tolerance of %s: %d differences, %v", tolerance, r.Differences, err)
		}
	}
	if r, err := Compare(f, b, "EUR", Tolerance{}); !errors.Is(err, ErrCurrency) {
		t.Errorf("dollars against a ledger in euros: %+v, %v", r, err)
	}
}

// TestBetween: what begins outside of the time that is asked for is left out.
func TestBetween(t *testing.T) {
	t.Parallel()
	f := readFile(t, "openai_usage.json")
	second := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	f.Between(second, time.Time{})
	if len(f.Rows) != 3 || !f.From.Equal(second) || !f.To.Equal(second.AddDate(0, 0, 1)) {
		t.Errorf("%d rows from %s to %s", len(f.Rows), f.From, f.To)
	}
	f.Between(time.Time{}, second)
	if len(f.Rows) != 0 {
		t.Errorf("%d rows are left", len(f.Rows))
	}
}

// TestBookAdd: an overage that repeats its commit is not counted twice; a late one, which stands alone, is.
func TestBookAdd(t *testing.T) {
	t.Parallel()
	d := domain.CommitData{Provider: "openai", ModelRequested: "m", CostLines: []domain.Line{{Amount: domain.MustAmount("2")}}}
	d.Meters[domain.Output] = 7
	b := bookOf(t, "openai", []*domain.Event{
		{Kind: domain.KindCommit, Data: &d},
		{Kind: domain.KindOverage, Data: &domain.OverageData{Reason: domain.OverageBeyondBound, CommitData: d}},
		{Kind: domain.KindOverage, Data: &domain.OverageData{Reason: domain.OverageLate, CommitData: d}},
		{Kind: domain.KindRefund, Data: &domain.RefundData{}},
	})
	if row := b.rows[dayModel{"0001-01-01", "m"}]; len(b.rows) != 1 || row.Meters[domain.Output] != 14 || row.Cost.String() != "4" {
		t.Errorf("%+v", b.rows)
	}
}

// TestMatchModels: names with dates and ways of writing, and nothing where two could be meant.
func TestMatchModels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, ledger, want string }{
		{"gpt-4o", "gpt-4o", ""},
		{"gpt-4o", "gpt-4o-2024-08-06", "gpt-4o=gpt-4o-2024-08-06"},
		{"gpt-4o", "gpt-4o-2024-08-06 gpt-4o-2024-11-20", ""},
		{"gpt-4o gpt-4o-2024-08-06", "gpt-4o-2024-08-06", ""},
		{"gpt-4o-2024-05-13 gpt-4o-2024-08-06", "gpt-4o", ""},
		{"Claude-Haiku-4.5", "claude-haiku-4-5-20251001", "Claude-Haiku-4.5=claude-haiku-4-5-20251001"},
		{"gpt-4o-mini", "gpt-4o-2024-08-06", ""},
	} {
		file, ledger := map[string]bool{}, map[string]bool{}
		for m := range strings.FieldsSeq(c.file) {
			file[m] = true
		}
		for m := range strings.FieldsSeq(c.ledger) {
			ledger[m] = true
		}
		var got []string
		for a, b := range matchModels(file, ledger) {
			got = append(got, a+"="+b)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s and %s: %v", c.file, c.ledger, got)
		}
	}
	for text, want := range map[string]string{"Gemini 2.5 Pro Thinking Text Output - Predictions": "gemini-2.5-pro", "gemini-3.1-flash-lite-preview": "gemini-3.1-flash-lite",
		"EmbedContent input token count for gemini-embedding-2 text": "gemini-embedding-2", "Gemini 3.0 Pro Text Input Caching": "gemini-3-pro",
		"gemini-3-pro-image-preview": "gemini-3-pro", "Grounding with Google Search": "", "gemini-pro": ""} {
		if got := geminiFamily(text); got != want {
			t.Errorf("%s is of the family %q", text, got)
		}
	}
}

// checkSame: an export of what is in the ledger has no difference, however its rows are cut; and one
// token more or less, anywhere, is found, by how much it is.
func checkSame(t *rapid.T) {
	events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *domain.Event {
		d := domain.CommitData{Provider: "openai", ModelServed: rapid.SampledFrom([]string{"a", "b-2026-01-01", "c"}).Draw(t, "model")}
		for _, m := range []domain.Meter{domain.Input, domain.CachedInput, domain.Output, domain.Reasoning, domain.Requests} {
			d.Meters[m] = rapid.Int64Range(0, domain.MaxTokens).Draw(t, m.String())
		}
		d.CostLines = []domain.Line{{Amount: domain.MustAmount("0.000000000001").Times(rapid.Int64Range(0, 1e15).Draw(t, "cost"))}}
		at := time.Date(2026, 11, rapid.IntRange(1, 3).Draw(t, "day"), rapid.IntRange(0, 23).Draw(t, "hour"), 0, 0, 0, time.UTC)
		return &domain.Event{Kind: domain.KindCommit, OccurredAt: at, Data: &d}
	}), 1, 12).Draw(t, "events")
	b := NewBook("openai")
	var csv strings.Builder
	csv.WriteString("start_time,model,num_model_requests,input_tokens,input_cached_tokens,output_tokens,amount_value,amount_currency\n")
	for _, e := range events {
		if err := b.Add(e); err != nil {
			t.Fatal(err)
		}
		d := e.Data.(*domain.CommitData)
		fmt.Fprintf(&csv, "%d,%s,%d,%d,%d,%d,%s,usd\n", e.OccurredAt.Unix(), d.ModelServed, d.Meters[domain.Requests], d.Meters.InputTokens(),
			d.Meters[domain.CachedInput], d.Meters.OutputTokens(), d.CostLines[0].Amount)
	}
	f, err := Read("openai", strings.NewReader(csv.String()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Compare(f, b, "USD", Tolerance{})
	if err != nil || r.Differences != 0 || r.Totals.Differs {
		t.Fatalf("%+v, %v", r, err)
	}
	row := &f.Rows[rapid.IntRange(0, len(f.Rows)-1).Draw(t, "row")]
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(row.Counts))).Draw(t, "quantity")
	row.Counts[name]++
	r, err = Compare(f, b, "USD", Tolerance{})
	if err != nil || r.Differences != 1 || !r.Totals.Differs {
		t.Fatalf("one more of %s: %+v, %v", name, r, err)
	}
	for _, n := range r.Totals.Counts {
		if (n.Difference == 1) != (n.Name == name) {
			t.Fatalf("one more of %s: %+v", name, r.Totals)
		}
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, checkSame)
}

// TestSearchesApart: an export that tells web searches of no model is no different from a ledger that knows the model.
func TestSearchesApart(t *testing.T) {
	t.Parallel()
	for provider, text := range map[string]string{
		"openai": "start_time,line_item,amount_value,amount_currency\n2026-11-01,\"m, output\",0.5,usd\n2026-11-01,web search tool calls,0.02,usd\n",
		"google": "usage_start_date,service_description,sku_description,usage_amount,cost\n2026-11-01,Gemini API,Generate content output gemini 2.5 pro,7,0.5\n" +
			"2026-11-01,Generative Language API,Grounding with Google Search,2,0.02\n",
	} {
		d := domain.CommitData{Provider: LedgerName(provider), ModelServed: map[string]string{"openai": "m", "google": "gemini-2.5-pro"}[provider],
			CostLines: []domain.Line{{Meter: domain.Output, Amount: domain.MustAmount("0.5")}, {Meter: domain.WebSearch, Amount: domain.MustAmount("0.02")}}}
		d.Meters[domain.Output], d.Meters[domain.WebSearch] = 7, 2
		f, err := Read(provider, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		b := bookOf(t, provider, []*domain.Event{{Kind: domain.KindCommit, OccurredAt: time.Date(2026, 11, 1, 5, 0, 0, 0, time.UTC), Data: &d}})
		if r, err := Compare(f, b, "USD", Tolerance{}); err != nil || len(r.Lines) != 2 || r.Differences != 0 || r.Totals.Differs {
			t.Errorf("%s: %+v, %v", provider, r, err)
		}
	}
}
