package provider

import (
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// maxSchemaDepth bounds the recursion into a schema; deeper values are null. maxSchemaItems bounds
// the items that a minimum may ask for, maxSchemaBytes the value.
const (
	maxSchemaDepth = 6
	maxSchemaItems = 4
	maxSchemaBytes = 16 << 10
)

// structured is what the request wants instead of words: a call of tool (its name as JSON) with
// text as arguments, or text as answer. Both are empty for words.
func (w *wishes) structured() (tool, text, refused string) {
	named := w.toolChoice.Get("function.name")
	if w.toolChoice.Str == "required" || named.Type == gjson.String {
		function := w.function(named)
		if !function.Exists() {
			return "", "", "tool_choice names no function of tools."
		}
		parameters := function.Get("parameters")
		return function.Get("name").Raw, string(appendExample(nil, parameters, parameters, 0)), ""
	}
	switch w.format.Get("type").Str {
	case "json_object":
		return "", `{"answer":"` + simulatedWords[0] + `"}`, ""
	case "json_schema":
		schema := w.format.Get("json_schema.schema")
		return "", string(appendExample(nil, schema, schema, 0)), ""
	}
	return "", "", ""
}

// function finds the named function of the tools, or the first if there is no name.
func (w *wishes) function(named gjson.Result) (found gjson.Result) {
	w.tools.ForEach(func(_, tool gjson.Result) bool {
		function := tool.Get("function")
		name := function.Get("name")
		if name.Type != gjson.String || (named.Exists() && name.Str != named.Str) {
			return true
		}
		found = function
		return false
	})
	return found
}

// appendExample appends a small JSON value that fits a schema, as far as a simulation needs it:
// type, enum, const, $ref within the schema, anyOf, required properties, minItems.
func appendExample(out []byte, schema, root gjson.Result, depth int) []byte {
	schema = resolved(schema, root)
	if depth > maxSchemaDepth || len(out) > maxSchemaBytes {
		return append(out, `null`...)
	}
	if v := schema.Get("const"); v.Exists() {
		return append(out, v.Raw...)
	}
	if v := schema.Get("enum.0"); v.Exists() {
		return append(out, v.Raw...)
	}
	if v := schema.Get("anyOf.0"); v.Exists() {
		return appendExample(out, v, root, depth+1)
	}
	switch typeOf(schema, depth) {
	case "object":
		return appendObject(out, schema, root, depth)
	case "array":
		return appendArray(out, schema, root, depth)
	case "string":
		return append(out, `"`+simulatedWords[0]+`"`...)
	case "integer", "number":
		if v := schema.Get("minimum"); v.Type == gjson.Number {
			return append(out, v.Raw...)
		}
		return append(out, '0')
	case "boolean":
		return append(out, `true`...)
	}
	return append(out, `null`...)
}

// typeOf is a schema's type, the first of several; at the top everything is an object.
func typeOf(schema gjson.Result, depth int) string {
	t := schema.Get("type")
	if t.IsArray() {
		t = t.Get("0")
	}
	if t.Str == "" && (depth == 0 || schema.Get("properties").IsObject()) {
		return "object"
	}
	return t.Str
}

// resolved follows references of the forms "#/$defs/name" and "#/definitions/name".
func resolved(schema, root gjson.Result) gjson.Result {
	for range maxSchemaDepth {
		ref := schema.Get(`\$ref`)
		if !ref.Exists() {
			return schema
		}
		path, ok := strings.CutPrefix(ref.Str, "#/")
		group, name, _ := strings.Cut(path, "/")
		if !ok || (group != "$defs" && group != "definitions") {
			return gjson.Result{}
		}
		schema = member(root.Get(gjson.Escape(group)), name)
	}
	return gjson.Result{}
}

// member is the value of a key, taken literally.
func member(object gjson.Result, key string) (found gjson.Result) {
	if object.IsObject() && key != "" {
		found = object.Get(gjson.Escape(key))
	}
	return found
}

func appendObject(out []byte, schema, root gjson.Result, depth int) []byte {
	properties, n := schema.Get("properties"), 0
	out = append(out, '{')
	schema.Get("required").ForEach(func(_, name gjson.Result) bool {
		if name.Type != gjson.String {
			return true
		}
		if n > 0 {
			out = append(out, ',')
		}
		n++
		out = append(append(out, name.Raw...), ':')
		out = appendExample(out, member(properties, name.Str), root, depth+1)
		return len(out) < maxSchemaBytes
	})
	return append(out, '}')
}

func appendArray(out []byte, schema, root gjson.Result, depth int) []byte {
	least, _ := strconv.Atoi(schema.Get("minItems").Raw) // no number: none
	out = append(out, '[')
	for i := range min(least, maxSchemaItems) {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendExample(out, schema.Get("items"), root, depth+1)
	}
	return append(out, ']')
}
