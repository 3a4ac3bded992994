package chat

import "llm-gateway/domain"

// Bounds of foreign strings that end up in events, in bytes.
const (
	MaxFinishReason = 64
	MaxServiceTier  = 64
	MaxRegion       = 64
	MaxModelName    = 128
	MaxUpstreamID   = 128
)

// Report is what the provider said about its answer, as far as it is known. The strings are
// printable, bounded and without U+0000.
type Report struct {
	Model        string        // the model that served; at most MaxModelName
	Usage        *domain.Usage // nil = not reported, or not usable
	Partial      bool          // Usage.Output is not final: the answer broke off before the provider had counted it
	Iterations   []Iteration   // where several models served: each one's own usage; they sum to Usage
	FinishReason string        // the first choice's, in the provider's own word; at most MaxFinishReason
	ServiceTier  string        // the tier that served, by the price book's names; at most MaxServiceTier
	Geo          string        // where it was worked on, in the provider's word, "" = it does not say; at most MaxRegion
	Speed        string        // how fast, as Geo; at most MaxRegion
	UpstreamID   string        // the answer's id; at most MaxUpstreamID
	Kept         []string      // ids of what the provider keeps of this answer and requests can name; at most MaxReferences
	Raw          []byte        // the usage object as it came, usable or not, made by RawUsage; not cleaned; nil = none
}

// Iteration is what one model did for an answer that several served.
type Iteration struct {
	Model string
	Usage domain.Usage
}

// Chunk is one event of a stream, in OpenAI's form. Data and Text are valid until the stream's next
// event is read.
type Chunk struct {
	// Data is the event's JSON object, without "data: "; it has no line breaks.
	Data []byte
	// Text is the text that it delivers, for counting: content, refusal, reasoning, names and
	// arguments of tool calls, of all choices.
	Text []byte
	// UsageOnly marks the chunk with "choices": [] and a usage, which is taken out again if the
	// client did not ask for it.
	UsageOnly bool
	// Event is the name of the event, for APIs whose events have one; "" = none.
	Event string
	// Last marks the event that ends an answer. It goes out only when the charge is durable; an API whose
	// end is not an event of its own (chat's [DONE]) has none.
	Last bool
}

// Completion is a whole answer: in OpenAI's form where it was translated, else as the provider sent it.
type Completion struct {
	Body   []byte // the JSON object
	Report Report
	// Text is all the text that it delivers, for counting where no usage was reported. nil where Body is a
	// chat completion.
	Text func() string
}

// Exchange is one translated call: what to send, and how to read what comes back.
type Exchange interface {
	// Body is the provider's own request, ready to be sent.
	Body() []byte
	// Answer translates a whole answer. It fails where native is not one, or tells of an error under
	// status 200.
	Answer(native []byte) (*Completion, error)
	// Reader translates the events of one stream.
	Reader() Reader
}

// Reader translates the events of one stream, in the order they came. It belongs to one goroutine.
type Reader interface {
	// Event takes in the data of one event and appends what it becomes to chunks: nothing, one, or
	// several. done is the provider's own end of the stream. It fails with *Failed on the provider's
	// error event, and with any other error on what it cannot read. data is not kept.
	Event(data []byte, chunks []Chunk) (_ []Chunk, done bool, err error)
	// End is called where the input ended without done. It appends what was still to be said, and
	// reports whether the answer is complete all the same (some providers send no end).
	End(chunks []Chunk) (_ []Chunk, complete bool)
	// Report is what the provider has said so far. Valid at any time.
	Report() Report
}
