package gateway

import (
	"context"
	"errors"
	"io"

	"llm-gateway/gateway/provider"
	"llm-gateway/gateway/provider/chat"
)

// A target that does not speak the request's own API is asked by way of a chat completion, and what it
// answers is written in the form of that API.

// complete asks a target for a whole answer, in the request's own form.
func (t *target) complete(ctx context.Context) (*provider.Completion, error) {
	answer, err := t.upstream.Complete(ctx, t.request)
	if err != nil || t.foreign == nil {
		return answer, err
	}
	text := answer.Text() // of the chat completion: the other form is not read again
	if answer.Body, err = t.foreign.Answer(answer.Body); err != nil {
		return nil, &provider.Error{Kind: provider.KindUpstream, Provider: t.upstream.Name(), Status: 200, Reason: "not an answer"}
	}
	answer.SetText(text)
	return answer, nil
}

// stream asks a target for a stream, in the request's own form.
func (t *target) stream(ctx context.Context) (provider.Stream, error) {
	stream, err := t.upstream.Stream(ctx, t.request)
	if err != nil || t.foreign == nil {
		return stream, err
	}
	return &foreignStream{Stream: stream, writer: t.foreign.Writer()}, nil
}

// foreignStream writes a stream of chat chunks in the form of another API.
type foreignStream struct {
	provider.Stream
	writer  chat.Writer
	waiting []chat.Chunk
	next    int
	text    []byte // delivered by what is waiting, and not given out yet
	end     error  // what the chat stream has ended with
}

// Next implements provider.Stream.
func (s *foreignStream) Next() (provider.Chunk, error) {
	for s.next == len(s.waiting) {
		if s.end != nil {
			return provider.Chunk{}, s.end
		}
		s.read()
	}
	s.next++
	chunk := s.waiting[s.next-1]
	chunk.Text, s.text = s.text, nil
	return chunk, nil
}

// read takes in the next chunk of the chat stream.
func (s *foreignStream) read() {
	s.waiting, s.next = s.waiting[:0], 0
	chunk, err := s.Stream.Next()
	switch {
	case err == nil:
		s.text = append(s.text, chunk.Text...)
		s.waiting = s.writer.Chunk(chunk.Data, s.waiting)
	case errors.Is(err, io.EOF):
		s.end = err
		s.waiting = s.writer.End(s.waiting)
	default:
		s.end = err
	}
}

// More implements provider.Stream. Many chunks become no event: what is here already is read on until one
// does.
func (s *foreignStream) More() bool {
	for s.next == len(s.waiting) {
		if s.end != nil || !s.Stream.More() {
			return false
		}
		s.read()
	}
	return true
}
