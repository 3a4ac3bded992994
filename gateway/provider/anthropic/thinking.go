package anthropic

import (
	"encoding/json"
	"strconv"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// minBudget is the least that Anthropic takes for thinking.
const minBudget = 1024

// levels are OpenAI's words for how hard to think: what they are in tokens, and in Anthropic's words.
var levels = map[string]struct {
	budget int64
	effort string
}{
	"minimal": {1024, "low"},
	"low":     {2048, "low"},
	"medium":  {8192, "medium"},
	"high":    {16384, "high"},
	"xhigh":   {32768, "xhigh"},
}

// think decides whether and how hard the model thinks. `thinking` of Anthropic's own goes as it is;
// reasoning_effort stands for it where it is absent.
func (x *translation) think() error {
	asked, effort := x.r.Thinking, x.r.ReasoningEffort
	level, known := levels[effort]
	switch {
	case asked.Exists() && !asked.IsObject():
		return chat.Invalid("thinking", "`thinking` must be an object.")
	case effort != "" && effort != "none" && !known:
		return chat.Invalid("reasoning_effort", "`reasoning_effort` must be none, minimal, low, medium, high or xhigh.")
	case asked.Exists():
		x.out.Thinking = json.RawMessage(asked.Raw)
	case effort == "none" && x.model.always():
		return &chat.Unsupported{Param: "reasoning_effort", Message: "This model of Anthropic's always thinks: `reasoning_effort` cannot be none."}
	case effort == "none" && x.model.unasked():
		x.out.Thinking = json.RawMessage(`{"type":"disabled"}`)
	case known:
		x.out.Thinking = x.thinkingOf(level.budget)
	}
	if known && x.model.effort() {
		x.config().Effort = level.effort
		if level.effort == "xhigh" && !x.model.xhigh() {
			x.config().Effort = "high"
		}
	}
	return x.settle()
}

// thinkingOf is the thinking that a level stands for; nil where there is none, or no room for it. The
// budget is at most half of the maximum, so that there is something left to answer with.
func (x *translation) thinkingOf(budget int64) json.RawMessage {
	budget = max(min(budget, x.out.MaxTokens/2), minBudget)
	switch {
	case !x.model.thinks():
		return nil
	case x.model.adaptive():
		return json.RawMessage(`{"type":"adaptive"}`)
	case budget >= x.out.MaxTokens:
		return nil
	}
	return json.RawMessage(`{"type":"enabled","budget_tokens":` + strconv.FormatInt(budget, 10) + `}`)
}

// settle takes thinking back where the request could only fail with it: a client cannot make up the
// thinking that it did not keep. (Adaptive thinking does without.) A forced tool beside it is the
// client's to decide about.
func (x *translation) settle() error {
	if x.looping && gjson.GetBytes(x.out.Thinking, "type").Str == "enabled" {
		x.out.Thinking = nil
	}
	if !x.thinking() || !x.forced() || x.model.thinksForced() {
		return nil
	}
	param := "tool_choice"
	if x.jsonTool != "" {
		param = "response_format"
	}
	return &chat.Unsupported{Param: param, Message: "Anthropic does not let a model think that is forced to call a tool: leave `reasoning_effort` and `thinking` out, or do not force one."}
}

// thinking says whether the request asks for thinking.
func (x *translation) thinking() bool {
	kind := gjson.GetBytes(x.out.Thinking, "type").Str
	return kind == "enabled" || kind == "adaptive"
}
