package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes a foreign string fit for a Report: printable, valid, at most limit bytes. The result does not hold
// on to the answer that s is a piece of.
func Clean(s string, limit int) string {
	if len(s) <= limit && isClean(s) {
		return strings.Clone(s)
	}
	out := make([]byte, 0, min(len(s), limit))
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		if len(out)+utf8.RuneLen(r) > limit {
			break
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// isClean is the common case: printable ASCII.
func isClean(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
