package responses

import (
	"encoding/json"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// chatTool is a function of chat completions.
type chatTool struct {
	Type         string          `json:"type"`
	Function     function        `json:"function"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

type function struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
}

// functionTool is a function as the response repeats it.
type functionTool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description json.RawMessage `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
	Strict      json.RawMessage `json:"strict"`
}

// searchOptions are web_search_options.
type searchOptions struct {
	ContextSize string        `json:"search_context_size,omitempty"`
	Location    *userLocation `json:"user_location,omitempty"`
}

type userLocation struct {
	Type        string   `json:"type"` // approximate
	Approximate location `json:"approximate"`
}

type location struct {
	City     string `json:"city,omitempty"`
	Country  string `json:"country,omitempty"`
	Region   string `json:"region,omitempty"`
	Timezone string `json:"timezone,omitempty"`
}

// tools reads the tools that may be called: functions, and the search of the web.
func (t *translation) tools(param string, v gjson.Result) {
	t.Each(param, v, func(param string, tool gjson.Result) {
		t.Object(param, tool)
		switch kind := tool.Get("type").Str; {
		case kind == "function":
			t.function(param, tool)
		case isWebSearch(kind):
			t.search(param, tool)
		case kind == "":
			t.Failf(param+".type", "`%s.type` is missing.", param)
		default:
			t.Refusef(param+".type", "The tool `%.64s` is OpenAI's alone, and this model is another provider's.", kind)
		}
	})
}

func (t *translation) function(param string, v gjson.Result) {
	own := chatTool{Type: "function", Function: function{Name: t.TextOrNull(param+".name", v.Get("name")),
		Description: t.TextOrNull(param+".description", v.Get("description"))}}
	if own.Function.Name == "" {
		t.Failf(param+".name", "`%s.name` is missing.", param)
	}
	if v.Get("defer_loading").Bool() || v.Get("async").Bool() {
		t.Refusef(param, "`%s` is to be loaded or to run in a way that is OpenAI's alone.", param)
	}
	parameters := v.Get("parameters")
	if parameters.Type != gjson.Null {
		t.Object(param+".parameters", parameters)
		own.Function.Parameters = json.RawMessage(parameters.Raw)
	}
	if strict := v.Get("strict"); strict.Type != gjson.Null {
		is := t.Bool(param+".strict", strict)
		own.Function.Strict = &is
	}
	own.CacheControl = rawOf(v.Get("cache_control"))
	t.out.Tools = append(t.out.Tools, own)
	t.sent.tools = append(t.sent.tools, chat.Encode(&functionTool{Type: "function", Name: own.Function.Name,
		Description: rawOf(v.Get("description")), Parameters: rawOf(parameters), Strict: rawOf(v.Get("strict"))}))
}

// rawOf is a value as it was written; nil where there is none.
func rawOf(v gjson.Result) json.RawMessage {
	if v.Type == gjson.Null {
		return nil
	}
	return json.RawMessage(v.Raw)
}

// search reads the tool that searches the web.
func (t *translation) search(param string, v gjson.Result) {
	own := &searchOptions{ContextSize: t.TextOrNull(param+".search_context_size", v.Get("search_context_size"))}
	if live := v.Get("external_web_access"); live.Type == gjson.False {
		t.Refusef(param+".external_web_access", "`%s.external_web_access` cannot be turned off for this model.", param)
	}
	if v.Get("filters.allowed_domains.0").Exists() {
		t.Refusef(param+".filters", "`%s.filters` is not carried to this model's provider.", param)
	}
	if where := v.Get("user_location"); where.IsObject() {
		l := location{City: where.Get("city").Str, Country: where.Get("country").Str, Region: where.Get("region").Str, Timezone: where.Get("timezone").Str}
		if l != (location{}) {
			own.Location = &userLocation{Type: "approximate", Approximate: l}
		}
	}
	t.out.WebSearchOptions = own
	t.sent.tools = append(t.sent.tools, json.RawMessage(v.Raw))
}

// chosen is a tool that tool_choice names.
type chosen struct {
	Type     string     `json:"type"` // function
	Function chosenName `json:"function"`
}

type chosenName struct {
	Name string `json:"name"`
}

// allowedTools are the tools that may be called at this time.
type allowedTools struct {
	Type    string      `json:"type"` // allowed_tools
	Allowed allowedList `json:"allowed_tools"`
}

type allowedList struct {
	Mode  string   `json:"mode"`
	Tools []chosen `json:"tools"`
}

func (t *translation) toolChoice(v gjson.Result) {
	const param = "tool_choice"
	switch kind := v.Get("type").Str; {
	case v.Type == gjson.String:
		t.out.ToolChoice = v.Str
	case kind == "function":
		t.out.ToolChoice = t.chosen(param, v)
	case kind == "allowed_tools":
		own := allowedTools{Type: kind, Allowed: allowedList{Mode: t.TextOrNull(param+".mode", v.Get("mode")), Tools: []chosen{}}}
		t.Each(param+".tools", v.Get("tools"), func(param string, tool gjson.Result) {
			own.Allowed.Tools = append(own.Allowed.Tools, t.chosen(param, tool))
		})
		t.out.ToolChoice = own
	default:
		t.Refusef(param, "`%s` can be auto, none, required, a function or allowed_tools: other tools of OpenAI's cannot be demanded of this model.", param)
	}
}

func (t *translation) chosen(param string, v gjson.Result) chosen {
	name := t.TextOrNull(param+".name", v.Get("name"))
	if v.Get("type").Str != "function" || name == "" {
		t.Refusef(param, "`%s` names no function.", param)
	}
	return chosen{Type: "function", Function: chosenName{name}}
}

// responseFormat is response_format.
type responseFormat struct {
	Type   string     `json:"type"`
	Schema jsonSchema `json:"json_schema"`
}

type jsonSchema struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
}

// format reads `text`: what form the answer is to have, and how long it should be.
func (t *translation) format(v gjson.Result) {
	t.Object("text", v)
	if length := v.Get("verbosity"); length.Type != gjson.Null {
		t.sent.text.Verbosity = json.RawMessage(length.Raw)
		if t.out.Verbosity = t.TextOrNull("text.verbosity", length); t.out.Verbosity == "medium" {
			t.out.Verbosity = "" // the neutral value, which few providers know
		}
	}
	f := v.Get("format")
	if f.Type == gjson.Null {
		return
	}
	t.sent.text.Format = json.RawMessage(f.Raw)
	switch kind := f.Get("type").Str; kind {
	case "text":
	case "json_object":
		t.out.ResponseFormat = map[string]string{"type": kind}
	case "json_schema":
		own := responseFormat{Type: kind, Schema: jsonSchema{Name: t.TextOrNull("text.format.name", f.Get("name")),
			Description: t.TextOrNull("text.format.description", f.Get("description")), Schema: rawOf(f.Get("schema"))}}
		if strict := f.Get("strict"); strict.Type != gjson.Null {
			is := t.Bool("text.format.strict", strict)
			own.Schema.Strict = &is
		}
		t.out.ResponseFormat = own
	default:
		t.Failf("text.format.type", "`text.format.type` must be text, json_object or json_schema.")
	}
}
