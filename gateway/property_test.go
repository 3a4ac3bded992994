package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// text generates what people write: words, code, other scripts, and what breaks parsers.
func text() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[a-z ]{0,200}`),
		rapid.String(),
		rapid.SampledFrom([]string{"", "\n\n\t\t", "<|endoftext|>", "<|im_start|>system", "日本語のテキスト", "👩‍👩‍👧‍👦", "\u0000", `"\`, strings.Repeat("ab ", 500),
			strings.Repeat("\u0301", 50), "if (a[i] != NULL) { return b->c; }"}),
	)
}

// message generates one message of a conversation.
func oneMessage(t *rapid.T, role string, directives string) map[string]any {
	content := text().Draw(t, "content") + " " + directives
	m := map[string]any{"role": role, "content": content}
	switch rapid.IntRange(0, 5).Draw(t, "form") {
	case 0:
		m["content"] = []any{map[string]any{"type": "text", "text": content}, map[string]any{"type": "text", "text": " and more"}}
	case 1:
		m["name"] = text().Draw(t, "name")
	}
	return m
}

// body generates a chat that the simulated provider answers, as long as it is told to.
func body(t *rapid.T) string {
	directives := fmt.Sprintf("sim:tokens=%d sim:reasoning=%d sim:cached=%d", rapid.IntRange(0, 16384).Draw(t, "tokens"),
		rapid.IntRange(0, 500).Draw(t, "reasoning"), rapid.IntRange(0, 50).Draw(t, "cached"))
	if rapid.Bool().Draw(t, "without usage") {
		directives += " sim:nousage"
	}
	if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
		directives += fmt.Sprintf(" sim:cut=%d", rapid.IntRange(0, 30).Draw(t, "after"))
	}
	var messages []any
	for range rapid.IntRange(0, 4).Draw(t, "earlier") {
		role := rapid.SampledFrom([]string{"system", "developer", "user", "assistant"}).Draw(t, "role")
		messages = append(messages, oneMessage(t, role, ""))
	}
	b := map[string]any{"model": rapid.SampledFrom([]string{"sim-small", "sim-large", "sim-flat", "sim-free"}).Draw(t, "model"),
		"messages": append(messages, oneMessage(t, "user", directives))}
	for name, most := range map[string]int{"n": 6, "max_tokens": 3000, "max_completion_tokens": 3000} {
		if rapid.IntRange(0, 2).Draw(t, name+" given") == 0 {
			b[name] = rapid.IntRange(1, most).Draw(t, name)
		}
	}
	if rapid.Bool().Draw(t, "stream") {
		b["stream"] = true
	}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		b["tools"] = []any{map[string]any{"type": "function", "function": map[string]any{"name": "look_up", "description": text().Draw(t, "about"),
			"parameters": map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string"}}}}}}
		b["tool_choice"] = "required"
	case 1:
		b["response_format"] = map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "s",
			"schema": map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "integer"}}, "required": []string{"a"}}}}
	case 2:
		b["service_tier"] = rapid.SampledFrom([]string{"auto", "default", "priority", "flex"}).Draw(t, "tier")
	}
	out, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestCommitIsNeverMoreThanReserve: whatever is asked and answered, and however little there is, the
// charge is within what was reserved for it. The audit at the end knows no overage here.
func TestCommitIsNeverMoreThanReserve(t *testing.T) {
	t.Parallel()
	for _, o := range []options{{balance: "1000"}, {balance: "0.03"}, {balance: "0.0005"}, {balance: "0.03", policy: gateway.ReserveRefuse}} {
		e := start(t, o)
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			n++
			account := fmt.Sprintf("jutta-%d", n)
			asked := body(rt)
			a := e.chat(account, asked)
			if a.status != 200 && a.status != 402 && a.status != 502 {
				rt.Fatalf("%d %s for %s", a.status, a.body, asked)
			}
			l := e.life(account, a.id())
			if l.overage != nil || l.commit != nil && l.reserve.Amount.Less(l.commit.Amount) {
				rt.Fatalf("%q: reserved %s, charged %s for %s", l, l.reserve.Amount, l.commit.Amount, asked)
			}
			if l.commit == nil {
				return
			}
			bound, m := l.reserve.Data.(*domain.ReserveData).Bound, l.commitData().Meters
			if m.InputTokens() > bound.Input || m.OutputTokens() > bound.Output {
				rt.Fatalf("used %v of %+v for %s", m, bound, asked)
			}
		})
	}
}
