package chatschema

import (
	"fmt"
	"strings"
	"testing"
)

// event is a chunk in short: the choices, and what follows them.
func event(choices, more string) string {
	return `{"id":"c1","object":"chat.completion.chunk","created":5,"model":"m","choices":[` + choices + `]` + more + `}`
}

// piece is a choice in short.
func piece(index int, delta, finish string) string {
	return fmt.Sprintf(`{"index":%d,"delta":{%s},"logprobs":null,"finish_reason":%s}`, index, delta, finish)
}

const spent = `,"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}`

// goodStream is two choices, one with two tool calls, as OpenAI sends them.
func goodStream() []string {
	return []string{
		event(piece(0, `"role":"assistant","content":"","refusal":null`, "null"), `,"usage":null`),
		event(piece(1, `"role":"assistant","content":null`, "null"), `,"usage":null`),
		event(piece(0, `"content":"Hm."`, "null"), ""),
		event(piece(1, `"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]`, "null"), ""),
		event(piece(1, `"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":"}}]`, "null"), ""),
		event(piece(1, `"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]`, "null"), ""),
		event(piece(1, `"tool_calls":[{"index":1,"id":"b","type":"custom","custom":{"name":"g","input":"{"}}]`, "null"), ""),
		event(piece(0, "", `"stop"`), ""),
		event(piece(1, "", `"tool_calls"`), ""),
		event("", spent),
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	good := goodStream()
	for name, events := range map[string][]string{
		"whole": good, "with [DONE]": append(goodStream(), "[DONE]"), "without a usage": good[:len(good)-1],
		"two choices in one chunk": {event(piece(0, `"role":"assistant"`, `"stop"`)+","+piece(1, `"role":"assistant"`, `"stop"`), "")},
		"arguments that were cut":  replacedIn(t, replacedIn(t, good, `1}"}`, `"}`), `"finish_reason":"tool_calls"`, `"finish_reason":"length"`),
	} {
		if err := StrictStream(events); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if strange := replacedIn(t, good, `"model":"m"`, `"model":"m","provider":"x"`); Stream(strange) != nil || StrictStream(strange) == nil {
		t.Error("a field that is not described is the upstream's own affair, and nobody else's")
	}
}

// replacedIn is the events with the first place of a text replaced.
func replacedIn(t testing.TB, events []string, from, to string) []string {
	t.Helper()
	whole := strings.Join(events, "\n")
	if !strings.Contains(whole, from) {
		t.Fatalf("no %s in %s", from, whole)
	}
	return strings.Split(strings.Replace(whole, from, to, 1), "\n")
}

// TestBrokenStreams: each breaks one rule, and the error says which.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	good := goodStream()
	last := len(good) - 1
	edit := func(from, to string) []string { return replacedIn(t, good, from, to) }
	for _, c := range []struct {
		want   string
		events []string
	}{
		{"there are no chunks", nil},
		{"there are no chunks", []string{"[DONE]"}},
		{"there are no choices", []string{event("", spent)}},
		{"not one JSON text", append(goodStream()[:3], "[DONE]", good[3])},
		{"event 1: jsonschema", edit("\n"+`{"id":"c1","object":"chat.completion.chunk"`, "\n"+`{"id":"c1","object":"chat.completion"`)},
		{`event 1: the id is "c2", and was "c1"`, edit("\n"+`{"id":"c1"`, "\n"+`{"id":"c2"`)},
		{`event 1: created is 6, and was 5`, edit("\n"+`{"id":"c1","object":"chat.completion.chunk","created":5`, "\n"+`{"id":"c1","object":"chat.completion.chunk","created":6`)},
		{`event 0: choice 0: the first delta has no role`, edit(`"role":"assistant",`, ``)},
		{`event 1: choice 1: the first delta has no role`, edit(`"role":"assistant","content":null`, ``)},
		{`event 2: choice 0: it goes on after its finish_reason "stop"`, edit(`null}],"usage":null}`, `"stop"}]}`)},
		{`event 9: choice 1: it goes on after`, append(goodStream()[:last], good[last-1])},
		{`choice 0 has no finish_reason`, edit(`"finish_reason":"stop"`, `"finish_reason":null`)},
		{`choice 1 has no finish_reason`, good[:last-1]},
		{`event 10: the usage was not the last`, append(goodStream(), good[last])},
		{`event 9: the usage was not the last`, append(append(goodStream()[:last-1], good[last]), good[last-1])},
		{`event 8: a usage beside choices`, append(goodStream()[:last-1], event(piece(1, "", `"tool_calls"`), spent))},
		{`event 0: neither choices nor a usage`, append([]string{event("", "")}, good...)},
		{`missing property 'choices'`, edit(`"choices":[],"usage":{`, `"usage":{`)},
		{`missing property 'index'`, edit(`{"index":0,"function":`, `{"function":`)},
		{`event 3: choice 1: tool call 0: the first delta has id "", type "function", name "f"`, edit(`"id":"a",`, ``)},
		{`event 3: choice 1: tool call 0: the first delta has id "a", type "", name "f"`, edit(`"type":"function",`, ``)},
		{`event 3: choice 1: tool call 0: the first delta has id "a", type "function", name ""`, edit(`"name":"f",`, ``)},
		{`event 4: choice 1: tool call 0: the id is "z", and was "a"`, edit(`{"index":0,"function":`, `{"index":0,"id":"z","function":`)},
		{`event 4: choice 1: tool call 0: the name "f" comes after`, edit(`{"index":0,"function":{`, `{"index":0,"function":{"name":"f",`)},
		{`event 4: choice 1: tool call 7: the first delta has id ""`, edit(`{"index":0,"function":`, `{"index":7,"function":`)},
		{`choice 1: tool call 0: the arguments "{\"x\":" are not JSON`, edit(`1}"}`, `"}`)},
		{`choice 1: tool call 0: the arguments "" are not JSON`, append(append(goodStream()[:4], good[7]), good[8])},
	} {
		if err := StrictStream(c.events); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %s", err, c.want)
		}
	}
}
