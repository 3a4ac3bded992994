package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
)

// speech is one API as its own clients use it.
type speech struct {
	name string
	// ask makes the request for a text, after so many turns.
	ask func(model, text string, turns int, stream bool) (path, body string)
	// whole and streamed make out what came back.
	whole    func(t *testing.T, name, body string) got
	streamed func(t *testing.T, name string, body string) got
}

// finishes are the words of the other APIs for OpenAI's. Google says STOP for calls of tools too.
var finishes = map[string]map[string]string{
	"messages":  {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"},
	"generate":  {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"},
	"responses": {"completed": "stop", "max_output_tokens": "length", "content_filter": "content_filter"},
}

func (s *speech) finish(said string) string {
	if word, ok := finishes[s.name][said]; ok {
		return word
	}
	return said
}

var speeches = []*speech{
	{"chat", askChat, whole, func(t *testing.T, name, body string) got {
		t.Helper()
		return accumulate(t, name, answer{body: body}.events(t))
	}},
	{"messages", askMessages, wholeMessage, streamedMessage},
	{"generate", askGenerate, wholeGenerate, streamedGenerate},
	{"responses", askResponse, wholeResponse, streamedResponse},
}

func askChat(model, text string, turns int, stream bool) (path, body string) {
	return chatPath, fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}%s],"stream":%t,"stream_options":{"include_usage":true}}`, model, text,
		strings.Repeat(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`, turns), stream)
}

func askMessages(model, text string, turns int, stream bool) (path, body string) {
	return "/v1/messages", fmt.Sprintf(`{"model":%q,"max_tokens":8000,"messages":[{"role":"user","content":%q}%s],"stream":%t}`, model, text,
		strings.Repeat(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`, turns), stream)
}

func askGenerate(model, text string, turns int, stream bool) (path, body string) {
	path = "/v1beta/models/" + strings.ReplaceAll(model, "/", "%2F")
	if stream {
		path += ":streamGenerateContent?alt=sse"
	} else {
		path += ":generateContent"
	}
	return path, fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":%q}]}%s]}`, text,
		strings.Repeat(`,{"role":"model","parts":[{"text":"a"}]},{"role":"user","parts":[{"text":"b"}]}`, turns))
}

func askResponse(model, text string, turns int, stream bool) (path, body string) {
	return "/v1/responses", fmt.Sprintf(`{"model":%q,"input":[{"role":"user","content":%q}%s],"stream":%t}`, model, text,
		strings.Repeat(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`, turns), stream)
}

// dataOf are the events of a stream with their names; comments are left out.
func dataOf(body string) (out []gjson.Result) {
	for frame := range strings.SplitSeq(body, "\n\n") {
		for line := range strings.Lines(frame) {
			if data, ok := strings.CutPrefix(line, "data: "); ok && strings.TrimSpace(data) != "[DONE]" {
				out = append(out, gjson.Parse(data))
			}
		}
	}
	return out
}

func wholeMessage(t *testing.T, name, body string) (g got) {
	t.Helper()
	m := gjson.Parse(body)
	for _, block := range m.Get("content").Array() {
		switch block.Get("type").Str {
		case "text":
			g.text += block.Get("text").Str
		case "thinking":
			g.reasoning += block.Get("thinking").Str
		case "tool_use":
			g.calls = append(g.calls, toolCall{block.Get("name").Str, decoded(t, name, block.Get("input").Raw)})
		}
	}
	g.finish, g.model, g.usage = m.Get("stop_reason").Str, m.Get("model").Str, m.Get("usage")
	return g
}

func streamedMessage(t *testing.T, name, body string) (g got) {
	t.Helper()
	inputs, order := map[int64]*strings.Builder{}, []int64{}
	names := map[int64]string{}
	last := ""
	for _, e := range dataOf(body) {
		last = e.Get("type").Str
		i := e.Get("index").Int()
		switch last {
		case "message_start":
			g.model = e.Get("message.model").Str
		case "content_block_start":
			g.text += e.Get("content_block.text").Str
			if e.Get("content_block.type").Str == "tool_use" {
				inputs[i], names[i], order = &strings.Builder{}, e.Get("content_block.name").Str, append(order, i)
			}
		case "content_block_delta":
			g.text += e.Get("delta.text").Str
			g.reasoning += e.Get("delta.thinking").Str
			if part := e.Get("delta.partial_json"); part.Exists() && inputs[i] != nil {
				inputs[i].WriteString(part.Str)
			}
		case "message_delta":
			g.finish, g.usage = e.Get("delta.stop_reason").Str, e.Get("usage")
		}
	}
	for _, i := range order {
		input := inputs[i].String()
		if input == "" {
			input = "{}"
		}
		g.calls = append(g.calls, toolCall{names[i], decoded(t, name, input)})
	}
	if last != "message_stop" {
		t.Errorf("%s: the last event is %s", name, last)
	}
	return g
}

func generated(t *testing.T, name string, g *got, r gjson.Result) {
	t.Helper()
	g.model, g.usage = r.Get("modelVersion").Str, r.Get("usageMetadata")
	for _, part := range r.Get("candidates.0.content.parts").Array() {
		switch call := part.Get("functionCall"); {
		case call.Exists():
			args := call.Get("args").Raw
			if args == "" {
				args = "{}"
			}
			g.calls = append(g.calls, toolCall{call.Get("name").Str, decoded(t, name, args)})
		case part.Get("thought").Bool():
			g.reasoning += part.Get("text").Str
		default:
			g.text += part.Get("text").Str
		}
	}
	if reason := r.Get("candidates.0.finishReason"); reason.Exists() {
		g.finish = reason.Str
	}
}

func wholeGenerate(t *testing.T, name, body string) (g got) {
	t.Helper()
	generated(t, name, &g, gjson.Parse(body))
	return g
}

func streamedGenerate(t *testing.T, name, body string) (g got) {
	t.Helper()
	for _, e := range dataOf(body) {
		generated(t, name, &g, e)
	}
	return g
}

func wholeResponse(t *testing.T, name, body string) (g got) {
	t.Helper()
	r := gjson.Parse(body)
	g.model, g.usage, g.finish = r.Get("model").Str, r.Get("usage"), r.Get("status").Str
	if why := r.Get("incomplete_details.reason"); why.Type == gjson.String {
		g.finish = why.Str
	}
	for _, item := range r.Get("output").Array() {
		switch item.Get("type").Str {
		case "message":
			for _, part := range item.Get("content").Array() {
				g.text += part.Get("text").Str
			}
		case "reasoning":
			for _, part := range item.Get("summary").Array() {
				g.reasoning += part.Get("text").Str
			}
		case "function_call":
			g.calls = append(g.calls, toolCall{item.Get("name").Str, decoded(t, name, item.Get("arguments").Str)})
		}
	}
	if len(g.calls) > 0 && g.finish == "completed" {
		g.finish = "tool_calls"
	}
	return g
}

func streamedResponse(t *testing.T, name, body string) (g got) {
	t.Helper()
	text, last := "", gjson.Result{}
	for i, e := range dataOf(body) {
		if n := e.Get("sequence_number"); n.Exists() && n.Int() != int64(i) {
			t.Errorf("%s: event %d is number %s", name, i, n.Raw)
		}
		if e.Get("type").Str == "response.output_text.delta" {
			text += e.Get("delta").Str
		}
		last = e
	}
	g = wholeResponse(t, name, last.Get("response").Raw)
	if text != g.text {
		t.Errorf("%s: the deltas are %q, the answer %q", name, text, g.text)
	}
	return g
}

// TestRecordingsAcrossSurfaces asks for every recorded answer of all three providers in every API: each
// client makes out the same content, and the ledger has the same meters, by the same price.
func TestRecordingsAcrossSurfaces(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	seen := map[string]int{}
	for _, s := range speeches {
		for _, n := range natives(t, e.book) {
			if n.index.Get("status").Int() != 200 {
				continue
			}
			stream, name := n.index.Get("stream").Bool(), s.name+" "+n.name()
			path, body := s.ask(n.model, strings.Repeat("x", 16_000)+" cas:"+n.id, n.step, stream)
			a := e.post("greta", path, body)
			if a.status != 200 {
				t.Errorf("%s: %d %s", name, a.status, a.body)
				continue
			}
			seen[s.name+" "+n.provider]++
			var g got
			if stream {
				g = s.streamed(t, name, a.body)
			} else {
				g = s.whole(t, name, a.body)
			}
			g.finish = s.finish(g.finish)
			checkAcross(t, s, name, n, g)
			checkNativeBill(t, e, name, n, a)
		}
	}
	t.Logf("%v", seen)
	for _, s := range speeches {
		if seen[s.name+" anthropic"] < 30 || seen[s.name+" gemini"] < 22 {
			t.Errorf("only %v", seen)
		}
	}
}

// checkAcross holds what came through against what the recording is known to mean.
func checkAcross(t *testing.T, s *speech, name string, n *native, g got) {
	t.Helper()
	want := n.index.Get("expect")
	finish := want.Get("finish_reason").Str
	if own, ok := ownFinish[n.id]; ok {
		finish = own
	}
	if s.name == "generate" && finish == "tool_calls" { // Google has no word for it
		finish = "stop"
	}
	if g.text != want.Get("text").Str {
		t.Errorf("%s: %q, want %q", name, g.text, want.Get("text").Str)
	}
	if ownWords := s.name == "messages" && n.provider == "anthropic" || s.name == "generate" && n.provider == "gemini"; !ownWords && g.finish != finish {
		t.Errorf("%s: ended with %q, want %q", name, g.finish, finish)
	}
	var calls []string
	want.Get("tool_calls").ForEach(func(_, call gjson.Result) bool {
		calls = append(calls, fmt.Sprint(toolCall{call.Get("name").Str, call.Get("arguments").Value()}))
		return true
	})
	var have []string
	for _, call := range g.calls {
		have = append(have, fmt.Sprint(call))
	}
	if strings.Join(have, "; ") != strings.Join(calls, "; ") && n.id != "vx-an-spliced-start" && n.id != "vx-ge-partialargs" {
		t.Errorf("%s: calls %v, want %v", name, have, calls)
	}
}

// ownSurfaces are the recordings' endpoints, and where they are asked for here.
var ownSurfaces = map[string]struct {
	speech   int // of speeches
	provider string
}{
	"messages": {1, "anthropic"}, "generateContent": {2, "gemini"}, "streamGenerateContent": {2, "gemini"}, "responses": {3, "openai"},
}

// TestOwnSurface: to its own provider's API an answer goes as it came, byte for byte, whole or in pieces of
// any size: only the bill is added.
func TestOwnSurface(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	seen := map[string]int{}
	for _, n := range recorded(t, e.book, func(endpoint string) bool { return ownSurfaces[endpoint].provider != "" }) {
		own := ownSurfaces[n.endpoint]
		if n.provider != own.provider || n.index.Get("status").Int() != 200 {
			continue
		}
		stream := n.index.Get("stream").Bool()
		for _, options := range []string{"", ";ch=1", ";ch=rand"} {
			if options != "" && !stream {
				continue
			}
			name := n.name() + options
			path, body := speeches[own.speech].ask(n.model, strings.Repeat("x", 16_000)+" cas:"+n.id+options, n.step, stream)
			a := e.post("otto", path, body)
			want := n.file.Get("response.body").Str
			if !stream {
				if a.status != 200 || a.body != want {
					t.Errorf("%s: %d %.300s\nwant %.300s", name, a.status, a.body, want)
				}
			} else {
				checkSameEvents(t, name, a, want)
			}
			seen[n.provider]++
			if n.id != "vx-oa-resp-quota-err" {
				checkOwnBill(t, e, name, n, a)
			}
		}
	}
	t.Logf("%v", seen)
	if seen["anthropic"] < 50 || seen["gemini"] < 30 || seen["openai"] < 10 {
		t.Errorf("only %v", seen)
	}
}

// checkSameEvents: every event is the recorded one, with its name, and only comments are between them.
func checkSameEvents(t *testing.T, name string, a answer, recorded string) {
	t.Helper()
	lines := func(body string) (out []string) {
		for line := range strings.Lines(strings.ReplaceAll(body, "\r\n", "\n")) {
			if line = strings.TrimRight(line, "\n"); line != "" && !strings.HasPrefix(line, ":") {
				out = append(out, line)
			}
		}
		return out
	}
	have, want := lines(a.body), lines(recorded)
	failed := strings.Contains(recorded, "event: error")
	if len(have) != len(want) && !failed {
		t.Errorf("%s: %d lines, recorded were %d: %.500s", name, len(have), len(want), a.body)
	}
	for i := range min(len(have), len(want)) {
		if have[i] != want[i] && !failed {
			t.Errorf("%s: line %d is\n%s\nwant\n%s", name, i, have[i], want[i])
			return
		}
	}
	told := 1
	if strings.HasPrefix(recorded, "data: {") { // Google's clients take every line for data
		told = 0
	}
	if bills := strings.Count(a.body, ": billing {"); bills != told && !failed {
		t.Errorf("%s: %d bills: %.300s", name, bills, a.body)
	}
}

func checkOwnBill(t *testing.T, e *env, name string, n *native, a answer) {
	t.Helper()
	if n.provider != "openai" {
		checkNativeBillOf(t, e, "otto", name, n, a)
		return
	}
	l := e.life("otto", a.id())
	if l.commit == nil || l.overage != nil {
		t.Errorf("%s: %q", name, l)
		return
	}
	u := n.index.Get("usage_raw")
	cached, written, reasoning := u.Get("input_tokens_details.cached_tokens").Int(), u.Get("input_tokens_details.cache_write_tokens").Int(), u.Get("output_tokens_details.reasoning_tokens").Int()
	want := domain.Meters{domain.Input: u.Get("input_tokens").Int() - cached - written, domain.CachedInput: cached, domain.CacheWrite5m: written,
		domain.Output: u.Get("output_tokens").Int() - reasoning, domain.Reasoning: reasoning, domain.Requests: 1}
	if d := l.commitData(); d.Meters != want || d.UsageSource != domain.UsageProvider || ratOf(l.commit).Cmp(plainCost(t, e.book, n.model, want, time.Now())) != 0 {
		t.Errorf("%s: billed %v (%s) %s, recorded %v", name, d.Meters, d.UsageSource, l.commit.Amount, want)
	}
}

// TestListOfChunks: Google's stream without alt=sse is one JSON list, whose end goes out when it is paid for.
func TestListOfChunks(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	for _, model := range []string{"gemini-2.5-pro", "claude-sonnet-4-5-20250929", "gpt-4o"} {
		marker := map[string]string{"gemini-2.5-pro": "ges-basic-1", "claude-sonnet-4-5-20250929": "ans-book", "gpt-4o": "oas-chat-usage-1"}[model]
		body := fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":%q}]}]}`, strings.Repeat("x", 4_000)+" cas:"+marker)
		path := "/v1beta/models/" + model + ":streamGenerateContent"
		a, sse := e.post("lotte", path, body), e.post("lotte", path+"?alt=sse", body)
		list := gjson.Parse(a.body)
		var chunks []string
		for _, chunk := range dataOf(sse.body) {
			chunks = append(chunks, chunk.Raw)
		}
		if !gjson.Valid(a.body) || !list.IsArray() || len(list.Array()) != len(chunks) || len(chunks) < 2 {
			t.Errorf("%s: %d chunks, as events %d: %.300s", model, len(list.Array()), len(chunks), a.body)
		}
		if l := e.life("lotte", a.id()); l.commit == nil || a.header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: %q %v", model, l, a.header)
		}
		for _, fault := range []string{"drop@1", "sse-error@1"} {
			b := e.post("lotte", path, strings.Replace(body, "cas:"+marker, "cas:"+marker+";fault="+fault, 1))
			if gjson.Valid(b.body) && b.status == 200 {
				t.Errorf("%s, %s: it ends politely: %s", model, fault, b.body)
			}
		}
	}
}

// TestErrorsOfSurfaces: each API gets errors in its own shape, from before the door to behind it.
func TestErrorsOfSurfaces(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	models := map[string][2]string{"openai": {"gpt-4o", "oa-chat-basic-1"}, "anthropic": {"claude-sonnet-4-5-20250929", "an-basic-2"}, "gemini": {"gemini-2.5-flash", "ge-book"}}
	shapes := map[string]func(r gjson.Result) bool{
		"chat":      func(r gjson.Result) bool { return r.Get("error.message").Str != "" && r.Get("error.type").Str != "" },
		"responses": func(r gjson.Result) bool { return r.Get("error.message").Str != "" && r.Get("error.type").Str != "" },
		"messages": func(r gjson.Result) bool {
			return r.Get("type").Str == "error" && r.Get("error.type").Str != "" && r.Get("error.message").Str != ""
		},
		"generate": func(r gjson.Result) bool {
			return r.Get("error.code").Int() >= 400 && r.Get("error.message").Str != "" && r.Get("error.status").Str != ""
		},
	}
	for _, s := range speeches {
		check := func(name string, a answer, status int) {
			t.Helper()
			if a.status != status || !shapes[s.name](gjson.Parse(a.body)) || strings.Contains(a.body, "upstream-") {
				t.Errorf("%s, %s: %d %s", s.name, name, a.status, a.body)
			}
		}
		path, body := s.ask("gpt-4o", "hello", 0, false)
		check("no credential", e.post("", path, body), 401)
		check("no JSON", e.post("fritz", path, "{"), 400)
		path, body = s.ask("no-such-model", "hello", 0, false)
		check("no such model", e.post("fritz", path, body), 404)
		for provider, m := range models {
			for fault, status := range map[string]int{"400": 400, "401": 502, "404": 404, "429;ra=7": 429, "500": 502, "529": 502, "html502": 502} {
				path, body := s.ask(m[0], "cas:"+m[1]+";fault="+fault, 0, false)
				a := e.post("fritz", path, body)
				check(provider+" "+fault, a, status)
				if status == 429 && a.header.Get("Retry-After") != "7" {
					t.Errorf("%s %s: Retry-After %q", s.name, provider, a.header.Get("Retry-After"))
				}
				if l := e.life("fritz", a.id()); l.String() != lifeRefunded {
					t.Errorf("%s %s %s: %q", s.name, provider, fault, l)
				}
			}
		}
	}
}

// TestStreamsOfSurfacesThatBreakOff: after the first byte a failure is an event that fails in the client, what
// was delivered is charged, and the end of the answer never comes.
func TestStreamsOfSurfacesThatBreakOff(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	models := map[string][2]string{"openai": {"gpt-4o", "oas-chat-usage-1"}, "anthropic": {"claude-sonnet-4-5-20250929", "ans-book"}, "gemini": {"gemini-2.5-pro", "ges-basic-1"}}
	ends := map[string]string{"chat": "[DONE]", "messages": `"message_stop"`, "generate": `"STOP"`, "responses": `"response.completed"`}
	for _, s := range speeches {
		for provider, m := range models {
			if s.name == "responses" && provider == "openai" { // its own
				m[1] = "oas-resp-2"
			}
			cut := "drop@5"
			if provider == "gemini" {
				cut = "drop@2"
			}
			path, body := s.ask(m[0], strings.Repeat("x", 4_000)+" cas:"+m[1]+";fault="+cut, 0, true)
			a := e.post("emma", path, body)
			events := dataOf(a.body)
			name := s.name + " of " + provider
			if a.status != 200 || len(events) < 2 || !events[len(events)-1].Get("error").Exists() || strings.Contains(a.body, ends[s.name]) {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
			if l := e.life("emma", a.id()); l.String() != lifeCounted {
				t.Errorf("%s: %q", name, l)
			}
		}
	}
}
