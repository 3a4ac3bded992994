package chat

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tidwall/gjson"
)

// read is what a reader makes of a value at p: "! " and the place where it is refused.
func read(v string, how func(s *Strict, v gjson.Result) any) string {
	var s Strict
	got := fmt.Sprint(how(&s, gjson.Parse(v)))
	if refusal := new(Unsupported); errors.As(s.Err, &refusal) {
		return "! " + refusal.Param
	}
	return got
}

func TestStrict(t *testing.T) {
	text := func(s *Strict, v gjson.Result) any { return s.Text("p", v) }
	orNull := func(s *Strict, v gjson.Result) any { return s.TextOrNull("p", v) }
	boolean := func(s *Strict, v gjson.Result) any { return s.Bool("p", v) }
	number := func(s *Strict, v gjson.Result) any { return s.Number("p", v) }
	count := func(s *Strict, v gjson.Result) any { return s.Count("p", v, 0, 20) }
	each := func(s *Strict, v gjson.Result) any {
		var places []string
		s.Each("p", v, func(param string, v gjson.Result) { places = append(places, param+"="+v.Raw) })
		return places
	}
	objects := func(s *Strict, v gjson.Result) any {
		var places []string
		s.Objects("p", v, func(param string, v gjson.Result) { places = append(places, param+"="+v.Raw) })
		return places
	}
	ids := func(s *Strict, v gjson.Result) any {
		s.TokenIDs("p", v)
		return "ok"
	}
	for _, c := range []struct {
		how  func(*Strict, gjson.Result) any
		v    string
		want string
	}{
		{text, `"x"`, "x"}, {text, `null`, "! p"}, {text, ``, "! p"}, {text, `1`, "! p"},
		{orNull, `"x"`, "x"}, {orNull, `null`, ""}, {orNull, ``, ""}, {orNull, `[]`, "! p"},
		{boolean, `true`, "true"}, {boolean, `false`, "false"}, {boolean, `"true"`, "! p"}, {boolean, `1`, "! p"},
		{number, `1.50`, "1.50"}, {number, `"1"`, "! p"},
		{count, `0`, "0"}, {count, `20`, "20"}, {count, `21`, "! p"}, {count, `-1`, "! p"}, {count, `1.0`, "! p"}, {count, `1e1`, "! p"},
		{count, `"1"`, "! p"}, {count, `99999999999999999999`, "! p"}, {count, `true`, "! p"},
		{each, `[1,{}]`, "[p[0]=1 p[1]={}]"}, {each, `[]`, "[]"}, {each, `{}`, "! p"}, {each, `null`, "! p"},
		{objects, `[{},{"a":1}]`, `[p[0]={} p[1]={"a":1}]`}, {objects, `[{},1]`, "! p[1]"}, {objects, `{}`, "! p"},
		{ids, `[0,123456789]`, "ok"}, {ids, `[]`, "! p"}, {ids, `[1,1.0]`, "! p[1]"}, {ids, `[-1]`, "! p[0]"}, {ids, `[1234567890]`, "! p[0]"}, {ids, `["1"]`, "! p[0]"},
	} {
		if got := read(c.v, c.how); got != c.want {
			t.Errorf("%s: %s, want %s", c.v, got, c.want)
		}
	}
}

// The first error stays, and ends the list in which it came.
func TestStrictStops(t *testing.T) {
	var s Strict
	seen := 0
	s.Each("p", gjson.Parse(`[1,2,3]`), func(param string, _ gjson.Result) {
		seen++
		s.Refusef(param, "No.")
		s.Failf("later", "Neither.")
	})
	refusal := new(Unsupported)
	if !errors.As(s.Err, &refusal) || refusal.Param != "p[0]" || refusal.Invalid || seen != 1 {
		t.Errorf("%v after %d", s.Err, seen)
	}
}

func TestMisspelt(t *testing.T) {
	for name, want := range map[string]string{"model": "", "Model": "model", "MAX_TOKENS": "max_tokens", "modell": "", "": ""} {
		if got := Misspelt(name, []string{"model", "max_tokens"}); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
