package chatschema

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recordings holds recorded answers of real providers; it is beside the project, not in it.
const recordings = "../../../../../shared/replay/recordings"

// listed is a recording that is not as it should be: what the error says, and why the rule stays.
type listed struct{ says, why string }

const leftOut = "the description requires it, clients of other languages decode it, and a null is what OpenAI sends elsewhere"

var (
	// broken are refused.
	broken = map[string]listed{
		"az-chat-filter": {"missing property 'message'", "Azure filtered the whole answer: a client that reads choices[0].message fails on it"},
		"vx-az-router":   {"value must be 'chat.completion.chunk'", "Azure begins with a chunk of the prompt's filter results, without id, object, model or choices"},
	}
	// foreign are accepted from an upstream, and would not be from this product.
	foreign = map[string]listed{
		"oa-chat-annot":     {"missing property 'logprobs'", leftOut},
		"oa-chat-audio":     {"additional properties 'text_tokens' not allowed", "OpenAI's audio models count modalities that the description does not have"},
		"oa-chat-len":       {"missing property 'logprobs'", leftOut},
		"oa-chat-reason-1":  {"missing property 'logprobs'", leftOut},
		"oa-chat-reason-2":  {"missing property 'logprobs'", leftOut},
		"oa-chat-unicode-1": {"missing property 'logprobs'", leftOut},
	}
)

type recording struct {
	ID, Provider, Endpoint string
	Steps                  []struct {
		Stream   bool
		Status   int
		Response struct{ Body string }
	}
}

func readRecording(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recordings, name))
	if err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(name, ": ", err)
	}
}

// TestRecordings: what OpenAI and Azure answered is what the description says, but for what is listed.
func TestRecordings(t *testing.T) {
	t.Parallel()
	var all []recording
	readRecording(t, "index.json", &all)
	seen, wrong, strange := map[string]int{}, map[string]bool{}, map[string]bool{}
	for _, entry := range all {
		if entry.Endpoint != "chat" || entry.Provider != "openai" && entry.Provider != "azure" {
			continue
		}
		var r recording
		readRecording(t, entry.ID+".json", &r)
		for i, step := range entry.Steps {
			kind, plain, strict := check(step.Stream, step.Status, r.Steps[i].Response.Body)
			seen[kind]++
			wrong[entry.ID] = expect(t, entry.ID, plain, broken) || wrong[entry.ID]
			if plain == nil {
				strange[entry.ID] = expect(t, entry.ID, strict, foreign) || strange[entry.ID]
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("only %v were there", seen)
	}
	for id := range broken {
		if !wrong[id] {
			t.Errorf("%s breaks nothing", id)
		}
	}
	for id := range foreign {
		if !strange[id] {
			t.Errorf("%s has nothing foreign", id)
		}
	}
	t.Logf("%v; refused are %v", seen, slices.Sorted(maps.Keys(broken)))
}

// check is what the two modes have against an answer.
func check(stream bool, status int, body string) (kind string, plain, strict error) {
	switch {
	case status >= 400:
		return "errors", ErrorBody([]byte(body)), nil
	case stream:
		events := dataOf(body)
		return "streams", Stream(events), StrictStream(events)
	}
	return "answers", Completion([]byte(body)), StrictCompletion([]byte(body))
}

// dataOf is the data of the events, each of which is one line in all that was recorded.
func dataOf(body string) (events []string) {
	for line := range strings.Lines(body) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			events = append(events, strings.TrimRight(data, "\r\n"))
		}
	}
	return events
}

// expect holds an error against the list; it says whether one was expected and came.
func expect(t testing.TB, id string, err error, list map[string]listed) bool {
	t.Helper()
	known, ok := list[id]
	switch {
	case err == nil:
		return false
	case !ok:
		t.Errorf("%s: %v", id, err)
	case !strings.Contains(err.Error(), known.says) || known.why == "":
		t.Errorf("%s: %v; listed for %q, because %q", id, err, known.says, known.why)
	}
	return ok
}
