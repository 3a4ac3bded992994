package anthropic

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Events of streams that no recording has.
const (
	start     = `{"type":"message_start","message":{"id":"msg_1","role":"assistant","model":"claude-x","usage":{"input_tokens":3,"output_tokens":1,"service_tier":"standard"}}}`
	startAt   = `{"type":"content_block_start","index":0,"content_block":`
	startText = startAt + `{"type":"text","text":""}}`
	stop      = `{"type":"content_block_stop","index":0}`
	end       = `{"type":"message_stop"}`
)

func ended(reason string) string {
	return `{"type":"message_delta","delta":{"stop_reason":"` + reason + `"},"usage":{"output_tokens":9}}`
}

func toolStart(id, name, input string) string {
	return startAt + `{"type":"tool_use","id":"` + id + `","name":"` + name + `","input":` + input + `}}`
}

func delta(of string) string {
	return `{"type":"content_block_delta","index":0,"delta":` + of + `}`
}

func piece(text string) string {
	quoted, _ := json.Marshal(text)
	return delta(`{"type":"text_delta","text":` + string(quoted) + `}`)
}

func jsonOf(piece string) string {
	quoted, _ := json.Marshal(piece)
	return delta(`{"type":"input_json_delta","partial_json":` + string(quoted) + `}`)
}

const schemaRequest = `{"messages":[{"role":"user","content":"q"}],"stream":true,"response_format":{"type":"json_schema","json_schema":{"name":"person","schema":{"type":"object"}}}}`

func forcedAnswer(t *testing.T) chat.Exchange {
	t.Helper()
	x, err := Translate(parse(t, schemaRequest), target("claude-3-haiku-20240307"))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestStreams holds what a client ends up with.
func TestStreams(t *testing.T) {
	for _, c := range []struct {
		name         string
		events       []string
		want, finish string
	}{
		{"a tool without arguments", []string{start, toolStart("a", "f", "{}"), jsonOf(""), stop, ended("tool_use"), end},
			`{"content":"","role":"assistant","tool_calls":[{"function":{"arguments":"{}","name":"f"},"id":"a","index":0,"type":"function"}]}`, "tool_calls"},
		{"arguments at the start", []string{start, toolStart("a", "f", `{"b":1}`), stop, ended("tool_use"), end},
			`{"content":"","role":"assistant","tool_calls":[{"function":{"arguments":"{\"b\":1}","name":"f"},"id":"a","index":0,"type":"function"}]}`, "tool_calls"},
		{"two tools and a search between them", []string{start, toolStart("a", "f", "{}"), stop,
			startAt + `{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}`, jsonOf(`{"query":"x"}`), stop,
			toolStart("b", "g", "{}"), jsonOf(`{"x":`), jsonOf(`2}`), stop, ended("tool_use"), end},
			`{"content":"","role":"assistant","tool_calls":[{"function":{"arguments":"{}","name":"f"},"id":"a","index":0,"type":"function"},` +
				`{"function":{"arguments":"{\"x\":2}","name":"g"},"id":"b","index":1,"type":"function"}]}`, "tool_calls"},
		{"redacted thinking", []string{start, startAt + `{"type":"redacted_thinking","data":"ZGF0YQ=="}}`, stop,
			startAt + `{"type":"thinking","thinking":"","signature":""}}`, delta(`{"type":"thinking_delta","thinking":"H"}`), delta(`{"type":"thinking_delta","thinking":"m"}`),
			delta(`{"type":"signature_delta","signature":"c2ln"}`), stop, startText, piece("A"), stop, ended("end_turn"), end},
			`{"content":"A","reasoning_content":"Hm","role":"assistant","thinking_blocks":[{"data":"ZGF0YQ==","index":0,"type":"redacted_thinking"},` +
				`{"index":1,"signature":"c2ln","thinking":"Hm","type":"thinking"}]}`, "stop"},
		{"what nobody knows", []string{start, `{"type":"ping"}`, `{"type":"news"}`, startAt + `{"type":"hologram"}}`, piece("no"), delta(`{"type":"light"}`), stop,
			startText, delta(`{"type":"light"}`), piece("yes"), stop, ended("bored"), end}, `{"content":"yes","role":"assistant"}`, "stop"},
		{"text in other forms", []string{start, startAt + `{"type":"text","text":"a"}}`, piece("\"\\ü\n\u0001"), piece(""),
			delta(`{"text":"b\u00e9","type":"text_delta"}`), `{ "type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"c"}}  `, stop, ended("max_tokens"), end},
			`{"content":"a\"\\ü\n\u0001béc","role":"assistant"}`, "length"},
		{"blocks that are not closed", []string{start, startText, piece("a"), toolStart("a", "f", "{}"), ended("tool_use"), end},
			`{"content":"a","role":"assistant","tool_calls":[{"function":{"arguments":"{}","name":"f"},"id":"a","index":0,"type":"function"}]}`, "tool_calls"},
		{"an end without a beginning", []string{end}, `{"content":"","role":"assistant"}`, "stop"},
		{"a citation at the start", []string{start, startAt + `{"type":"text","text":"a","citations":[{"type":"web_search_result_location","url":"u","title":null}]}}`, stop, ended("end_turn"), end},
			`{"annotations":[{"type":"url_citation","url_citation":{"end_index":1,"start_index":0,"title":"","url":"u"}}],"content":"a","role":"assistant"}`, "stop"},
		{"a refusal", []string{start, ended("refusal"), end}, `{"content":"","role":"assistant"}`, "content_filter"},
		{"again, with a tool that was whole", []string{start, toolStart("a", "f", "{}"), jsonOf(`{"x":1}`), stop, start,
			toolStart("b", "f", "{}"), jsonOf(`{"x`), jsonOf(`":1}`), stop, ended("tool_use"), end},
			`{"content":"","role":"assistant","tool_calls":[{"function":{"arguments":"{\"x\":1}","name":"f"},"id":"a","index":0,"type":"function"}]}`, "tool_calls"},
	} {
		got := read(t, translated(t, anyRequest), c.events)
		if got.err != nil || !got.done || got.result().Raw != c.want || got.finish != c.finish {
			t.Errorf("%s: %v %s\n got %s\nwant %s", c.name, got.err, got.finish, got.result().Raw, c.want)
		}
	}
}

// TestForcedAnswer holds that the input of the forced tool is the content.
func TestForcedAnswer(t *testing.T) {
	x := forcedAnswer(t)
	c := read(t, x, []string{start, toolStart("a", "person", "{}"), jsonOf(`{"name":`), jsonOf(`"Ü"}`), stop, ended("tool_use"), end})
	if want := `{"content":"{\"name\":\"Ü\"}","role":"assistant"}`; c.err != nil || c.result().Raw != want || c.finish != "stop" {
		t.Errorf("streamed: %v %s %s", c.err, c.finish, c.result().Raw)
	}
	whole, err := x.Answer([]byte(`{"type":"message","role":"assistant","model":"m","content":[{"type":"tool_use","id":"a","name":"person","input":{"name":"Ü"}}],"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	choice := gjson.GetBytes(whole.Body, "choices.0")
	if choice.Get("message.content").Str != `{"name":"Ü"}` || choice.Get("message.tool_calls").Exists() || choice.Get("finish_reason").Str != "stop" {
		t.Errorf("whole: %s", whole.Body)
	}
	if whole.Report.FinishReason != "stop" {
		t.Errorf("reported %s", whole.Report.FinishReason)
	}
}

// TestBrokenStreams holds which streams fail, and that none of them passes for complete.
func TestBrokenStreams(t *testing.T) {
	for name, events := range map[string][]string{
		"not JSON":                   {start, `{"type":`},
		"not an object":              {start, `[]`},
		"an escape that is none":     {start, startText, delta(`{"type":"text_delta","text":"\x"}`)},
		"a control character":        {start, startText, delta("{\"type\":\"text_delta\",\"text\":\"\x01\"}")},
		"one brace too many":         {start, startText, delta(`{"type":"text_delta","text":"a"}`) + "}"},
		"another tool":               {start, toolStart("a", "f", "{}"), start, toolStart("b", "g", "{}")},
		"other arguments":            {start, toolStart("a", "f", "{}"), jsonOf(`{"x":1`), start, toolStart("b", "f", "{}"), jsonOf(`{"y`)},
		"fewer arguments":            {start, toolStart("a", "f", "{}"), jsonOf(`{"x":1,`), start, toolStart("b", "f", "{}"), jsonOf(`{"x":1`), stop},
		"none of the arguments":      {start, toolStart("a", "f", "{}"), jsonOf(`{"x":1,`), start, toolStart("b", "f", "{}"), stop},
		"a tool that came not again": {start, toolStart("a", "f", "{}"), stop, start, startText, piece("a"), stop, ended("end_turn"), end},
	} {
		if c := read(t, translated(t, anyRequest), events); c.err == nil || c.done || c.finish != "" {
			t.Errorf("%s: %v, done %t, finish %q", name, c.err, c.done, c.finish)
		}
	}
}

// TestBegunAgain holds that what served last is what is reported, and what the client was told first stays.
func TestBegunAgain(t *testing.T) {
	again := strings.NewReplacer("msg_1", "msg_2", "claude-x", "claude-y", `"input_tokens":3`, `"input_tokens":8`).Replace(start)
	c := read(t, translated(t, anyRequest), []string{start, startText, piece("a"), ended("max_tokens"), again})
	if r := c.report; !r.Partial || r.Usage.Input != 8 || r.Usage.Output != 1 || r.Model != "claude-y" || r.UpstreamID != "msg_1" || r.FinishReason != "" {
		t.Errorf("%+v of %+v", r, r.Usage)
	}
}

func TestErrorEvents(t *testing.T) {
	for event, want := range map[string]chat.Failed{
		`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`: {Message: "Overloaded", Type: "server_error", Code: "overloaded_error"},
		`{"type":"error","error":{"type":"news","message":"m"},"request_id":"r"}`:     {Message: "m", Type: "server_error", Code: "news"},
		`{"type":"error"}`: {Message: "The provider reported an error.", Type: "server_error"},
	} {
		c := read(t, translated(t, anyRequest), []string{start, startText, piece("a"), event})
		var failed *chat.Failed
		if !errors.As(c.err, &failed) || *failed != want || c.report.Usage == nil || !c.report.Partial {
			t.Errorf("%s: %+v %+v", event, c.err, c.report)
		}
	}
}

// TestFrame holds that the text that goes through undecoded looks as if it had been decoded.
func TestFrame(t *testing.T) {
	for _, text := range []string{"plain", "a \"quote\" & <tag>", "\\", "é ü 漢", "\t\n"} {
		var quoted strings.Builder
		e := json.NewEncoder(&quoted)
		e.SetEscapeHTML(false)
		if err := e.Encode(text); err != nil {
			t.Fatal(err)
		}
		token := strings.TrimSpace(quoted.String())
		var frames [2]string
		for i, event := range []string{`{"type":"text_delta","text":` + token + `}`, `{"text":` + token + `,"type":"text_delta"}`} {
			r := translated(t, anyRequest).Reader()
			for _, before := range []string{start, startText} {
				r.Event([]byte(before), nil)
			}
			chunks, _, err := r.Event([]byte(delta(event)), nil)
			if err != nil || len(chunks) != 1 || string(chunks[0].Text) != text {
				t.Fatalf("%q: %v %v", text, err, chunks)
			}
			frames[i] = string(chunks[0].Data)
		}
		if frames[0] != frames[1] {
			t.Errorf("undecoded %s\n  decoded %s", frames[0], frames[1])
		}
	}
}

// TestTextAllocatesNothing holds the way of most events.
func TestTextAllocatesNothing(t *testing.T) {
	r := translated(t, anyRequest).Reader()
	chunks := make([]chat.Chunk, 0, 4)
	for _, event := range []string{start, startText, piece("warm up, with room")} {
		r.Event([]byte(event), nil)
	}
	event := []byte(piece("Hello, world"))
	if n := testing.AllocsPerRun(100, func() { r.Event(event, chunks[:0]) }); n > 0 {
		t.Errorf("%v allocations for a piece of text", n)
	}
}

func BenchmarkText(b *testing.B) {
	r := (&exchange{target: Target{Model: "m"}}).Reader()
	r.Event([]byte(start), nil)
	r.Event([]byte(startText), nil)
	event, chunks := []byte(piece("Hello, world")), make([]chat.Chunk, 0, 4)
	b.ReportAllocs()
	for b.Loop() {
		r.Event(event, chunks[:0])
	}
}

// FuzzReader reads any lines as events: whatever comes, there is no panic, every chunk is one line of JSON,
// and nothing comes after the end.
func FuzzReader(f *testing.F) {
	for _, events := range [][]string{
		{start, startText, piece("a\n"), stop, ended("end_turn"), end},
		{start, toolStart("a", "person", "{}"), jsonOf(`{"x":1}`), stop, ended("tool_use"), end},
		{start, toolStart("a", "f", "{}"), jsonOf(`{"x"`), start, toolStart("a", "f", "{}"), jsonOf(`{"x":1}`), stop, end},
		{start, startAt + `{"type":"thinking"}}`, delta(`{"type":"thinking_delta","thinking":"a"}`), stop, `{"type":"error"}`},
		{startText, delta(`{"type":"citations_delta","citation":{"type":"web_search_result_location","url":"u"}}`), piece("a"), end},
	} {
		f.Add(strings.Join(events, "\n"))
	}
	f.Fuzz(func(t *testing.T, stream string) {
		for _, x := range []chat.Exchange{translated(t, anyRequest), forcedAnswer(t)} {
			c := read(t, x, strings.Split(stream, "\n"))
			if u := c.report.Usage; u != nil {
				if _, err := u.Meters(); err != nil {
					t.Fatal(err)
				}
			}
			if c.done && c.finish == "" {
				t.Fatal("an end without a reason")
			}
			x.Answer([]byte(stream))
		}
	})
}
