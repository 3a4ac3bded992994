package chat

import "testing"

func TestClean(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 4, ""},
		{"abcd", 4, "abcd"},
		{"abcde", 4, "abcd"},
		{"a\x00b\n\x7fc", 4, "abc"},
		{"a\xffb", 4, "ab"},
		{"a\u200bb\u00a0", 4, "ab"}, // neither can be seen
		{"aüß", 4, "aü"},            // never half a rune
		{"\n\n\n\nabcd", 4, "abcd"}, // what is dropped does not count
	} {
		if got := Clean(c.in, c.limit); got != c.want {
			t.Errorf("%q, %d: %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}
