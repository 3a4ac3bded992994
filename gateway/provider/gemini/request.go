package gemini

import (
	"encoding/json"
	"strconv"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

// request is the body of generateContent and streamGenerateContent.
type request struct {
	SystemInstruction *content        `json:"systemInstruction,omitempty"`
	Contents          []*content      `json:"contents"`
	Tools             []tool          `json:"tools,omitempty"`
	ToolConfig        *toolConfig     `json:"toolConfig,omitempty"`
	SafetySettings    json.RawMessage `json:"safetySettings,omitempty"`
	CachedContent     string          `json:"cachedContent,omitempty"`
	GenerationConfig  config          `json:"generationConfig"`
}

// content is one turn. A turn of function results stays alone: Google wants it to answer the calls
// before it, one for one.
type content struct {
	Role    string `json:"role,omitempty"` // user or model; none in systemInstruction
	Parts   []part `json:"parts"`
	results bool
}

// part is one of its kinds.
type part struct {
	Text             *string           `json:"text,omitempty"`
	InlineData       *inlineData       `json:"inlineData,omitempty"`
	FileData         *fileData         `json:"fileData,omitempty"`
	FunctionCall     *functionCall     `json:"functionCall,omitempty"`
	FunctionResponse *functionResponse `json:"functionResponse,omitempty"`
	ThoughtSignature string            `json:"thoughtSignature,omitempty"`
}

type inlineData struct {
	MimeType string `json:"mimeType"`
	Data     string `json:"data"` // base64
}

type fileData struct {
	MimeType string `json:"mimeType,omitempty"`
	FileURI  string `json:"fileUri"`
}

type functionCall struct {
	ID   string          `json:"id,omitempty"`
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

type functionResponse struct {
	ID       string          `json:"id,omitempty"`
	Name     string          `json:"name"`
	Response json.RawMessage `json:"response"`
}

// tool is one entry of tools: all functions, or one of Google's own.
type tool struct {
	FunctionDeclarations []declaration `json:"functionDeclarations,omitempty"`
	GoogleSearch         *struct{}     `json:"googleSearch,omitempty"`
	URLContext           *struct{}     `json:"urlContext,omitempty"`
	CodeExecution        *struct{}     `json:"codeExecution,omitempty"`
}

type declaration struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parametersJsonSchema,omitempty"`
}

type toolConfig struct {
	FunctionCalling *functionCalling `json:"functionCallingConfig,omitempty"`
	// ServerSide is asked for where Google's own tools stand beside functions; it refuses otherwise.
	ServerSide bool `json:"includeServerSideToolInvocations,omitempty"`
}

type functionCalling struct {
	Mode    string   `json:"mode"` // AUTO, VALIDATED, ANY, NONE
	Allowed []string `json:"allowedFunctionNames,omitempty"`
}

// config is generationConfig. Numbers are written as the client wrote them.
type config struct {
	MaxOutputTokens    int64           `json:"maxOutputTokens,omitempty"`
	CandidateCount     int64           `json:"candidateCount,omitempty"`
	StopSequences      []string        `json:"stopSequences,omitempty"`
	Temperature        json.Number     `json:"temperature,omitempty"`
	TopP               json.Number     `json:"topP,omitempty"`
	TopK               json.Number     `json:"topK,omitempty"`
	Seed               json.Number     `json:"seed,omitempty"`
	PresencePenalty    json.Number     `json:"presencePenalty,omitempty"`
	FrequencyPenalty   json.Number     `json:"frequencyPenalty,omitempty"`
	ResponseLogprobs   bool            `json:"responseLogprobs,omitempty"`
	Logprobs           json.Number     `json:"logprobs,omitempty"`
	ResponseMimeType   string          `json:"responseMimeType,omitempty"`
	ResponseJSONSchema json.RawMessage `json:"responseJsonSchema,omitempty"`
	ResponseModalities []string        `json:"responseModalities,omitempty"`
	ThinkingConfig     *thinkingConfig `json:"thinkingConfig,omitempty"`
}

// builder makes one request out of another, a piece at a time.
type builder struct {
	r         *chat.Request
	model     model
	out       request
	calls     map[string]madeCall // of the conversation so far, by id
	made      int                 // how many those were
	results   []result            // tool messages since the last other message
	functions map[string]bool     // the functions that are declared
	strict    bool                // one of them is to be followed exactly
}

// Google's bounds.
const (
	maxCandidates    = 8
	maxStopSequences = 5
)

// unknown refuses the parameters that nobody here knows, but for those whose value means nothing.
func (b *builder) unknown() error {
	for _, f := range b.r.Unknown {
		v := gjson.Parse(f.Raw)
		switch {
		case f.Name == "logit_bias" && v.IsObject() && len(v.Map()) == 0:
		case f.Name == "verbosity" && v.Str == "medium":
		default:
			return chat.Refuse(provider, f.Name)
		}
	}
	return nil
}

func (b *builder) config(maxOutput int64) error {
	r, c := b.r, &b.out.GenerationConfig
	if c.MaxOutputTokens = r.MaxOutput; c.MaxOutputTokens == 0 {
		c.MaxOutputTokens = maxOutput
	}
	if r.Choices > maxCandidates {
		return &chat.Unsupported{Param: "n", Message: "Gemini gives at most 8 choices."}
	}
	if r.Choices > 1 {
		c.CandidateCount = r.Choices
	}
	if c.StopSequences = r.Stop; len(r.Stop) > maxStopSequences {
		return &chat.Unsupported{Param: "stop", Message: "Gemini takes at most 5 stop sequences."}
	}
	c.Temperature, c.TopP, c.TopK, c.Seed = r.Temperature, r.TopP, r.TopK, r.Seed
	c.PresencePenalty, c.FrequencyPenalty = r.PresencePenalty, r.FrequencyPenalty
	if _, err := strconv.ParseInt(r.Seed.String(), 10, 32); r.Seed != "" && err != nil {
		return &chat.Unsupported{Param: "seed", Message: "Gemini takes seeds that are whole numbers of 32 bits."}
	}
	if err := b.logprobs(); err != nil {
		return err
	}
	if err := b.modalities(); err != nil {
		return err
	}
	return b.format()
}

func (b *builder) logprobs() error {
	c, top := &b.out.GenerationConfig, b.r.TopLogprobs
	c.ResponseLogprobs = b.r.Logprobs
	if top == "" || top == "0" {
		return nil
	}
	if !b.r.Logprobs {
		return chat.Invalid("top_logprobs", "`top_logprobs` needs `logprobs` to be true.")
	}
	c.Logprobs = top
	return nil
}

func (b *builder) modalities() error {
	for _, m := range b.r.Modalities {
		switch m {
		case "text":
			b.out.GenerationConfig.ResponseModalities = append(b.out.GenerationConfig.ResponseModalities, "TEXT")
		case "image":
			b.out.GenerationConfig.ResponseModalities = append(b.out.GenerationConfig.ResponseModalities, "IMAGE")
		default:
			return &chat.Unsupported{Param: "modalities", Message: "Only `text` and `image` can be asked of Gemini here."}
		}
	}
	return nil
}

func (b *builder) format() error {
	f, c := &b.r.Format, &b.out.GenerationConfig
	if f.Type != "json_object" && f.Type != "json_schema" {
		return nil
	}
	c.ResponseMimeType = "application/json"
	if f.Type == "json_schema" && f.Schema.Exists() {
		return take(&c.ResponseJSONSchema, "response_format.json_schema.schema", f.Schema.Raw)
	}
	return nil
}

// take keeps JSON of the client's that goes on as it is. Only what is nested absurdly deep fails.
func take(to *json.RawMessage, param, raw string) error {
	if !json.Valid([]byte(raw)) {
		return chat.Invalid(param, "`%s` is no usable JSON.", param)
	}
	*to = json.RawMessage(raw)
	return nil
}
