package pricebook

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"llm-gateway/domain"
)

func everything(string, string) bool { return true }

const litellmList = `{
  "sample_spec": {"input_cost_per_token": 0.0000, "litellm_provider": "one of ...", "mode": "one of ..."},
  "gpt-x": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 1000, "max_output_tokens": 100, "max_tokens": 100,
    "input_cost_per_token": 2.5e-06, "output_cost_per_token": 0.00001, "cache_read_input_token_cost": 2.5E-7, "output_cost_per_reasoning_token": 1.2e-05,
    "input_cost_per_token_above_272k_tokens": 5e-06, "output_cost_per_token_above_272k_tokens": 1.5e-05, "input_cost_per_token_flex": 1e-06,
    "input_cost_per_token_batches": 1.25e-06, "input_cost_per_token_above_272k_tokens_priority": 1e-5, "input_cost_per_audio_token": 4e-05,
    "search_context_cost_per_query": {"search_context_size_low": 0.03, "search_context_size_medium": 0.035, "search_context_size_high": 0.05},
    "input_cost_per_image": 0.001, "output_cost_per_second": 0.0, "supports_vision": true, "deprecation_date": "2027-01-02"},
  "claude-x": {"litellm_provider": "anthropic", "mode": "chat", "max_input_tokens": 200000, "max_output_tokens": 64000,
    "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05, "cache_creation_input_token_cost": 3.75e-06,
    "cache_creation_input_token_cost_above_1hr": 6e-06, "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.2e-05,
    "cache_creation_input_token_cost_above_200k_tokens": 7.5e-06, "provider_specific_entry": {"us": 1.1, "fast": 6.0}},
  "gemini/gemini-x": {"litellm_provider": "gemini", "mode": "chat", "max_tokens": 1000, "input_cost_per_token": 1e-06, "output_cost_per_token": 0},
  "gemini-x": {"litellm_provider": "gemini", "mode": "chat", "max_tokens": 1000, "input_cost_per_token": 1e-06, "output_cost_per_token": 0},
  "embed-x": {"litellm_provider": "openai", "mode": "embedding", "max_input_tokens": 8191, "input_cost_per_token": 2e-08, "output_cost_per_token": 0.0},
  "pro-x": {"litellm_provider": "openai", "mode": "responses", "max_input_tokens": 10, "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06},
  "dall-x": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_pixel": 1e-08},
  "noise-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": 7.500000000000001e-08, "output_cost_per_token": 1e-06},
  "minus-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": -1e-06, "output_cost_per_token": 1e-06},
  "huge-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": 1e400, "output_cost_per_token": 1e-06},
  "text-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": "NaN", "output_cost_per_token": 1e-06},
  "half-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": 1e-06},
  "wide-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06},
  "steps-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06,
    "tiered_pricing": [{"range": [0, 5], "input_cost_per_token": 1e-06}, {"range": [5, 10], "input_cost_per_token": 3e-06}]},
  "above-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06,
    "input_cost_per_token_above_1500_tokens": 3e-06},
  "call-x": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10, "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06,
    "input_cost_per_request": 0.1, "input_cost_per_request_priority": 0.5},
  "lost-x": {"mode": "chat"}, "odd-x": 5
}`

const genaiList = `[
 {"id": "google", "name": "Google", "models": [
  {"id": "gemini-y", "match": {"starts_with": "gemini-y"}, "context_window": 1000000, "prices": {
    "input_mtok": {"base": 1.25, "tiers": [{"start": 200000, "price": 2.5}]}, "output_mtok": {"base": 10, "tiers": [{"start": 200000, "price": 15}]},
    "cache_read_mtok": 0.31, "input_audio_mtok": 1, "web_searches_kcount": 35, "output_text_mtok": {"base": 10, "tiers": [{"start": 200000, "price": 15}]}, "cache_image_read_mtok": 1}},
  {"id": "dated-y", "match": {"equals": "dated-y"}, "context_window": 1000, "prices": [
    {"prices": {"input_mtok": 2, "output_mtok": 8, "requests_kcount": 5}},
    {"constraint": {"start_date": "2026-03-13"}, "prices": {"input_mtok": 1, "output_mtok": 4, "cache_write_1h_mtok": 2}}]},
  {"id": "hours-y", "match": {"equals": "hours-y"}, "context_window": 1000, "prices": [
    {"prices": {"input_mtok": 2, "output_mtok": 8}},
    {"constraint": {"type": "time_of_date", "start_time": "16:30:00Z", "end_time": "00:30:00Z"}, "prices": {"input_mtok": 1, "output_mtok": 4}}]},
  {"id": "embed-y", "match": {"equals": "embed-y"}, "context_window": 1000, "prices": {"input_mtok": 0.15}},
  {"id": "narrow-y", "match": {"equals": "narrow-y"}, "prices": {"input_mtok": 0.15}},
  {"id": "fine-y", "match": {"equals": "fine-y"}, "context_window": 1000, "prices": {"input_mtok": 0.0000001, "output_mtok": 1}},
  {"id": "text-y", "match": {"equals": "text-y"}, "context_window": 1000, "prices": {"input_mtok": 1, "output_mtok": 2, "input_text_mtok": 5}},
  {"id": "steps-y", "match": {"equals": "steps-y"}, "context_window": 1000, "prices": {"input_mtok": {"base": 1, "tiers": {"start": 100, "price": 2}}, "output_mtok": 2}},
  {"id": "twice-y", "match": {"equals": "twice-y"}, "context_window": 1000, "prices": {"input_mtok": {"base": 1, "tiers": [{"start": 100, "price": 2}, {"start": 100, "price": 3}]}, "output_mtok": 2}},
  {"id": "write-y", "match": {"equals": "write-y"}, "context_window": 1000, "prices": {"cache_write_5m_mtok": 1.5, "cache_write_mtok": 1.25, "input_mtok": 1, "output_mtok": 2}},
  {"id": "back-y", "match": {"equals": "back-y"}, "context_window": 1000, "prices": [{"prices": {"input_mtok": 2, "output_mtok": 8}},
    {"constraint": {"start_date": "2026-03-13"}, "prices": {"input_mtok": 1, "output_mtok": 4}},
    {"constraint": {"start_date": "2026-03-12"}, "prices": {"input_mtok": 1, "output_mtok": 4}}]}
 ]}]`

// TestImport: what comes of a list, as a price book writes it, and what is left of it.
func TestImport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format, list string
		want, left   []string
	}{
		{FormatLiteLLM, litellmList, []string{
			`  - provider: "anthropic" | model: "claude-x" | mode: chat | context: 200000 | max_output: 64000 | sources: [imported] | versions: | ` +
				`- prices: {input: "3", cache_write_5m: "3.75", cache_write_1h: "6", output: "15"} | tiers: | - above_input: 200000 | prices: {cache_write_5m: "7.5", cache_write_1h: "12"} | regions: {"fast": "6", "us": "1.1"}`,
			`  - provider: "gemini" | model: "gemini-x" | mode: chat | context: 1000 | sources: [imported] | versions: | - prices: {input: "1", output: "0"}`,
			`  - provider: "openai" | model: "embed-x" | mode: embedding | context: 8191 | sources: [imported] | versions: | - prices: {input: "0.02", output: "0"}`,
			`  - provider: "openai" | model: "gpt-x" | mode: chat | context: 1000 | max_output: 100 | deprecated: 2027-01-02 | sources: [imported] | versions: | ` +
				`- prices: {input: "2.5", cached_input: "0.25", audio_in: "40", output: "10", reasoning: "12"} | per_unit: {web_search: "0.05"} | tiers: | ` +
				`- above_input: 272000 | prices: {input: "5", output: "15"} | service_tiers: | "batch": {input: "1.25"} | "flex": {input: "1"}`,
			`  - provider: "openai" | model: "pro-x" | mode: chat | context: 10 | responses_only: true | sources: [imported] | versions: | - prices: {input: "1", output: "1"}`,
		}, []string{
			"gemini/gemini-x: left out: it is listed twice", "lost-x: left out: it has no litellm_provider", "odd-x: left out: it has no litellm_provider",
			"openai/above-x: left out: input_cost_per_token_above_1500_tokens: a threshold that is not in thousands of tokens",
			"openai/call-x: left out: input_cost_per_request_priority: only tokens have tiers here",
			"openai/dall-x: left out: the mode \"image_generation\" is not priced by tokens here",
			"openai/gpt-x: input_cost_per_image: there is no meter for it",
			"openai/gpt-x: input_cost_per_token_above_272k_tokens_priority: a service tier has one price whatever the input; the dearer of the two is charged",
			"openai/gpt-x: search_context_cost_per_query: a search has one price whatever its size; the dearest of them is charged",
			"openai/gpt-x: search_context_cost_per_query: a search has one price whatever its size; the dearest of them is charged",
			"openai/half-x: left out: versions[0].prices.output: missing",
			"openai/huge-x: left out: input_cost_per_token: 1e400 is out of range",
			"openai/minus-x: left out: versions[0].prices.input: -0.000001 is negative",
			"openai/noise-x: left out: input_cost_per_token: 7.500000000000001e-08 is, per unit, finer than 1e-12",
			"openai/steps-x: left out: tiered_pricing: prices change above one threshold for the whole request here, not by steps",
			"openai/text-x: left out: input_cost_per_token is not a number", "openai/wide-x: left out: context: 0 is not between 1 and 2147483647",
		}},
		{FormatGenAI, genaiList, []string{
			`  - provider: "gemini" | model: "dated-y" | mode: chat | context: 1000 | sources: [imported] | versions: | ` +
				`- prices: {input: "2", output: "8"} | per_unit: {requests: "0.005"} | - from: 2026-03-13 | prices: {input: "1", cache_write_1h: "2", output: "4"}`,
			`  - provider: "gemini" | model: "embed-y" | mode: embedding | context: 1000 | sources: [imported] | versions: | - prices: {input: "0.15"}`,
			`  - provider: "gemini" | model: "gemini-y" | mode: chat | context: 1000000 | sources: [imported] | versions: | ` +
				`- prices: {input: "1.25", cached_input: "0.31", audio_in: "1", output: "10"} | per_unit: {web_search: "0.035"} | tiers: | - above_input: 200000 | prices: {input: "2.5", output: "15"}`,
			`  - provider: "gemini" | model: "write-y" | mode: chat | context: 1000 | sources: [imported] | versions: | - prices: {input: "1", cache_write_5m: "1.5", output: "2"}`,
		}, []string{
			"gemini/back-y: left out: versions[2].from: not after the version before it",
			"gemini/fine-y: left out: input_mtok: 0.0000001 is, per unit, finer than 1e-12",
			"gemini/gemini-y: cache_image_read_mtok: there is no meter for it",
			"gemini/hours-y: left out: constraint.start_time: prices change by the day here, at midnight UTC",
			"gemini/narrow-y: left out: context_window is missing",
			"gemini/steps-y: left out: input_mtok.tiers is not a list",
			"gemini/text-y: left out: input_text_mtok: text costs the same as the whole here",
			"gemini/twice-y: left out: input_mtok.tiers: 100 is there twice",
		}},
	} {
		list, err := Import(c.format, strings.NewReader(c.list), everything)
		if err != nil {
			t.Fatal(err)
		}
		text := Text(Info{Currency: "USD", AsOf: "2026-08-21"}, "a \"list\"", list.Models)
		_, models, _ := strings.Cut(string(text), "models:\n")
		var got []string
		for block := range strings.SplitSeq(strings.TrimRight(models, "\n"), "\n\n") {
			got = append(got, "  "+strings.Join(strings.FieldsFunc(block, func(r rune) bool { return r == '\n' }), " | "))
		}
		for i := range got {
			got[i] = "  " + strings.Join(trimmed(strings.Split(got[i], " | ")), " | ")
		}
		same(t, c.format, got, c.want)
		var left []string
		for _, l := range list.Left {
			left = append(left, l.Model+": "+l.What)
		}
		slices.Sort(left)
		same(t, c.format+" leaves", left, c.left)
		loaded, err := Load(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		direct, err := domain.NewPriceBook(list.Models)
		if err != nil || len(domain.DiffPrices(direct, loaded)) > 0 {
			t.Errorf("%s: %v, %v", c.format, err, domain.DiffPrices(direct, loaded))
		}
	}
}

func trimmed(all []string) []string {
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

func same(t *testing.T, name string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("%s, %d:\n got %v\nwant %v", name, i, slices.Clip(got)[min(i, len(got)):min(i+1, len(got))], want[min(i, len(want)):min(i+1, len(want))])
		}
	}
}

func TestImportKeeps(t *testing.T) {
	t.Parallel()
	list, err := Import(FormatLiteLLM, strings.NewReader(litellmList), func(_, model string) bool { return model == "claude-x" })
	if err != nil || len(list.Models) != 1 || list.Models[0].Name != "claude-x" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, list, want string }{
		{FormatLiteLLM, `[]`, "litellm: it is not an object of models"},
		{FormatLiteLLM, ``, "litellm: unexpected EOF"},
		{FormatLiteLLM, `{"a": {"x": 1, "x": 2}}`, `litellm: the name "x" is there twice in one object`},
		{FormatLiteLLM, `{} {}`, "litellm: more behind the end"},
		{FormatLiteLLM, `{"a": NaN}`, "litellm: invalid character"},
		{FormatLiteLLM, strings.Repeat(`[`, 100), "litellm: JSON that is nested deeper than 32"},
		{FormatGenAI, `{}`, "genai-prices: it is not a list of providers"},
		{FormatGenAI, `[{"id": "x"}]`, "genai-prices: the provider 0 has no id or no models"},
		{"csv", `{}`, "csv: not a format that is known"},
	} {
		if list, err := Import(c.format, strings.NewReader(c.list), everything); list != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %s", c.format, c.list, err, c.want)
		}
	}
}

const setBook = `currency: USD # a comment
unit: per_million
as_of: 2026-08-21
models:
  - provider: acme
    model: big
    mode: chat
    context: 1000
    sources: []
    versions: # of big
      - prices: {input: "2.50", output: "10"}
        tiers: [{above_input: 100, prices: {input: "5"}}]
      # the next one
      - from: 2026-03-13
        prices:
          input: "3"   # dearer
          output: "9"
        service_tiers: {flex: {input: "1"}}

  # another model
  - {provider: acme, model: small, mode: chat, context: 10, sources: [], versions: [{prices: {input: "1", output: "1"}}]}
  - provider: other
    model: big
    mode: chat
    context: 1000
    sources: []
    versions:
    - prices: {input: "1", output: "1"}`

// TestSet: exactly the lines of the new version are added.
func TestSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		model, from string
		prices      map[string]string
		behind      int // the line that the new ones stand behind
		want        string
	}{
		{"acme/big", "2027-01-01", map[string]string{"output": "8", "web_search": "0.01"}, 18, `      - from: 2027-01-01
        prices: {input: "3", output: "8"}
        per_unit: {web_search: "0.01"}
        service_tiers:
          "flex": {input: "1"}
`},
		{"acme/big", "2026-01-01", map[string]string{"input": "2"}, 13, `      - from: 2026-01-01
        prices: {input: "2", output: "10"}
        tiers:
          - above_input: 100
            prices: {input: "5"}
`},
		{"other/big", "2026-01-01", map[string]string{"input": "2"}, 28, "    - from: 2026-01-01\n      prices: {input: \"2\", output: \"1\"}\n"},
	} {
		provider, model, _ := strings.Cut(c.model, "/")
		out, err := Set([]byte(setBook), Change{provider, model, day(c.from), c.prices})
		lines := strings.SplitAfter(setBook, "\n")
		if c.behind == len(lines) {
			lines[c.behind-1] += "\n"
		}
		want := strings.Join(lines[:c.behind], "") + c.want + strings.Join(lines[c.behind:], "")
		if err != nil || string(out) != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.model, err, out, want)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, model, from, meter, price, want string }{
		{setBook, "acme/none", "2027-01-01", "input", "1", "the price book has no model acme/none"},
		{setBook, "acme/big", "2026-03-13", "input", "1", "acme/big has prices from 2026-03-13 already"},
		{setBook, "acme/big", "2027-01-01", "input", "3.0", "these are the prices that it has then"},
		{setBook, "acme/big", "2027-01-01", "input", "-1", "is negative"},
		{setBook, "acme/big", "2027-01-01", "input", "1e400", "not an amount"},
		{setBook, "acme/big", "2027-01-01", "input", "NaN", "not an amount"},
		{setBook, "acme/big", "2027-01-01", "input", "0.0000001", "finer than 1e-12"},
		{setBook, "acme/big", "2027-01-01", "tokens", "1", `unknown meter "tokens"`},
		{setBook, "acme/small", "2027-01-01", "input", "2", "acme/small: its versions are not written as a list"},
		{"currency: USD", "acme/small", "2027-01-01", "input", "2", "unit:"},
		{strings.Replace(setBook, `- prices: {input: "2.50"`, `- from: 2026-01-01`+"\n        "+`prices: {input: "2.50"`, 1), "acme/big", "2025-01-01", "input", "2", "has no price before 2025-01-01"},
	} {
		provider, model, _ := strings.Cut(c.model, "/")
		_, err := Set([]byte(c.text), Change{provider, model, day(c.from), map[string]string{c.meter: c.price}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s=%s: %v, want %s", c.model, c.meter, c.price, err, c.want)
		}
	}
}

// TestSetOnTheBuiltinBook: every model of a real book can be changed.
func TestSetOnTheBuiltinBook(t *testing.T) {
	t.Parallel()
	for i, m := range Builtin().Models() {
		if i%10 != 0 {
			continue
		}
		out, err := Set(builtinYAML, Change{m.Provider, m.Name, day("2099-01-01"), map[string]string{"input": "123.456"}})
		if err != nil || bytes.Count(out, []byte("\n")) < bytes.Count(builtinYAML, []byte("\n"))+2 {
			t.Errorf("%s/%s: %v", m.Provider, m.Name, err)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add(FormatLiteLLM, []byte(litellmList))
	f.Add(FormatGenAI, []byte(genaiList))
	f.Fuzz(func(t *testing.T, format string, text []byte) {
		list, err := Import(format, bytes.NewReader(text), everything)
		if err != nil {
			return
		}
		if _, err := domain.NewPriceBook(list.Models); err != nil {
			t.Fatal(fmt.Errorf("imported models that are no book: %w", err))
		}
	})
}

func day(text string) time.Time {
	d, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return d
}
