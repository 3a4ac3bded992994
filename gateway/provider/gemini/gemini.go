package gemini

import "llm-gateway/gateway/provider/chat"

// provider is the name by which refusals speak of Google's API.
const provider = "Gemini"

// Target is what the request goes to.
type Target struct {
	Model     string // as Google names it, without "models/"
	MaxOutput int64  // the model's maximum of output tokens; 0 = unknown, and Google's own default holds
	Created   int64  // Unix seconds, for the answer's `created`
}

// Translate returns the exchange, or *chat.Unsupported where Google's API cannot be asked for what the
// request asks.
func Translate(r *chat.Request, t Target) (chat.Exchange, error) {
	b := builder{r: r, model: parseModel(t.Model), calls: map[string]madeCall{}}
	for _, step := range []func() error{b.unknown, b.messages, b.tools, b.toolConfig, func() error { return b.config(t.MaxOutput) }, b.thinking, b.extra} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &exchange{target: t, body: chat.Encode(&b.out)}, nil
}

// exchange is one call: it holds what its answer cannot know.
type exchange struct {
	target Target
	body   []byte
}

func (x *exchange) Body() []byte { return x.body }

func (x *exchange) Reader() chat.Reader { return &reader{head: head{target: x.target}} }
