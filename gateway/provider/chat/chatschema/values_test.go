package chatschema

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

var (
	sign     = &chat.ExtraContent{Google: &chat.GoogleContent{ThoughtSignature: "c2ln"}}
	cited    = []chat.Annotation{{Type: "url_citation", URLCitation: chat.URLCitation{StartIndex: 1, EndIndex: 2, Title: "A", URL: "https://example.org/é#a"}}}
	picture  = chat.ImageURL{URL: "data:image/png;base64,AAAA"}
	logprobs = json.RawMessage(`{"content":[{"token":"H","logprob":-0.5,"bytes":null,"top_logprobs":[]}],"refusal":null}`)
	used     = chat.Usage{PromptTokens: 9, CompletionTokens: 8, TotalTokens: 17,
		Prompt:     chat.PromptDetails{CachedTokens: 1, AudioTokens: 2, CacheWriteTokens: 3},
		Completion: chat.CompletionDetail{ReasoningTokens: 1, AudioTokens: 2, AcceptedPredictionTokens: 3, RejectedPredictionTokens: 2}}
)

func fullAnswer() chat.Answer {
	return chat.Answer{ID: "chatcmpl-1", Object: chat.ObjectCompletion, Created: 1750000000, Model: "claude", Usage: &used,
		ServiceTier: new("default"), SystemFingerprint: new("fp"), Choices: []chat.Choice{{Index: 1, Logprobs: logprobs, FinishReason: chat.FinishToolCalls,
			Message: chat.Reply{Role: "assistant", Content: new("Hm.\u2028<&>"), Refusal: new("No."), ReasoningContent: "So?",
				ThinkingBlocks: []chat.ThinkingBlock{{Type: "thinking", Thinking: "So?", Signature: "c2ln", Data: "x"}},
				ToolCalls:      []chat.ReplyCall{{ID: "call_1", Type: "function", Function: chat.ReplyFunction{Name: "f", Arguments: "{}"}, ExtraContent: sign}},
				Annotations:    cited, Images: []chat.ReplyImage{{Type: "image_url", ImageURL: picture}}, ExtraContent: sign,
				Audio: json.RawMessage(`{"id":"audio_1","expires_at":1750003600,"data":"AAAA","transcript":"Hm."}`)}}}}
}

func fullEvent() chat.Event {
	return chat.Event{ID: "chatcmpl-1", Object: chat.ObjectChunk, Created: 1750000000, Model: "gemini", Usage: &used,
		ServiceTier: new("priority"), SystemFingerprint: new("fp"), Choices: []chat.EventChoice{{Index: 1, Logprobs: logprobs, FinishReason: new(chat.FinishStop),
			Delta: chat.Delta{Role: "assistant", Content: new("Hm."), Refusal: new("No."), ReasoningContent: "So?",
				ThinkingBlocks: []chat.ThinkingBlock{{Index: new(0), Type: "thinking", Thinking: "So?", Signature: "c2ln", Data: "x"}},
				ToolCalls:      []chat.ReplyCall{{Index: new(0), ID: "call_1", Type: "function", Function: chat.ReplyFunction{Name: "f", Arguments: "{}"}, ExtraContent: sign}},
				Annotations:    cited, Images: []chat.ReplyImage{{Index: new(0), Type: "image_url", ImageURL: picture}}, ExtraContent: sign}}}}
}

// TestValues: what package chat encodes is what the description says, with all fields and with few.
func TestValues(t *testing.T) {
	t.Parallel()
	full, event := fullAnswer(), fullEvent()
	least := chat.Answer{ID: "x", Object: chat.ObjectCompletion, Choices: []chat.Choice{{Message: chat.Reply{Role: "assistant"}, FinishReason: chat.FinishStop}}}
	counted := least
	counted.Usage = chat.UsageOf(&domain.Usage{Input: 5, CachedInput: 1, CacheWrite5m: 1, Output: 3, Reasoning: 1})
	usage := chat.Event{ID: "x", Object: chat.ObjectChunk, Choices: []chat.EventChoice{}, Usage: chat.UsageOf(&domain.Usage{})}
	for name, a := range map[string]chat.Answer{"full": full, "least": least, "counted": counted} {
		if err := StrictCompletion(a.Encode()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, e := range map[string]chat.Event{"full": event, "usage": usage, "least": {ID: "x", Object: chat.ObjectChunk, Choices: []chat.EventChoice{{}}}} {
		if err := StrictChunk(e.Encode()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A list that nobody made encodes as null, and an Index in a whole answer is a chunk's.
	usage.Choices, least.Choices = nil, nil
	counted.Choices[0].Message.ToolCalls = []chat.ReplyCall{{Index: new(0), ID: "c", Type: "function", Function: chat.ReplyFunction{Name: "f"}}}
	if StrictChunk(usage.Encode()) == nil || StrictCompletion(least.Encode()) == nil || StrictCompletion(counted.Encode()) == nil {
		t.Error("null choices or an index are accepted")
	}
}

// TestFullIsFull: a field that package chat gets is to be set above.
func TestFullIsFull(t *testing.T) {
	t.Parallel()
	if unset := zeroFields(reflect.ValueOf(fullEvent()), "Event"); len(unset) > 0 {
		t.Errorf("not set: %s", strings.Join(unset, ", "))
	}
	for _, field := range zeroFields(reflect.ValueOf(fullAnswer()), "Answer") {
		if !strings.HasSuffix(field, ".Index") { // a chunk's
			t.Errorf("not set: %s", field)
		}
	}
}

// zeroFields are the fields of v, and of what is in it, that are not set; 0 is a value for what is
// pointed to.
func zeroFields(v reflect.Value, path string) (unset []string) {
	switch v.Kind() { //nolint:exhaustive // the rest holds no fields
	case reflect.Pointer:
		if v.Elem().Kind() == reflect.Struct {
			return zeroFields(v.Elem(), path)
		}
	case reflect.Slice:
		for i := range v.Len() {
			if v.Index(i).Kind() == reflect.Struct {
				unset = append(unset, zeroFields(v.Index(i), path)...)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := path + "." + v.Type().Field(i).Name
			if v.Field(i).IsZero() {
				unset = append(unset, name)
				continue
			}
			unset = append(unset, zeroFields(v.Field(i), name)...)
		}
	}
	return unset
}
