package pricebook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"llm-gateway/domain"
)

const factsFile = "../../../../shared/prices.json"

// The facts the built-in book was made from. Its own form differs; see domainName and rows.
type facts struct {
	Currency string            `json:"currency"`
	AsOf     string            `json:"as_of"`
	Unit     string            `json:"unit"`
	Notes    []string          `json:"notes"`
	Sources  map[string]string `json:"sources"`
	Models   []fact            `json:"models"`
}

type fact struct {
	Provider      string            `json:"provider"`
	Model         string            `json:"model"`
	Mode          string            `json:"mode"`
	Context       int64             `json:"context"`
	MaxOutput     int64             `json:"max_output"`
	Dims          int64             `json:"dims"`
	CacheMin      int64             `json:"cache_min_tokens"`
	ResponsesOnly bool              `json:"responses_only"`
	Deprecated    string            `json:"deprecation_date"`
	WebSearch     string            `json:"usd_per_web_search"`
	Src           []string          `json:"src"`
	Conflict      []string          `json:"conflict"`
	TiersSrc      string            `json:"tiers_src"`
	Batch         map[string]string `json:"batch"`
	Flex          map[string]string `json:"flex"`
	Priority      map[string]string `json:"priority"`
	Multipliers   map[string]string `json:"multipliers"`
	Prices        []map[string]any  `json:"prices"`
}

// factsDay is the day of the batch, flex and priority prices: they belong to the version in force
// then, and to no other.
const factsDay = "2026-07-24"

var domainName = map[string]string{
	"input": "input", "cache_read": "cached_input", "cache_write": "cache_write_5m",
	"cache_write_1h": "cache_write_1h", "input_audio": "audio_in", "cache_read_audio": "cached_audio_in",
	"output": "output", "output_audio": "audio_out",
}

// rows lists everything that a fact says, one line per figure. An unknown key is a line too, so
// that it cannot be overlooked.
func (f *fact) rows() []string {
	p := f.Provider + "/" + f.Model
	rows := []string{
		fmt.Sprintf("%s mode %s context %d max_output %d dimensions %d cache_min %d responses_only %v deprecated %q",
			p, f.Mode, f.Context, f.MaxOutput, f.Dims, f.CacheMin, f.ResponsesOnly, f.Deprecated),
	}
	inForce := ""
	for _, v := range f.Prices {
		if from, _ := v["from"].(string); from <= factsDay {
			inForce = from
		}
	}
	for _, v := range f.Prices {
		from, _ := v["from"].(string)
		at := p + "@" + from
		rows = append(rows, factRows(at, v)...)
		if f.WebSearch != "" {
			rows = append(rows, at+" per_unit web_search "+f.WebSearch)
		}
		for region, factor := range f.Multipliers {
			rows = append(rows, at+" region "+region+" "+factor)
		}
		if from == inForce {
			rows = append(rows, namedRows(at+" batch", f.Batch)...)
			rows = append(rows, namedRows(at+" flex", f.Flex)...)
			rows = append(rows, namedRows(at+" priority", f.Priority)...)
		}
	}
	return rows
}

func namedRows(at string, prices map[string]string) (rows []string) {
	for name, price := range prices {
		rows = append(rows, at+" "+domainName[name]+" "+price)
	}
	return rows
}

func factRows(at string, v map[string]any) (rows []string) {
	for name, value := range v {
		switch value := value.(type) {
		case string:
			if name != "from" {
				rows = append(rows, at+" "+domainName[name]+" "+value)
			}
		case []any:
			for _, t := range value {
				tier := t.(map[string]any)
				above := tier["above_input_tokens"].(float64)
				delete(tier, "above_input_tokens")
				rows = append(rows, factRows(fmt.Sprintf("%s above %.0f", at, above), tier)...)
			}
		default:
			rows = append(rows, fmt.Sprintf("%s %s is not understood", at, name))
		}
	}
	return rows
}

// rows lists what a model of the book says in the same lines.
func (m *model) rows() []string {
	p := m.Provider.Text + "/" + m.Model.Text
	rows := []string{
		fmt.Sprintf("%s mode %s context %d max_output %d dimensions %d cache_min %d responses_only %v deprecated %q",
			p, m.Mode.Text, m.Context.N, m.MaxOutput.N, m.Dimensions.N, m.CacheMinTokens.N, m.ResponsesOnly, m.Deprecated.Text),
	}
	for _, v := range m.Versions {
		at := p + "@" + v.From.Text
		rows = append(rows, v.Prices.rows(at)...)
		rows = append(rows, v.PerUnit.rows(at+" per_unit")...)
		rows = append(rows, v.Regions.rows(at+" region")...)
		for _, t := range v.Tiers {
			rows = append(rows, t.Prices.rows(fmt.Sprintf("%s above %d", at, t.AboveInput.N))...)
		}
		for name, service := range v.ServiceTiers {
			rows = append(rows, service.rows(at+" "+name)...)
		}
	}
	return rows
}

func (p Prices) rows(at string) (rows []string) {
	for name, price := range p {
		rows = append(rows, at+" "+name+" "+price.Text)
	}
	return rows
}

// exception is something that the built-in book has beyond the facts: a figure's line, a model, or
// a provider, and why it is there.
type exception struct{ what, why string }

func exceptions() []exception {
	all := []exception{
		{"anthropic/claude-2.0", "an older model"}, {"anthropic/claude-2.1", "an older model"},
		{"anthropic/claude-instant-1.2", "an older model"}, {"anthropic/claude-3-sonnet-20240229", "an older model"},
		{"gemini/gemini-1.5-pro", "an older model"}, {"gemini/gemini-1.0-pro", "an older model"},
		{"gemini/gemini-pro", "an older model"}, {"simulated/", "this project's own"},
		{"openai/gpt-3.5-turbo-instruct", "an older model"}, {"openai/davinci-002", "an older model"}, {"openai/babbage-002", "an older model"},
		{"openai/gpt-4o-search-preview-2025-03-11@ per_unit web_search 0.035", "as its undated twin"},
		{"openai/gpt-4o-mini-search-preview-2025-03-11@ per_unit web_search 0.0275", "as its undated twin"},
	}
	for _, model := range []string{"claude-haiku-4-5", "claude-haiku-4-5-20251001"} {
		all = append(all, exception{"anthropic/" + model + "@ per_unit web_search 0.01", "Anthropic's page"})
	}
	for model, prices := range map[string][2]string{
		"gpt-4o-audio-preview": {"40", "80"}, "gpt-4o-audio-preview-2024-12-17": {"40", "80"},
		"gpt-4o-audio-preview-2025-06-03": {"40", "80"},
		"gpt-4o-mini-audio-preview":       {"10", "20"}, "gpt-4o-mini-audio-preview-2024-12-17": {"10", "20"},
	} {
		all = append(all, exception{"openai/" + model + "@ audio_in " + prices[0], "OpenAI's page"},
			exception{"openai/" + model + "@ audio_out " + prices[1], "OpenAI's page"})
	}
	return all
}

// covers reports whether the exception is for a line.
func (e exception) covers(row string) bool {
	switch {
	case strings.Contains(e.what, "@"): // a figure
		return row == e.what
	case strings.HasSuffix(e.what, "/"): // a provider
		return strings.HasPrefix(row, e.what)
	}
	return strings.HasPrefix(row, e.what+"@") || strings.HasPrefix(row, e.what+" ")
}

func readFacts(t *testing.T) *facts {
	t.Helper()
	text, err := os.ReadFile(factsFile)
	if os.IsNotExist(err) {
		t.Skipf("%s is absent: the built-in book is not compared with the facts it was made from", factsFile)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // a new kind of fact must be looked at, not lost
	var f facts
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	return &f
}

// TestBuiltinHoldsTheFacts compares figure by figure, in both directions.
func TestBuiltinHoldsTheFacts(t *testing.T) {
	t.Parallel()
	f := readFacts(t)
	own, err := parse(bytes.NewReader(builtinYAML))
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for i := range f.Models {
		for _, row := range f.Models[i].rows() {
			missing[row] = true
		}
	}
	if len(f.Models) != 152 || len(missing) < 1000 || own.Currency.Text != f.Currency || own.AsOf.Text != f.AsOf {
		t.Errorf("%d models, %d figures: the facts have changed", len(f.Models), len(missing))
	}
	used := map[exception]bool{}
	for i := range own.Models {
		for _, row := range own.Models[i].rows() {
			if !missing[row] {
				used[justify(t, row)] = true
			}
			delete(missing, row)
		}
	}
	for _, row := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("missing in the built-in book: %s", row)
	}
	for _, e := range exceptions() {
		if !used[e] {
			t.Errorf("nothing in the built-in book needs the exception for %s (%s)", e.what, e.why)
		}
	}
}

// justify finds the reason for a figure that is not in the facts.
func justify(t *testing.T, row string) exception {
	t.Helper()
	for _, e := range exceptions() {
		if e.covers(row) {
			return e
		}
	}
	t.Errorf("not in the facts: %s", row)
	return exception{}
}

// TestBuiltinNamesItsDoubts holds that sources, conflicts and single-source tiers stay visible.
func TestBuiltinNamesItsDoubts(t *testing.T) {
	t.Parallel()
	f := readFacts(t)
	own, err := parse(bytes.NewReader(builtinYAML))
	if err != nil {
		t.Fatal(err)
	}
	cited := map[string]string{}
	for _, m := range own.Models {
		for _, s := range m.Sources {
			cited[m.Model.Text] += " " + s.Text
		}
	}
	for _, m := range f.Models {
		for _, s := range m.Src {
			if !strings.Contains(cited[m.Model]+" ", " "+s+" ") {
				t.Errorf("%s does not cite %s", m.Model, s)
			}
		}
		for _, c := range m.Conflict {
			if !bytes.Contains(builtinYAML, []byte("# conflict: "+c+"\n")) {
				t.Errorf("%s hides a conflict: %s", m.Model, c)
			}
		}
		if block := commentsAbove(m.Model); m.TiersSrc != "" && !strings.Contains(block, "tiers by "+m.TiersSrc+" alone") {
			t.Errorf("%s does not say where its tiers are from", m.Model)
		}
	}
}

// commentsAbove is the text between the model before and this one's name.
func commentsAbove(name string) string {
	text := string(builtinYAML)
	end := strings.Index(text, "\n    model: "+name+"\n")
	start := strings.LastIndex(text[:end], "\n\n")
	return text[start:end]
}

// TestSearchModels holds which models search without being asked, and which of them can be billed.
func TestSearchModels(t *testing.T) {
	t.Parallel()
	for _, m := range Builtin().Models() {
		searches := m.Provider == "openai" && (strings.Contains(m.Name, "-search-preview") || strings.Contains(m.Name, "-search-api"))
		if m.AlwaysSearches != searches {
			t.Errorf("%s: always_searches is %v", m.Name, m.AlwaysSearches)
		}
		_, priced := m.Versions[0].Rates.Get(domain.WebSearch)
		if searches && priced != strings.HasPrefix(m.Name, "gpt-4o") {
			t.Errorf("%s: searches are priced: %v", m.Name, priced)
		}
	}
}
