package chatschema

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"llm-gateway/gateway/provider/chat"
)

var update = flag.Bool("update", false, "write testdata/fields.txt")

// samples are answers with every field that is described, and what holds each of them.
var samples = []struct {
	name, file string
	holds      func([]byte) error
}{
	{"completion", "completion.json", StrictCompletion},
	{"chunk", "chunk.json", StrictChunk},
	{"error_body", "error.json", ErrorBody},
}

func sample(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decode(t testing.TB, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// fields visits every member of every object in v, with its path.
func fields(v any, path string, visit func(object map[string]any, field, path string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, field := range slices.Sorted(maps.Keys(v)) {
			visit(v, field, path+"."+field)
			fields(v[field], path+"."+field, visit)
		}
	case []any:
		for i, x := range v {
			fields(x, fmt.Sprintf("%s[%d]", path, i), visit)
		}
	}
}

// TestFields: what happens when each field in turn is missing or null is a table to read; of another
// type it is always refused.
func TestFields(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	for _, s := range samples {
		doc := decode(t, sample(t, s.file))
		if err := s.holds(encoded(t, doc)); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		fields(doc, s.name, func(object map[string]any, field, path string) {
			was := object[field]
			delete(object, field)
			line := path + map[bool]string{true: " required", false: ""}[s.holds(encoded(t, doc)) != nil]
			object[field] = nil
			line += map[bool]string{true: " null", false: ""}[s.holds(encoded(t, doc)) == nil]
			for _, other := range otherThan(was) {
				object[field] = other
				if s.holds(encoded(t, doc)) == nil {
					t.Errorf("%s may be %v", path, other)
				}
			}
			object[field] = was
			table.WriteString(line + "\n")
		})
	}
	if *update {
		if err := os.WriteFile("testdata/fields.txt", []byte(table.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(sample(t, "fields.txt")); table.String() != want {
		t.Errorf("testdata/fields.txt is not what holds (-update writes it):\n%s", table.String())
	}
}

// otherThan are values that are not of v's kind. -1.5 is neither a whole number nor a count; only
// logprobs, which are below zero here, may be such.
func otherThan(v any) (others []any) {
	for kind, other := range map[string]any{"text": "x", "number": -1.5, "list": []any{"x"}, "object": map[string]any{"x": 1}, "truth": true} {
		if kind != kindOf(v) {
			others = append(others, other)
		}
	}
	return others
}

func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "text"
	case float64:
		return map[bool]string{true: "number", false: "count"}[v < 0]
	case []any:
		return "list"
	}
	return "object"
}

// TestSamplesHaveEveryField: what TestFields does, it does to every field.
func TestSamplesHaveEveryField(t *testing.T) {
	t.Parallel()
	described, seen := map[string]bool{}, map[string]bool{}
	_, objects := describe()
	for _, object := range objects {
		names, _ := object.(map[string]any)["properties"].(map[string]any)
		for name := range names {
			described[name] = true
		}
	}
	for _, s := range samples {
		fields(decode(t, sample(t, s.file)), "", func(_ map[string]any, field, _ string) { seen[field] = true })
	}
	if !maps.Equal(described, seen) {
		t.Errorf("described are\n%v\nand the samples have\n%v", slices.Sorted(maps.Keys(described)), slices.Sorted(maps.Keys(seen)))
	}
}

// TestEveryNullIsNeeded: a place that is taken out of the list refuses its null.
func TestEveryNullIsNeeded(t *testing.T) {
	t.Parallel()
	for i, p := range Nulls {
		without, refused := compile(true, slices.Delete(slices.Clone(Nulls), i, i+1)), 0
		for _, s := range samples {
			doc := decode(t, sample(t, s.file))
			fields(doc, s.name, func(object map[string]any, field, _ string) {
				was := object[field]
				object[field] = nil
				if text := encoded(t, doc); s.holds(text) == nil && without.holds(s.name, text) != nil {
					refused++
				}
				object[field] = was
			})
		}
		if refused == 0 || p.Why == "" {
			t.Errorf("%+v allows nothing, or does not say why", p)
		}
	}
}

// TestMistakes: each of these single mistakes is found.
func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, file, from, to string
		holds                func([]byte) error
	}{
		{"an unknown finish reason", "completion.json", `"finish_reason":"tool_calls"`, `"finish_reason":"end_turn"`, Completion},
		{"no finish reason in a whole answer", "completion.json", `"finish_reason":"tool_calls"`, `"finish_reason":null`, Completion},
		{"an unknown tier", "completion.json", `"service_tier":"default"`, `"service_tier":"standard"`, Completion},
		{"a chunk's object", "completion.json", `"object":"chat.completion"`, `"object":"chat.completion.chunk"`, Completion},
		{"an answer's object", "chunk.json", `"object":"chat.completion.chunk"`, `"object":"chat.completion"`, Chunk},
		{"a user's answer", "completion.json", `"role":"assistant"`, `"role":"user"`, Completion},
		{"a model's delta", "chunk.json", `"role":"assistant"`, `"role":"model"`, Chunk},
		{"a time that is text", "completion.json", `"created":1750000000`, `"created":"2026-01-01"`, Completion},
		{"a time with a fraction", "chunk.json", `"created":1750000000`, `"created":1750000000.5`, Chunk},
		{"choices that are null", "chunk.json", `"choices":[{`, `"choices":null,"x":[{`, Chunk},
		{"a tool call's delta without index", "chunk.json", `"id":"call_1","index":0,`, `"id":"call_1",`, Chunk},
		{"a thinking block's delta without index", "chunk.json", `"thinking_blocks":[{"data":"x","index":0,`, `"thinking_blocks":[{"data":"x",`, Chunk},
		{"an image's delta without index", "chunk.json", `AAAA"},"index":0,`, `AAAA"},`, Chunk},
		{"arguments that are an object", "completion.json", `"arguments":"{}"`, `"arguments":{}`, Completion},
		{"a call without a function", "completion.json", `"type":"custom"`, `"type":"function"`, Completion},
		{"a custom call without input", "completion.json", `"type":"function"`, `"type":"custom"`, Completion},
		{"a call of another type", "completion.json", `"type":"function"`, `"type":"tool_use"`, Completion},
		{"a call without an id", "completion.json", `"id":"call_1"`, `"id":""`, Completion},
		{"half a link", "completion.json", `https://example.org/a`, `example.org/a`, Completion},
		{"audio that is not base64", "completion.json", `"data":"AAAA"`, `"data":"?"`, Completion},
		{"a byte above 255", "completion.json", `"bytes":[72]`, `"bytes":[256]`, Completion},
		{"fewer than no tokens", "completion.json", `"total_tokens":17`, `"total_tokens":-1`, Completion},
		{"another citation", "completion.json", `"type":"url_citation"`, `"type":"file_citation"`, Completion},
		{"another thinking block", "completion.json", `"type":"thinking"`, `"type":"text"`, Completion},
		{"an unknown field at the top", "completion.json", `"created"`, `"x":1,"created"`, StrictCompletion},
		{"an unknown field in a message", "completion.json", `"role":`, `"x":1,"role":`, StrictCompletion},
		{"an unknown field in a chunk's usage", "chunk.json", `"total_tokens"`, `"x":1,"total_tokens"`, StrictChunk},
		{"an index in a whole answer's call", "completion.json", `"id":"call_1"`, `"id":"call_1","index":0`, StrictCompletion},
		{"an error that is text", "error.json", `{"error":{`, `{"error":"x","was":{`, ErrorBody},
		{"an error's code that is a status", "error.json", `"code":"model_not_found"`, `"code":404`, ErrorBody},
		{"two texts", "error.json", `{"error"`, `{} {"error"`, ErrorBody},
		{"half a text", "error.json", `{"error"`, `"error"`, ErrorBody},
	} {
		text := string(encoded(t, decode(t, sample(t, c.file))))
		if changed := strings.Replace(text, c.from, c.to, 1); changed == text || c.holds([]byte(changed)) == nil {
			t.Errorf("%s is not found, or is none: %s", c.what, changed)
		}
	}
}

// TestPassedThrough: what upstreams add and OpenAI leaves out is accepted from them alone.
func TestPassedThrough(t *testing.T) {
	t.Parallel()
	for _, edit := range [][2]string{{`"created"`, `"x_groq":{"id":1},"created"`}, {`"logprobs":`, `"native_finish_reason":`}} {
		text := strings.Replace(string(encoded(t, decode(t, sample(t, "completion.json")))), edit[0], edit[1], 1)
		if err := Completion([]byte(text)); err != nil {
			t.Errorf("%s: %v", edit[1], err)
		}
		if StrictCompletion([]byte(text)) == nil {
			t.Errorf("%s is accepted from this product", edit[1])
		}
	}
}

// TestVocabulary: the words of package chat are the description's.
func TestVocabulary(t *testing.T) {
	t.Parallel()
	_, objects := describe()
	reasons := objects["finish_reason"].(map[string]any)["enum"].([]any)
	for _, word := range []string{chat.FinishStop, chat.FinishLength, chat.FinishToolCalls, chat.FinishContentFilter} {
		if !slices.Contains(reasons, any(word)) {
			t.Errorf("%s is no finish reason", word)
		}
	}
}
