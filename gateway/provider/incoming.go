package provider

import "io"

// incoming is a stream's side towards the upstream, whatever its events mean: where they come from, and how
// it ends.
type incoming struct {
	call   *call
	events *eventReader
	end    error // what Next has ended with
	closed bool
}

func newIncoming(c *call) incoming { return incoming{call: c, events: newEventReader(c)} }

// broken is the failure of a stream whose input ended before its answer did; early says so of a clean end.
func (s *incoming) broken(err error, begun bool, early string) *Error {
	kind := KindUpstream
	if begun {
		kind = KindCut
	}
	e := s.call.failure(err, kind)
	if err == io.EOF && e.Kind == kind {
		e.Reason = early
	}
	return e
}

// Close implements Stream.
func (s *incoming) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.end == io.EOF {
		s.call.drain()
	}
	s.call.close()
	if s.end == nil {
		s.end = closedEarly(s.call.of.name)
	}
	return nil
}
