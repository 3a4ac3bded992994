package generate

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// refused is the place that a refusal names; "" if it is none.
func refused(err error) string {
	refusal := new(chat.Unsupported)
	if !errors.As(err, &refusal) || refusal.Message == "" {
		return ""
	}
	return refusal.Param
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
