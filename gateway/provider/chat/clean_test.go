package chat

import (
	"testing"

	"github.com/tidwall/gjson"
)

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

func TestOneLine(t *testing.T) {
	var reused []byte
	for in, want := range map[string]string{`{"a":1}`: `{"a":1}`, "{\r\n\"a\":\n1}": `{  "a": 1}`, "": ""} {
		if got := OneLine([]byte(in), &reused); string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFailureIn(t *testing.T) {
	for in, want := range map[string]*Failed{
		`{"message":"m","type":"t","code":"c","param":"p"}`: {Message: "m", Type: "t", Code: "c", Param: "p"},
		`{"code":503}`: {Message: "The provider reported an error.", Type: "server_error", Code: "503"},
		`"words"`:      {Message: "words", Type: "server_error"},
		`""`:           nil,
		`null`:         nil,
		`[]`:           nil,
		``:             nil,
	} {
		got := FailureIn(gjson.Parse(in))
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v, want %+v", in, got, want)
		}
	}
}
