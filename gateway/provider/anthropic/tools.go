package anthropic

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

const (
	// MaxWebSearches bounds the searches of one answer that web_search_options asks for; each is billed.
	MaxWebSearches = 5

	webSearchType = "web_search_20250305"
	maxToolName   = 64
)

// ownTool is the type of a tool that Anthropic defines: a name and the date of its version.
var ownTool = regexp.MustCompile(`^[a-z][a-z_]*_20[0-9]{6}$`)

func isToolName(name string) bool { return len(name) <= maxToolName && only(name, "-_") }

func badName(param string) error {
	return &chat.Unsupported{Param: param, Message: "Anthropic takes names of tools of 1 to 64 letters, digits, - and _."}
}

// tools translates the tools that may be called.
func (x *translation) tools() error {
	for i := range x.r.Tools {
		t := &x.r.Tools[i]
		if allowed := x.r.ToolChoice.Allowed; allowed != nil && !slices.Contains(allowed, t.Name) {
			continue
		}
		own, err := x.tool(t)
		if err != nil {
			return err
		}
		x.out.Tools = append(x.out.Tools, own)
	}
	if x.r.WebSearch.Exists() {
		x.out.Tools = append(x.out.Tools, webSearch(x.r.WebSearch))
	}
	return nil
}

func (x *translation) tool(t *chat.Tool) (any, error) {
	switch {
	case ownTool.MatchString(t.Type):
		return json.RawMessage(t.Raw.Raw), nil
	case t.Type != "function":
		return nil, &chat.Unsupported{Param: t.Param + ".type", Message: "Anthropic has no tools of this type."}
	case !isToolName(t.Name):
		return nil, badName(t.Param + ".function.name")
	case t.Parameters.Exists() && !t.Parameters.IsObject():
		return nil, chat.Invalid(t.Param+".function.parameters", "`%s.function.parameters` must be an object.", t.Param)
	}
	own := tool{Name: t.Name, Description: t.Description, InputSchema: inputSchema(t.Parameters), CacheControl: chat.RawObject(t.CacheControl)}
	if t.Strict && x.model.structured() {
		own.Strict, own.InputSchema = true, closed(own.InputSchema)
	}
	return own, nil
}

// inputSchema is a schema of arguments; Anthropic demands its type.
func inputSchema(parameters gjson.Result) json.RawMessage {
	switch {
	case strings.Trim(parameters.Raw, "{} \t\r\n") == "":
		return json.RawMessage(`{"type":"object","properties":{}}`)
	case !parameters.Get("type").Exists():
		return json.RawMessage(`{"type":"object",` + strings.TrimSpace(parameters.Raw)[1:])
	}
	return json.RawMessage(parameters.Raw)
}

type searchTool struct {
	Type     string          `json:"type"`
	Name     string          `json:"name"`
	MaxUses  int             `json:"max_uses"`
	Location *searchLocation `json:"user_location,omitempty"`
}

type searchLocation struct {
	Type     string `json:"type"` // approximate
	City     string `json:"city,omitempty"`
	Region   string `json:"region,omitempty"`
	Country  string `json:"country,omitempty"`
	Timezone string `json:"timezone,omitempty"`
}

// webSearch is the search that web_search_options stands for.
func webSearch(options gjson.Result) searchTool {
	t := searchTool{Type: webSearchType, Name: "web_search", MaxUses: MaxWebSearches}
	l := searchLocation{Type: "approximate"}
	where := options.Get("user_location.approximate")
	l.City, l.Region, l.Country, l.Timezone = where.Get("city").Str, where.Get("region").Str, where.Get("country").Str, where.Get("timezone").Str
	if l != (searchLocation{Type: "approximate"}) {
		t.Location = &l
	}
	return t
}

// choices are Anthropic's words for the modes.
var choices = map[string]string{"": "auto", "auto": "auto", "none": "none", "required": "any", "function": "tool"}

// choice translates which tools may, or must, be called.
func (x *translation) choice() error {
	c := &x.r.ToolChoice
	own := toolChoice{Type: choices[c.Mode], Name: c.Name}
	single := x.r.ParallelToolCalls != nil && !*x.r.ParallelToolCalls
	switch {
	case own.Type == "":
		return chat.Invalid("tool_choice", "`tool_choice` must be auto, none, required, or an object that names a tool.")
	case own.Type == "tool" && !x.has(c.Name):
		return chat.Invalid("tool_choice", "`tool_choice` names a tool that is not among `tools`.")
	case len(x.out.Tools) == 0 && (own.Type == "any" || len(c.Allowed) > 0):
		return chat.Invalid("tool_choice", "`tool_choice` demands a tool, and there is none.")
	case len(x.out.Tools) == 0 || c.Mode == "" && !single:
		return nil
	}
	own.Single = single && own.Type != "none"
	x.out.ToolChoice = &own
	return nil
}

// has says whether a tool of the client's is being sent.
func (x *translation) has(name string) bool {
	return slices.ContainsFunc(x.r.Tools, func(t chat.Tool) bool {
		return t.Name == name && (x.r.ToolChoice.Allowed == nil || slices.Contains(x.r.ToolChoice.Allowed, name))
	})
}

// forced says whether the model must call a tool.
func (x *translation) forced() bool {
	c := x.out.ToolChoice
	return c != nil && (c.Type == "any" || c.Type == "tool")
}
