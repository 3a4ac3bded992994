package provider

import (
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// pieces hands out its pieces one a read, and counts the reads.
type pieces struct {
	list  []string
	reads int
}

func (p *pieces) Read(b []byte) (int, error) {
	p.reads++
	if len(p.list) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.list[0])
	if p.list[0] = p.list[0][n:]; p.list[0] == "" {
		p.list = p.list[1:]
	}
	return n, nil
}

// TestMoreNeverWaits: where more says yes, next does not read.
func TestMoreNeverWaits(t *testing.T) {
	t.Parallel()
	part := rapid.SampledFrom([]string{"data: {}", "data:", "data: ", "data", ": ping", "event: x", "\n", "\n", "\n\n", "\r\n", "\r",
		"data: a\n\n", "data: [DONE]\n\n", "\xef\xbb\xbf", "\x00"})
	rapid.Check(t, func(t *rapid.T) {
		var p pieces
		for _, split := range rapid.SliceOfN(rapid.SliceOfN(part, 1, 6), 1, 6).Draw(t, "input") {
			p.list = append(p.list, strings.Join(split, ""))
		}
		e := newEventReader(&p)
		for {
			more, before := e.more(), p.reads
			_, _, err := e.next()
			if more && (p.reads != before || err != nil) {
				t.Fatalf("more said yes, and next read %d times: %v", p.reads-before, err)
			}
			if err != nil {
				return
			}
		}
	})
}

// TestMoreSeesABurst: the form that every provider sends is seen.
func TestMoreSeesABurst(t *testing.T) {
	t.Parallel()
	e := newEventReader(strings.NewReader("data: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n"))
	for i, want := range []bool{false, true, true, false} {
		if e.more() != want {
			t.Errorf("before event %d: %t", i, !want)
		}
		if _, _, err := e.next(); (err != nil) != (i == 3) {
			t.Fatalf("event %d: %v", i, err)
		}
	}
}
