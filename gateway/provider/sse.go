package provider

import (
	"bytes"
	"errors"
	"io"
)

// Bounds of an event stream, in bytes.
const (
	// maxEventBytes bounds one line, and the data of one event.
	maxEventBytes = 4 << 20
	// eventBufferSize is the read buffer to begin with: a dozen usual chunks. It grows only for a
	// line that does not fit.
	eventBufferSize = 4 << 10
	// eventReadSize bounds one read, so that a buffer grown for one long line does not make the
	// search for line ends in many short ones expensive.
	eventReadSize = 64 << 10
	// maxEmptyReads bounds reads in a row that give neither bytes nor an error.
	maxEmptyReads = 100
)

var (
	errEventTooLong = errors.New("an event is longer than the bound")
	byteOrderMark   = []byte("\xef\xbb\xbf")
	dataField       = []byte("data")
	lineFeed        = []byte("\n")
)

// eventReader reads the data of server-sent events (WHATWG HTML, section 9.2) from r. Lines end in
// LF, CRLF or CR; comments, pings and the fields event, id and retry are passed over; several data
// lines are joined by LF; an event without data is none. One difference: what stands at the
// end of the input without its blank line is an event too, because upstreams leave that line
// out after [DONE]; whether it is complete shows in its JSON.
//
// It allocates only while its two buffers grow.
type eventReader struct {
	r     io.Reader
	buf   []byte
	start int // of the next line in buf
	end   int // of what has been read into buf
	noLF  int // buf[start:noLF] has no LF: it is not searched again
	noCR  int // the same for CR
	data  []byte
	begun bool  // the first line has been read, and with it a byte order mark
	skip  bool  // the last line ended in the last CR of buf: an LF that follows belongs to it
	err   error // of r; what is in buf comes before it
}

func newEventReader(r io.Reader) *eventReader {
	return &eventReader{r: r, buf: make([]byte, eventBufferSize)}
}

// next returns the data of the next event, valid until the next call, and whether it had several
// lines. io.EOF is a clean end of the input.
func (e *eventReader) next() (data []byte, lines int, err error) {
	e.data = e.data[:0]
	for {
		line, err := e.line()
		if err == io.EOF && lines > 0 && len(e.data) > 0 {
			return e.data, lines, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if len(line) == 0 {
			if len(e.data) > 0 {
				return e.data, lines, nil
			}
			lines = 0
			continue
		}
		value, ok := dataOf(line)
		if !ok {
			continue
		}
		if len(e.data)+len(value) >= maxEventBytes {
			return nil, 0, errEventTooLong
		}
		if lines > 0 {
			e.data = append(e.data, '\n')
		}
		e.data = append(e.data, value...)
		lines++
	}
}

// more says that the next event is here already, whole, so that next would not wait for it. It may
// say no to an event of an unusual form; never yes to what is not an event.
func (e *eventReader) more() bool {
	rest := e.buf[e.start:e.end]
	first, after, ended := bytes.Cut(rest, lineFeed)
	if !ended || bytes.IndexByte(first, '\r') >= 0 {
		return false
	}
	value, ok := dataOf(first)
	return ok && len(value) > 0 && bytes.HasPrefix(after, lineFeed)
}

// dataOf is the value of a data line; not ok for comments and other fields.
func dataOf(line []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(line, dataField)
	switch {
	case !ok:
		return nil, false
	case len(rest) == 0:
		return rest, true
	case rest[0] != ':':
		return nil, false
	case len(rest) > 1 && rest[1] == ' ':
		return rest[2:], true
	}
	return rest[1:], true
}

// line returns the next line without its end; the last one may have none.
func (e *eventReader) line() ([]byte, error) {
	for {
		if line, ok := e.buffered(); ok {
			return e.unmarked(line), nil
		}
		if e.err == nil {
			e.fill()
			continue
		}
		line := e.buf[e.start:e.end]
		e.start = e.end
		if e.err == io.EOF && len(line) > 0 {
			return e.unmarked(line), nil
		}
		return nil, e.err
	}
}

// unmarked takes the byte order mark off the first line.
func (e *eventReader) unmarked(line []byte) []byte {
	if e.begun {
		return line
	}
	e.begun = true
	return bytes.TrimPrefix(line, byteOrderMark)
}

// buffered takes a line that has ended out of the buffer. No byte is searched twice: LF and CR are
// searched apart, because the two searches for one byte each are the fast ones.
func (e *eventReader) buffered() ([]byte, bool) {
	if e.skip && e.start < e.end {
		e.skip = false
		if e.buf[e.start] == '\n' {
			e.start++
		}
	}
	e.noLF = indexFrom(e.buf[:e.end], max(e.start, e.noLF), '\n')
	e.noCR = max(e.start, e.noCR)
	if e.noCR < e.noLF {
		e.noCR = indexFrom(e.buf[:e.noLF], e.noCR, '\r')
	}
	at := min(e.noLF, e.noCR)
	if at == e.end {
		return nil, false
	}
	line := e.buf[e.start:at]
	e.start = at + 1
	switch {
	case e.buf[at] == '\n':
	case e.start == e.end:
		e.skip = true
	case e.buf[e.start] == '\n':
		e.start++
	}
	return line, true
}

// indexFrom is the index of c in b at or after from; len(b) if there is none.
func indexFrom(b []byte, from int, c byte) int {
	if i := bytes.IndexByte(b[from:], c); i >= 0 {
		return from + i
	}
	return len(b)
}

// fill reads more, after making room: what is left moves to the front, and the buffer doubles when
// one line fills it.
func (e *eventReader) fill() {
	if e.start > 0 {
		copy(e.buf, e.buf[e.start:e.end])
		e.end -= e.start
		e.noLF, e.noCR = max(0, e.noLF-e.start), max(0, e.noCR-e.start)
		e.start = 0
	}
	if e.end == len(e.buf) {
		if e.end >= maxEventBytes {
			e.err, e.end = errEventTooLong, 0
			e.noLF, e.noCR = 0, 0
			return
		}
		grown := make([]byte, 2*len(e.buf))
		copy(grown, e.buf[:e.end])
		e.buf = grown
	}
	room := e.buf[e.end:min(len(e.buf), e.end+eventReadSize)]
	for range maxEmptyReads {
		n, err := e.r.Read(room)
		e.end += n
		if n > 0 || err != nil {
			e.err = err
			return
		}
	}
	e.err = io.ErrNoProgress
}
