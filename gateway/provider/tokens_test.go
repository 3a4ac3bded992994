package provider

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCountText(t *testing.T) {
	cases := []struct {
		model, text string
		want        int64
	}{
		{"gpt-4o", "", 0},
		{"gpt-4o", "hello world", 2},
		{"gpt-4o", "日本語", 2},
		{"gpt-4o-mini-2024-07-18", "tiktoken is great!", 6},
		{"gpt-4", "tiktoken is great!", 6},
		{"gpt-3.5-turbo-0125", "日本語", 4},
		{"gpt-4-turbo", "日本語", 4},
		{"gpt-4.1", "日本語", 2},
		{"gpt-5.6-sol", "日本語", 2},
		{"o3", "日本語", 2},
		{"ft:gpt-4o:acme::x", "日本語", 2},
		{"openai/gpt-oss-120b", "日本語", 2},
		{"sim-small", "日本語", 2},
		{"claude-sonnet-5", "日本語", 3},
		{"claude-sonnet-5", "hello world", 3},
		{"gemini-3.5-flash", "hello", 2},
		{"", "", 0},
	}
	for _, c := range cases {
		if got := CountText(c.model, c.text); got != c.want {
			t.Errorf("%s %q: %d, want %d", c.model, c.text, got, c.want)
		}
	}
}

func TestCountPrompt(t *testing.T) {
	plain := `"messages":[{"role":"user","content":"Count from 1 to 5"}]`
	cases := []struct {
		model, body string
		want        int64
		exact       bool
	}{
		{"gpt-3.5-turbo", plain, 14, true},
		{"gpt-5-nano", `"messages":[{"role":"developer","content":"Hello, I'm a developer!"}]`, 12, true},
		{"gpt-4o", `"messages":[{"role":"user","name":"bob","content":"Count from 1 to 5"}]`, 16, true},
		{"gpt-4o", `"messages":[{"role":"user","content":[{"type":"text","text":"Count from 1 to 5"}]}]`, 14, true},
		{"gpt-4o", `"messages":[]`, 3, true},
		{"gpt-4o", plain + `,"tools":[],"response_format":{"type":"text"},"modalities":["text"]`, 14, true},
		{"gpt-4o", plain + `,"response_format":{"type":"json_object"}`, 20, false},
		{"gpt-4o", plain + `,"tools":[{"a":1}]`, 20, false},
		{"gpt-4o", `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]`, 92, false},
		{"gpt-4o", `"messages":[{"role":"tool","tool_call_id":"c","content":"x"}]`, 8, false},
		{"gpt-4o-audio-preview", plain, 14, false},
		{"gpt-6", plain, 14, false},
		{"claude-sonnet-5", plain, 19, false},
	}
	for _, c := range cases {
		got, exact := CountPrompt(c.model, []byte("{"+c.body+"}"))
		if got != c.want || exact != c.exact {
			t.Errorf("%s %s: %d, %v; want %d, %v", c.model, c.body, got, exact, c.want, c.exact)
		}
	}
}

// TestCountingIsLinear: the tokenizer alone takes minutes for some of these.
func TestCountingIsLinear(t *testing.T) {
	for _, unit := range []string{" \n", "\n\n ", "\u00a0\n", " ", "a", "é", "!", "'s", "1", " !", "\r\n"} {
		text := strings.Repeat(unit, 300_000/len(unit))
		start := time.Now()
		n, _ := countWith(o200k(), text)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%q: %v", unit, took)
		}
		if n < 1 || n > int64(len(text)) {
			t.Errorf("%q: %d tokens in %d bytes", unit, n, len(text))
		}
	}
}

func TestCountIsExactOnUsualText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"a", " the", "\n", "  ", "é", "日本", "😀",
			"\t", "123", "!?", "don't", "\r\n", strings.Repeat(" ", 100), "\u00a0", "\x00"})).Draw(t, "text"), "")
		n, exact := countWith(o200k(), text)
		want, err := o200k().Count(text)
		if err != nil || (exact && n != int64(want)) {
			t.Fatalf("%q: %d, want %d, %v", text, n, want, err)
		}
		if !exact && !strings.Contains(text, strings.Repeat(" ", 100)) && len(text) < maxBlankRun {
			t.Fatalf("%q is usual", text)
		}
	})
}

func TestLongTextIsExtrapolated(t *testing.T) {
	text := strings.Repeat(" the", maxCountedBytes/2)
	n, exact := countWith(o200k(), text)
	if want := int64(maxCountedBytes / 2); exact || n < want || n > want+2 {
		t.Errorf("%d, %v; want %d", n, exact, want)
	}
}
