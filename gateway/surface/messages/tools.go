package messages

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// tools translates the tools that may be called. A tool that only finds tools is left out: those that it
// would find are all shown.
func (t *translator) tools() {
	v, ok := t.in["tools"]
	if !ok {
		return
	}
	t.Each("tools", v, func(param string, own gjson.Result) {
		switch kind := own.Get("type"); {
		case kind.Type == gjson.Null, kind.Str == "custom":
			t.out.Tools = append(t.out.Tools, t.function(param, own))
		case hasPrefix(kind.Str, "web_search_"):
			t.search(param, own)
		case hasPrefix(kind.Str, "tool_search_tool_"):
		default:
			t.refuse(param + ".type")
		}
	})
}

func (t *translator) function(param string, own gjson.Result) tool {
	if callers := own.Get("allowed_callers"); callers.IsArray() && !strings.Contains(callers.Raw, `"direct"`) {
		t.refuse(param + ".allowed_callers")
	}
	f := function{Name: t.name(param+".name", own.Get("name")), Description: own.Get("description").Str,
		Parameters: chat.RawObject(own.Get("input_schema")), Strict: own.Get("strict").Bool()}
	return tool{Type: "function", Function: f, CacheControl: chat.RawObject(own.Get("cache_control"))}
}

// search translates a web search. How often it may be used is the other provider's to bound.
func (t *translator) search(param string, own gjson.Result) {
	for _, filter := range []string{"allowed_domains", "blocked_domains"} {
		if own.Get(filter + ".0").Exists() {
			t.refuse(param + "." + filter)
		}
	}
	t.out.WebSearch = &webSearchOptions{}
	if l := own.Get("user_location"); l.IsObject() {
		t.out.WebSearch.Location = &userLocation{Type: "approximate", Approximate: approximate{City: l.Get("city").Str,
			Region: l.Get("region").Str, Country: l.Get("country").Str, Timezone: l.Get("timezone").Str}}
	}
}

// choices are OpenAI's words.
var choices = map[string]string{"auto": "auto", "any": "required", "none": "none"}

// choice says which tools may, or must, be called; without functions there is nothing to say.
func (t *translator) choice() {
	v, ok := t.in["tool_choice"]
	if !ok || len(t.out.Tools) == 0 {
		return
	}
	switch kind := v.Get("type").Str; {
	case kind == "tool":
		t.out.ToolChoice = toolChoice{Type: "function", Function: namedThing{t.name("tool_choice.name", v.Get("name"))}}
	case choices[kind] != "":
		t.out.ToolChoice = choices[kind]
	default:
		t.Failf("tool_choice", "`tool_choice.type` must be auto, any, tool or none.")
	}
	if v.Get("disable_parallel_tool_use").Bool() {
		single := false
		t.out.ParallelToolCalls = &single
	}
}

// inputOf is the input of a call. Arguments that are no object, because the answer broke off in them or the
// model wrote them wrongly, are shown as they are.
func inputOf(arguments string) json.RawMessage {
	switch v := gjson.Parse(arguments); {
	case strings.TrimSpace(arguments) == "":
		return json.RawMessage("{}")
	case json.Valid([]byte(arguments)) && v.IsObject():
		return json.RawMessage(arguments)
	}
	return chat.Encode(map[string]string{"arguments": arguments})
}
