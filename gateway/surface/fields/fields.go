package fields

import (
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// Object is one object, read.
type Object struct {
	Param string   // its place in the request, for refusals: contents[0].parts[1]; "" = the whole body
	Names []string // canonical, in the order they came
	of    map[string]gjson.Result
}

// costly are the fields on which money depends, by how they read without case and underscores.
var costly = folded("model", "contents", "content", "parts", "requests", "generateContentRequest",
	"systemInstruction", "tools", "generationConfig", "cachedContent", "serviceTier",
	"maxOutputTokens", "candidateCount", "responseModalities", "speechConfig", "routingConfig", "modelSelectionConfig",
	"inlineData", "fileData", "fileUri", "fileSearch", "retrieval", "mimeType", "functionResponse", "functionDeclarations", "googleSearch", "googleSearchRetrieval")

func folded(names ...string) map[string]string {
	out := make(map[string]string, len(names))
	for _, name := range names {
		out[fold(name)] = name
	}
	return out
}

func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// Read reads an object. It fails with *chat.Unsupported (Invalid) on what is none, and on fields that are
// given twice or misspelt.
func Read(param string, v gjson.Result) (Object, error) {
	o := Object{Param: param}
	if !v.IsObject() {
		return o, chat.Invalid(param, "%s must be an object.", quoted(param))
	}
	o.of = map[string]gjson.Result{}
	var err error
	v.ForEach(func(key, value gjson.Result) bool {
		err = o.add(key.String(), value)
		return err == nil
	})
	return o, err
}

func (o *Object) add(key string, value gjson.Result) error {
	name := Camel(key)
	place := o.Place(name)
	if right, ok := costly[fold(name)]; ok && right != name {
		return chat.Invalid(place, "Unknown field %s: did you mean `%s`?", quoted(place), right)
	}
	if _, ok := o.of[name]; ok {
		return chat.Invalid(place, "%s is given twice, in two spellings.", quoted(place))
	}
	o.of[name] = value
	if value.Type != gjson.Null {
		o.Names = append(o.Names, name)
	}
	return nil
}

// Camel is the canonical form of a field's name.
func Camel(name string) string {
	if strings.ToLower(name) != name || !strings.Contains(name, "_") {
		return name
	}
	words := strings.Split(name, "_")
	for i, word := range words[1:] {
		if word != "" {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "")
}

// Get is the value of a field; it does not exist if the field is absent or null.
func (o *Object) Get(name string) gjson.Result {
	if v := o.of[name]; v.Type != gjson.Null {
		return v
	}
	return gjson.Result{}
}

// Has says whether the field is there.
func (o *Object) Has(name string) bool { return o.Get(name).Exists() }

// Place is where a field stands in the request.
func (o *Object) Place(name string) string {
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "..."
	}
	if o.Param == "" {
		return name
	}
	return o.Param + "." + name
}

// Text is a string; "" if it is absent.
func (o *Object) Text(name string) (string, error) {
	var s chat.Strict
	text := s.TextOrNull(o.Place(name), o.Get(name))
	return text, s.Err
}

// Bool is true or false; false if it is absent.
func (o *Object) Bool(name string) (bool, error) {
	if !o.Has(name) {
		return false, nil
	}
	var s chat.Strict
	yes := s.Bool(o.Place(name), o.Get(name))
	return yes, s.Err
}

// Count is a whole number from 1 to most that is written as such; 0 if it is absent.
func (o *Object) Count(name string, most int64) (int64, error) {
	if !o.Has(name) {
		return 0, nil
	}
	var s chat.Strict
	n := s.Count(o.Place(name), o.Get(name), 1, most)
	return n, s.Err
}

// Each goes through the elements of a list.
func (o *Object) Each(name string, do func(param string, v gjson.Result) error) error {
	v, param := o.Get(name), o.Place(name)
	switch {
	case !v.Exists():
		return nil
	case v.IsObject() || v.Type == gjson.String:
		return do(param, v)
	}
	var s chat.Strict
	s.Each(param, v, func(param string, element gjson.Result) { s.Fail(do(param, element)) })
	return s.Err
}

// Uncarried refuses what only Google's own models can be asked.
func Uncarried(param string) error {
	return &chat.Unsupported{Param: param, Message: "`" + param + "` can be asked of Google's models only."}
}

// Texts are the texts of a content's parts, which may have nothing else to be carried elsewhere.
func Texts(param string, content gjson.Result) (texts []string, err error) {
	o, err := Read(param, content)
	if err != nil {
		return nil, err
	}
	err = o.Each("parts", func(param string, v gjson.Result) error {
		p, err := Read(param, v)
		if err != nil {
			return err
		}
		for _, name := range p.Names {
			if name != "text" {
				return Uncarried(p.Place(name))
			}
		}
		text, err := p.Text("text")
		texts = append(texts, text)
		return err
	})
	return texts, err
}

// maxName bounds what of a client's own name stands in a refusal, in bytes.
const maxName = 100

func quoted(param string) string {
	if param == "" {
		return "The body"
	}
	return "`" + param + "`"
}
