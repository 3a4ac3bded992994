package gateway_test

import (
	"encoding/json"
	"testing"

	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"llm-gateway/gateway"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/completions"
	"llm-gateway/gateway/surface/generate"
	"llm-gateway/gateway/surface/messages"
	"llm-gateway/gateway/surface/responses"
)

// translated are the surfaces whose requests can be made chat completions.
var translated = map[string]struct {
	ask     func(d drawn) object
	facts   func(body []byte) (*chat.Facts, error)
	foreign func(body []byte) (chat.Foreign, error)
}{
	"messages": {func(d drawn) object { return d.messagesRequest("m") }, messages.Facts,
		func(body []byte) (chat.Foreign, error) { return messages.Foreign(body, "id", 1) }},
	"generate": {drawn.generateRequest, func(body []byte) (*chat.Facts, error) { return generate.Facts(body, "m", false) },
		func(body []byte) (chat.Foreign, error) { return generate.Foreign(body, "id", "m", false) }},
	"responses": {func(d drawn) object { return d.responsesRequest("m") }, responses.Facts,
		func(body []byte) (chat.Foreign, error) { return responses.Foreign(body, "id", 1) }},
	"completions": {func(d drawn) object { return d.completionsRequest("m") }, completions.Facts,
		func(body []byte) (chat.Foreign, error) { return completions.Foreign(body, "id", 1) }},
}

// TestFactsCoverTheTranslation: a request that goes on as a chat completion is bounded by what its own surface
// says of it. That must not be less than what the chat completion says of itself.
func TestFactsCoverTheTranslation(t *testing.T) {
	t.Parallel()
	for name, s := range translated {
		taken := 0
		rapid.Check(t, func(rt *rapid.T) {
			body, err := json.Marshal(s.ask(drawn{rt}))
			if err != nil {
				rt.Fatal(err)
			}
			own, err := s.facts(body)
			if err != nil {
				return
			}
			foreign, err := s.foreign(body)
			if err != nil {
				return
			}
			made := foreign.Chat()
			hub, err := gateway.ChatFacts(made)
			if err != nil {
				rt.Fatalf("%s: %v: %s as %s", name, err, body, made)
			}
			taken++
			if lost := uncovered(own, hub, made); lost != "" {
				rt.Fatalf("%s: %s: %+v of %.2000s, but %+v of %.2000s", name, lost, *own, body, *hub, made)
			}
		})
		t.Logf("%s: %d translated", name, taken)
	}
}

// uncovered names what a chat completion needs more of than the facts of its origin say; "" = nothing.
func uncovered(own, hub *chat.Facts, made []byte) string {
	w := &weight{}
	for _, part := range []string{"messages", "tools", "response_format"} {
		w.weigh(part, gjson.GetBytes(made, part))
	}
	for _, c := range []struct {
		of   string
		lost bool
	}{
		{"Choices", hub.Choices > own.Choices},
		{"MaxOutput", hub.MaxOutput != own.MaxOutput},
		{"Opaque", hub.Opaque && !own.Opaque},
		{"Images", hub.Images > own.Images && !own.Opaque},
		{"Rounds", hub.Rounds > own.Rounds},
		{"WebSearch", hub.WebSearch && !own.WebSearch},
		{"AudioIn", hub.AudioIn && !own.AudioIn},
		{"AudioOut", hub.AudioOut && !own.AudioOut},
		{"ImageOut", hub.ImageOut && !own.ImageOut},
		{"PredictionLen", hub.PredictionLen > own.PredictionLen},
		{"ServiceTier", own.ServiceTier != "" && hub.ServiceTier != own.ServiceTier},
		{"InputBytes", w.text > own.InputBytes-own.ImageBytes && !own.Opaque},
	} {
		if c.lost {
			return c.of
		}
	}
	return ""
}

// TestLimitOfGoogles: the limit is put where the body has its configuration, whatever else is named like it.
func TestLimitOfGoogles(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"contents":[]}`:                        "generationConfig.maxOutputTokens",
		`{"contents":[],"generationConfig":{}}`:  "generationConfig.maxOutputTokens",
		`{"contents":[],"generation_config":{}}`: "generation_config.max_output_tokens",
		`{"contents":[{"parts":[{"functionCall":{"name":"f","args":{"generation_config":1}}}]}],"generationConfig":{}}`: "generationConfig.maxOutputTokens",
	} {
		if got := gateway.GenerateLimit([]byte(body)); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}
