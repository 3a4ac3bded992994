package gateway_test

import (
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// replayDir holds recorded traffic of real providers and a server that replays it; it is beside the
// project, not in it.
const replayDir = "../../shared/replay"

// replay starts the replaying server and a gateway whose OpenAI it is.
func replay(t *testing.T, tune func(*provider.Config)) *env {
	t.Helper()
	if _, err := os.Stat(filepath.Join(replayDir, "replay.py")); err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is absent: ", err)
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	// -B: the directory may be read-only, and is not ours.
	server := exec.Command(python, "-B", filepath.Join(replayDir, "replay.py"), "--port", port, "--auth", "upstream")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // a server that has ended already is as good
		_ = server.Wait()         // it was killed
	})
	dialUntil(t, address)
	return start(t, options{providers: allThree(t, "http://"+address, tune), book: withStandIn(t), balance: "1000", sharedIDs: true})
}

// allThree are the real providers' clients, at one address.
func allThree(t *testing.T, base string, tune func(*provider.Config)) map[string]provider.Provider {
	t.Helper()
	config := func(key string) provider.Config {
		c := provider.Config{BaseURL: base, APIKey: key}
		if tune != nil {
			tune(&c)
		}
		return c
	}
	openai, err1 := provider.NewOpenAI(config("upstream-openai"))
	anthropic, err2 := provider.NewAnthropic(config("upstream-anthropic"))
	gemini, err3 := provider.NewGemini(config("upstream-gemini"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(openai.CloseIdle)
	t.Cleanup(anthropic.CloseIdle)
	t.Cleanup(gemini.CloseIdle)
	return map[string]provider.Provider{"openai": openai, "anthropic": anthropic, "gemini": gemini}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close() //nolint:errcheck // only its number was wanted
	return free.Addr().String()
}

func dialUntil(t *testing.T, address string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close() // it answers; that is all
			return
		}
	}
	t.Fatal("replay.py did not start")
}

// standIn is asked for where the book does not have the recorded model: other providers' that speak
// OpenAI's protocol.
const standIn = "stand-in"

func withStandIn(t *testing.T) *domain.PriceBook {
	t.Helper()
	var rates domain.Rates
	rates.Set(domain.Input, domain.MustAmount("0.000001"))
	rates.Set(domain.CachedInput, domain.MustAmount("0.0000005"))
	rates.Set(domain.Output, domain.MustAmount("0.000002"))
	models := []domain.Model{{Provider: "openai", Name: standIn, Mode: domain.ModeChat, Context: 128_000, MaxOutput: 16_384,
		Versions: []domain.PriceVersion{{Rates: rates}}}}
	for _, m := range pricebook.Builtin().Models() {
		models = append(models, *m)
	}
	book, err := domain.NewPriceBook(models)
	if err != nil {
		t.Fatal(err)
	}
	return book
}

// recording is one recorded exchange: a step of one of the files.
type recording struct {
	id      string
	step    int
	index   gjson.Result // what is known of it
	file    gjson.Result // request and response
	model   string       // to ask for
	inBook  bool
	marker  string
	request string
}

func (r *recording) name() string { return fmt.Sprintf("%s/%d%s", r.id, r.step, r.marker) }

// recordings lists all recorded chats.
func recordings(t *testing.T, e *env, options string) []*recording {
	t.Helper()
	read := func(name string) gjson.Result {
		raw, err := os.ReadFile(filepath.Join(replayDir, "recordings", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return gjson.ParseBytes(raw)
	}
	var out []*recording
	for _, entry := range read("index").Array() {
		if entry.Get("endpoint").Str != "chat" {
			continue
		}
		file := read(entry.Get("id").Str)
		for i, step := range entry.Get("steps").Array() {
			r := &recording{id: entry.Get("id").Str, step: i, index: step, file: file.Get("steps").Array()[i], marker: options}
			r.ask(t, e.book)
			out = append(out, r)
		}
	}
	return out
}

// ask makes the request: the recorded one, with the marker in its last user message.
func (r *recording) ask(t *testing.T, book *domain.PriceBook) {
	t.Helper()
	r.model = standIn
	for _, name := range []string{r.index.Get("model_requested").Str, r.index.Get("model_returned").Str} {
		if m, _, err := book.Lookup(name, time.Now()); err == nil && m.Provider == "openai" && !r.inBook {
			r.model, r.inBook = name, true
		}
	}
	r.request = r.file.Get("request").Raw
	if !r.file.Get("request").IsObject() {
		r.request = `{"messages":[{"role":"user","content":"hello"}],"stream":` + r.index.Get("stream").Raw + `}`
	}
	last := gjson.Get(r.request, "messages.#").Int() - 1
	for i, m := range gjson.Get(r.request, "messages").Array() {
		if m.Get("role").Str == "user" {
			last = int64(i)
		}
	}
	path, marker := "messages."+itoa(last)+".content", "cas:"+r.id+r.marker
	var err1, err2 error
	if content := gjson.Get(r.request, path); content.IsArray() {
		r.request, err1 = sjson.SetRaw(r.request, path+".-1", `{"type":"text","text":"`+marker+`"}`)
	} else {
		r.request, err1 = sjson.Set(r.request, path, content.Str+" "+marker)
	}
	r.request, err2 = sjson.Set(r.request, "model", r.model)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
}

// usage is what should be billed, in OpenAI's shape.
func (r *recording) usage() gjson.Result {
	u := r.index.Get("expect.usage")
	completion := u.Get("completion_tokens").Int()
	// The index keeps xAI's own count, which leaves reasoning out; it is billed all the same.
	if reasoning := u.Get("reasoning_tokens").Int(); u.Get("total_tokens").Int() == u.Get("prompt_tokens").Int()+completion+reasoning {
		completion += reasoning
	}
	return gjson.Parse(fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":%d},
		"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":%d}}`, u.Get("prompt_tokens").Int(), completion,
		u.Get("cached_tokens").Int(), u.Get("input_audio_tokens").Int(), u.Get("reasoning_tokens").Int(), u.Get("output_audio_tokens").Int()))
}

// TestRecordings sends every recorded chat through the gateway, as it was asked then, and holds the
// answer against the recorded bytes and the ledger against the recorded usage.
func TestRecordings(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	seen := map[string]int{}
	for _, options := range []string{"", ";ch=1", ";ch=rand"} {
		for _, r := range recordings(t, e, options) {
			if options != "" && !r.index.Get("stream").Bool() {
				continue
			}
			a := e.chat("greta", r.request)
			switch {
			case r.index.Get("status").Int() != 200:
				seen["refused"]++
				checkRefusal(t, e, r, a)
			case r.index.Get("stream").Bool():
				seen["streamed"]++
				checkReplayedStream(t, e, r, a)
			default:
				seen["whole"]++
				if a.status != 200 || a.body != r.file.Get("response.body").Str {
					t.Errorf("%s: %d %.300s", r.name(), a.status, a.body)
				}
				checkBilled(t, e, r, a)
			}
		}
	}
	t.Logf("%v", seen)
	if seen["whole"] < 20 || seen["streamed"] < 45 || seen["refused"] < 4 {
		t.Errorf("only %v", seen)
	}
}

func checkRefusal(t *testing.T, e *env, r *recording, a answer) {
	t.Helper()
	if r.id == "oa-chat-e400-2" { // audio to a model that takes none has no price, so nobody asks
		checkError(t, r.name(), a, 400, "invalid_request_error", "price_unknown")
		return
	}
	if int64(a.status) != r.index.Get("status").Int() || a.body != r.file.Get("response.body").Str {
		t.Errorf("%s: %d %s", r.name(), a.status, a.body)
	}
	if l := e.life("greta", a.id()); l.String() != "reserve refund(provider_error)" {
		t.Errorf("%s: %q", r.name(), l)
	}
}

// checkReplayedStream: every event is the recorded one, byte for byte, but for the usage that the
// client did not ask for.
func checkReplayedStream(t *testing.T, e *env, r *recording, a answer) {
	t.Helper()
	var want []string
	for line := range strings.Lines(r.file.Get("response.body").Str) {
		data, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "data: ")
		usageOnly := gjson.Get(data, "choices.#").Raw == "0" && gjson.Get(data, "usage").IsObject()
		if ok && data != "[DONE]" && (!usageOnly || gjson.Get(r.request, "stream_options.include_usage").Bool()) {
			want = append(want, data)
		}
	}
	s := a.events(t)
	if len(s.data) != len(want) {
		t.Errorf("%s: %d events, recorded were %d", r.name(), len(s.data), len(want))
	}
	for i, data := range s.data[:min(len(s.data), len(want))] {
		if data != want[i] {
			t.Errorf("%s: event %d is\n%s\nwant\n%s", r.name(), i, data, want[i])
			break
		}
	}
	failed := strings.Contains(r.index.Get("features").Raw, `"midstream_error"`)
	if s.done == failed || (s.failure != "") != failed {
		t.Errorf("%s: done: %t, failure %q", r.name(), s.done, s.failure)
	}
	checkBilled(t, e, r, a)
}

// checkBilled: the meters are the recorded usage, split, and the charge is theirs at the book's price.
func checkBilled(t *testing.T, e *env, r *recording, a answer) {
	t.Helper()
	l := e.life("greta", a.id())
	d, u := l.commitData(), r.usage()
	if l.commit == nil || l.overage != nil {
		t.Errorf("%s: %q", r.name(), l)
		return
	}
	recorded := r.file.Get("request").IsObject()
	if reserved := l.reserve.Data.(*domain.ReserveData).Bound; recorded && reserved.Input-int64(len(" cas:"+r.id+r.marker)) < d.Meters.InputTokens() {
		t.Errorf("%s: the input was bounded by %d, and is %d", r.name(), reserved.Input, d.Meters.InputTokens())
	}
	if !r.index.Get("expect.usage").IsObject() {
		if d.UsageSource != domain.UsageCounted || d.Meters[domain.Output] == 0 {
			t.Errorf("%s: nothing was reported; %s %v", r.name(), d.UsageSource, d.Meters)
		}
		return
	}
	searches := d.Meters[domain.WebSearch]
	want := domain.Meters{domain.CachedInput: u.Get("prompt_tokens_details.cached_tokens").Int(), domain.AudioIn: u.Get("prompt_tokens_details.audio_tokens").Int(),
		domain.Reasoning: u.Get("completion_tokens_details.reasoning_tokens").Int(), domain.AudioOut: u.Get("completion_tokens_details.audio_tokens").Int(),
		domain.WebSearch: searches, domain.Requests: 1}
	want[domain.Input] = u.Get("prompt_tokens").Int() - want[domain.CachedInput] - want[domain.AudioIn]
	want[domain.Output] = u.Get("completion_tokens").Int() - want[domain.Reasoning] - want[domain.AudioOut]
	if d.Meters != want || d.UsageSource != domain.UsageProvider || searches != searchesOf(r) {
		t.Errorf("%s: billed %v (%s), recorded %v", r.name(), d.Meters, d.UsageSource, want)
	}
	charged := ratOf(l.commit)
	if c := cost(t, e.book, r.model, u, d.ServiceTier, searches); charged.Cmp(c) != 0 {
		t.Errorf("%s: charged %s, want %s", r.name(), l.commit.Amount, c.FloatString(12))
	}
	if r.inBook {
		checkOracles(t, r, charged)
	}
}

func searchesOf(r *recording) int64 {
	if strings.Contains(r.model, "search") {
		return 1
	}
	return 0
}

// knownDifferences are the recordings where a price table differs from this project's charge, by how
// much (oracle - charge), and why.
var knownDifferences = map[string]string{
	// genai-prices has no audio rate for this model and prices the 44 audio tokens as text:
	// 44 x (2.50 - 40) per million.
	"oa-chat-audio genai_prices": "-0.00165",
	// The answer of a search model is charged with one web search (0.0275); neither table's total of
	// tokens has a fee per request.
	"oa-chat-annot genai_prices": "-0.0275",
	"oa-chat-annot litellm":      "-0.0275",
}

func checkOracles(t *testing.T, r *recording, charged *big.Rat) {
	t.Helper()
	for _, table := range []string{"genai_prices", "litellm"} {
		total := r.index.Get("oracle." + table + ".total")
		if !total.Exists() {
			continue
		}
		known, ok := knownDifferences[r.id+" "+table]
		if !ok {
			known = "0"
		}
		if d := new(big.Rat).Sub(ratText(t, total.Str), charged); d.Cmp(ratText(t, known)) != 0 {
			t.Errorf("%s: charged %s; %s says %s: a difference of %s, known is %s", r.name(), charged.FloatString(12), table, total.Str, d.FloatString(12), known)
		}
	}
}

// TestUnknownModelIsNotAsked: the recorded 404's model is not in the book, so the provider never sees
// the request.
func TestUnknownModelIsNotAsked(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	a := e.chat("heidi", chatBody("this-model-does-not-exist", "cas:oa-chat-e404", ""))
	checkError(t, "unknown model", a, 404, "invalid_request_error", "model_not_found")
	e.untouched("unknown model", "heidi")
}

// faultCase is what a fault comes to.
type faultCase struct {
	fault       string
	whole       int    // status; 0 = not applicable
	stream      int    // status
	code, event string // of the error answer; of the error event
	life        string // of the stream
}

const (
	lifeRefunded = "reserve refund(provider_error)"
	lifeCounted  = "reserve commit(counted) refund(remainder)"
	lifeBilled   = "reserve commit(provider) refund(remainder)"
)

// networkFaults are what every provider can have.
var networkFaults = []faultCase{
	{"html502", 502, 502, "upstream_error", "", lifeRefunded},
	{"empty", 502, 502, "upstream_error", "", lifeRefunded},
	{"trunc", 502, 0, "upstream_error", "", ""},
	{"reset", 502, 502, "upstream_error", "", lifeRefunded},
	{"hang", 504, 504, "upstream_timeout", "", lifeRefunded},
	{"400", 400, 400, "*", "", lifeRefunded},
	{"401", 502, 502, "upstream_auth", "", lifeRefunded},
	{"402", 502, 502, "upstream_error", "", lifeRefunded},
	{"403", 502, 502, "upstream_auth", "", lifeRefunded},
	{"404", 404, 404, "*", "", lifeRefunded},
	{"408", 408, 408, "*", "", lifeRefunded},
	{"409", 409, 409, "*", "", lifeRefunded},
	{"413", 413, 413, "*", "", lifeRefunded},
	{"422", 422, 422, "*", "", lifeRefunded},
	{"429;ra=7", 429, 429, "*", "", lifeRefunded},
	{"500", 502, 502, "upstream_error", "", lifeRefunded},
	{"503;ra=3", 502, 502, "upstream_error", "", lifeRefunded},
	{"504", 502, 502, "upstream_error", "", lifeRefunded},
	{"529", 502, 502, "upstream_error", "", lifeRefunded},
	{"drop@0", 0, 502, "upstream_error", "", lifeRefunded},
	{"stall@0", 0, 504, "upstream_timeout", "", lifeRefunded},
	{"sse-error@0", 0, 502, "upstream_error", "", lifeRefunded},
}

// faultsOf are the faults of one provider's streams beside those.
var faultsOf = map[string][]faultCase{
	"openai": {
		{"drop@1", 0, 200, "", "upstream_errorupstream_error", lifeRefunded},
		{"drop@5", 0, 200, "", "upstream_errorupstream_error", lifeCounted},
		{"drop@5;ch=rand", 0, 200, "", "upstream_errorupstream_error", lifeCounted},
		{"stall@4", 0, 200, "", "upstream_timeoutupstream_error", lifeCounted},
		{"sse-error@4", 0, 200, "", "server_error", lifeCounted},
		{"nodone", 0, 200, "", "upstream_errorupstream_error", lifeBilled}, // everything came but the end
		{"nodone;ch=1", 0, 200, "", "upstream_errorupstream_error", lifeBilled},
	},
	"anthropic": {
		{"drop@1", 0, 200, "", "upstream_errorupstream_error", lifeCounted}, // the input has been reported
		{"drop@5", 0, 200, "", "upstream_errorupstream_error", lifeCounted},
		{"drop@5;ch=rand", 0, 200, "", "upstream_errorupstream_error", lifeCounted},
		{"stall@4", 0, 200, "", "upstream_timeoutupstream_error", lifeCounted},
		{"sse-error@4", 0, 200, "", "overloaded_errorserver_error", lifeCounted},
		{"nodone", 0, 200, "", "upstream_errorupstream_error", lifeBilled},
		{"nodone;ch=1", 0, 200, "", "upstream_errorupstream_error", lifeBilled},
	},
	"gemini": {
		{"drop@1", 0, 200, "", "upstream_errorupstream_error", lifeCounted},
		{"stall@1;ch=rand", 0, 200, "", "upstream_timeoutupstream_error", lifeCounted},
		{"sse-error@1", 0, 200, "", "INTERNALserver_error", lifeCounted},
		{"nodone", 0, 200, "", "upstream_errorupstream_error", lifeCounted},
	},
}

// recordedOf is what the faults happen to: a model, a whole answer and a stream of each provider.
var recordedOf = map[string][3]string{
	"openai":    {"gpt-4o", "oa-chat-basic-1", "oas-chat-usage-1"},
	"anthropic": {"claude-sonnet-4-5-20250929", "an-basic-2", "ans-book"},
	"gemini":    {"gemini-2.5-pro", "ge-book", "ges-basic-1"},
}

// TestReplayedFaults: what a real network does to real answers, of every provider.
func TestReplayedFaults(t *testing.T) {
	t.Parallel()
	e := replay(t, func(c *provider.Config) {
		c.HeaderTimeout, c.IdleTimeout = time.Second, time.Second
	})
	for name, recorded := range recordedOf {
		for _, c := range append(slices.Clone(networkFaults), faultsOf[name]...) {
			if c.whole != 0 {
				a := e.chat("inge", chatBody(recorded[0], "cas:"+recorded[1]+";fault="+c.fault, ""))
				checkFault(t, e, name+" "+c.fault, a, c.whole, c.code, lifeRefunded)
			}
			if c.stream == 0 {
				continue
			}
			a := e.post("inge", streamPath, chatBody(recorded[0], strings.Repeat("x ", 500)+"cas:"+recorded[2]+";fault="+c.fault, ""))
			checkFault(t, e, name+" "+c.fault+", streamed", a, c.stream, c.code, c.life)
			if c.stream == 200 {
				if s := a.events(t); s.done || s.failure != c.event || len(s.comments) > 0 {
					t.Errorf("%s %s: done: %t, failure %q, %q", name, c.fault, s.done, s.failure, s.comments)
				}
			}
		}
	}
}

func checkFault(t *testing.T, e *env, name string, a answer, status int, code, want string) {
	t.Helper()
	if l := e.life("inge", a.id()); a.status != status || code != "*" && a.code() != code && status != 200 || l.String() != want || strings.Contains(a.body, "html") {
		t.Errorf("%s: %d %s, %q: %.300s", name, a.status, a.code(), l, a.body)
	}
	if status != 200 && (a.json("error.message").Str == "" || a.json("error.type").Str == "" || strings.Contains(a.body, "upstream-")) {
		t.Errorf("%s: not OpenAI's shape, or a key in it: %s", name, a.body)
	}
	if retry := a.header.Get("Retry-After"); (retry == "7") != (status == 429) || status != 429 && retry != "" {
		t.Errorf("%s: Retry-After %q", name, retry)
	}
}
