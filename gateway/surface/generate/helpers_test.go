package generate

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// table reads a JSON array of testdata.
func table(t *testing.T, name string) []gjson.Result {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(data) {
		t.Fatalf("%s is no JSON", name)
	}
	return gjson.ParseBytes(data).Array()
}

// seeds are the same for fuzzing; none where they cannot be read.
func seeds(name string) []gjson.Result {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		return nil
	}
	return gjson.ParseBytes(data).Array()
}

// refused is the place that a refusal names; "" if it is none.
func refused(err error) string {
	refusal := new(chat.Unsupported)
	if !errors.As(err, &refusal) || refusal.Message == "" {
		return ""
	}
	return refusal.Param
}

// sameJSON compares two texts as JSON.
func sameJSON(t *testing.T, got, want string) bool {
	t.Helper()
	return reflect.DeepEqual(valueOf(t, got), valueOf(t, want))
}

func valueOf(t *testing.T, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// recordingsDir holds recorded traffic of the providers; it is beside the project, not in it.
const recordingsDir = "../../../../shared/replay/recordings"

// step is one recorded exchange.
type step struct {
	name     string
	endpoint string
	of       gjson.Result
}

func (s step) status() int64   { return s.of.Get("status").Int() }
func (s step) stream() bool    { return s.of.Get("stream").Bool() }
func (s step) body() string    { return s.of.Get("response.body").Str }
func (s step) model() string   { return s.of.Get("model_requested").Str }
func (s step) request() string { return s.of.Get("request").Raw }

// recorded are the recorded exchanges of the endpoints with the ending; the test is skipped where they are
// absent.
func recorded(t *testing.T, ending string) []step {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(recordingsDir, "index.json"))
	if err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	var steps []step
	for _, recording := range gjson.ParseBytes(index).Array() {
		endpoint := recording.Get("endpoint").Str
		if !strings.HasSuffix(strings.ToLower(endpoint), ending) {
			continue
		}
		id := recording.Get("id").Str
		file, err := os.ReadFile(filepath.Join(recordingsDir, id+".json"))
		if err != nil {
			t.Fatal(err)
		}
		for i, of := range gjson.GetBytes(file, "steps").Array() {
			steps = append(steps, step{id + "/" + strconv.Itoa(i), endpoint, of})
		}
	}
	return steps
}

// events are the data of a recorded stream's events.
func events(body string) []string {
	var out []string
	for line := range strings.SplitSeq(body, "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			out = append(out, strings.TrimSuffix(data, "\r"))
		}
	}
	return out
}

// gathered is what a client has of an answer, whole or put together from events.
type gathered struct {
	text, thought string
	calls         []call
	finish        map[int64]string
	usage         string
	signatures    []string
}

type call struct{ id, name, args string }

// add takes in a response, and complains of what official clients would stumble over.
func (g *gathered) add(t *testing.T, response []byte) {
	t.Helper()
	if !json.Valid(response) || strings.Contains(string(response), "\n") {
		t.Fatalf("no JSON on one line: %s", response)
	}
	v := gjson.ParseBytes(response)
	if g.finish == nil {
		g.finish = map[int64]string{}
	}
	if usage := v.Get("usageMetadata"); usage.Exists() {
		g.usage = usage.Raw
	}
	for _, c := range v.Get("candidates").Array() {
		if reason := c.Get("finishReason").Str; reason != "" {
			g.finish[c.Get("index").Int()] = reason
		}
		if c.Get("index").Int() != 0 {
			continue
		}
		parts := c.Get("content.parts").Array()
		if len(parts) == 0 || c.Get("content.role").Str != "model" {
			t.Errorf("a content without parts or role: %s", response)
		}
		for _, p := range parts {
			g.part(t, p)
		}
	}
}

func (g *gathered) part(t *testing.T, p gjson.Result) {
	t.Helper()
	if len(p.Map()) == 0 {
		t.Errorf("an empty part")
	}
	if s := p.Get("thoughtSignature").Str; s != "" {
		g.signatures = append(g.signatures, s)
	}
	if p.Get("thought").Bool() {
		g.thought += p.Get("text").Str
	} else {
		g.text += p.Get("text").Str
	}
	if c := p.Get("functionCall"); c.Exists() {
		g.calls = append(g.calls, call{c.Get("id").Str, c.Get("name").Str, c.Get("args").Raw})
	}
}

// write gives chunks to a writer and gathers its events. Only the last may be Last.
func write(t *testing.T, f chat.Foreign, chunks []string) (g gathered, last []byte) {
	t.Helper()
	w := f.Writer()
	for _, chunk := range chunks {
		for _, e := range w.Chunk([]byte(chunk), nil) {
			if e.Last || e.Event != "" {
				t.Errorf("%s is the last, or has a name", e.Data)
			}
			g.add(t, e.Data)
		}
	}
	end := w.End(nil)
	if len(end) != 1 || !end[0].Last {
		t.Fatalf("a stream ends with %v", end)
	}
	if again := w.End(nil); len(again) != 0 {
		t.Errorf("it ends twice")
	}
	g.add(t, end[0].Data)
	return g, end[0].Data
}

const simple = `{"contents":[{"parts":[{"text":"hi"}]}]}`

// foreignOf reads a request.
func foreignOf(t *testing.T, body string) chat.Foreign {
	t.Helper()
	f, err := Foreign([]byte(body), "resp-1", "m", false)
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return f
}
