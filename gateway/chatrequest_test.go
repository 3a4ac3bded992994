package gateway

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
)

// seeds are bodies to begin fuzzing with: good ones, hostile ones, and all fields that are read.
var seeds = []string{
	`{"model":"m","messages":[{"role":"user","content":"x"}]}`,
	`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"u"}}]}],"n":128,"max_tokens":1000000}`,
	`{"\u006dodel":"\u006d","messages":[{"role":"user"}],"strea\u006d":true,"stream\u005foptions":{"include\u005fusage":null}}`,
	`{"model":"m","Model":"n","messages":[{"role":"user","content":null}]}`,
	`{"model":"m","messages":[{"role":"user","content":"x"}],"max_completion_tokens":1e3,"max_tokens":-0}`,
	`{"model":"m","messages":[{"role":"user","content":"x"}],"N":5,"Max_Tokens":7,"\u017ftream":true,"max_to\u212aens":9}`,
	`{"model":"\ud800","messages":[{"role":"\udfff\ud800"}],"user":"\ud83d\ude00"}`,
	"{\"model\":\"m\" , \"messages\" :[ { \"role\":\"a\\\"b\\\\\" } ]\n}\t",
	`{"model":"m","messages":[{"role":"u"}],"tools":[{"type":"function"},{"type":"x"},7],"functions":[{}],"response_format":{},"modalities":["text","\u0061udio"],"audio":{},"prediction":{"a":1},"web_search_options":{},"service_tier":"flex","user":"u","stream_options":{"include_usage":true}}`,
	`{"model":"m","messages":[{"role":"u","":{"":{"":[[[[]]]]}}}],"":"","a":{"a":1,"A":2}}`,
	`[]`, `null`, `"x"`, `{`, `{}`, ` `, "\xef\xbb\xbf{}", `{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`,
}

// FuzzChatRequest: no body makes the parser panic; what it accepts is bounded; and every other reader
// of JSON sees the same request in it, before and after it is rewritten.
func FuzzChatRequest(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	m, version := pricedModel(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if failed := checkJSON(body); failed != nil {
			checkFailure(t, failed)
			return
		}
		r, failed := parseChat(body)
		if failed != nil {
			checkFailure(t, failed)
			return
		}
		checkBounds(t, r, m)
		checkAgreement(t, r, body)
		for _, always := range []bool{false, true} {
			k := &call{door: chatDoor, asking: &asking{stream: always}, asked: r, body: body, stream: r.Stream || always}
			if err := k.rewrite(m); err != nil {
				t.Fatalf("%q cannot be rewritten: %v", body, err)
			}
			k.targets = []*target{{model: m, version: version, upstream: provider.NewSimulated()}}
			k.target = k.targets[0]
			if err := k.capOutput(7); err != nil {
				t.Fatalf("%q cannot be capped: %v", body, err)
			}
			checkRewritten(t, k, body)
		}
	})
}

// pricedModel is a model of a small book.
func pricedModel(t testing.TB) (*domain.Model, *domain.PriceVersion) {
	t.Helper()
	var rates domain.Rates
	rates.Set(domain.Input, domain.MustAmount("0.000001"))
	rates.Set(domain.Output, domain.MustAmount("0.000002"))
	rates.Set(domain.AudioIn, domain.MustAmount("0.000001"))
	rates.Set(domain.AudioOut, domain.MustAmount("0.000001"))
	rates.Set(domain.ImageOut, domain.MustAmount("0.000001"))
	rates.Set(domain.WebSearch, domain.MustAmount("0.01"))
	book, err := domain.NewPriceBook([]domain.Model{{Provider: "acme", Name: "the-model", Mode: domain.ModeChat, Context: 100_000, MaxOutput: 5_000,
		Versions: []domain.PriceVersion{{Rates: rates}}}})
	if err != nil {
		t.Fatal(err)
	}
	m, version, err := book.Lookup("the-model", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m, version
}

func checkFailure(t *testing.T, e *Error) {
	t.Helper()
	if e.Status != 400 || e.Code == "" || len(e.Message) > 500 || !utf8.Valid(openAIFailure(e)) || !json.Valid(openAIFailure(e)) {
		t.Fatalf("a strange refusal: %+v", e)
	}
}

func checkBounds(t *testing.T, r *chat.Facts, m *domain.Model) {
	t.Helper()
	n := needOf(r, &target{model: m})
	if r.Choices < 1 || r.Choices > maxChoices || r.MaxOutput < 0 || r.MaxOutput > maxAskedToken || r.Model == "" {
		t.Fatalf("accepted %+v", r)
	}
	if n.InputTokens < 1 || n.InputTokens > m.Context || n.OutputTokens < r.Choices*max(1, r.MaxOutput) || n.WebSearches < 0 || n.WebSearches > 1 {
		t.Fatalf("%+v needs %+v", r, n)
	}
}

// decoded is what encoding/json, which ignores the case of keys, takes a body for.
type decoded struct {
	Model         string
	N             *int64
	MaxTokens     *int64 `json:"max_tokens"`
	MaxCompletion *int64 `json:"max_completion_tokens"`
	Stream        *bool
	User          *string
	ServiceTier   *string `json:"service_tier"`
	StreamOptions *struct {
		IncludeUsage *bool `json:"include_usage"`
	} `json:"stream_options"`
	Messages []struct{ Role string }
}

func decode(t *testing.T, body []byte) decoded {
	t.Helper()
	var d decoded
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatalf("%q is accepted, and encoding/json says %v", body, err)
	}
	return d
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func checkAgreement(t *testing.T, r *chat.Facts, body []byte) {
	t.Helper()
	// Roles and options may be spelt in other cases below the top: exact there, so not compared.
	var top map[string]json.RawMessage
	if err := json.Unmarshal(body, &top); err != nil {
		t.Fatal(err)
	}
	if !exactBelow(body) {
		return
	}
	d := decode(t, body)
	if d.Model != r.Model || value(d.N, 1) != r.Choices || max(value(d.MaxTokens, 0), value(d.MaxCompletion, 0)) != r.MaxOutput ||
		value(d.Stream, false) != r.Stream || value(d.User, "") != r.EndUser || value(d.ServiceTier, "") != r.ServiceTier || len(d.Messages) == 0 {
		t.Fatalf("%q is read as %+v, and by encoding/json as %+v", body, r, d)
	}
	if d.StreamOptions != nil && value(d.StreamOptions.IncludeUsage, false) != r.IncludeUsage {
		t.Fatalf("%q: usage asked: %t", body, r.IncludeUsage)
	}
}

// exactBelow reports whether no key below the top level is another spelling of one that is compared.
func exactBelow(body []byte) bool {
	exact := true
	look := func(v gjson.Result, name string) {
		v.ForEach(func(key, _ gjson.Result) bool {
			exact = exact && (key.String() == name || !strings.EqualFold(key.String(), name))
			return true
		})
	}
	look(gjson.GetBytes(body, "stream_options"), "include_usage")
	gjson.GetBytes(body, "messages").ForEach(func(_, m gjson.Result) bool {
		look(m, "role")
		return true
	})
	return exact
}

// checkRewritten: what is sent has no key twice, names the model and the cap, and is otherwise what
// the client sent.
func checkRewritten(t *testing.T, k *call, body []byte) {
	t.Helper()
	if failed := checkJSON(k.body); failed != nil {
		t.Fatalf("%q was rewritten to %q: %v", body, k.body, failed)
	}
	again, failed := parseChat(k.body)
	if failed != nil {
		t.Fatalf("%q was rewritten to %q: %v", body, k.body, failed)
	}
	if again.Model != k.model.Name || again.Stream != k.stream || k.stream && !again.IncludeUsage ||
		again.Choices != k.asked.Choices || again.Opaque != k.asked.Opaque || again.MaxOutput < 7 {
		t.Fatalf("%q was rewritten to %q: %+v", body, k.body, again)
	}
	if top := gjson.ParseBytes(k.body).Get("messages").Raw; top != gjson.GetBytes(body, "messages").Raw {
		t.Fatalf("the messages of %q became %q", body, top)
	}
}

// TestNeed: what of a request is counted, and what makes its bytes no bound.
func TestNeed(t *testing.T) {
	t.Parallel()
	m := &domain.Model{Name: "m", Context: 100_000, MaxOutput: 5_000}
	base := int64(len(`{"model":"m","messages":[{"role":"user","content":"x"}]}`)) + templateTokens
	for _, c := range []struct {
		more          string
		input, output int64 // input beyond the bytes; -1 = the context window
	}{
		{"", 0, 5_016},
		{`,"max_tokens":10`, 0, 26},
		{`,"max_completion_tokens":10,"max_tokens":20`, 0, 36},
		{`,"max_tokens":10,"n":4`, 0, 104},
		{`,"max_tokens":90000`, 0, 90_016},
		{`,"n":null,"max_tokens":null`, 0, 5_016},
		{`,"tools":[{"type":"function"},{"type":"custom"}]`, 2 * toolTokens, 5_016},
		{`,"functions":[{"name":"x"}]`, toolTokens, 5_016},
		{`,"response_format":{"type":"json_object"}`, toolTokens, 5_016},
		{`,"prediction":{"x":"abc"}`, 0, 5_016 + 11},
		{`,"temperature":1,"stop":["x"],"metadata":{},"seed":7,"logit_bias":{"1":2}`, 0, 5_016},
		{`,"tools":[{"type":"web_search"}]`, -1, 5_016},
		{`,"tools":[7]`, -1, 5_016},
		{`,"some_future_field":1`, -1, 5_016},
		{`,"some_future_field":null`, 0, 5_016},
		{`,"web_search_options":{}`, -1, 5_016},
		{`,"prediction":"` + strings.Repeat("p", 200_000) + `"`, -1, 205_018},
	} {
		body := []byte(`{"model":"m","messages":[{"role":"user","content":"x"}]` + c.more + `}`)
		r, failed := parseChat(body)
		if failed != nil {
			t.Errorf("%s: %v", c.more, failed)
			continue
		}
		want := base + int64(len(c.more)) + c.input
		if c.input < 0 {
			want = m.Context
		}
		if n := needOf(r, &target{model: m}); n.InputTokens != want || n.OutputTokens != c.output {
			t.Errorf("%.60s: %d in, %d out; want %d, %d", c.more, n.InputTokens, n.OutputTokens, want, c.output)
		}
	}
	for message, opaque := range map[string]bool{
		`{"role":"user","content":[{"type":"text","text":"x"}]}`:                                                               false,
		`{"role":"assistant","content":[{"type":"refusal","refusal":"x"}]}`:                                                    false,
		`{"role":"assistant","content":null,"tool_calls":[{"id":"1"}],"refusal":null,"name":"x"}`:                              false,
		`{"role":"tool","tool_call_id":"1","content":"x"}`:                                                                     false,
		`{"role":"assistant","audio":{"id":"x"}}`:                                                                              true,
		`{"role":"assistant","audio":null}`:                                                                                    false,
		`{"role":"user","content":[{"type":"image_url"}]}`:                                                                     true,
		`{"role":"user","content":[{"type":"file"}]}`:                                                                          true,
		`{"role":"user","content":[{"type":"input_audio"}]}`:                                                                   true,
		`{"role":"user","content":["text"]}`:                                                                                   true,
		`{"role":"user","content":[{"text":"x"}]}`:                                                                             true,
		`{"role":"user","Content":[{"type":"image_url"}]}`:                                                                     true,
		`{"role":"user","content":[{"type":"text","text":"x","image_url":{"url":"u"}}]}`:                                       true,
		`{"role":"user","content":[{"type":"text","Type":"image_url","image_url":{"url":"u"}}]}`:                               true,
		`{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}`:                          false,
		`{"role":"assistant","content":"x","refusal":null,"annotations":[{"type":"url_citation","url_citation":{"url":"u"}}]}`: false,
	} {
		r, failed := parseChat([]byte(`{"model":"m","messages":[` + message + `]}`))
		if failed != nil || r.Opaque != opaque {
			t.Errorf("%s: opaque: %t, %v", message, r.Opaque, failed)
		}
	}
}

// TestNeedOfImages: an image is bounded by what the provider bills for one at most, whatever its bytes, and
// by the context window where that is not known; so is everything beside it.
func TestNeedOfImages(t *testing.T) {
	t.Parallel()
	m := &domain.Model{Name: "m", Context: 100_000, MaxOutput: 5_000}
	image := `{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 90_000) + `","detail":"high"}}`
	for _, c := range []struct {
		parts string
		terms provider.Terms
		want  int64 // beyond the body's bytes without the images
	}{
		{image, provider.Terms{ImageTokens: 1_500}, 1_500},
		{image + "," + image, provider.Terms{ImageTokens: 1_500, Overhead: 7}, 3_008}, // and the comma
		{image, provider.Terms{}, -1},
		{image + `,{"type":"file"}`, provider.Terms{ImageTokens: 1_500}, -1},
		{strings.Replace(image, `"image_url",`, `"image_url","more":1,`, 1), provider.Terms{ImageTokens: 1_500}, -1},
		{image, provider.Terms{ImageTokens: 99_999}, -1},
	} {
		around := `{"model":"m","messages":[{"role":"user","content":[]}]}`
		r, failed := parseChat([]byte(strings.Replace(around, "[]", "["+c.parts+"]", 1)))
		if failed != nil {
			t.Fatal(failed)
		}
		want := int64(len(around)) + templateTokens + c.want
		if c.want < 0 {
			want = m.Context
		}
		if n := needOf(r, &target{model: m, terms: c.terms}); n.InputTokens != want {
			t.Errorf("%.40s %+v: %d, want %d", c.parts, c.terms, n.InputTokens, want)
		}
	}
	searching := needOf(&chat.Facts{Choices: 1, InputBytes: 36, WebSearch: true}, &target{model: m, terms: provider.Terms{Searches: 5, Rounds: 6}})
	if searching.WebSearches != 5 || searching.InputTokens != 600 {
		t.Errorf("%+v", searching)
	}
}

// TestNeedBeyondCounting: 128 choices with a prediction of 17 MB each are more tokens than anybody
// counts, and the price of that is refused, not wrapped around.
func TestNeedBeyondCounting(t *testing.T) {
	t.Parallel()
	m := &domain.Model{Name: "m", Context: 100_000, MaxOutput: 5_000}
	r := &chat.Facts{Model: "m", Choices: maxChoices, MaxOutput: maxAskedToken, PredictionLen: maxBody}
	if n := needOf(r, &target{model: m}); n.OutputTokens <= domain.MaxTokens {
		t.Errorf("%+v", n)
	}
}

// TestManyEscapes: a long text full of escapes, as code has them, takes time in proportion to its
// length. (Its square would be an hour.)
func TestManyEscapes(t *testing.T) {
	t.Parallel()
	for _, escape := range []string{`\n`, `\\`, `\u0022`, `\"`} {
		body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat(escape, 2<<20) + `"}],"a":"\\"}`
		if failed := checkJSON([]byte(body)); failed != nil {
			t.Errorf("%s: %v", escape, failed)
		}
	}
}

func TestEndUser(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]bool{"": true, "user-123": true, "A.b_c": true, strings.Repeat("u", 64): true,
		"anna@example.org": false, "Anna Müller": false, "a\x00b": false, strings.Repeat("u", 65): false, "+49 170": false} {
		got := endUser(name)
		if (got == name) != kept || !kept && (!strings.HasPrefix(got, "sha256:") || len(got) != 39) {
			t.Errorf("%q is kept as %q", name, got)
		}
	}
}
