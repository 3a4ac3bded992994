package gateway

import "strings"

// wordingPart is how long a part of a wording is, in bytes.
const wordingPart = 64 << 10

// wording is the text that was written to a client. It is kept part by part: one buffer that is
// copied whenever it is full leaves several times the text as garbage.
type wording struct {
	full [][]byte // parts that are full
	last []byte
}

// length is in bytes.
func (t *wording) length() int { return len(t.full)*wordingPart + len(t.last) }

func (t *wording) add(text []byte) {
	for len(text) > 0 {
		if len(t.last) == wordingPart {
			t.full, t.last = append(t.full, t.last), make([]byte, 0, wordingPart)
		}
		n := min(len(text), wordingPart-len(t.last))
		t.last = append(t.last, text[:n]...)
		text = text[n:]
	}
}

// upTo is the first n bytes, of as many as there are.
func (t *wording) upTo(n int) string {
	var text strings.Builder
	text.Grow(n)
	for _, part := range t.full {
		text.Write(part[:min(len(part), n-text.Len())])
	}
	text.Write(t.last[:min(len(t.last), n-text.Len())])
	return text.String()
}
