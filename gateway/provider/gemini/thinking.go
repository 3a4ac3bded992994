package gemini

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// model is what a model's name tells: gemini-3.1-flash-lite is of version 3.1.
type model struct {
	name         string
	major, minor int // 0, 0 where the name has none
}

// newest is the version of the names that Google moves on by itself (gemini-flash-latest).
const newest = 1 << 10

func parseModel(name string) model {
	m := model{name: strings.TrimPrefix(name, "models/")}
	rest, ok := strings.CutPrefix(m.name, "gemini-")
	if !ok {
		return m
	}
	if strings.HasSuffix(rest, "-latest") {
		m.major = newest
	}
	version, _, _ := strings.Cut(rest, "-")
	major, minor, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err == nil {
		m.major = n
		m.minor, _ = strconv.Atoi(minor) // none is 0
	}
	return m
}

func (m model) atLeast(major, minor int) bool {
	return m.major > major || m.major == major && m.minor >= minor
}

func (m model) has(word string) bool { return strings.Contains(m.name, word) }

// signs tells whether the model demands the signatures of its function calls back.
func (m model) signs() bool { return m.atLeast(3, 0) }

// thinks tells whether the model can be told how much to think. Those that draw or speak cannot.
func (m model) thinks() bool { return m.atLeast(2, 5) && !m.has("image") && !m.has("tts") }

// levels are the thinking levels of the model, from the least.
func (m model) levels() []string {
	switch all := []string{"minimal", "low", "medium", "high"}; {
	case m.has("flash-lite"), m.has("flash") && !m.atLeast(3, 7):
		return all
	case m.has("flash"), m.has("pro") && m.atLeast(3, 1):
		return all[1:]
	}
	return []string{"low", "high"}
}

// thinkingConfig has a level or a budget, not both: Google refuses that.
type thinkingConfig struct {
	IncludeThoughts bool   `json:"includeThoughts,omitempty"`
	ThinkingBudget  *int64 `json:"thinkingBudget,omitempty"` // tokens; 0 = off, -1 = the model decides
	ThinkingLevel   string `json:"thinkingLevel,omitempty"`
}

// efforts are the values of reasoning_effort that this API knows, and their rank. Google has nothing
// above high.
var efforts = map[string]int{"none": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 4, "max": 4}

// budgets are what Google's own OpenAI-compatible API makes of them, in tokens.
var budgets = [...]int64{0, 1024, 1024, 8192, 24576}

// leastOfPro is the least that gemini-2.5-pro can be told to think.
const leastOfPro = 128

func (b *builder) thinking() error {
	effort := b.r.ReasoningEffort
	if b.r.Thinking.Exists() {
		if effort != "" {
			return chat.Invalid("thinking", "`thinking` and `reasoning_effort` cannot both be given.")
		}
		return b.anthropicThinking()
	}
	if effort == "" {
		return nil
	}
	rank, ok := efforts[effort]
	if !ok {
		return chat.Invalid("reasoning_effort", "`reasoning_effort` must be none, minimal, low, medium, high or xhigh.")
	}
	b.out.GenerationConfig.ThinkingConfig = b.model.think(rank)
	return nil
}

// think is the configuration for an effort; nil for a model that cannot be told.
func (m model) think(rank int) *thinkingConfig {
	if !m.thinks() {
		return nil
	}
	c := &thinkingConfig{IncludeThoughts: rank > 0}
	if m.atLeast(3, 0) {
		levels := m.levels()
		i := slices.IndexFunc(levels, func(level string) bool { return efforts[level] >= rank })
		c.ThinkingLevel = levels[i]
		return c
	}
	budget := budgets[rank]
	if m.has("pro") {
		budget = max(budget, leastOfPro)
	}
	c.ThinkingBudget = &budget
	return c
}

// anthropicThinking reads Anthropic's parameter: {"type": "enabled", "budget_tokens": 2048} or disabled.
func (b *builder) anthropicThinking() error {
	t, budget := b.r.Thinking, b.r.Thinking.Get("budget_tokens")
	switch n, err := strconv.ParseInt(budget.Raw, 10, 32); {
	case t.Get("type").Str == "disabled":
		b.out.GenerationConfig.ThinkingConfig = b.model.think(0)
	case t.Get("type").Str != "enabled" || budget.Type != gjson.Number || err != nil || n < 0:
		return chat.Refuse(provider, "thinking")
	case !b.model.thinks():
		return &chat.Unsupported{Param: "thinking", Message: "This model cannot be told how much to think."}
	default:
		b.out.GenerationConfig.ThinkingConfig = &thinkingConfig{IncludeThoughts: true, ThinkingBudget: &n}
	}
	return nil
}

// extra reads Google's own parameters, by the names that its OpenAI-compatible API gives them.
func (b *builder) extra() error {
	for _, name := range slices.Sorted(maps.Keys(b.r.Extra)) {
		param, v := "extra_body.google."+name, gjson.Parse(b.r.Extra[name])
		var err error
		switch {
		case v.Type == gjson.Null:
		case name == "thinking_config":
			err = b.thinkingConfig(param, v)
		case name == "safety_settings" && v.IsArray():
			err = take(&b.out.SafetySettings, param, v.Raw)
		case name == "cached_content" && v.Type == gjson.String:
			b.out.CachedContent = v.Str
		default:
			err = chat.Refuse(provider, param)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) thinkingConfig(param string, v gjson.Result) error {
	if b.out.GenerationConfig.ThinkingConfig != nil {
		return chat.Invalid(param, "`%s` and `reasoning_effort` or `thinking` cannot both be given.", param)
	}
	if !v.IsObject() {
		return chat.Invalid(param, "`%s` must be an object.", param)
	}
	c := &thinkingConfig{}
	var err error
	v.ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null && !c.set(key.Str, v) {
			err = chat.Refuse(provider, param+"."+key.Str)
		}
		return err == nil
	})
	b.out.GenerationConfig.ThinkingConfig = c
	return err
}

// set takes one field, in either spelling; false if it is none, or of the wrong type.
func (c *thinkingConfig) set(name string, v gjson.Result) bool {
	switch name {
	case "include_thoughts", "includeThoughts":
		c.IncludeThoughts = v.Bool()
		return v.IsBool()
	case "thinking_budget", "thinkingBudget":
		n, err := json.Number(v.Raw).Int64()
		c.ThinkingBudget = &n
		return v.Type == gjson.Number && err == nil
	case "thinking_level", "thinkingLevel":
		c.ThinkingLevel = v.Str
		return v.Type == gjson.String
	}
	return false
}
