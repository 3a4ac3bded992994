package embed

import (
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// maxDimensions is above the size of any vector.
const maxDimensions = 1 << 16

// openAIRequest is a request for OpenAI's embeddings.
type openAIRequest struct {
	Model      string   `json:"model"`
	Input      []string `json:"input"`
	Dimensions int64    `json:"dimensions,omitempty"`
	Encoding   string   `json:"encoding_format"`
}

// GeminiToOpenAI translates an embedContent request, or a batchEmbedContents request with batch. model is
// what the path says. body is one JSON object without duplicate keys. It fails with *chat.Unsupported.
func GeminiToOpenAI(body []byte, model string, batch bool) ([]byte, error) {
	out := openAIRequest{Model: strings.TrimPrefix(model, "models/"), Encoding: "float"}
	if !batch {
		if err := out.add("", gjson.ParseBytes(body)); err != nil {
			return nil, err
		}
		return chat.Encode(out), nil
	}
	o, err := fields.Read("", gjson.ParseBytes(body))
	if err != nil {
		return nil, err
	}
	for _, name := range o.Names {
		if name != "requests" && name != "model" {
			return nil, fields.Uncarried(name)
		}
	}
	if err := o.Each("requests", out.add); err != nil {
		return nil, err
	}
	if len(out.Input) == 0 {
		return nil, chat.Invalid("requests", "`requests` must be an array of at least one request.")
	}
	return chat.Encode(out), nil
}

// add adds one embedContent request.
func (r *openAIRequest) add(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	size := int64(0)
	for _, name := range o.Names {
		switch name {
		case "model", "content", "taskType", "title":
		case "outputDimensionality":
			size, err = o.Count(name, maxDimensions)
		case "embedContentConfig":
			size, err = configured(o.Place(name), o.Get(name))
		default:
			err = fields.Uncarried(o.Place(name))
		}
		if err != nil {
			return err
		}
	}
	if len(r.Input) > 0 && size != r.Dimensions {
		return &chat.Unsupported{Param: o.Place("outputDimensionality"), Message: "All requests of a batch must want vectors of one size."}
	}
	r.Dimensions = size
	text, err := textOf(o.Place("content"), o.Get("content"))
	r.Input = append(r.Input, text)
	return err
}

// configured is the size of the vector that a configuration of its own names; 0 = none.
func configured(param string, v gjson.Result) (size int64, err error) {
	o, err := fields.Read(param, v)
	if err != nil {
		return 0, err
	}
	for _, name := range o.Names {
		switch name {
		case "taskType", "title", "autoTruncate":
		case "outputDimensionality":
			size, err = o.Count(name, maxDimensions)
		default:
			err = fields.Uncarried(o.Place(name))
		}
		if err != nil {
			return 0, err
		}
	}
	return size, nil
}

// textOf is the text of a content: that of its parts, as Google too makes one vector of them.
func textOf(param string, v gjson.Result) (string, error) {
	texts, err := fields.Texts(param, v)
	return strings.Join(texts, ""), err
}

// geminiRequest is a batchEmbedContents request.
type geminiRequest struct {
	Requests []geminiEmbed `json:"requests"`
}

type geminiEmbed struct {
	Model   string `json:"model"`
	Content struct {
		Parts []geminiPart `json:"parts"`
	} `json:"content"`
	Dimensions int64 `json:"outputDimensionality,omitempty"`
}

type geminiPart struct {
	Text string `json:"text"`
}

// OpenAIToGemini translates a request for OpenAI's embeddings into a batchEmbedContents request for model.
// body is one JSON object without duplicate keys. It fails with *chat.Unsupported.
func OpenAIToGemini(body []byte, model string) ([]byte, error) {
	var texts []string
	var size int64
	var err error
	gjson.ParseBytes(body).ForEach(func(key, v gjson.Result) bool {
		switch name := key.String(); {
		case name == "model" || name == "user" || v.Type == gjson.Null:
		case name == "encoding_format":
			err = checkEncoding(v)
		case name == "input":
			texts, err = textsOf(v)
		case name == "dimensions":
			var s chat.Strict
			size = s.Count(name, v, 1, maxDimensions)
			err = s.Err
		default:
			err = chat.Refuse("Gemini", name)
		}
		return err == nil
	})
	if err == nil && len(texts) == 0 {
		err = chat.Invalid("input", "`input` must be a text, or an array of at least one.")
	}
	if err != nil {
		return nil, err
	}
	var out geminiRequest
	for _, text := range texts {
		one := geminiEmbed{Model: "models/" + strings.TrimPrefix(model, "models/"), Dimensions: size}
		one.Content.Parts = []geminiPart{{Text: text}}
		out.Requests = append(out.Requests, one)
	}
	return chat.Encode(out), nil
}

func checkEncoding(v gjson.Result) error {
	if v.Str != Float && v.Str != Base64 {
		return chat.Invalid("encoding_format", "`encoding_format` must be float or base64.")
	}
	return nil
}

// textsOf are the texts of `input`. Lists of tokens mean nothing to Google: its tokens are others.
func textsOf(v gjson.Result) (texts []string, err error) {
	if v.Type == gjson.String {
		return []string{v.Str}, nil
	}
	if !v.IsArray() {
		return nil, nil
	}
	v.ForEach(func(_, element gjson.Result) bool {
		if element.Type == gjson.Number || element.IsArray() {
			err = &chat.Unsupported{Param: "input", Message: "Gemini takes texts only: `input` cannot be tokens."}
		} else if element.Type != gjson.String {
			err = chat.Invalid("input", "`input` must be a text, or an array of texts.")
		}
		texts = append(texts, element.Str)
		return err == nil
	})
	return texts, err
}
