package gemini

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// pendingCall is a function call whose arguments may still be coming, a value at a time:
// {"jsonPath": "$.places[0].name", "stringValue": "Bos", "willContinue": true}.
type pendingCall struct {
	id, name, signature string
	whole               gjson.Result // args, where they came at once
	root                *value       // or what partialArgs have built so far; nil = none came
}

func (p *pendingCall) take(call gjson.Result, signature string) {
	p.signature = cmp.Or(p.signature, signature)
	p.id = cmp.Or(p.id, call.Get("id").Str)
	if args := call.Get("args"); args.IsObject() {
		p.whole = args
	}
	for _, partial := range call.Get("partialArgs").Array() {
		if p.root == nil {
			p.root = &value{}
		}
		if at := p.root.find(partial.Get("jsonPath").Str); at != nil {
			at.set(partial)
		}
	}
}

// arguments is the JSON object of the arguments.
func (p *pendingCall) arguments() string {
	if p.root == nil {
		return compact(p.whole)
	}
	return string(p.root.object())
}

// value is a JSON value under construction: an object with fields, an array with items, or a leaf.
type value struct {
	names  []string // in the order they came
	fields map[string]*value
	items  []*value
	text   *strings.Builder // a string, which may grow
	raw    string           // any other leaf
}

// maxPathDepth bounds how deep a path may go.
const maxPathDepth = 64

// find walks a path like $.a[0]['b'] and makes what is not there yet; nil if it is no such path.
func (v *value) find(path string) *value {
	rest, ok := strings.CutPrefix(path, "$")
	for depth := 0; ok && rest != ""; depth++ {
		var step string
		if step, rest, ok = cutStep(rest); !ok || depth == maxPathDepth {
			return nil
		}
		if v = v.child(step); v == nil {
			return nil
		}
	}
	if !ok {
		return nil
	}
	return v
}

// cutStep takes the first step off a path: ".name", "['name']" or "[0]", which is returned with its
// bracket, so that it is told from a name.
func cutStep(path string) (step, rest string, ok bool) {
	if name, found := strings.CutPrefix(path, "."); found {
		if end := strings.IndexAny(name, ".["); end >= 0 {
			return name[:end], name[end:], end > 0
		}
		return name, "", name != ""
	}
	for _, quote := range []string{"'", `"`} {
		if name, found := strings.CutPrefix(path, "["+quote); found {
			return strings.Cut(name, quote+"]")
		}
	}
	step, rest, ok = strings.Cut(path, "]")
	return step, rest, ok && strings.HasPrefix(step, "[")
}

func (v *value) child(step string) *value {
	if index, found := strings.CutPrefix(step, "["); found {
		i, err := strconv.Atoi(index)
		if err != nil || i < 0 || i > len(v.items) {
			return nil // items come in their order
		}
		if i == len(v.items) {
			v.items = append(v.items, &value{})
		}
		return v.items[i]
	}
	if v.fields == nil {
		v.fields = map[string]*value{}
	}
	if v.fields[step] == nil {
		v.names, v.fields[step] = append(v.names, step), &value{}
	}
	return v.fields[step]
}

// set gives a leaf its value; pieces of a string are joined.
func (v *value) set(partial gjson.Result) {
	switch text, number, boolean := partial.Get("stringValue"), partial.Get("numberValue"), partial.Get("boolValue"); {
	case text.Type == gjson.String:
		if v.text == nil {
			v.text = &strings.Builder{}
		}
		v.text.WriteString(text.Str)
	case number.Type == gjson.Number:
		v.raw = number.Raw
	case boolean.IsBool():
		v.raw = boolean.Raw
	}
}

// object is the value as an object, which arguments always are.
func (v *value) object() []byte {
	b := []byte{'{'}
	for i, name := range v.names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, chat.Encode(name)...), ':')
		b = append(b, v.fields[name].json()...)
	}
	return append(b, '}')
}

// json is the value; one that nothing was set in is null, which is also how null comes.
func (v *value) json() []byte {
	switch {
	case v.fields != nil:
		return v.object()
	case v.items != nil:
		list := make([]json.RawMessage, len(v.items))
		for i, item := range v.items {
			list[i] = item.json()
		}
		return chat.Encode(list)
	case v.text != nil:
		return chat.Encode(v.text.String())
	case v.raw != "":
		return []byte(v.raw)
	}
	return []byte("null")
}
