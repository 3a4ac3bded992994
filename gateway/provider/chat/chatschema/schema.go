package chatschema

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var (
	//go:embed openai.json
	openAI []byte
	//go:embed extensions.json
	extensions []byte
)

// Completion checks one JSON text that an upstream gave as a whole answer. The error says where it is
// not a chat.completion.
func Completion(body []byte) error { return plain().holds("completion", body) }

// StrictCompletion checks one that this product made: it has every required field, and no unknown one.
func StrictCompletion(body []byte) error { return strict().holds("completion", body) }

// Chunk checks the data of one event of an upstream's stream.
func Chunk(data []byte) error { return plain().holds("chunk", data) }

// StrictChunk checks one that this product made: it has no unknown field.
func StrictChunk(data []byte) error { return strict().holds("chunk", data) }

// ErrorBody checks the body of an error, the product's or an upstream's. Fields that are not described
// are accepted.
func ErrorBody(body []byte) error { return plain().holds("error_body", body) }

var (
	plain  = sync.OnceValue(func() schemas { return compile(false, Nulls) })
	strict = sync.OnceValue(func() schemas { return compile(true, Nulls) })
)

// resource is how errors name the description; without a scheme it would be a file of this machine.
const resource = "embedded:///openai.json"

// schemas are the compiled descriptions, by the name of the object.
type schemas map[string]*jsonschema.Schema

func (s schemas) holds(name string, text []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("not one JSON text: %w", err)
	}
	return s[name].Validate(v)
}

// compile puts the description together. Its parts are embedded, so that a failure is a defect.
func compile(strict bool, nulls []Place) schemas {
	doc, objects := describe()
	for _, p := range nulls {
		fields := objects[p.Object].(map[string]any)["properties"].(map[string]any)
		fields[p.Field] = map[string]any{"anyOf": []any{fields[p.Field], map[string]any{"type": "null"}}}
	}
	for _, object := range objects {
		if object := object.(map[string]any); strict && object["properties"] != nil {
			object["additionalProperties"] = false
		}
	}
	for _, p := range Omissions {
		if object := objects[p.Object].(map[string]any); !strict {
			object["required"] = slices.DeleteFunc(object["required"].([]any), func(name any) bool { return name == p.Field })
		}
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.AssertContent()
	if err := c.AddResource(resource, doc); err != nil {
		panic(err)
	}
	out := schemas{}
	for _, name := range []string{"completion", "chunk", "error_body"} {
		out[name] = c.MustCompile(resource + "#/$defs/" + name)
	}
	return out
}

// describe reads the description with the extensions in it, and the objects that it consists of.
func describe() (doc, objects map[string]any) {
	doc, more := read(openAI), read(extensions)
	objects = doc["$defs"].(map[string]any)
	maps.Copy(objects, more["$defs"].(map[string]any))
	for name, added := range more["fields"].(map[string]any) {
		maps.Copy(objects[name].(map[string]any)["properties"].(map[string]any), added.(map[string]any))
	}
	return doc, objects
}

func read(text []byte) map[string]any {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	return v.(map[string]any)
}
