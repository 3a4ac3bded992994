package generate

import (
	"cmp"
	"errors"
	"slices"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Answer translates a whole chat completion.
func (f *foreign) Answer(completion []byte) ([]byte, error) {
	v := gjson.ParseBytes(completion)
	if !gjson.ValidBytes(completion) || !v.Get("choices").IsArray() {
		return nil, errors.New("the answer is no chat completion")
	}
	out := response{Candidates: []candidate{}, UsageMetadata: usageOf(v.Get("usage")), ModelVersion: v.Get("model").Str, ResponseID: f.id}
	for i, choice := range v.Get("choices").Array() {
		t := turn{index: int64(i), finish: choice.Get("finish_reason").Str}
		if n := choice.Get("index"); n.Type == gjson.Number {
			t.index = n.Int()
		}
		c := t.end(t.take(choice.Get("message")))
		c.Logprobs = logprobsOf(choice.Get("logprobs"))
		out.Candidates = append(out.Candidates, c)
	}
	return chat.Encode(&out), nil
}

// writer translates one stream. Each event is a whole response with what is new. The end of the candidates
// and the usage come in the last event, whenever a chunk told them.
type writer struct {
	id    string
	model string
	turns []*turn // in the order of their indices
	usage *usageMetadata
	ended bool
}

// Chunk takes in one chat chunk. What is none is passed over.
func (w *writer) Chunk(data []byte, events []chat.Chunk) []chat.Chunk {
	if !gjson.ValidBytes(data) {
		return events
	}
	v := gjson.ParseBytes(data)
	if w.model == "" {
		w.model = v.Get("model").Str
	}
	if usage := usageOf(v.Get("usage")); usage != nil {
		w.usage = usage
	}
	var candidates []candidate
	for _, choice := range v.Get("choices").Array() {
		t := w.turn(choice.Get("index").Int())
		parts, logprobs := t.take(choice.Get("delta")), logprobsOf(choice.Get("logprobs"))
		if reason := choice.Get("finish_reason").Str; reason != "" {
			t.finish = reason
		}
		if len(parts) > 0 || logprobs != nil {
			candidates = append(candidates, candidate{Content: contentFrom(parts), Index: t.index, Logprobs: logprobs})
		}
	}
	if len(candidates) == 0 {
		return events
	}
	return append(events, chat.Chunk{Data: w.event(candidates, nil)})
}

func (w *writer) turn(index int64) *turn {
	i, found := slices.BinarySearchFunc(w.turns, index, func(t *turn, index int64) int { return cmp.Compare(t.index, index) })
	if !found {
		w.turns = slices.Insert(w.turns, i, &turn{index: index})
	}
	return w.turns[i]
}

// End appends the last event.
func (w *writer) End(events []chat.Chunk) []chat.Chunk {
	if w.ended {
		return events
	}
	w.ended = true
	if len(w.turns) == 0 {
		w.turn(0)
	}
	candidates := make([]candidate, len(w.turns))
	for i, t := range w.turns {
		candidates[i] = t.end(nil)
	}
	return append(events, chat.Chunk{Data: w.event(candidates, w.usage), Last: true})
}

func (w *writer) event(candidates []candidate, usage *usageMetadata) []byte {
	return chat.Encode(&response{Candidates: candidates, UsageMetadata: usage, ModelVersion: w.model, ResponseID: w.id})
}
