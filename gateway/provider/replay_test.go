package provider

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// sharedDir holds recorded traffic of real providers; it is beside the project, not in it.
const sharedDir = "../../../shared"

// recordings reads the index of the recordings; the test is skipped where they are absent.
func recordings(t *testing.T) gjson.Result {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(sharedDir, "replay", "recordings", "index.json"))
	if err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	return gjson.ParseBytes(index)
}

// startReplay runs the replaying server on loopback and returns its address.
func startReplay(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is absent: ", err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	_ = free.Close()
	// -B: the directory may be read-only, and is not ours.
	server := exec.Command(python, "-B", filepath.Join(sharedDir, "replay", "replay.py"), "--port", port)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return "http://" + address
		}
	}
	t.Fatal("replay.py did not start")
	return ""
}

// replayBody asks for one step of a recording, with options.
func replayBody(id, options string, step int, stream bool) string {
	messages := `{"role":"user","content":"cas:` + id + options + `"}`
	messages += strings.Repeat(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`, step)
	body := `{"model":"m","messages":[` + messages + `]`
	if stream {
		body += `,"stream":true,"stream_options":{"include_usage":true}`
	}
	return body + "}"
}

// TestRecordings sends every recorded chat answer through the client, whole or in pieces of any
// size, and compares what it reports with what the recording is known to mean.
func TestRecordings(t *testing.T) {
	index := recordings(t)
	p := client(t, startReplay(t), nil)
	n := 0
	for _, recording := range index.Array() {
		if recording.Get("endpoint").Str != "chat" {
			continue
		}
		for i, step := range recording.Get("steps").Array() {
			n++
			name := recording.Get("id").Str + "/" + strconv.Itoa(i)
			for _, options := range []string{"", ";ch=1", ";ch=rand", ";ch=all"} {
				body := replayBody(recording.Get("id").Str, options, i, step.Get("stream").Bool())
				if step.Get("stream").Bool() {
					checkStreamed(t, name+options, readStream(t.Context(), p, body), step)
				} else if options == "" {
					got, err := p.Complete(t.Context(), Request{Body: []byte(body)})
					checkWhole(t, name, got, err, step)
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d recorded answers", n)
	}
}

func checkWhole(t *testing.T, name string, got *Completion, err error, step gjson.Result) {
	t.Helper()
	if status := int(step.Get("status").Int()); status != 200 {
		if e := wantError(t, name, err, KindRejected, status); e.Body == nil {
			t.Errorf("%s: no body", name)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	checkReport(t, name, got.Report, step)
	checkText(t, name, got.Text(), step.Get("expect"))
}

func checkStreamed(t *testing.T, name string, got streamed, step gjson.Result) {
	t.Helper()
	if strings.Contains(step.Get("features").Raw, `"midstream_error"`) {
		if e := wantError(t, name, got.err, KindCut, 200); e.Body == nil {
			t.Errorf("%s: no body", name)
		}
		return
	}
	if got.err != nil {
		t.Errorf("%s: %v", name, got.err)
		return
	}
	checkReport(t, name, got.report, step)
	checkText(t, name, got.text, step.Get("expect"))
	empty := strings.Contains(step.Get("features").Raw, `"r_choices0"`) && step.Get("expect.usage").IsObject()
	if (got.usages == 1) != empty {
		t.Errorf("%s: %d chunks of usage only", name, got.usages)
	}
}

func checkReport(t *testing.T, name string, got Report, step gjson.Result) {
	t.Helper()
	expect := step.Get("expect")
	if got.Model != expect.Get("model").Str || got.FinishReason != expect.Get("finish_reason").Str || got.UpstreamID == "" {
		t.Errorf("%s: %s; want %s", name, showReport(got), expect.Raw)
	}
	use := expect.Get("usage")
	if !use.IsObject() {
		if got.Usage != nil {
			t.Errorf("%s: a usage of nothing: %+v", name, got.Usage)
		}
		return
	}
	if got.Usage == nil {
		t.Errorf("%s: no usage; want %s", name, use.Raw)
		return
	}
	output := use.Get("completion_tokens").Int()
	// The index keeps xAI's own count, which leaves reasoning out; it is billed all the same.
	if total := use.Get("total_tokens").Int(); total == use.Get("prompt_tokens").Int()+output+got.Usage.Reasoning {
		output += got.Usage.Reasoning
	}
	u := *got.Usage
	if u.Input != use.Get("prompt_tokens").Int() || u.Output != output ||
		u.CachedInput != use.Get("cached_tokens").Int() || u.Reasoning != use.Get("reasoning_tokens").Int() ||
		u.AudioIn != use.Get("input_audio_tokens").Int() || u.AudioOut != use.Get("output_audio_tokens").Int() {
		t.Errorf("%s: %+v; want %s", name, u, use.Raw)
	}
	if m, err := u.Meters(); err != nil || m.InputTokens() != u.Input || m.OutputTokens() != u.Output {
		t.Errorf("%s: %+v, %v", name, m, err)
	}
}

// checkText holds the counted text against the visible one: it also has reasoning and tool calls.
func checkText(t *testing.T, name, got string, expect gjson.Result) {
	t.Helper()
	visible := expect.Get("text").Str + expect.Get("refusal").Str
	calls := expect.Get("tool_calls").Array()
	for _, call := range calls {
		if !strings.Contains(got, call.Get("name").Str) {
			t.Errorf("%s: no call of %s in %q", name, call.Get("name").Str, got)
		}
		call.Get("arguments").ForEach(func(key, _ gjson.Result) bool {
			if !strings.Contains(got, key.Str) {
				t.Errorf("%s: no argument %s in %q", name, key.Str, got)
			}
			return true
		})
	}
	if !strings.Contains(got, visible) {
		t.Errorf("%s: %q is not in %q", name, visible, got)
	}
	want := utf8.RuneCountInString(visible) + int(expect.Get("reasoning_chars").Int())
	plain := len(calls) == 0 && expect.Get("finish_reason").Str != "function_call"
	if plain && utf8.RuneCountInString(got) != want {
		t.Errorf("%s: %d characters, want %d: %q", name, utf8.RuneCountInString(got), want, got)
	}
}

func TestReplayedFaults(t *testing.T) {
	recordings(t)
	base := startReplay(t)
	p := client(t, base, func(c *Config) {
		c.HeaderTimeout, c.IdleTimeout = 300*time.Millisecond, 300*time.Millisecond
	})
	cases := []struct {
		fault      string
		whole      Kind // "" = not applicable
		stream     Kind
		status     int
		body       bool
		retryAfter string
		chunks     int
	}{
		{";fault=html502", KindUpstream, KindUpstream, 502, false, "", 0},
		{";fault=empty", KindUpstream, KindUpstream, 200, false, "", 0},
		{";fault=trunc", KindUpstream, "", 200, false, "", 0},
		{";fault=reset", KindUpstream, KindUpstream, 0, false, "", 0},
		{";fault=hang", KindTimeout, KindTimeout, 0, false, "", 0},
		{";fault=401", KindAuth, KindAuth, 401, false, "", 0},
		{";fault=403", KindAuth, KindAuth, 403, false, "", 0},
		{";fault=400", KindRejected, KindRejected, 400, true, "", 0},
		{";fault=429;ra=7", KindRejected, KindRejected, 429, true, "7", 0},
		{";fault=500", KindUpstream, KindUpstream, 500, true, "", 0},
		{";fault=503;ra=3", KindUpstream, KindUpstream, 503, true, "3", 0},
		{";fault=drop@0", "", KindUpstream, 200, false, "", 0},
		{";fault=drop@1", "", KindCut, 200, false, "", 1},
		{";fault=drop@5;ch=rand", "", KindCut, 200, false, "", 5},
		{";fault=stall@0", "", KindTimeout, 200, false, "", 0},
		{";fault=stall@4", "", KindTimeout, 200, false, "", 4},
		{";fault=sse-error@0", "", KindCut, 200, true, "", 0},
		{";fault=sse-error@3", "", KindCut, 200, true, "", 3},
		{";fault=nodone", "", KindCut, 200, false, "", -1},
	}
	for _, c := range cases {
		if c.whole != "" {
			_, err := p.Complete(t.Context(), Request{Body: []byte(replayBody("oa-chat-basic-1", c.fault, 0, false))})
			e := wantError(t, c.fault, err, c.whole, c.status)
			if (e.Body != nil) != c.body || e.RetryAfter != c.retryAfter {
				t.Errorf("%s: %s, %q", c.fault, e.Body, e.RetryAfter)
			}
		}
		if c.stream == "" {
			continue
		}
		s := readStream(t.Context(), p, replayBody("oas-chat-usage-1", c.fault, 0, true))
		e := wantError(t, c.fault+", streamed", s.err, c.stream, c.status)
		if (e.Body != nil) != c.body || e.RetryAfter != c.retryAfter || (c.chunks >= 0 && len(s.data) != c.chunks) {
			t.Errorf("%s, streamed: %s, %q, %d chunks", c.fault, e.Body, e.RetryAfter, len(s.data))
		}
		if (s.report.Usage != nil) != (c.chunks < 0) {
			t.Errorf("%s: usage %+v", c.fault, s.report.Usage)
		}
	}
	replayCancel(t, base)
}

// replayCancel cancels a stream in its middle, and sees that the upstream notices.
func replayCancel(t *testing.T, base string) {
	t.Helper()
	p := client(t, base, nil)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := p.Stream(ctx, Request{Body: []byte(replayBody("oas-chat-usage-1", ";d=200;ch=ev", 0, true))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	if _, err := stream.Next(); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = stream.Next()
	wantError(t, "canceled", err, KindCanceled, 0)
}

// TestCountPromptEqualsTheBill compares the prompt formula with what OpenAI billed, wherever it
// says that it is exact.
func TestCountPromptEqualsTheBill(t *testing.T) {
	exact := 0
	for _, recording := range recordings(t).Array() {
		if recording.Get("endpoint").Str != "chat" || recording.Get("provider").Str != "openai" {
			continue
		}
		path := filepath.Join(sharedDir, "replay", "recordings", recording.Get("id").Str+".json")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range gjson.GetBytes(raw, "steps").Array() {
			request, billed := step.Get("request"), step.Get("usage_raw.prompt_tokens")
			if !request.IsObject() || !billed.Exists() {
				continue
			}
			tokens, ok := CountPrompt(request.Get("model").Str, []byte(request.Raw))
			t.Logf("%s: %s: counted %d (exact: %v), billed %d", recording.Get("id").Str,
				request.Get("model").Str, tokens, ok, billed.Int())
			if ok {
				exact++
			}
			if ok && tokens != billed.Int() {
				t.Errorf("%s: counted %d, billed %d", recording.Get("id").Str, tokens, billed.Int())
			}
		}
	}
	if exact < 4 {
		t.Errorf("only %d recordings of plain chat", exact)
	}
}
