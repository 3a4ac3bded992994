package gateway

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider/chat"
)

// door is one API that applications speak: how its requests are read, and how its answers and errors look.
// All doors lead through the same meter.
type door struct {
	surface string
	// ask reads what the path and the query say; nil: nothing.
	ask func(c *gin.Context, a *asking) error
	// facts reads a checked body. It fails with *Error or *chat.Unsupported.
	facts func(a *asking) (*chat.Facts, error)
	// foreign reads it for providers that do not speak this API; nil: it is chat completions, which every
	// provider takes.
	foreign func(a *asking, id uuid.UUID, at time.Time) (chat.Foreign, error)
	// limit is where a body limits the output, as a path; "" = it always does.
	limit func(body []byte) string
	// failure renders an error, the answer's and a stream's; event is the name that the latter's event has.
	failure func(e *Error) []byte
	event   string
	// marked says that a stream ends with [DONE].
	marked bool
	// plain says that its clients take every line of a stream for data, so that no comment tells the bill.
	plain bool
	// counted answers with a number of tokens; nil: the door does not count.
	counted func(tokens int64) []byte
	// modes are what a model must be to be called here; nil = a chat model.
	modes []domain.Mode
}

// serves says whether a model can be called by this door.
func (d *door) serves(m *domain.Model) bool {
	if m.ResponsesOnly && d.surface != chat.SurfaceResponses {
		return false
	}
	if d.modes == nil {
		return m.Mode == domain.ModeChat
	}
	return slices.Contains(d.modes, m.Mode)
}

// hub is the surface by way of which providers are asked that do not speak this one.
func (d *door) hub() string {
	if slices.Equal(d.modes, embeddingModes) {
		return chat.SurfaceEmbeddings
	}
	return chat.SurfaceChat
}

var embeddingModes = []domain.Mode{domain.ModeEmbedding}

// asking is a request as it came in.
type asking struct {
	body   []byte
	model  string // where the path names it
	stream bool   // where the path says so
	list   bool   // a stream is one JSON list
	method string // what the path asks of the model, where it does
}

// chatDoor is OpenAI's chat completions.
var chatDoor = &door{
	surface: chat.SurfaceChat,
	facts: func(a *asking) (*chat.Facts, error) {
		f, failed := parseChat(a.body)
		if failed != nil {
			return nil, failed
		}
		return f, nil
	},
	limit:   func([]byte) string { return "max_completion_tokens" },
	failure: openAIFailure,
	marked:  true,
}

// chatStreamDoor is chat completions that always stream.
var chatStreamDoor = func() *door {
	d := *chatDoor
	d.ask = func(_ *gin.Context, a *asking) error {
		a.stream = true
		return nil
	}
	return &d
}()

// isChat says whether it is OpenAI's chat completions.
func (d *door) isChat() bool { return d.surface == chat.SurfaceChat }

// openAIFailure is the error in OpenAI's shape, or the provider's own.
func openAIFailure(e *Error) []byte {
	if e.Body != nil {
		return e.Body
	}
	type object struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}
	o := object{Message: e.Message, Type: e.Type, Code: e.Code}
	if e.Param != "" {
		o.Param = &e.Param
	}
	out, err := json.Marshal(map[string]object{"error": o})
	if err != nil { // strings always encode
		return []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":"internal_error"}}`)
	}
	return out
}

// failureBy renders an error by a surface's own function, or passes on what its own provider said.
func failureBy(render func(status int, kind, code, message, param string) []byte) func(e *Error) []byte {
	return func(e *Error) []byte {
		if e.native != nil {
			return e.native
		}
		kind, code, message, param := e.Type, e.Code, e.Message, e.Param
		if e.Body != nil { // a provider's words, in OpenAI's shape
			said := gjson.GetBytes(e.Body, "error")
			kind, code, message, param = said.Get("type").Str, said.Get("code").Str, said.Get("message").Str, said.Get("param").Str
		}
		return render(e.Status, kind, code, message, param)
	}
}

// unsupported is what a client is told about what a surface or a provider cannot be asked.
func unsupported(err error) error {
	refused := new(chat.Unsupported)
	if !errors.As(err, &refused) {
		return err
	}
	code := "unsupported_parameter"
	if refused.Invalid {
		code = "invalid_value"
	}
	return invalid(code, refused.Param, refused.Message)
}

// entering makes errors of a route look as its door's do, those before the handler too.
func entering(d *door) gin.HandlerFunc {
	return func(c *gin.Context) {
		if d != nil {
			c.Set(keyDoor, d)
		} else {
			c.Set(keyDoor, spoken(c))
		}
	}
}

// spoken is the door of the API that a client speaks, by its headers: for paths that several APIs have, and
// for those that none has.
func spoken(c *gin.Context) *door {
	switch {
	case c.GetHeader("anthropic-version") != "":
		return messagesDoor
	case c.GetHeader("x-goog-api-key") != "":
		return generateDoor
	}
	return chatDoor
}

const keyDoor = "door"

// doorOf is the door that a request came in by: where it is none of the models', OpenAI's shape is used.
func doorOf(c *gin.Context) *door {
	if d, ok := c.Get(keyDoor); ok {
		return d.(*door)
	}
	return chatDoor
}
