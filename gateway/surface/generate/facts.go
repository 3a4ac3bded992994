package generate

import (
	"net/url"
	"strings"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/fields"
)

// MaxQueries is the most web searches that one answer is reckoned with. Google sets no limit and takes none;
// a dozen queries of one answer have not been seen.
const MaxQueries = 10

// ToolRounds is how often Google is reckoned to ask its model where it runs tools by itself: once, and five
// times more, which is how often its documentation lets a model run code again.
const ToolRounds = 6

// Bounds of what a client may ask for.
const (
	maxCandidates = 128       // Google's own limit is 8
	maxAskedToken = 1_000_000 // maxOutputTokens: above any model's output
)

// toolTokens is what a declaration or a schema can take in the model's prompt beyond its bytes.
const toolTokens = 32

// reader gathers the facts of one request.
type reader struct {
	chat.Facts
	modalities bool // the client says what kinds of output it wants
}

func newReader(body []byte, model string) *reader {
	return &reader{Facts: chat.Facts{Model: bare(model), Choices: 1, Rounds: 1, InputBytes: int64(len(body))}}
}

// bare is a model's name without the collection that Google's names begin with.
func bare(model string) string { return strings.TrimPrefix(model, "models/") }

// Facts reads what the meter needs of a generateContent or streamGenerateContent request: model and stream
// are what the path says. body is one JSON object without duplicate keys. It fails with *chat.Unsupported.
func Facts(body []byte, model string, stream bool) (*chat.Facts, error) {
	r := newReader(body, model)
	r.Stream = stream
	o, err := fields.Read("", gjson.ParseBytes(body))
	if err != nil {
		return nil, err
	}
	if !o.Has("contents") {
		return nil, chat.Invalid("contents", "`contents` is missing.")
	}
	for _, name := range o.Names {
		if err := r.field(&o, name); err != nil {
			return nil, err
		}
	}
	// A model that draws does so unless it is told not to.
	r.ImageOut = r.ImageOut || !r.modalities && strings.Contains(r.Model, "image")
	return &r.Facts, nil
}

// CountFacts reads what a countTokens request names. Nothing of it is charged.
func CountFacts(body []byte, model string) (*chat.Facts, error) {
	r := newReader(body, model)
	o, err := fields.Read("", gjson.ParseBytes(body))
	if err == nil {
		err = r.named(&o)
	}
	if inner := o.Get("generateContentRequest"); err == nil && inner.Exists() {
		if o, err = fields.Read("generateContentRequest", inner); err == nil {
			err = r.named(&o)
		}
	}
	return &chat.Facts{Model: model, Choices: 1, Rounds: 1, NoOutput: true, References: r.References}, err
}

// named reads what can name anything that Google keeps.
func (r *reader) named(o *fields.Object) error {
	for _, name := range [...]string{"contents", "systemInstruction", "tools", "cachedContent"} {
		if !o.Has(name) {
			continue
		}
		if err := r.field(o, name); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) field(o *fields.Object, name string) (err error) {
	switch name {
	case "contents":
		return o.Each(name, r.content)
	case "systemInstruction":
		return r.content(o.Place(name), o.Get(name))
	case "generationConfig":
		return r.config(o.Place(name), o.Get(name))
	case "tools":
		return o.Each(name, r.tool)
	case "model":
		return r.model(o)
	case "serviceTier":
		r.ServiceTier, err = o.Text(name)
		r.ServiceTier = tierOf(r.ServiceTier)
	case "cachedContent":
		r.Opaque, r.AudioIn = true, true // whatever was uploaded
		r.Refer(o.Place(name), "")
	case "toolConfig", "safetySettings", "labels", "store":
	default:
		r.Opaque = true
	}
	return err
}

// tierOf is a service tier by the price book's names; "" is the standard one.
func tierOf(name string) string {
	tier := strings.TrimPrefix(strings.ToLower(name), "service_tier_")
	if tier == "standard" || tier == "unspecified" {
		return ""
	}
	return tier
}

// model holds a model that the body names against the one of the path, which is the one that is priced.
func (r *reader) model(o *fields.Object) error {
	name, err := o.Text("model")
	if err == nil && bare(name) != r.Model {
		err = chat.Invalid(o.Place("model"), "`%s` names another model than the request's path.", o.Place("model"))
	}
	return err
}

func (r *reader) content(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "parts":
			err = o.Each(name, r.part)
		case "role":
		default:
			r.Opaque = true
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// part looks at one part. Whatever of it nobody here knows may stand for input that the body does not show.
func (r *reader) part(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "text", "thought", "thoughtSignature", "functionCall", "executableCode", "codeExecutionResult", "toolCall", "toolResponse":
		case "inlineData":
			err = r.blob(o.Place(name), o.Get(name))
		case "fileData":
			err = r.file(o.Place(name), o.Get(name))
		case "functionResponse":
			err = r.response(o.Place(name), o.Get(name))
		default:
			r.Opaque = true
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// blob is data in place.
func (r *reader) blob(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	mime, err := o.Text("mimeType")
	if strings.HasPrefix(strings.ToLower(mime), "image/") {
		r.Images++
		r.ImageBytes += int64(len(v.Raw))
		return err
	}
	r.Opaque, r.AudioIn = true, r.AudioIn || chat.Sounds(mime)
	return err
}

// file is a link to data.
func (r *reader) file(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	mime, err := o.Text("mimeType")
	r.Opaque, r.AudioIn = true, r.AudioIn || chat.Sounds(mime)
	if uri := o.Get("fileUri"); uri.Exists() && KeptByGoogle(uri.Str) {
		r.Refer(o.Place("fileUri"), "")
	}
	return err
}

// KeptByGoogle says whether a link leads to what was uploaded to Google by the operator's key, or is read by
// the operator's rights: anything but a web page that everybody may read.
func KeptByGoogle(link string) bool {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" { // others read https:/// as https://
		return true
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	return host != publicStorage && (host == googleAPIs || strings.HasSuffix(host, "."+googleAPIs)) || strings.Contains(u.Path, "/files/") && strings.HasPrefix(u.Path, "/v1")
}

// googleAPIs is where Google keeps what is uploaded; what is at publicStorage everybody may read, or has a
// signature for it.
const (
	googleAPIs    = "googleapis.com"
	publicStorage = "storage." + googleAPIs
)

// response is a function's result, which may have pictures and files beside its JSON.
func (r *reader) response(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "id", "name", "response", "willContinue", "scheduling":
		case "parts":
			err = o.Each(name, r.part)
		default:
			r.Opaque = true
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tool looks at one entry of tools, which may have several.
func (r *reader) tool(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		switch name {
		case "functionDeclarations":
			err = o.Each(name, func(string, gjson.Result) error {
				r.InputBytes += toolTokens
				return nil
			})
		case "googleSearch", "googleSearchRetrieval", "enterpriseWebSearch":
			r.WebSearch, r.Searches, r.Opaque = true, MaxQueries, true
		case "fileSearch", "retrieval":
			r.Opaque, r.Rounds = true, ToolRounds
			r.Refer(o.Place(name), "")
		default: // what Google runs by itself, each time with the whole prompt and what came before
			r.Opaque, r.Rounds = true, ToolRounds
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// config reads generationConfig.
func (r *reader) config(param string, v gjson.Result) error {
	o, err := fields.Read(param, v)
	if err != nil {
		return err
	}
	for _, name := range o.Names {
		if err := r.setting(&o, name); err != nil {
			return err
		}
	}
	return nil
}

// plainSettings can neither cost more than their bytes nor bring input that the body does not show. What a
// model thinks counts within maxOutputTokens.
var plainSettings = map[string]bool{
	"temperature": true, "topP": true, "topK": true, "seed": true, "stopSequences": true, "presencePenalty": true,
	"frequencyPenalty": true, "responseMimeType": true, "responseLogprobs": true, "logprobs": true,
	"thinkingConfig": true, "imageConfig": true, "enableEnhancedCivicAnswers": true,
}

func (r *reader) setting(o *fields.Object, name string) (err error) {
	switch name {
	case "maxOutputTokens":
		r.MaxOutput, err = o.Count(name, maxAskedToken)
	case "candidateCount":
		r.Choices, err = o.Count(name, maxCandidates)
	case "responseModalities":
		r.modalities = true
		err = o.Each(name, r.modality)
	case "speechConfig":
		r.AudioOut = true
	case "responseSchema", "responseJsonSchema", "_responseJsonSchema":
		r.InputBytes += toolTokens
	case "routingConfig", "modelSelectionConfig":
		err = chat.Invalid(o.Place(name), "`%s` is not supported: the model is the one that the request's path names.", o.Place(name))
	default:
		r.Opaque = r.Opaque || !plainSettings[name]
	}
	return err
}

// modality is a kind of output. Each has a price of its own, so one that nobody here knows is refused.
func (r *reader) modality(param string, v gjson.Result) error {
	switch strings.ToUpper(v.Str) {
	case "TEXT", "MODALITY_UNSPECIFIED":
	case "IMAGE":
		r.ImageOut = true
	case "AUDIO":
		r.AudioOut = true
	default:
		return chat.Invalid(param, "`%s` must be TEXT, IMAGE or AUDIO.", param)
	}
	return nil
}
