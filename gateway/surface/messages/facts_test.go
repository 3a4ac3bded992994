package messages

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"llm-gateway/gateway/provider/anthropic"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

// show renders what is unusual in the facts of a usual request.
func show(body string, f *chat.Facts) string {
	var s strings.Builder
	say := func(unusual bool, format string, args ...any) {
		if unusual {
			fmt.Fprintf(&s, " "+format, args...)
		}
	}
	say(f.Model != "m", "model=%s", f.Model)
	say(f.Stream, "stream")
	say(f.MaxOutput != 9, "output=%d", f.MaxOutput)
	extra := f.InputBytes - int64(len(body))
	say(extra != 0, "bytes=%d", extra)
	say(f.Opaque, "opaque")
	say(f.Rounds != 1, "rounds=%d", f.Rounds)
	say(f.Searches != 0 || f.WebSearch, "searches=%d", f.Searches)
	say(f.Images != 0, "images=%d/%d", f.Images, f.ImageBytes)
	say(f.ServiceTier != "", "tier=%s", f.ServiceTier)
	say(f.Geo != "", "geo=%s", f.Geo)
	say(f.Speed != "", "speed=%s", f.Speed)
	say(f.EndUser != "", "user=%s", f.EndUser)
	for _, r := range f.References {
		say(true, "kept=%s:%s", r.Param, r.ID)
	}
	say(f.Choices != 1 || f.AudioIn || f.AudioOut || f.ImageOut || f.PredictionLen != 0 || f.IncludeUsage, "what this API does not have")
	return strings.TrimSpace(s.String())
}

func TestFacts(t *testing.T) {
	_, cases := chattest.Cases(t, "testdata/facts.txt")
	for _, c := range cases {
		f, err := Facts([]byte(c.Request))
		got := ""
		var refused *chat.Unsupported
		switch {
		case errors.As(err, &refused):
			got = "refused: " + refused.Param
			if refused.Message == "" {
				t.Errorf("%s: refused without words", c.Name)
			}
		case err != nil:
			t.Errorf("%s: %v", c.Name, err)
		default:
			got = show(c.Request, f)
		}
		if got != c.Want {
			t.Errorf("%s:\n got %s\nwant %s", c.Name, got, c.Want)
		}
	}
}

// TestCountFacts: what is only counted needs no maximum.
func TestCountFacts(t *testing.T) {
	f, err := CountFacts([]byte(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil || f.Model != "m" {
		t.Error(f, err)
	}
	if _, err := CountFacts([]byte(`{"model":"m","max_tokens":-5,"messages":[{"role":"user","content":"hi"}]}`)); err == nil {
		t.Error("a wrong maximum is wrong all the same")
	}
}

// TestConstants: both sides must mean the same by them.
func TestConstants(t *testing.T) {
	if DefaultMaxUses != anthropic.DefaultMaxUses || SignaturePrefix != anthropic.ForeignSignature {
		t.Error("this package and package anthropic disagree")
	}
}

// FuzzFacts takes any JSON object: what comes of it is a refusal by name, or facts within their bounds.
func FuzzFacts(f *testing.F) {
	_, cases := chattest.Cases(f, "testdata/facts.txt")
	for _, c := range cases {
		f.Add([]byte(c.Request))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !isObject(body) {
			return
		}
		facts, err := Facts(body)
		var refused *chat.Unsupported
		if err != nil {
			if !errors.As(err, &refused) || refused.Param == "" || refused.Message == "" {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if facts.Model == "" || facts.MaxOutput < 1 || facts.MaxOutput > 2*maxAskedTokens || facts.Rounds < 1 || facts.Choices != 1 ||
			facts.InputBytes < int64(len(body)) || facts.Searches > facts.Rounds || facts.ImageBytes > int64(len(body)) ||
			facts.Searches > 0 && !facts.WebSearch || facts.Rounds > 1 && !facts.Opaque {
			t.Fatalf("%+v", facts)
		}
	})
}
