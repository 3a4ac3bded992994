package generate

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// foreign is a request that was read for other providers than Google.
type foreign struct {
	body []byte
	id   string
}

// Foreign reads a generateContent or streamGenerateContent request for providers that do not speak Google's
// API: model and stream are what the path says, id becomes the responseId of its answers. It fails with
// *chat.Unsupported.
func Foreign(body []byte, id, model string, stream bool) (chat.Foreign, error) {
	b := builder{out: chatBody{Model: bare(model), Stream: stream}}
	if stream {
		b.out.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	o, err := fields.Read("", gjson.ParseBytes(body))
	if err == nil {
		err = b.request(&o)
	}
	if err != nil {
		return nil, err
	}
	return &foreign{body: chat.Encode(&b.out), id: id}, nil
}

// CountForeign reads a countTokens request as the chat completion whose prompt is to be counted. It fails
// with *chat.Unsupported.
func CountForeign(body []byte, model string) (chat.Foreign, error) {
	b := builder{out: chatBody{Model: bare(model)}}
	o, err := fields.Read("", gjson.ParseBytes(body))
	if err != nil {
		return nil, err
	}
	if inner := o.Get("generateContentRequest"); inner.Exists() {
		if o.Has("contents") {
			return nil, chat.Invalid("contents", "`contents` and `generateContentRequest` cannot both be given.")
		}
		if o, err = fields.Read("generateContentRequest", inner); err != nil {
			return nil, err
		}
	}
	if err := b.request(&o); err != nil {
		return nil, err
	}
	return &foreign{body: chat.Encode(&b.out)}, nil
}

// CountAnswer is the answer to a countTokens request.
func CountAnswer(n int64) []byte {
	type modality struct {
		Modality   string `json:"modality"`
		TokenCount int64  `json:"tokenCount"`
	}
	return chat.Encode(struct {
		Total   int64      `json:"totalTokens"`
		Details []modality `json:"promptTokensDetails"`
	}{n, []modality{{"TEXT", n}}})
}

func (f *foreign) Chat() []byte { return f.body }

func (f *foreign) Writer() chat.Writer { return &writer{id: f.id} }

// builder makes one request out of another, a piece at a time.
type builder struct {
	out       chatBody
	detail    string // of all images, by mediaResolution
	functions map[string]bool
	saysJSON  bool // the word stands somewhere in the prompt
}

func (b *builder) request(o *fields.Object) error {
	for _, name := range o.Names {
		switch name {
		case "model", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier":
		case "safetySettings", "labels", "store": // Google's own filters, and what changes no answer
		default:
			return fields.Uncarried(o.Place(name))
		}
	}
	for _, step := range []func(*fields.Object) error{b.config, b.system, b.contents, b.tools, b.toolConfig, b.tier} {
		if err := step(o); err != nil {
			return err
		}
	}
	b.askForJSON()
	return nil
}

// askForJSON says what is wanted where nothing in the prompt does: without the word, OpenAI refuses to give
// JSON that has no schema.
func (b *builder) askForJSON() {
	if f := b.out.ResponseFormat; f != nil && f.Type == "json_object" && !b.saysJSON {
		b.out.Messages = append([]message{{Role: chat.RoleSystem, Content: "Answer in JSON."}}, b.out.Messages...)
	}
}

func (b *builder) tier(o *fields.Object) error {
	name, err := o.Text("serviceTier")
	if b.out.ServiceTier = tierOf(name); b.out.ServiceTier == "" && name != "" {
		b.out.ServiceTier = "default"
	}
	return err
}

// system is what the application says to the model: text only.
func (b *builder) system(o *fields.Object) error {
	if !o.Has("systemInstruction") {
		return nil
	}
	texts, err := fields.Texts(o.Place("systemInstruction"), o.Get("systemInstruction"))
	texts = slices.DeleteFunc(texts, func(s string) bool { return s == "" })
	if err == nil && len(texts) > 0 {
		text := strings.Join(texts, "\n")
		b.say(text)
		b.out.Messages = append(b.out.Messages, message{Role: chat.RoleSystem, Content: text})
	}
	return err
}
