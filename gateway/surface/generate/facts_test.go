package generate

import (
	"reflect"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

func TestFacts(t *testing.T) {
	for _, c := range chattest.Table(t, "testdata/facts.json") {
		body := c.Get("body").Raw
		got, err := Facts([]byte(body), "models/m", true)
		if err == nil && !got.Stream {
			t.Errorf("%s: no stream", c.Get("name"))
		}
		checkFacts(t, c, got, err)
	}
}

func TestEmbedFacts(t *testing.T) {
	for _, c := range chattest.Table(t, "testdata/embedfacts.json") {
		got, err := EmbedFacts([]byte(c.Get("body").Raw), "m", c.Get("batch").Bool())
		checkFacts(t, c, got, err)
	}
}

func checkFacts(t *testing.T, c gjson.Result, got *chat.Facts, err error) {
	t.Helper()
	if param := c.Get("param"); param.Exists() {
		if err == nil || refused(err) != param.Str {
			t.Errorf("%s: %v at %q, want a refusal of %s", c.Get("name"), err, refused(err), param)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", c.Get("name"), err)
		return
	}
	w := c.Get("want")
	want := chat.Facts{Model: "m", Stream: got.Stream, Choices: max(w.Get("choices").Int(), 1), MaxOutput: w.Get("max_output").Int(),
		InputBytes: int64(len(c.Get("body").Raw)) + w.Get("extra").Int(), Images: w.Get("images").Int(), ImageBytes: w.Get("image_bytes").Int(),
		Opaque: w.Get("opaque").Bool(), Rounds: max(w.Get("rounds").Int(), 1), Searches: w.Get("searches").Int(), WebSearch: w.Get("web_search").Bool(),
		AudioIn: w.Get("audio_in").Bool(), AudioOut: w.Get("audio_out").Bool(), ImageOut: w.Get("image_out").Bool(), ServiceTier: w.Get("tier").Str, Inputs: w.Get("inputs").Int()}
	for _, param := range w.Get("kept").Array() {
		want.References = append(want.References, chat.Reference{Param: param.Str})
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("%s:\n%+v, want\n%+v", c.Get("name"), *got, want)
	}
}

// TestFactsOfImageModels: a model that draws does it unasked, and not where it was asked for text only.
func TestFactsOfImageModels(t *testing.T) {
	for body, want := range map[string]bool{simple: true, `{"contents":[],"generationConfig":{"responseModalities":["TEXT"]}}`: false} {
		got, err := Facts([]byte(body), "gemini-2.5-flash-image", false)
		if err != nil || got.ImageOut != want {
			t.Errorf("%s: %v, %+v", body, err, got)
		}
	}
}

// TestRecordedFacts holds the bound of the input against what was billed.
func TestRecordedFacts(t *testing.T) {
	n, opaque := 0, 0
	for _, s := range chattest.Recorded(t, "generatecontent", 1) {
		if s.Request == "" {
			continue
		}
		got, err := Facts([]byte(s.Request), s.Model, s.Stream)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		n++
		input := s.Of.Get("expect.usage.prompt_tokens").Int()
		if got.Opaque {
			opaque++
		} else if got.InputBytes+64 < input {
			t.Errorf("%s: bounded by %d, billed %d", s.Name, got.InputBytes, input)
		}
	}
	if n < 20 || opaque > n/4 {
		t.Errorf("%d recorded requests, %d of them opaque", n, opaque)
	}
}

func TestRecordedEmbedFacts(t *testing.T) {
	n := 0
	for _, s := range chattest.Recorded(t, "embeddings", 1) {
		if gjson.Get(s.Request, "requests").Raw == "" {
			continue
		}
		n++
		got, err := EmbedFacts([]byte(s.Request), s.Model, true)
		if err != nil || got.Opaque || got.InputBytes < s.Of.Get("expect.usage.prompt_tokens").Int() {
			t.Errorf("%s: %v, %+v", s.Name, err, got)
		}
	}
	if n == 0 {
		t.Error("no recorded request")
	}
}
