package gateway

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/surface/completions"
	"llm-gateway/gateway/surface/embed"
	"llm-gateway/gateway/surface/embeddings"
	"llm-gateway/gateway/surface/generate"
	"llm-gateway/gateway/surface/messages"
	"llm-gateway/gateway/surface/responses"
)

// completionsDoor is OpenAI's older completions, of its models that know nothing else, and of all chat models.
var completionsDoor = &door{
	surface: chat.SurfaceCompletions,
	facts:   func(a *asking) (*chat.Facts, error) { return completions.Facts(a.body) },
	foreign: func(a *asking, id uuid.UUID, at time.Time) (chat.Foreign, error) {
		return completions.Foreign(a.body, id.String(), at.Unix())
	},
	failure: failureBy(completions.Error),
	marked:  true,
	modes:   []domain.Mode{domain.ModeChat, domain.ModeCompletion},
}

// embeddingsDoor is OpenAI's embeddings.
var embeddingsDoor = &door{
	surface: chat.SurfaceEmbeddings,
	facts:   func(a *asking) (*chat.Facts, error) { return embeddings.Facts(a.body) },
	failure: failureBy(embeddings.Error),
	modes:   embeddingModes,
}

// responsesDoor is OpenAI's Responses.
var responsesDoor = &door{
	surface: chat.SurfaceResponses,
	facts:   func(a *asking) (*chat.Facts, error) { return responses.Facts(a.body) },
	foreign: func(a *asking, id uuid.UUID, at time.Time) (chat.Foreign, error) {
		return responses.Foreign(a.body, id.String(), at.Unix())
	},
	limit:   func([]byte) string { return "max_output_tokens" },
	failure: failureBy(responses.Error),
	event:   "error",
}

// messagesDoor is Anthropic's Messages, which always limit their output.
var messagesDoor = &door{
	surface: chat.SurfaceMessages,
	facts:   func(a *asking) (*chat.Facts, error) { return messages.Facts(a.body) },
	foreign: messagesForeign,
	failure: failureBy(messages.Error),
	event:   "error",
}

func messagesForeign(a *asking, id uuid.UUID, at time.Time) (chat.Foreign, error) {
	return messages.Foreign(a.body, id.String(), at.Unix())
}

// messagesCountDoor counts the tokens of Messages.
var messagesCountDoor = &door{
	surface: chat.SurfaceMessages,
	ask: func(_ *gin.Context, a *asking) error {
		a.method = provider.MethodCount
		return nil
	},
	facts:   func(a *asking) (*chat.Facts, error) { return uncharged(messages.CountFacts(a.body)) },
	foreign: messagesForeign,
	failure: failureBy(messages.Error),
	counted: func(n int64) []byte { return []byte(`{"input_tokens":` + strconv.FormatInt(n, 10) + `}`) },
}

// uncharged are the facts of what is only counted: it has no tokens that anybody bills.
func uncharged(f *chat.Facts, err error) (*chat.Facts, error) {
	if err != nil {
		return nil, err
	}
	return &chat.Facts{Model: f.Model, Choices: 1, Rounds: 1, NoOutput: true, References: f.References}, nil
}

// generateDoor is Google's generateContent, whole and streamed.
var generateDoor = &door{
	surface: chat.SurfaceGenerate,
	facts:   func(a *asking) (*chat.Facts, error) { return generate.Facts(a.body, a.model, a.stream) },
	foreign: func(a *asking, id uuid.UUID, _ time.Time) (chat.Foreign, error) {
		return generate.Foreign(a.body, id.String(), a.model, a.stream)
	},
	limit:   generateLimit,
	failure: failureBy(generate.Error),
	plain:   true,
}

// generateLimit is where Google's requests limit the output, in the spelling that the body has.
func generateLimit(body []byte) string {
	if gjson.GetBytes(body, "generation_config").Exists() {
		return "generation_config.max_output_tokens"
	}
	return "generationConfig.maxOutputTokens"
}

// generateCountDoor counts the tokens of generateContent.
var generateCountDoor = &door{
	surface: chat.SurfaceGenerate,
	facts:   func(a *asking) (*chat.Facts, error) { return generate.CountFacts(a.body, a.model) },
	foreign: func(a *asking, _ uuid.UUID, _ time.Time) (chat.Foreign, error) {
		return generate.CountForeign(a.body, a.model)
	},
	failure: failureBy(generate.Error),
	counted: generate.CountAnswer,
}

// embedDoor is Google's embedContent and batchEmbedContents.
var embedDoor = &door{
	surface: chat.SurfaceEmbed,
	facts: func(a *asking) (*chat.Facts, error) {
		f, err := generate.EmbedFacts(a.body, a.model, a.method == methodBatchEmbed)
		if err == nil {
			f.NoOutput = true
		}
		return f, err
	},
	foreign: func(a *asking, _ uuid.UUID, _ time.Time) (chat.Foreign, error) {
		body, err := embed.GeminiToOpenAI(a.body, a.model, a.method == methodBatchEmbed)
		return embedForeign{body, a.method == methodBatchEmbed}, err
	},
	failure: failureBy(generate.Error),
	modes:   embeddingModes,
}

// embedForeign asks other providers by way of OpenAI's embeddings.
type embedForeign struct {
	body  []byte
	batch bool
}

func (f embedForeign) Chat() []byte { return f.body }

func (f embedForeign) Answer(answer []byte) ([]byte, error) {
	return embed.GeminiAnswer(answer, f.batch)
}

func (embedForeign) Writer() chat.Writer { return nil } // there are no streams of it

const methodBatchEmbed = "batchEmbedContents"

// google is POST /v1beta/models/{model}:{method}, and the same below /v1, where Google's newer clients call it.
func (g *Gateway) google(c *gin.Context) error {
	path := strings.TrimPrefix(c.Param("call"), "/")
	at := strings.LastIndexByte(path, ':')
	if at < 0 {
		return unknownURL(c)
	}
	model, err := url.PathUnescape(path[:at])
	if err != nil {
		return unknownURL(c)
	}
	a := &asking{model: model, method: path[at+1:]}
	var d *door
	switch a.method {
	case "generateContent":
		d = generateDoor
	case "streamGenerateContent":
		d, a.stream, a.list = generateDoor, true, c.Query("alt") != "sse"
	case provider.MethodCount:
		d = generateCountDoor
	case "embedContent", methodBatchEmbed:
		d = embedDoor
	default:
		return unknownURL(c)
	}
	c.Set(keyDoor, d)
	return g.serve(c, a)
}

// count answers how many tokens a request has where its provider does not count for us: by its own
// vocabulary where that is public, raised by a factor where it is not. It costs nothing.
func (g *Gateway) count(c *gin.Context, k *call) error {
	c.Data(http.StatusOK, "application/json; charset=utf-8", k.door.counted(k.countForeign()))
	return nil
}

func (k *call) countForeign() int64 {
	n, _ := provider.CountPrompt(k.model.UpstreamName(), k.chat)
	return n
}

func unknownURL(c *gin.Context) error {
	return &Error{Status: http.StatusNotFound, Type: typeInvalid, Code: "unknown_url",
		Message: "Unknown request URL: " + cut(c.Request.Method) + " " + cut(c.Request.URL.Path) + "."}
}

// anyDoor serves whatever any door does.
var anyDoor = &door{surface: chat.SurfaceResponses, modes: []domain.Mode{domain.ModeChat, domain.ModeCompletion, domain.ModeEmbedding}}
