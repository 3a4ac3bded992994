package chat

import (
	"bytes"

	"github.com/tidwall/gjson"
)

// What a body that was made here has beyond OpenAI's own parameters, by where it stands.
var (
	beyondBody    = fieldSet("thinking", "top_k", "extra_body")
	beyondMessage = fieldSet("thinking_blocks", "reasoning_content", "extra_content", "cache_control")
	beyondPart    = fieldSet("cache_control", "extra_content")
)

func fieldSet(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, name := range names {
		out[name] = true
	}
	return out
}

// Plain is a chat-completions body without what only this package's translators know: reasoning and its
// signatures, cache marks, parameters of other providers. OpenAI refuses bodies with them. Whatever else
// stands there stays as it is, in its order; drop names further parameters to leave out.
func Plain(body []byte, drop ...string) []byte {
	beyond := fieldSet(drop...)
	for name := range beyondBody {
		beyond[name] = true
	}
	return object(gjson.ParseBytes(body), beyond, map[string]rewriter{
		"messages": list(func(m gjson.Result) []byte {
			return object(m, beyondMessage, map[string]rewriter{"content": list(plainPart), "tool_calls": list(plainPart)})
		}),
		"tools": list(func(t gjson.Result) []byte {
			return object(t, beyondPart, map[string]rewriter{"function": plainPart})
		}),
	})
}

// rewriter is what becomes of a value.
type rewriter func(v gjson.Result) []byte

func plainPart(v gjson.Result) []byte { return object(v, beyondPart, nil) }

// list rewrites each element of a list; what is none stays.
func list(each rewriter) rewriter {
	return func(v gjson.Result) []byte {
		if !v.IsArray() {
			return []byte(v.Raw)
		}
		var parts [][]byte
		v.ForEach(func(_, element gjson.Result) bool {
			parts = append(parts, each(element))
			return true
		})
		return join('[', parts, ']')
	}
}

// object leaves members out and rewrites others; what is no object stays.
func object(v gjson.Result, beyond map[string]bool, rewritten map[string]rewriter) []byte {
	if !v.IsObject() {
		return []byte(v.Raw)
	}
	var parts [][]byte
	v.ForEach(func(key, value gjson.Result) bool {
		name := key.String()
		if beyond[name] {
			return true
		}
		raw := []byte(value.Raw)
		if rewrite := rewritten[name]; rewrite != nil {
			raw = rewrite(value)
		}
		parts = append(parts, bytes.Join([][]byte{[]byte(key.Raw), raw}, []byte{':'}))
		return true
	})
	return join('{', parts, '}')
}

func join(open byte, parts [][]byte, end byte) []byte {
	out := append([]byte{open}, bytes.Join(parts, []byte{','})...)
	return append(out, end)
}
