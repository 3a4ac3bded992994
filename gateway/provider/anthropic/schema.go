package anthropic

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"
)

// maxSchemaDepth bounds the schemas that are looked into; deeper ones are the provider's to judge.
const maxSchemaDepth = 64

// closed adds "additionalProperties": false, which Anthropic demands of every object, where it is
// absent and takes nothing from the schema's meaning: at objects that name their properties, and that
// are not composed with other schemas. What answers to the closed schema answers to the open one. All
// else that Anthropic's schemas lack is left for it to refuse.
func closed(schema json.RawMessage) json.RawMessage {
	c := closer{}
	c.schema(gjson.ParseBytes(schema), 0)
	if c.composed {
		return schema
	}
	return c.out
}

// closer rewrites one schema.
type closer struct {
	out      []byte
	composed bool // schemas that depend on each other: closing one could change what others mean
}

// Keywords by what they hold. Those that negate, choose or depend on a condition make a schema composed.
var (
	schemasByName = map[string]bool{"properties": true, "$defs": true, "definitions": true}
	schemaLists   = map[string]bool{"anyOf": true, "allOf": true, "prefixItems": true}
	dependent     = map[string]bool{"oneOf": true, "not": true, "if": true, "dependentSchemas": true}
	// composing keywords at an object with properties of its own would be contradicted by closing it.
	composing = []string{"allOf", "anyOf", "$ref", "patternProperties", "additionalProperties", "unevaluatedProperties"}
)

func (c *closer) schema(s gjson.Result, depth int) {
	if !s.IsObject() || depth > maxSchemaDepth {
		c.out = append(c.out, s.Raw...)
		return
	}
	c.out = append(c.out, '{')
	seen := map[string]bool{}
	s.ForEach(func(key, v gjson.Result) bool {
		if len(seen) > 0 {
			c.out = append(c.out, ',')
		}
		seen[key.Str] = true
		c.out = append(append(c.out, key.Raw...), ':')
		c.member(key.Str, v, depth)
		return true
	})
	if closable(s, seen) {
		c.out = append(c.out, `,"additionalProperties":false`...)
	}
	c.out = append(c.out, '}')
}

// closable says whether an object may be closed: it names all that it demands, and nothing else adds to it.
func closable(s gjson.Result, seen map[string]bool) bool {
	for _, keyword := range composing {
		if seen[keyword] {
			return false
		}
	}
	named := map[string]bool{}
	s.Get("properties").ForEach(func(name, _ gjson.Result) bool {
		named[name.Str] = true
		return true
	})
	for _, name := range s.Get("required").Array() {
		if !named[name.Str] {
			return false
		}
	}
	return seen["properties"] && strings.Contains(s.Get("type").Raw, `"object"`)
}

// member writes the value of one keyword.
func (c *closer) member(keyword string, v gjson.Result, depth int) {
	switch {
	case dependent[keyword]:
		c.composed = true
	case keyword == "items":
		c.schema(v, depth+1)
	case schemasByName[keyword] && v.IsObject():
		c.each('{', '}', v, depth)
	case schemaLists[keyword] && v.IsArray():
		c.composed = c.composed || keyword == "allOf" && v.Get("#").Int() > 1
		c.each('[', ']', v, depth)
	default:
		c.out = append(c.out, v.Raw...)
	}
}

// each writes an object or a list of schemas.
func (c *closer) each(open, end byte, v gjson.Result, depth int) {
	c.out = append(c.out, open)
	first := true
	v.ForEach(func(key, s gjson.Result) bool {
		if !first {
			c.out = append(c.out, ',')
		}
		first = false
		if open == '{' {
			c.out = append(append(c.out, key.Raw...), ':')
		}
		c.schema(s, depth+1)
		return true
	})
	c.out = append(c.out, end)
}
