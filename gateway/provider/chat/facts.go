package chat

import "github.com/tidwall/gjson"

// Surfaces are the APIs that applications speak, as events name them.
const (
	SurfaceChat        = "chat_completions"
	SurfaceCompletions = "completions"
	SurfaceEmbeddings  = "embeddings"
	SurfaceResponses   = "responses"
	SurfaceMessages    = "messages"
	SurfaceGenerate    = "generate_content"
	SurfaceEmbed       = "embed_content"
)

// Facts is what the meter needs to know of a request, whatever API it came in by. They are read strictly:
// whatever could cost money and is not understood is Opaque, or refused.
type Facts struct {
	Model        string
	Stream       bool
	IncludeUsage bool  // the client wants the chunk with the usage (chat completions only)
	Choices      int64 // how many answers at once; at least 1
	MaxOutput    int64 // the client's own maximum per choice, in tokens; 0 = none named
	// InputBytes is an upper bound of the input tokens that the body contains as text: its length in
	// bytes, with what the provider's template adds to each tool and schema.
	InputBytes int64
	Images     int64 // images in the body, or linked from it
	ImageBytes int64 // what they take of InputBytes
	// Opaque says that the input has parts that are not in the body as text: they are bounded by the model's
	// context window.
	Opaque bool
	// Rounds is how often the provider itself may ask its models with this input, each time billing all of
	// it: 1 + the rounds of the tools that it runs, times the models it may fall back to. At least 1.
	Rounds        int64
	Searches      int64 // the most web searches; 0 with WebSearch = the provider does not limit them
	WebSearch     bool
	AudioIn       bool
	AudioOut      bool
	ImageOut      bool
	PredictionLen int64 // bytes of a predicted output: rejected predictions are billed as output
	ServiceTier   string
	Geo           string // the place to be worked on that it asks for; "" = none
	Speed         string // the speed that it asks for; "" = the usual one
	EndUser       string
	NoOutput      bool  // it has no output tokens: embeddings, counts
	Inputs        int64 // how many inputs have the context window each to itself; 0 = 1
	References    []Reference
}

// Reference is something that the provider keeps and the request only names: whoever knows the name is given
// it, by every account's requests alike, because all of them come with one key.
type Reference struct {
	Param string // where it stands
	ID    string // as the provider's answers tell it; "" = of a kind that no answer tells, so nobody knows whose it is
}

// MaxReferences bounds how many references one request may have, and how many ids of one answer are told.
const MaxReferences = 1024

// Refer keeps a reference. One more than MaxReferences is kept, so that too many can be told.
func (f *Facts) Refer(param, id string) {
	if len(f.References) <= MaxReferences {
		f.References = append(f.References, Reference{param, id})
	}
}

// ReferIf is Refer of what nobody knows the owner of, where v is there and not null.
func (f *Facts) ReferIf(param string, v gjson.Result) {
	if v.Type != gjson.Null {
		f.Refer(param, "")
	}
}

// Foreign is a request of another API than chat completions, read: it can be served by any provider, by way
// of a chat completion, and its answers are written in the API's own form.
type Foreign interface {
	// Chat is the request as a chat-completions body: one JSON object, with the model's name as it was
	// asked for.
	Chat() []byte
	// Answer translates a whole chat completion.
	Answer(completion []byte) ([]byte, error)
	// Writer translates a stream of chat chunks.
	Writer() Writer
}

// Writer translates one stream of chat chunks, in order, into the events of another API. It belongs to one
// goroutine. What it appends has Data, Event and Last set; Text is the caller's affair.
type Writer interface {
	// Chunk takes in the JSON of one chat chunk, the one with the usage too.
	Chunk(data []byte, events []Chunk) []Chunk
	// End appends what ends a stream that came to its end. The last event of it is Last.
	End(events []Chunk) []Chunk
}
