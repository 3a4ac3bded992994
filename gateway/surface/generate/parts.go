package generate

import (
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// say takes note of a text of the prompt.
func (b *builder) say(text string) {
	b.saysJSON = b.saysJSON || strings.Contains(strings.ToLower(text), "json")
}

// userPart translates a part of a content that is not the model's.
func (b *builder) userPart(p *fields.Object) (parts []part, err error) {
	for _, name := range p.Names {
		var one part
		switch name {
		case "text":
			one, err = b.textPart(p)
		case "inlineData":
			one, err = b.blob(p)
		case "fileData":
			one, err = b.link(p)
		case "mediaResolution", "thought", "thoughtSignature": // of the part beside it; a user has no thoughts
			continue
		default:
			err = fields.Uncarried(p.Place(name))
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, one)
	}
	return parts, nil
}

func (b *builder) textPart(p *fields.Object) (part, error) {
	text, err := p.Text("text")
	b.say(text)
	return part{Type: "text", Text: &text}, err
}

// audioFormats are OpenAI's names for types of sound.
var audioFormats = map[string]string{"wav": "wav", "x-wav": "wav", "wave": "wav", "mp3": "mp3", "mpeg": "mp3", "mpga": "mp3"}

// blob is data in place.
func (b *builder) blob(p *fields.Object) (part, error) {
	o, err := fields.Read(p.Place("inlineData"), p.Get("inlineData"))
	if err != nil {
		return part{}, err
	}
	mime, err := o.Text("mimeType")
	if err != nil {
		return part{}, err
	}
	data, err := o.Text("data")
	if err != nil {
		return part{}, err
	}
	if mime == "" || data == "" {
		return part{}, chat.Invalid(o.Param, "`%s` needs `mimeType` and `data`.", o.Param)
	}
	data = standard64(data)
	kind, sub, _ := strings.Cut(strings.ToLower(mime), "/")
	sub, _, _ = strings.Cut(sub, ";")
	switch kind {
	case "image":
		detail, err := b.resolution(p)
		return part{Type: "image_url", ImageURL: &imageURL{URL: "data:" + mime + ";base64," + data, Detail: detail}}, err
	case "audio":
		if format := audioFormats[sub]; format != "" {
			sub = format
		}
		return part{Type: "input_audio", InputAudio: &inputAudio{Data: data, Format: sub}}, nil
	}
	name, err := o.Text("displayName")
	if name == "" {
		name = "file." + strings.TrimPrefix(sub, "x-")
		if sub == "plain" {
			name = "file.txt"
		}
	}
	return part{Type: "file", File: &file{Name: name, Data: "data:" + mime + ";base64," + data}}, err
}

// link is a link to an image. Google's own files, and what else it fetches by itself, others cannot read.
func (b *builder) link(p *fields.Object) (part, error) {
	o, err := fields.Read(p.Place("fileData"), p.Get("fileData"))
	if err != nil {
		return part{}, err
	}
	uri, err := o.Text("fileUri")
	if err != nil {
		return part{}, err
	}
	mime, err := o.Text("mimeType")
	if err != nil {
		return part{}, err
	}
	image := mime == "" || strings.HasPrefix(strings.ToLower(mime), "image/")
	if !image || !strings.HasPrefix(uri, "https://") || strings.HasPrefix(uri, "https://generativelanguage.googleapis.com/") {
		return part{}, fields.Uncarried(o.Param)
	}
	detail, err := b.resolution(p)
	return part{Type: "image_url", ImageURL: &imageURL{URL: uri, Detail: detail}}, err
}

// resolution is the detail of an image: its own, or that of all.
func (b *builder) resolution(p *fields.Object) (string, error) {
	v := p.Get("mediaResolution")
	if v.IsObject() {
		v = v.Get("level")
	}
	if !v.Exists() {
		return b.detail, nil
	}
	return detailOf(p.Place("mediaResolution"), v)
}

// detailOf is OpenAI's word for Google's resolution.
func detailOf(param string, v gjson.Result) (string, error) {
	switch strings.TrimPrefix(v.Str, "MEDIA_RESOLUTION_") {
	case "UNSPECIFIED", "MEDIUM":
		return "", nil
	case "LOW":
		return "low", nil
	case "HIGH", "ULTRA_HIGH":
		return "high", nil
	}
	return "", fields.Uncarried(param)
}

// result takes in a function's result.
func (c *conversation) result(p *fields.Object) error {
	for _, name := range p.Names {
		if name != "functionResponse" && name != "thoughtSignature" {
			return fields.Uncarried(p.Place(name))
		}
	}
	o, err := fields.Read(p.Place("functionResponse"), p.Get("functionResponse"))
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "id", "name", "response", "parts", "scheduling":
		default:
			if name != "willContinue" || o.Get(name).Bool() {
				return fields.Uncarried(o.Place(name))
			}
		}
	}
	id, err := c.called(&o)
	if err != nil {
		return err
	}
	text, err := resultText(&o)
	if err != nil {
		return err
	}
	c.b.say(text)
	parts := []part{{Type: "text", Text: &text}}
	err = o.Each("parts", func(param string, v gjson.Result) error {
		of, err := fields.Read(param, v)
		if err != nil {
			return err
		}
		more, err := c.b.userPart(&of)
		parts = append(parts, more...)
		return err
	})
	c.results = append(c.results, message{Role: chat.RoleTool, ToolCallID: id, Content: contentOf(parts)})
	return err
}

// called is the id of the call that a result belongs to.
func (c *conversation) called(o *fields.Object) (string, error) {
	id, err := o.Text("id")
	if err != nil {
		return "", err
	}
	name, err := o.Text("name")
	if err != nil {
		return "", err
	}
	if id = c.calls.answer(id, name); id == "" {
		return "", chat.Invalid(o.Param, "`%s` is the result of no earlier function call.", o.Param)
	}
	return id, nil
}

// resultText is a result as a tool message has it: the text alone, where there is nothing but a text under
// the names that Google's clients give it, else all of the object.
func resultText(o *fields.Object) (string, error) {
	v := o.Get("response")
	if v.Exists() && !v.IsObject() {
		return "", chat.Invalid(o.Place("response"), "`%s` must be an object.", o.Place("response"))
	}
	members, text := 0, gjson.Result{}
	v.ForEach(func(key, value gjson.Result) bool {
		members++
		if key.Str == "result" || key.Str == "output" {
			text = value
		}
		return members < 2
	})
	if members == 1 && text.Type == gjson.String {
		return text.Str, nil
	}
	return compact(v), nil
}
