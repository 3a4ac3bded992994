package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway/provider"
)

// ending is how a model's answer ends.
type ending uint8

const (
	endsWell    ending = iota
	endsCut            // the connection breaks
	endsError          // an error event, or an HTTP status
	endsStalled        // nothing more comes
	endsPanic          // a defect in the adaptor
	endings
)

// status is what a client may be answered because of it, but for the model's own refusals.
func (e ending) status() int {
	return map[ending]int{endsCut: 502, endsStalled: 504, endsPanic: 500}[e]
}

// script is what a model does in one attempt.
type script struct {
	chunks []int // words of each; 0 is a chunk without text
	burst  int   // so many chunks from the second on come together
	end    ending
	early  bool    // it ends so before the first chunk
	usage  *tokens // what it reports; nil: nothing
	before bool    // the report comes though the end is bad
}

// stall is how long a provider that says nothing is waited for: as the real ones are.
const stall = 60 * time.Second

func makeScript(rng *rand.Rand) script {
	s := script{burst: rng.IntN(3), early: rng.IntN(3) == 0, before: rng.IntN(4) == 0}
	for range 1 + rng.IntN(5) {
		s.chunks = append(s.chunks, rng.IntN(4))
	}
	if rng.IntN(3) == 0 {
		s.end = ending(rng.IntN(int(endings)))
	}
	if rng.IntN(3) > 0 {
		words := 0
		for _, n := range s.chunks {
			words += n
		}
		s.usage = &tokens{Input: 4 + rng.IntN(20), Output: words}
		switch rng.IntN(8) {
		case 0:
			s.usage = &tokens{}
		case 1:
			s.usage.Cached = rng.IntN(s.usage.Input)
		case 2: // more than it was asked for: the bound does not hold
			s.usage.Output = 100_000
		}
	}
	return s
}

// model is the provider of one process: it follows the attempt's script, and bears witness of what it
// was asked, delivered and reported.
type model struct{ p *process }

// Name implements provider.Provider.
func (*model) Name() string { return provider.SimulatedName }

// errModel is a provider's failure.
func errModel(k provider.Kind, status int) *provider.Error {
	return &provider.Error{Kind: k, Provider: provider.SimulatedName, Status: status, Reason: "simulated"}
}

// reach is a request's way to the model, or a failure.
func (m *model) reach(ctx context.Context, a *attempt, what string) error {
	if _, err := m.p.enter(ctx, kindProvider, a.name+" "+what); err != nil {
		return errModel(provider.KindCanceled, 0)
	}
	return nil
}

// fail is how a bad end shows, with so many chunks before it.
func (m *model) fail(ctx context.Context, end ending, begun bool) error {
	switch end {
	case endsPanic:
		panic("a defect in the adaptor")
	case endsStalled:
		return m.stall(ctx)
	case endsError:
		e := errModel(provider.KindRejected, 429)
		if begun {
			e = errModel(provider.KindCut, 200)
			e.Body = []byte(`{"error":{"message":"overloaded","type":"server_error","param":null,"code":"overloaded"}}`)
		}
		return e
	}
	if begun {
		return errModel(provider.KindCut, 200)
	}
	return errModel(provider.KindUpstream, 502)
}

func (m *model) stall(ctx context.Context) error {
	timer := time.NewTimer(stall)
	defer timer.Stop()
	select {
	case <-timer.C:
		return errModel(provider.KindTimeout, 0)
	case <-ctx.Done():
	case <-m.p.ctx.Done():
	}
	return errModel(provider.KindCanceled, 0)
}

// Prepare implements provider.Provider.
func (m *model) Prepare(*provider.Request) (provider.Terms, error) { return provider.Terms{}, nil }

// Complete implements provider.Provider.
func (m *model) Complete(ctx context.Context, r provider.Request) (*provider.Completion, error) {
	a := m.p.w.attempt(r.Header.Get(headerAttempt))
	s := a.plan.script
	if err := m.reach(ctx, a, "asks"); err != nil {
		return nil, err
	}
	a.witness.asked(r.Body)
	if s.end != endsWell {
		return nil, m.fail(ctx, s.end, false)
	}
	if err := m.reach(ctx, a, "hears"); err != nil {
		return nil, err
	}
	words := 0
	for _, n := range s.chunks {
		words += n
	}
	words = min(words, a.witness.Most)
	a.witness.Handed, a.witness.Whole, a.witness.Usage = words, true, s.usage
	body := fmt.Sprintf(`{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}]}`,
		strings.Repeat(word, words))
	return &provider.Completion{Body: []byte(body), Report: report(s.usage)}, nil
}

func report(u *tokens) provider.Report {
	r := provider.Report{Model: "m", FinishReason: "stop"}
	if u != nil {
		r.Usage = &domain.Usage{Input: int64(u.Input), CachedInput: int64(u.Cached), Output: int64(u.Output)}
	}
	return r
}

// Stream implements provider.Provider.
func (m *model) Stream(ctx context.Context, r provider.Request) (provider.Stream, error) {
	a := m.p.w.attempt(r.Header.Get(headerAttempt))
	s := a.plan.script
	if err := m.reach(ctx, a, "asks"); err != nil {
		return nil, err
	}
	a.witness.asked(r.Body)
	if s.early && s.end != endsWell && s.end != endsCut {
		return nil, m.fail(ctx, s.end, false)
	}
	return &stream{m: m, a: a, ctx: ctx, script: s}, nil
}

// stream is an answer under way.
type stream struct {
	m      *model
	a      *attempt
	ctx    context.Context
	script script
	sent   int // chunks
	told   bool
	end    error
}

// More implements provider.Stream.
func (s *stream) More() bool {
	return s.end == nil && s.sent > 0 && s.sent <= s.script.burst && s.sent < len(s.script.chunks)
}

// Next implements provider.Stream.
func (s *stream) Next() (provider.Chunk, error) {
	if s.end != nil {
		return provider.Chunk{}, s.end
	}
	chunk, err := s.next()
	s.end = err
	return chunk, err
}

func (s *stream) next() (provider.Chunk, error) {
	if here := s.More(); !here {
		if err := s.m.reach(s.ctx, s.a, fmt.Sprint("hears ", s.sent)); err != nil {
			return provider.Chunk{}, err
		}
	}
	bad := s.script.end != endsWell
	switch {
	case bad && s.script.early && s.sent == 0:
		return provider.Chunk{}, s.m.fail(s.ctx, s.script.end, false)
	case s.sent < len(s.script.chunks):
		return s.text(), nil
	case !s.told && s.script.usage != nil && (!bad || s.script.before):
		s.told, s.a.witness.Usage = true, s.script.usage
		return provider.Chunk{Data: []byte(`{"id":"x","object":"chat.completion.chunk","choices":[],"usage":{}}`), UsageOnly: true}, nil
	case bad:
		return provider.Chunk{}, s.m.fail(s.ctx, s.script.end, true)
	}
	s.a.witness.Whole = true
	return provider.Chunk{}, io.EOF
}

// text is the next chunk, cut to what was asked for at most.
func (s *stream) text() provider.Chunk {
	n := min(s.script.chunks[s.sent], s.a.witness.Most-s.a.witness.Handed)
	s.sent++
	s.a.witness.Handed += n
	text := strings.Repeat(word, n)
	return provider.Chunk{Text: []byte(text),
		Data: []byte(`{"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}`)}
}

// Report implements provider.Stream.
func (s *stream) Report() provider.Report {
	if !s.told {
		return report(nil)
	}
	return report(s.script.usage)
}

// Close implements provider.Stream.
func (s *stream) Close() error {
	if s.end == nil {
		s.end = errors.Join(errModel(provider.KindCanceled, 0))
	}
	return nil
}

// asked notes what reached the model, and when.
func (w *witness) asked(body []byte) {
	w.Calls++
	w.AskedAt = time.Now()
	w.Most = 1 << 20
	if most := gjson.GetBytes(body, "max_completion_tokens"); most.Exists() {
		w.Most = int(most.Int())
	}
}
