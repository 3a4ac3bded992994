package gateway_test

import (
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"llm-gateway/domain"
)

// asRecorded is a recorded request on the surface that it was made for.
type asRecorded struct {
	name, provider, endpoint string
	model                    string
	path, body               string
	added                    int // bytes, beside the recorded ones
	failed                   bool
	usage                    gjson.Result // as recorded, in OpenAI's terms; nothing where none was
}

// recordedModels are asked for where the book does not have the recorded model.
var recordedModels = map[string]string{"openai": standIn, "anthropic": "claude-sonnet-4-5-20250929", "gemini": "gemini-2.5-flash"}

// recordedRequests lists all steps of all recordings that have their request.
func recordedRequests(t *testing.T, book *domain.PriceBook) (out []*asRecorded) {
	t.Helper()
	read := func(name string) gjson.Result {
		raw, err := os.ReadFile(filepath.Join(replayDir, "recordings", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return gjson.ParseBytes(raw)
	}
	for _, entry := range read("index").Array() {
		id := entry.Get("id").Str
		steps := read(id).Get("steps").Array()
		for i, step := range entry.Get("steps").Array() {
			if !steps[i].Get("request").IsObject() {
				continue
			}
			r := &asRecorded{name: id + "/" + strconv.Itoa(i), provider: entry.Get("provider").Str, endpoint: entry.Get("endpoint").Str,
				failed: step.Get("status").Int() != 200, usage: step.Get("expect.usage")}
			if recordedModels[r.provider] == "" { // another that speaks OpenAI's protocol
				r.provider = "openai"
			}
			r.model = recordedModel(book, r.provider, step)
			if r.endpoint == "embeddings" && r.provider == "gemini" {
				r.endpoint = "batchEmbedContents"
			}
			r.ask(t, steps[i].Get("request").Raw, " cas:"+id)
			out = append(out, r)
		}
	}
	return out
}

// recordedModel is the model that was asked for, or else that answered, if the book has it.
func recordedModel(book *domain.PriceBook, provider string, step gjson.Result) string {
	for _, of := range []string{"model_requested", "model_returned"} {
		name := strings.TrimPrefix(step.Get(of).Str, "models/")
		if m, _, err := book.Lookup(name, time.Now()); err == nil && m.Provider == provider {
			return m.Name
		}
	}
	return recordedModels[provider]
}

// recordedPaths are where the surfaces are; Google's have the model in between.
var recordedPaths = map[string]string{"chat": chatPath, "completions": "/v1/completions", "embeddings": "/v1/embeddings",
	"responses": "/v1/responses", "messages": "/v1/messages", "generateContent": ":generateContent",
	"streamGenerateContent": ":streamGenerateContent?alt=sse", "batchEmbedContents": ":batchEmbedContents"}

// ask makes the recorded request one that the replaying server knows: with the marker in its last text of a
// user, and for the model that there is a price for.
func (r *asRecorded) ask(t *testing.T, recorded, marker string) {
	t.Helper()
	r.path = recordedPaths[r.endpoint]
	body, err := recorded, error(nil)
	if path, ok := markedAt(recorded); ok {
		body, err = sjson.Set(body, path, gjson.Get(recorded, path).Str+marker)
	} else {
		body, err = sjson.Set(body, "user", marker) // where there are only numbers
	}
	if strings.HasPrefix(r.path, ":") {
		r.path = "/v1beta/models/" + r.model + r.path
		if err == nil && gjson.Get(body, "model").Exists() {
			body, err = sjson.Set(body, "model", r.model)
		}
	} else if err == nil {
		body, err = sjson.Set(body, "model", r.model)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.body, r.added = body, max(0, len(body)-len(recorded))
}

// markedAt is where a request of any surface has the last text of its user: not in the result of a tool.
func markedAt(body string) (path string, found bool) {
	for _, list := range []string{"messages", "contents", "requests", "input", "prompt"} {
		v := gjson.Get(body, list)
		if v.Type == gjson.String {
			return list, true
		}
		for i, item := range v.Array() {
			if at, ok := userText(item); ok {
				path, found = strings.TrimSuffix(fmt.Sprintf("%s.%d.%s", list, i, at), "."), true
			}
		}
	}
	return path, found
}

// userText is where an item of a conversation has a text of the user's.
func userText(item gjson.Result) (path string, found bool) {
	if item.Type == gjson.String {
		return "", true
	}
	if role := item.Get("role"); role.Exists() && role.Str != "user" {
		return "", false
	}
	for _, at := range []string{"content", "parts", "content.parts"} {
		v := item.Get(at)
		if v.Type == gjson.String {
			return at, true
		}
		if !v.IsArray() {
			continue
		}
		for i, part := range v.Array() {
			if part.Get("text").Type == gjson.String {
				path, found = fmt.Sprintf("%s.%d.text", at, i), true
			}
		}
	}
	return path, found
}

// notAsked are the recorded requests that the gateway does not pass on as they were, and why.
var notAsked = map[string]string{
	"oa-chat-e400-2/0": "400 price_unknown", // audio to a model that takes none: OpenAI refused it too
	"oa-emb-e400/0":    "400 invalid_value", // dimensions of -1, likewise
}

// TestBoundsOfRecordedRequests sends every recorded request, as it was, by the surface that it was made for:
// what was reserved for it, without what the test has added, covers what its recorded answer is charged.
func TestBoundsOfRecordedRequests(t *testing.T) {
	t.Parallel()
	e := replay(t, nil)
	seen, refused := map[string]int{}, map[string]string{}
	for _, r := range recordedRequests(t, e.book) {
		a := e.post("greta", r.path, r.body)
		l := e.life("greta", a.id())
		switch {
		case l.reserve == nil:
			refused[r.name] = fmt.Sprintf("%d %s", a.status, a.code())
		case r.failed || a.status != 200:
			seen["failed"]++
			if !r.failed || l.commit != nil || l.overage != nil {
				t.Errorf("%s: %d %s, %q", r.name, a.status, a.body, l)
			}
		default:
			seen[r.endpoint]++
			checkRecordedBound(t, r, l)
		}
	}
	t.Logf("%v", seen)
	if !maps.Equal(refused, notAsked) {
		t.Errorf("refused were %q, want %q", refused, notAsked)
	}
	for endpoint, least := range map[string]int{"chat": 35, "completions": 2, "embeddings": 2, "responses": 9, "messages": 30, "generateContent": 14,
		"streamGenerateContent": 8, "batchEmbedContents": 1} {
		if seen[endpoint] < least {
			t.Errorf("%s: only %d", endpoint, seen[endpoint])
		}
	}
}

// checkRecordedBound: the bound without the marker's bytes covers the tokens, and the reserve without their
// price the charge.
func checkRecordedBound(t *testing.T, r *asRecorded, l life) {
	t.Helper()
	if l.commit == nil || l.overage != nil || l.others > 0 {
		t.Errorf("%s: %q", r.name, l)
		return
	}
	bound, m := l.reserve.Data.(*domain.ReserveData).Bound, l.commitData().Meters
	added := new(big.Rat)
	for _, line := range bound.Lines {
		if line.Meter == domain.Input {
			added.Mul(rat(line.UnitPrice), new(big.Rat).SetInt64(int64(r.added)))
		}
	}
	left := new(big.Rat).Sub(ratOf(l.reserve), added)
	if bound.Input-int64(r.added) < m.InputTokens() || bound.Output < m.OutputTokens() || left.Cmp(ratOf(l.commit)) < 0 {
		t.Errorf("%s: reserved %s for %d and %d tokens, %d bytes of them the test's; charged %s for %v", r.name, l.reserve.Amount, bound.Input, bound.Output,
			r.added, l.commit.Amount, m)
	}
	if u := r.usage; u.IsObject() && (u.Get("prompt_tokens").Int() != m.InputTokens() || u.Get("completion_tokens").Int() != m.OutputTokens()) {
		t.Errorf("%s: billed %v, recorded %s", r.name, m, u.Raw)
	}
}
