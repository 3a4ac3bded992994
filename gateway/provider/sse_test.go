package provider

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// readEvents reads everything from r.
func readEvents(r io.Reader) (events []string, err error) {
	e := newEventReader(r)
	for {
		data, _, err := e.next()
		if err != nil {
			return events, err
		}
		events = append(events, string(data))
	}
}

func TestEventReader(t *testing.T) {
	long := strings.Repeat("x", 3*eventBufferSize+7)
	cases := []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"one", "data: a\n\n", []string{"a"}},
		{"crlf", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}},
		{"cr", "data: a\r\rdata: b\r\r", []string{"a", "b"}},
		{"mixed ends", "data: a\r\n\ndata: b\r\r\ndata: c\n\r\n", []string{"a", "b", "c"}},
		{"no blank after the colon", "data:a\n\n", []string{"a"}},
		{"one blank only is taken off", "data:  a \n\n", []string{" a "}},
		{"comments and pings", ": ping\n\n:\n\ndata: a\n: between\n\n", []string{"a"}},
		{"other fields", "event: error\nid: 1\nretry: 3\ndata: a\n\n", []string{"a"}},
		{"an event without data is none", "event: ping\n\ndata: a\n\n", []string{"a"}},
		{"empty data is none", "data:\n\ndata\n\ndata: a\n\n", []string{"a"}},
		{"several lines", "data: a\ndata: b\ndata\ndata: c\n\n", []string{"a\nb\n\nc"}},
		{"other names", "database: a\ndata1: b\nDATA: c\n\n", nil},
		{"byte order mark", "\xef\xbb\xbfdata: a\n\n", []string{"a"}},
		{"a mark later is text", "data: a\n\n\xef\xbb\xbfdata: b\n\n", []string{"a"}},
		{"utf-8", "data: héé 日本 😀\n\n", []string{"héé 日本 😀"}},
		{"no blank line at the end", "data: a\n\ndata: [DONE]\n", []string{"a", "[DONE]"}},
		{"no line end at the end", "data: a\n\ndata: [DONE]", []string{"a", "[DONE]"}},
		{"blank lines", "\n\n\r\n\rdata: a\n\n\n\n", []string{"a"}},
		{"longer than the buffer", "data: " + long + "\n\ndata: b\n\n", []string{long, "b"}},
		{"many", strings.Repeat("data: abc\r\n\r\n", 5000), slices.Repeat([]string{"abc"}, 5000)},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":         func(r io.Reader) io.Reader { return r },
		"byte by byte":  iotest.OneByteReader,
		"half reads":    iotest.HalfReader,
		"error in data": iotest.DataErrReader,
	}
	for _, c := range cases {
		for how, wrap := range readers {
			got, err := readEvents(wrap(strings.NewReader(c.in)))
			if err != io.EOF || !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: %.200q, %v; want %.200q", c.name, how, got, err, c.want)
			}
		}
	}
}

func TestEventReaderBounds(t *testing.T) {
	fits := strings.Repeat("x", maxEventBytes/2)
	cases := []struct {
		name, in string
		want     error
	}{
		{"a line that never ends", "data: " + strings.Repeat("x", maxEventBytes+1), errEventTooLong},
		{"a comment that never ends", ":" + strings.Repeat("x", maxEventBytes+1), errEventTooLong},
		{"an event that never ends", strings.Repeat("data: "+fits+"\n", 3), errEventTooLong},
		{"a long event", "data: " + fits + "\n\n", io.EOF},
	}
	for _, c := range cases {
		if _, err := readEvents(strings.NewReader(c.in)); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := readEvents(neverReady{}); err != io.ErrNoProgress {
		t.Errorf("a reader without progress: %v", err)
	}
}

// neverReady is a reader that gives neither bytes nor an error.
type neverReady struct{}

func (neverReady) Read([]byte) (int, error) { return 0, nil }

func TestEventReaderKeepsWhatCameBeforeAnError(t *testing.T) {
	fault := errors.New("reset")
	in := io.MultiReader(strings.NewReader("data: a\n\ndata: b\n\ndata: half"), iotest.ErrReader(fault))
	got, err := readEvents(in)
	if err != fault || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// plainEvents is the grammar of server-sent events the plain way: all at once.
func plainEvents(in []byte) (events []string) {
	in = bytes.TrimPrefix(in, byteOrderMark)
	in = bytes.ReplaceAll(in, []byte("\r\n"), []byte("\n"))
	in = bytes.ReplaceAll(in, []byte("\r"), []byte("\n"))
	var data []string
	emit := func() {
		if s := strings.Join(data, "\n"); s != "" {
			events = append(events, s)
		}
		data = nil
	}
	for line := range strings.SplitSeq(string(in), "\n") {
		field, value, _ := strings.Cut(line, ":")
		switch {
		case line == "":
			emit()
		case field == "data":
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
	emit()
	return events
}

func FuzzSSE(f *testing.F) {
	f.Add([]byte("data: a\r\rdata: b\r\n\r\n: c\ndata\ndata:x"), byte(3))
	f.Add([]byte("\xef\xbb\xbfdata: {\"a\":\"\xe6\x97\xa5\"}\n\ndata: [DONE]\n\n"), byte(1))
	f.Add([]byte("\r\n\r\r\n\n:data: x\r"), byte(2))
	f.Fuzz(func(t *testing.T, in []byte, step byte) {
		got, err := readEvents(&stepReader{in, int(step)%13 + 1})
		if want := plainEvents(in); err != io.EOF || !slices.Equal(got, want) {
			t.Fatalf("%q in steps of %d: %q, %v; want %q", in, step%13+1, got, err, want)
		}
	})
}

// stepReader gives step bytes at a time.
type stepReader struct {
	in   []byte
	step int
}

func (s *stepReader) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.in[:min(s.step, len(s.in))])
	s.in = s.in[n:]
	return n, nil
}
