package anthropic

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"llm-gateway/gateway/provider/chat"
)

// provider is the name in refusals.
const provider = "Anthropic"

// Target is what the request goes to.
type Target struct {
	Model     string // as Anthropic names it
	MaxOutput int64  // the model's maximum of output tokens: max_tokens is required there
	Created   int64  // Unix seconds, for the answer's `created`
}

// Translate returns the exchange, or *chat.Unsupported.
func Translate(r *chat.Request, t Target) (chat.Exchange, error) {
	x := translation{r: r, t: t, model: modelOf(t.Model)}
	x.out = request{Model: t.Model, Stream: r.Stream}
	for _, step := range []func() error{
		x.refuse, x.unknown, x.limits, x.messages, x.tools, x.choice, x.format, x.think, x.sampling, x.rest,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	body, err := chat.Marshal(&x.out)
	if err != nil {
		return nil, chat.Invalid("messages", "The request holds text that is not valid JSON.")
	}
	return &exchange{body: body, target: t, jsonTool: x.jsonTool}, nil
}

// translation is one request on its way.
type translation struct {
	r        *chat.Request
	t        Target
	model    model
	out      request
	jsonTool string // the tool whose input is to become the content; "" = none
	looping  bool   // results of tools were sent last, and the call they belong to came without its thinking
}

// refuse names what Anthropic has no equal of. Neutral values are nothing to refuse.
func (x *translation) refuse() error {
	r := x.r
	switch {
	case r.Choices > 1:
		return &chat.Unsupported{Param: "n", Message: "Anthropic gives one answer to a request: `n` must be 1."}
	case r.Logprobs:
		return chat.Refuse(provider, "logprobs")
	case !zero(r.TopLogprobs):
		return chat.Refuse(provider, "top_logprobs")
	case !zero(r.FrequencyPenalty):
		return chat.Refuse(provider, "frequency_penalty")
	case !zero(r.PresencePenalty):
		return chat.Refuse(provider, "presence_penalty")
	case len(r.Extra) > 0:
		return chat.Refuse(provider, "extra_body.google")
	}
	for _, modality := range r.Modalities {
		if modality != "text" {
			return &chat.Unsupported{Param: "modalities", Message: "Anthropic answers with text only."}
		}
	}
	return nil
}

// zero says whether a number is absent or 0.
func zero(n json.Number) bool {
	f, err := n.Float64()
	return n == "" || err == nil && f == 0
}

// unknown refuses the parameters that nobody here knows, but for a few neutral values and for the one of
// Anthropic's own that costs nothing beyond what its usage reports.
func (x *translation) unknown() error {
	for _, f := range x.r.Unknown {
		switch {
		case f.Name == "context_management":
			x.out.ContextManagement = json.RawMessage(f.Raw)
		case f.Name == "logit_bias" && strings.Join(strings.Fields(f.Raw), "") == "{}":
		case f.Name == "verbosity" && f.Raw == `"medium"`:
		default:
			return chat.Refuse(provider, f.Name)
		}
	}
	return nil
}

func (x *translation) limits() error {
	x.out.MaxTokens = x.r.MaxOutput
	if x.out.MaxTokens == 0 {
		x.out.MaxTokens = x.t.MaxOutput
	}
	if x.out.MaxTokens < 1 {
		return &chat.Unsupported{Param: "max_completion_tokens", Message: "Anthropic demands `max_completion_tokens` for this model."}
	}
	for _, s := range x.r.Stop {
		if strings.TrimSpace(s) == "" {
			return &chat.Unsupported{Param: "stop", Message: "Anthropic takes no sequence of white space in `stop`."}
		}
	}
	x.out.StopSequences = x.r.Stop
	return nil
}

// sampling carries what chooses the tokens. Temperatures above 1 become 1, as in Anthropic's own
// OpenAI-compatible API; 1 is the default of both, and newer models refuse any other.
func (x *translation) sampling() error {
	r := x.r
	t, err := r.Temperature.Float64()
	switch {
	case r.Temperature == "":
	case err != nil || t < 0 || t > 2:
		return chat.Invalid("temperature", "`temperature` must be from 0 to 2.")
	case t >= 1:
	case x.thinking():
		return &chat.Unsupported{Param: "temperature", Message: "Anthropic takes no `temperature` but 1 while the model thinks."}
	default:
		x.out.Temperature = r.Temperature
	}
	if p, err := r.TopP.Float64(); err != nil || p != 1 {
		x.out.TopP = r.TopP
	}
	if r.TopK != "" && x.thinking() {
		return &chat.Unsupported{Param: "top_k", Message: "Anthropic takes no `top_k` while the model thinks."}
	}
	x.out.TopK = r.TopK
	return nil
}

// rest is what changes no answer but is known there too.
func (x *translation) rest() error {
	if x.r.User != "" {
		x.out.Metadata = &metadata{UserID: userID(x.r.User)}
	}
	switch x.r.ServiceTier {
	case "auto":
		x.out.ServiceTier = "auto"
	case "default":
		x.out.ServiceTier = "standard_only"
	}
	return nil
}

// userID is an application's name for its user where that is an identifier; Anthropic wants no names and
// no addresses, so of anything else a digest, which still tells users apart.
func userID(name string) string {
	if len(name) <= 64 && only(name, "-_.") {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "sha256:" + hex.EncodeToString(sum[:16])
}

// only says whether a text has nothing but ASCII letters, digits, and the others named.
func only(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return s != ""
}
