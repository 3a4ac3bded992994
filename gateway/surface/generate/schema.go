package generate

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// schemaOf makes a JSON Schema of one in Google's style, which is OpenAPI's: types in capitals, null by a
// flag, counts as strings, and some words of its own. What it does not know goes through as it is.
func schemaOf(v gjson.Result) json.RawMessage {
	if !v.IsObject() {
		return json.RawMessage(v.Raw)
	}
	w := objectWriter{b: []byte{'{'}}
	nullable := false
	v.ForEach(func(key, value gjson.Result) bool {
		nullable = nullable || fields.Camel(key.String()) == "nullable" && value.Bool()
		return true
	})
	v.ForEach(func(key, value gjson.Result) bool {
		if value.Type != gjson.Null || key.Str == "default" {
			w.keyword(key.String(), value, nullable)
		}
		return true
	})
	return append(w.b, '}')
}

// objectWriter writes an object, a field at a time.
type objectWriter struct{ b []byte }

func (w *objectWriter) add(name string, raw []byte) {
	if len(w.b) > 1 {
		w.b = append(w.b, ',')
	}
	w.b = append(append(w.b, chat.Encode(name)...), ':')
	w.b = append(w.b, raw...)
}

// keyword translates one keyword of a schema.
func (w *objectWriter) keyword(key string, v gjson.Result, nullable bool) {
	switch name := fields.Camel(key); name {
	case "nullable", "propertyOrdering":
	case "type":
		w.kind(v, nullable)
	case "properties", "defs", "$defs":
		w.add(dollar(name), schemasByName(v))
	case "items", "additionalProperties":
		w.add(name, schemaOf(v))
	case "anyOf", "oneOf", "allOf", "prefixItems":
		w.add(name, schemaList(v, nullable && name == "anyOf"))
	case "enum":
		w.enum(v, nullable)
	case "format":
		if v.Str != "enum" {
			w.add(name, []byte(v.Raw))
		}
	case "example":
		w.add("examples", append(append([]byte{'['}, v.Raw...), ']'))
	case "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties":
		w.add(name, count(v))
	case "ref":
		w.add("$ref", []byte(v.Raw))
	default:
		w.add(name, []byte(v.Raw))
	}
}

// dollar is the name that JSON Schema has for definitions.
func dollar(name string) string {
	if name == "defs" {
		return "$defs"
	}
	return name
}

// count is a number that protocol buffers may write as a string.
func count(v gjson.Result) []byte {
	if v.Type == gjson.String && v.Str != "" && strings.Trim(v.Str, "0123456789") == "" && (v.Str == "0" || v.Str[0] != '0') {
		return []byte(v.Str)
	}
	return []byte(v.Raw)
}

func (w *objectWriter) kind(v gjson.Result, nullable bool) {
	switch name := strings.ToLower(v.Str); {
	case v.IsArray():
		w.add("type", []byte(strings.ToLower(v.Raw)))
	case name == "type_unspecified" || v.Type != gjson.String:
	case nullable && name != "null":
		w.add("type", chat.Encode([]string{name, "null"}))
	default:
		w.add("type", chat.Encode(name))
	}
}

func (w *objectWriter) enum(v gjson.Result, nullable bool) {
	list := []json.RawMessage{}
	for _, value := range v.Array() {
		list = append(list, json.RawMessage(value.Raw))
	}
	if nullable {
		list = append(list, json.RawMessage("null"))
	}
	w.add("enum", chat.Encode(list))
}

// schemasByName translates the values of an object whose names are the client's own.
func schemasByName(v gjson.Result) []byte {
	if !v.IsObject() {
		return []byte(v.Raw)
	}
	w := objectWriter{b: []byte{'{'}}
	v.ForEach(func(key, schema gjson.Result) bool {
		w.add(key.String(), schemaOf(schema))
		return true
	})
	return append(w.b, '}')
}

func schemaList(v gjson.Result, nullable bool) []byte {
	list := []json.RawMessage{}
	for _, schema := range v.Array() {
		list = append(list, schemaOf(schema))
	}
	if nullable {
		list = append(list, json.RawMessage(`{"type":"null"}`))
	}
	return chat.Encode(list)
}
