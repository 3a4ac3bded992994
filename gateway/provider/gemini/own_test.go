package gemini

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func ownFor(t *testing.T, body, model string) chat.Exchange {
	t.Helper()
	x, err := Own([]byte(body), model)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestOwnAnswers(t *testing.T) {
	n := 0
	for _, s := range recorded(t) {
		if s.Stream {
			continue
		}
		n++
		got, err := ownFor(t, "{}", s.Model).Answer([]byte(s.Body))
		if s.Status != http.StatusOK {
			checkFailed(t, s, err)
			continue
		}
		if err != nil || string(got.Body) != s.Body {
			t.Errorf("%s: %v: the body is not Google's", s.Name, err)
			continue
		}
		translated, err := exchangeFor(t, s.Model).Answer([]byte(s.Body))
		if err != nil {
			t.Fatal(err)
		}
		message := gjson.GetBytes(translated.Body, "choices.0.message")
		want := message.Get("content").Str + message.Get("reasoning_content").Str
		for _, c := range message.Get("tool_calls").Array() {
			want += c.Get("function.name").Str + c.Get("function.arguments").Str
		}
		if text := got.Text(); text != want {
			t.Errorf("%s: text %q, want %q", s.Name, text, want)
		}
		checkReport(t, s, got.Report, translated.Report.FinishReason)
	}
	if n < 15 {
		t.Errorf("only %d answers", n)
	}
	for _, bad := range []string{"", "[]", "{}", "hello"} {
		if _, err := ownFor(t, "{}", "m").Answer([]byte(bad)); err == nil {
			t.Errorf("%q is an answer", bad)
		}
	}
}

// passed gives events to a reader and returns what it gives on: data and text joined, and how many are last.
func passed(t *testing.T, r chat.Reader, events []string) (data []string, text string, last int, complete bool) {
	t.Helper()
	keep := func(chunks []chat.Chunk) {
		for _, c := range chunks {
			if last > 0 || c.Event != "" || c.UsageOnly {
				t.Errorf("after the last, or named: %s", c.Data)
			}
			if c.Last {
				last++
			}
			data, text = append(data, string(c.Data)), text+string(c.Text)
		}
	}
	buffer := make([]byte, 0, 1<<16)
	for _, e := range events {
		buffer = append(buffer[:0], e...) // what the reader was given before is overwritten
		chunks, done, err := r.Event(buffer, nil)
		if err != nil || done {
			t.Fatalf("%v, done %v: %s", err, done, e)
		}
		keep(chunks)
	}
	chunks, complete := r.End(nil)
	keep(chunks)
	return data, text, last, complete
}

// TestOwnStreams passes recorded streams on, whole and cut after every event: every event goes out as it
// came, the last of a whole stream as the last, and only that one is complete.
func TestOwnStreams(t *testing.T) {
	n := 0
	for _, s := range recorded(t) {
		if !s.Stream {
			continue
		}
		n++
		all := s.Events()
		want, _, _ := read(t, exchangeFor(t, s.Model), all)
		for cut := range len(all) + 1 {
			r := ownFor(t, "{}", s.Model).Reader()
			data, text, last, complete := passed(t, r, all[:cut])
			if whole := cut == len(all); strings.Join(data, "\n") != strings.Join(all[:cut], "\n") || complete != whole || (last == 1) != whole || r.Report().Partial == whole {
				t.Errorf("%s after %d of %d: %d events, %d last, complete %v", s.Name, cut, len(all), len(data), last, complete)
			}
			if cut == len(all) {
				checkReport(t, s, r.Report(), want.finish)
				if text != want.text {
					t.Errorf("%s: text %q, want %q", s.Name, text, want.text)
				}
			}
		}
	}
	if n < 9 {
		t.Errorf("only %d streams", n)
	}
}

// TestOwnHolds shows which events wait for the next: those that may be the last.
func TestOwnHolds(t *testing.T) {
	text := func(index, finish string) string {
		return `{"candidates":[{"index":` + index + `,"content":{"parts":[{"text":"a"}]}` + finish + `}]}`
	}
	stop := `,"finishReason":"STOP"`
	for name, c := range map[string]struct {
		events []string
		out    []int // how many are given on at each event
		last   int
	}{
		"one":                  {[]string{text("0", ""), text("0", stop)}, []int{1, 0}, 1},
		"more after the end":   {[]string{text("0", stop), `{"usageMetadata":{"promptTokenCount":1}}`, `{"usageMetadata":{"promptTokenCount":2}}`}, []int{0, 1, 1}, 1},
		"two candidates":       {[]string{text("0", ""), text("1", stop), text("0", ""), text("0", stop)}, []int{1, 0, 2, 0}, 1},
		"a late second":        {[]string{text("0", stop), text("1", ""), text("1", stop)}, []int{0, 2, 0}, 1},
		"one never ends":       {[]string{text("0", stop), text("1", "")}, []int{0, 2}, 0},
		"cut at an end":        {[]string{text("1", ""), text("0", stop)}, []int{1, 0}, 0},
		"a blocked prompt":     {[]string{`{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4}}`}, []int{0}, 1},
		"nothing of an answer": {[]string{`{"usageMetadata":{}}`}, []int{1}, 0},
	} {
		r := ownFor(t, "{}", "m").Reader()
		for i, e := range c.events {
			chunks, _, err := r.Event([]byte(e), nil)
			if err != nil || len(chunks) != c.out[i] {
				t.Errorf("%s: event %d gives %d, %v", name, i, len(chunks), err)
			}
		}
		_, _, last, complete := passed(t, r, nil)
		if last != c.last || complete != (c.last == 1) {
			t.Errorf("%s: %d last, complete %v", name, last, complete)
		}
	}
}

func TestOwnStreamErrors(t *testing.T) {
	r := ownFor(t, "{}", "m").Reader()
	_, _, err := r.Event([]byte(`{"error":{"code":503,"message":"Overloaded.","status":"UNAVAILABLE"}}`), nil)
	failed := new(chat.Failed)
	if !errors.As(err, &failed) || failed.Type != "server_error" || failed.Message != "Overloaded." {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "[]", "x"} {
		if _, _, err := r.Event([]byte(bad), nil); err == nil {
			t.Errorf("%q is an event", bad)
		}
	}
	chunks, _, err := r.Event([]byte("{\"candidates\":[\r\n{}]}"), nil)
	if err != nil || string(chunks[0].Data) != `{"candidates":[{}]}` {
		t.Errorf("%v: an event of several lines became %v", err, chunks)
	}
}

func TestOwnBody(t *testing.T) {
	ours := sealed + "dAACAAAA"
	for body, want := range map[string]string{
		`{ "contents": [],"x":1.50}`:                                                    `{ "contents": [],"x":1.50}`,
		`{"model":"models/alias","contents":[]}`:                                        `{"model":"models/m","contents":[]}`,
		`{"model":"models/m", "contents":[]}`:                                           `{"model":"models/m", "contents":[]}`,
		`{"generateContentRequest":{"model":"alias"}}`:                                  `{"generateContentRequest":{"model":"models/m"}}`,
		`{"generate_content_request":{"model":"alias"}}`:                                `{"generate_content_request":{"model":"models/m"}}`,
		`{"requests":[{"model":"models/alias"},{},{"model":"models/m"},{"model":"x"}]}`: `{"requests":[{"model":"models/m"},{},{"model":"models/m"},{"model":"models/m"}]}`,
		`{"requests":{"model":"models/alias"}}`:                                         `{"requests":{"model":"models/m"}}`,
		`{"contents":[{"parts":[{"text":"a","thought":true,"thoughtSignature":"` + ours + `"},{"text":"b","thoughtSignature":"QUJD"}]}]}`:           `{"contents":[{"parts":[{"text":"a","thought":true},{"text":"b","thoughtSignature":"QUJD"}]}]}`,
		`{"contents":{"parts":{"thought":true,"thought_signature":"` + ours + `"}}}`:                                                                `{"contents":{"parts":{"thought":true,"text":""}}}`,
		`{"contents":[{"parts":[{"functionCall":{"name":"f"},"thoughtSignature":"` + ours + `"}]},{"parts":[{"text":"about ` + sealed + `"}]},{}]}`: `{"contents":[{"parts":[{"functionCall":{"name":"f"}}]},{"parts":[{"text":"about ` + sealed + `"}]},{}]}`,
	} {
		if got := ownFor(t, body, "models/m").Body(); string(got) != want {
			t.Errorf("%s\nbecame %s, want\n%s", body, got, want)
		}
	}
	if got := ownFor(t, ` {"model":"a", "x":{"model":"kept"} } `, "m").Body(); string(got) != ` {"model":"models/m", "x":{"model":"kept"} } ` {
		t.Errorf("%s", got)
	}
	if _, err := Own([]byte("[]"), "m"); err == nil {
		t.Error("a list is a request")
	}
}

func TestEmbedUsage(t *testing.T) {
	for body, want := range map[string]*domain.Usage{
		`{"embeddings":[{"values":[1]}]}`: nil,
		`{`:                               nil,
		`{"usageMetadata":{"promptTokenCount":4,"promptTokenDetails":[{"modality":"TEXT","tokenCount":4}]}}`:                                      {Input: 4},
		`{"usageMetadata":{"promptTokenCount":9,"promptTokenDetails":[{"modality":"IMAGE","tokenCount":5},{"modality":"AUDIO","tokenCount":3}]}}`: {Input: 9, ImageIn: 5, AudioIn: 3},
		`{"usageMetadata":{"promptTokenCount":9,"promptTokenDetails":[{"modality":"IMAGE","tokenCount":-5}]}}`:                                    nil,
		`{"usageMetadata":{"promptTokenCount":9.5}}`: nil,
	} {
		got := EmbedUsage([]byte(body))
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v", body, got)
		}
	}
	recording := chattest.Find(t, chattest.Recorded(t, "embeddings", 1), "ge-emb/0")
	if got := EmbedUsage([]byte(recording.Body)); got == nil || *got != (domain.Usage{Input: 4}) {
		t.Errorf("recorded: %+v", got)
	}
}

// FuzzOwn reads any events: every one that is read goes out, as it came or without its line breaks, and the
// last of them only at the end.
func FuzzOwn(f *testing.F) {
	f.Add(`{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}`, `{"usageMetadata":{"promptTokenCount":1}}`)
	f.Add(`{"promptFeedback":{"blockReason":"X"}}`, `{"candidates":[{"index":3}]}`)
	f.Add(`{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","willContinue":true}}]}}]}`, `{"candidates":[{"content":{"parts":[{"functionCall":{}}]},"finishReason":""}]}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		r := ownFor(t, "{}", "m").Reader()
		var chunks []chat.Chunk
		read := 0
		for _, e := range []string{a, b} {
			var err error
			if chunks, _, err = r.Event([]byte(e), chunks); err == nil {
				read++
			}
		}
		for _, c := range chunks {
			if c.Last {
				t.Errorf("the last before the end: %s", c.Data)
			}
		}
		chunks, complete := r.End(chunks)
		if len(chunks) != read || complete && (read == 0 || !chunks[len(chunks)-1].Last) || r.Report().Partial == complete {
			t.Errorf("%d of %d events, complete %v", len(chunks), read, complete)
		}
		if x, err := Own([]byte(a), "m"); gjson.Valid(a) && err == nil && !gjson.ValidBytes(x.Body()) {
			t.Errorf("%s became %s", a, x.Body())
		}
	})
}
