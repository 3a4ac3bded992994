package chat

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"llm-gateway/domain"
)

func TestCleanUsage(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		``: ``, `{}`: ``, `null`: ``, `[1]`: ``, `7`: ``, `"x"`: ``,
		`{"prompt_tokens": 7, "details" : {"cached_tokens":0}}`:              `{"prompt_tokens":7,"details":{"cached_tokens":0}}`,
		`{"service_tier":"standard","input_tokens":1}`:                       `{"input_tokens":1}`,
		`{"promptTokensDetails":[{"modality":"AUDIO","tokenCount":5}]}`:      `{"promptTokensDetails":[{"modality":"AUDIO","tokenCount":5}]}`,
		`{"a":[{"model":"claude","n":1},{"model":"x"},[],{}],"b":{"c":"d"}}`: `{"a":[{"n":1}]}`,
		`{"a":1,"a":2}`: `{"a":1}`, `{"a\u0000":1,"b c":2,"":3,"é":4,"ok_9":5}`: `{"ok_9":5}`,
		`{"a":1e400,"b":-1,"c":0.25,"d":true,"e":null,"f":1E5,"g":-0.5}`:            `{"b":-1,"c":0.25,"g":-0.5}`,
		`{"a":1234567890123456789012345}`:                                           ``,
		`{"a":{"b":{"c":{"d":1}}}}`:                                                 `{"a":{"b":{"c":{"d":1}}}}`,
		`{"a":{"b":{"c":{"d":{"e":1}}}},"z":1}`:                                     `{"z":1}`,
		`{"a":[` + strings.Repeat(`1,`, 1000) + `1]}`:                               `{"a":[` + strings.Repeat(`1,`, 1000) + `1]}`,
		`{"a":[` + strings.Repeat(`1,`, 1100) + `1]}`:                               ``,
		`{"` + strings.Repeat("a", 64) + `":1,"` + strings.Repeat("b", 65) + `":1}`: `{"` + strings.Repeat("a", 64) + `":1}`,
	} {
		if got := string(CleanUsage([]byte(raw))); got != want {
			t.Errorf("%.200s becomes %.200s, want %.200s", raw, got, want)
		}
	}
}

// TestCleanUsageOfAnything: whatever comes, what is kept can be put into an event.
func TestCleanUsageOfAnything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := []byte(rapid.StringOf(rapid.SampledFrom([]rune("{}[]\"\\:,.-0123456789eaté \x00"))).Draw(t, "raw"))
		if got := CleanUsage(raw); got != nil && (!json.Valid(got) || len(got) > domain.MaxUsage || got[0] != '{') {
			t.Fatalf("%q becomes %q", raw, got)
		}
	})
}

func TestRawUsageOver(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{``, ``, ``}, {`{"a":1}`, ``, `{"a":1}`}, {``, `{"a":1}`, `{"a":1}`},
		{`{"a":1,"b":2}`, `{"b":3,"c":4}`, `{"b":3,"c":4,"a":1}`},
		{`{"a":1}`, `{"a":null}`, `{"a":1}`}, {`{}`, `{}`, `{}`}, {`{"a":1}`, `{"a":2}`, `{"a":2}`},
	} {
		if got := string(RawUsageOver([]byte(c[0]), []byte(c[1]))); got != c[2] {
			t.Errorf("%s under %s is %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestRawUsage(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{`{"a": 1}`: `{"a": 1}`, `null`: ``, `[]`: ``, `5`: ``,
		`{"a":"` + strings.Repeat("x", maxRawUsage) + `"}`: ``} {
		if got := string(RawUsage(gjson.Parse(raw))); got != want {
			t.Errorf("%.100s is kept as %.100s", raw, got)
		}
	}
}
