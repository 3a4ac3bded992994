package generate

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

func (b *builder) tools(o *fields.Object) error {
	b.functions = map[string]bool{}
	return o.Each("tools", func(param string, v gjson.Result) error {
		t, err := fields.Read(param, v)
		if err != nil {
			return err
		}
		for _, name := range t.Names {
			switch name {
			case "functionDeclarations":
				err = t.Each(name, b.declaration)
			case "googleSearch", "googleSearchRetrieval":
				b.out.WebSearch = &struct{}{}
				if v := t.Get(name); !v.IsObject() || len(v.Map()) > 0 { // settings of the search would be lost
					err = fields.Uncarried(t.Place(name))
				}
			default:
				err = fields.Uncarried(t.Place(name))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// declaration declares a function. What it returns is not declared: the model sees its results.
func (b *builder) declaration(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema":
		default:
			if word := o.Get(name).Str; name != "behavior" || word != "BLOCKING" && word != "UNSPECIFIED" {
				return fields.Uncarried(o.Place(name))
			}
		}
	}
	var f function
	if f.Name, err = o.Text("name"); err != nil || f.Name == "" {
		return chat.Invalid(o.Place("name"), "`%s` must be the name of a function.", o.Place("name"))
	}
	if f.Description, err = o.Text("description"); err != nil {
		return err
	}
	if f.Parameters, err = oneSchema(&o, "parameters", "parametersJsonSchema"); err != nil {
		return err
	}
	b.functions[f.Name] = true
	b.out.Tools = append(b.out.Tools, tool{Type: "function", Function: f})
	return nil
}

// oneSchema is a schema in Google's style under the one name or a JSON Schema under one of the others; nil if
// there is none.
func oneSchema(o *fields.Object, googles string, names ...string) (json.RawMessage, error) {
	var schema json.RawMessage
	for _, name := range append([]string{googles}, names...) {
		v := o.Get(name)
		switch {
		case !v.Exists():
			continue
		case schema != nil:
			return nil, chat.Invalid(o.Place(name), "`%s` and another schema cannot both be given.", o.Place(name))
		case !v.IsObject():
			return nil, chat.Invalid(o.Place(name), "`%s` must be an object.", o.Place(name))
		case name == googles:
			schema = schemaOf(v)
		default:
			schema = json.RawMessage(v.Raw)
		}
	}
	return schema, nil
}

// toolConfig says which functions may or must be called. How calls are streamed changes no answer.
func (b *builder) toolConfig(o *fields.Object) error {
	if !o.Has("toolConfig") {
		return nil
	}
	c, err := fields.Read(o.Place("toolConfig"), o.Get("toolConfig"))
	if err != nil {
		return err
	}
	for _, name := range c.Names {
		switch name {
		case "functionCallingConfig":
			if err := b.calling(c.Place(name), c.Get(name)); err != nil {
				return err
			}
		case "includeServerSideToolInvocations":
		default:
			return fields.Uncarried(c.Place(name))
		}
	}
	return nil
}

func (b *builder) calling(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		if name != "mode" && name != "allowedFunctionNames" && name != "streamFunctionCallArguments" {
			return fields.Uncarried(o.Place(name))
		}
	}
	mode, err := o.Text("mode")
	if err != nil {
		return err
	}
	var names []string
	err = o.Each("allowedFunctionNames", func(param string, v gjson.Result) error {
		if !b.functions[v.Str] {
			return chat.Invalid(param, "`%s` names no declared function.", param)
		}
		names = append(names, v.Str)
		return nil
	})
	if err != nil {
		return err
	}
	word, ok := map[string]string{"": "auto", "MODE_UNSPECIFIED": "auto", "AUTO": "auto", "VALIDATED": "auto", "ANY": "required", "NONE": "none"}[strings.ToUpper(mode)]
	if !ok {
		return chat.Invalid(o.Place("mode"), "`%s` must be AUTO, ANY, NONE or VALIDATED.", o.Place("mode"))
	}
	if len(b.functions) > 0 {
		b.out.ToolChoice = choiceOf(word, names)
	}
	return nil
}

// choiceOf is tool_choice.
func choiceOf(mode string, names []string) any {
	switch {
	case mode == "none" || len(names) == 0:
		return mode
	case mode == "required" && len(names) == 1:
		return named{Type: "function", Function: &function{Name: names[0]}}
	}
	c := allowed{Type: "allowed_tools"}
	c.Tools.Mode = mode
	for _, name := range names {
		c.Tools.Tools = append(c.Tools.Tools, named{Type: "function", Function: &function{Name: name}})
	}
	return c
}
