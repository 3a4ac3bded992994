package provider

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tidwall/gjson"
)

const (
	// SimulatedName is the simulated provider's name in the price book.
	SimulatedName = "simulated"
	// SimulatedMaxOutput bounds the tokens of one simulated choice, reasoning included, whatever
	// is asked for. The price book's max_output of the simulated models must not be below it.
	SimulatedMaxOutput = 16_384
	// maxSimulatedWait bounds all waiting that directives cause in one answer, but for sim:hang.
	maxSimulatedWait = 60 * time.Second
	// simulatedCreated is when every simulated answer was made, in Unix seconds: 2026-01-01.
	simulatedCreated = 1_767_225_600
)

// Simulated is a model in this process. The same body gets the same answer, byte for byte. Token
// counts are real: the prompt is counted by CountPrompt, and the answer is made of words that are
// one token of o200k_base each.
//
// It honours max_completion_tokens and max_tokens, n, stream_options.include_usage, tools with
// tool_choice "required" or a named function, and response_format. The length is 8 to 47 tokens
// per choice. Directives anywhere in the last user message change the answer:
//
//	sim:tokens=N     N tokens per choice, within the request's maximum
//	sim:cached=N     N of the prompt's tokens came from a cache
//	sim:reasoning=N  N tokens of hidden reasoning per choice, within the maximum, before the text
//	sim:delay=D      wait before the first byte (Go duration; with pace 60 s at most)
//	sim:pace=D       wait between chunks
//	sim:status=C     fail with HTTP status C, 400 to 599
//	sim:cut=K        the stream breaks off after K chunks (a whole answer fails with 502)
//	sim:error=K      an error event after K chunks (a whole answer fails with 500)
//	sim:nousage      report no usage
//	sim:hang         never answer: wait until the context ends
type Simulated struct{}

// NewSimulated returns the simulated provider.
func NewSimulated() *Simulated { return &Simulated{} }

// Name implements Provider.
func (*Simulated) Name() string { return SimulatedName }

// Prepare implements Provider.
func (*Simulated) Prepare(r *Request) (Terms, error) {
	if !r.isChat() {
		return Terms{}, ErrForeign
	}
	return Terms{}, nil
}

// Complete implements Provider.
func (s *Simulated) Complete(ctx context.Context, r Request) (*Completion, error) {
	p, _, err := s.begin(ctx, r)
	if err != nil {
		return nil, err
	}
	switch {
	case p.failAt >= 0:
		return nil, simulatedStatus(http.StatusInternalServerError)
	case p.cutAt >= 0:
		return nil, statusError(SimulatedName, http.StatusBadGateway, "", nil)
	}
	body := p.appendWhole(nil)
	var a answer
	if !a.whole(body) {
		return nil, broken(SimulatedName, false, "not a chat completion")
	}
	return &Completion{Body: body, Report: a.Report()}, nil
}

// Stream implements Provider.
func (s *Simulated) Stream(ctx context.Context, r Request) (Stream, error) {
	p, waited, err := s.begin(ctx, r)
	if err != nil {
		return nil, err
	}
	return &simulatedStream{ctx: ctx, plan: p, left: maxSimulatedWait - waited,
		frame: p.appendHead(nil, "chat.completion.chunk"), cutAt: p.cutAt, failAt: p.failAt}, nil
}

// begin plans the answer and does what happens before its first byte.
func (s *Simulated) begin(ctx context.Context, r Request) (*plan, time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, canceled(SimulatedName, err)
	}
	p, refused := planOf(r.Body)
	if refused != "" {
		return nil, 0, simulatedRefusal(refused)
	}
	if r.Model != "" { // the body has what the client called it
		p.model = string(gjson.AppendJSONString(nil, r.Model))
	}
	if p.hang {
		<-ctx.Done()
		return nil, 0, canceled(SimulatedName, ctx.Err())
	}
	waited := min(p.delay, maxSimulatedWait)
	if err := wait(ctx, waited); err != nil {
		return nil, 0, err
	}
	if p.status != 0 {
		return nil, 0, simulatedStatus(p.status)
	}
	return p, waited, nil
}

// wait waits for d, unless the context ends first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return canceled(SimulatedName, ctx.Err())
	}
}

// simulatedStatus is the error that a provider answers with a status.
func simulatedStatus(status int) *Error {
	retryAfter := ""
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		retryAfter = "1"
	}
	return statusError(SimulatedName, status, retryAfter, errorJSON(
		"Simulated failure with status "+strconv.Itoa(status)+".", "simulated_error"))
}

// simulatedRefusal is a 400 with a message; the message holds nothing of the prompt.
func simulatedRefusal(message string) *Error {
	return statusError(SimulatedName, http.StatusBadRequest, "",
		errorJSON(message, "invalid_request_error"))
}

func errorJSON(message, kind string) []byte {
	out := gjson.AppendJSONString([]byte(`{"error":{"message":`), message)
	out = gjson.AppendJSONString(append(out, `,"type":`...), kind)
	return append(out, `,"param":null,"code":null}}`...)
}

// simulatedStream makes one chunk at a time and reads it as it would read a provider's.
type simulatedStream struct {
	ctx           context.Context
	plan          *plan
	answer        answer
	frame         []byte        // the head that all chunks share
	data          []byte        // the current chunk
	left          time.Duration // for waiting
	sent          int           // chunks
	choice, step  int           // the next chunk is this step of this choice
	cutAt, failAt int           // after so many chunks; -1 = never
	end           error
}

// Next implements Stream.
func (s *simulatedStream) Next() (Chunk, error) {
	if s.end != nil {
		return Chunk{}, s.end
	}
	chunk, err := s.next()
	if err != nil {
		s.end = err
	}
	return chunk, err
}

// More implements Stream: every chunk could be the last before a wait.
func (s *simulatedStream) More() bool { return false }

func (s *simulatedStream) next() (Chunk, error) {
	if err := s.ctx.Err(); err != nil {
		return Chunk{}, canceled(SimulatedName, err)
	}
	switch s.sent {
	case s.cutAt:
		return Chunk{}, broken(SimulatedName, s.sent > 0, "the stream was cut")
	case s.failAt:
		return Chunk{}, eventError(SimulatedName, errorJSON("Simulated failure.", "server_error"))
	case 0:
	default:
		pause := min(s.plan.pace, s.left)
		s.left -= pause
		if err := wait(s.ctx, pause); err != nil {
			return Chunk{}, err
		}
	}
	if !s.advance() {
		return Chunk{}, io.EOF
	}
	s.sent++
	chunk, failed := s.answer.chunk(SimulatedName, s.data, 1)
	if failed != nil {
		return Chunk{}, failed
	}
	return chunk, nil
}

// advance makes the next chunk in s.data; false after the last.
func (s *simulatedStream) advance() bool {
	p := s.plan
	s.data = append(s.data[:0], s.frame...)
	switch {
	case s.choice < len(p.choices):
		c := &p.choices[s.choice]
		s.data = append(s.data, `,"choices":[{"index":`...)
		s.data = strconv.AppendInt(s.data, int64(s.choice), 10)
		s.data = c.appendDelta(append(s.data, `,"delta":`...), s.step)
		s.data = append(s.data, '}', ']')
		if s.step++; s.step == c.steps() {
			s.choice, s.step = s.choice+1, 0
		}
		if p.includeUsage {
			s.data = append(s.data, `,"usage":null`...)
		}
	case s.choice == len(p.choices) && p.includeUsage && !p.noUsage:
		s.choice++
		s.data = p.appendUsage(append(s.data, `,"choices":[],"usage":`...))
	default:
		return false
	}
	s.data = append(s.data, '}')
	return true
}

// Report implements Stream.
func (s *simulatedStream) Report() Report { return s.answer.Report() }

// Close implements Stream.
func (s *simulatedStream) Close() error {
	if s.end == nil {
		s.end = &Error{Kind: KindCanceled, Provider: SimulatedName, Reason: "the stream was closed",
			cause: context.Canceled}
	}
	return nil
}
