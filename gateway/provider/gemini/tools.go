package gemini

import (
	"slices"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// tools declares the functions in one entry and each of Google's own tools in one of its own.
func (b *builder) tools() error {
	b.functions = map[string]bool{}
	var functions, own tool
	for i := range b.r.Tools {
		t := &b.r.Tools[i]
		if t.Type != "function" {
			if err := own.enable(t); err != nil {
				return err
			}
			continue
		}
		d := declaration{Name: t.Name, Description: t.Description}
		if t.Parameters.Exists() {
			if !t.Parameters.IsObject() {
				return chat.Invalid(t.Param+".function.parameters", "`%s.function.parameters` must be an object.", t.Param)
			}
			if err := take(&d.Parameters, t.Param+".function.parameters", t.Parameters.Raw); err != nil {
				return err
			}
		}
		b.functions[t.Name], b.strict = true, b.strict || t.Strict
		functions.FunctionDeclarations = append(functions.FunctionDeclarations, d)
	}
	if err := b.webSearch(&own); err != nil {
		return err
	}
	b.out.Tools = slices.DeleteFunc([]tool{functions, {GoogleSearch: own.GoogleSearch}, {URLContext: own.URLContext}, {CodeExecution: own.CodeExecution}},
		func(t tool) bool {
			return t.FunctionDeclarations == nil && t.GoogleSearch == nil && t.URLContext == nil && t.CodeExecution == nil
		})
	return nil
}

// enable turns on a tool of Google's own. Settings of such a tool are refused: they would be lost.
func (t *tool) enable(of *chat.Tool) error {
	switch of.Type {
	case "google_search":
		t.GoogleSearch = &struct{}{}
	case "url_context":
		t.URLContext = &struct{}{}
	case "code_execution":
		t.CodeExecution = &struct{}{}
	default:
		return chat.Refuse(provider, of.Param)
	}
	var err error
	of.Raw.ForEach(func(key, v gjson.Result) bool {
		if key.Str != "type" && key.Str != "cache_control" && v.Type != gjson.Null && v.Raw != "{}" {
			err = chat.Refuse(provider, of.Param+"."+key.Str)
		}
		return err == nil
	})
	return err
}

// webSearch is OpenAI's own way to ask for a search.
func (b *builder) webSearch(own *tool) error {
	if !b.r.WebSearch.Exists() {
		return nil
	}
	own.GoogleSearch = &struct{}{}
	var err error
	b.r.WebSearch.ForEach(func(key, v gjson.Result) bool {
		if v.Type != gjson.Null && (key.Str != "search_context_size" || v.Str != "medium") {
			err = chat.Refuse(provider, "web_search_options."+key.Str)
		}
		return err == nil
	})
	return err
}

// toolConfig says which functions may or must be called.
func (b *builder) toolConfig() error {
	if len(b.functions) == 0 {
		if mode := b.r.ToolChoice.Mode; mode == "required" || mode == "function" {
			return chat.Invalid("tool_choice", "`tool_choice` asks for a function, but `tools` has none.")
		}
		return nil
	}
	// A client that demands one function wants its arguments, and reads the first call: it may say so.
	if p := b.r.ParallelToolCalls; p != nil && !*p && b.r.ToolChoice.Mode != "function" {
		return &chat.Unsupported{Param: "parallel_tool_calls", Message: "Gemini decides by itself how many functions it calls at once: `parallel_tool_calls` cannot be false."}
	}
	calling, err := b.calling()
	if err != nil {
		return err
	}
	mixed := len(b.out.Tools) > 1 && b.model.atLeast(3, 0)
	// VALIDATED is AUTO whose arguments keep to their schemas. Beside Google's own tools it is demanded.
	if mayValidate := calling == nil || calling.Mode == "AUTO"; mayValidate && (mixed || b.strict && b.model.atLeast(2, 5)) {
		calling = &functionCalling{Mode: "VALIDATED"}
	}
	if calling != nil || mixed {
		b.out.ToolConfig = &toolConfig{FunctionCalling: calling, ServerSide: mixed}
	}
	return nil
}

// calling translates tool_choice; nil where none was named.
func (b *builder) calling() (*functionCalling, error) {
	choice := &b.r.ToolChoice
	switch {
	case choice.Mode == "function":
		return b.only("ANY", []string{choice.Name})
	case choice.Allowed != nil && choice.Mode == "required":
		return b.only("ANY", choice.Allowed)
	case choice.Allowed != nil && (choice.Mode == "auto" || choice.Mode == ""):
		return b.narrow()
	case choice.Allowed != nil:
		return nil, chat.Invalid("tool_choice.allowed_tools.mode", "`tool_choice.allowed_tools.mode` must be auto or required.")
	case choice.Mode == "":
		return nil, nil
	}
	return &functionCalling{Mode: map[string]string{"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.Mode]}, nil
}

// only allows the named functions, which must be among the tools.
func (b *builder) only(mode string, names []string) (*functionCalling, error) {
	for _, name := range names {
		if !b.functions[name] {
			return nil, chat.Invalid("tool_choice", "`tool_choice` names a function that is not among `tools`.")
		}
	}
	if len(names) == 0 {
		return nil, chat.Invalid("tool_choice", "`tool_choice` names no function.")
	}
	return &functionCalling{Mode: mode, Allowed: names}, nil
}

// narrow leaves out the declarations that are not allowed. Not every model can be told in the mode AUTO
// which functions to leave alone; one that does not know a function leaves it alone.
func (b *builder) narrow() (*functionCalling, error) {
	calling, err := b.only("AUTO", b.r.ToolChoice.Allowed)
	if err != nil {
		return nil, err
	}
	functions := &b.out.Tools[0]
	functions.FunctionDeclarations = slices.DeleteFunc(functions.FunctionDeclarations, func(d declaration) bool {
		return !slices.Contains(calling.Allowed, d.Name)
	})
	calling.Allowed = nil
	return calling, nil
}
