package fields

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

func TestCamel(t *testing.T) {
	for name, want := range map[string]string{"": "", "a": "a", "maxOutputTokens": "maxOutputTokens", "max_output_tokens": "maxOutputTokens", "top_k": "topK",
		"max_OutputTokens": "max_OutputTokens", "_": "", "a__b": "aB", "$defs": "$defs", "über_all": "überAll"} {
		if got := Camel(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestRead(t *testing.T) {
	for body, want := range map[string]string{ // the names, or the place that is refused
		`{}`:                                  "",
		`{"a":1,"b_c":2,"d":null,"eF":"x"}`:   "a bC eF",
		`{"safety_settings":[],"Whatever":1}`: "safetySettings Whatever",
		`[]`:                                  "! p",
		`"x"`:                                 "! p",
		`{"a_b":1,"aB":2}`:                    "! p.aB",
		`{"a_b":null,"aB":2}`:                 "! p.aB",
		`{"MaxOutputTokens":1}`:               "! p.MaxOutputTokens",
		`{"maxoutputtokens":1}`:               "! p.maxoutputtokens",
		`{"max_outputTokens":1}`:              "! p.max_outputTokens",
		`{"Inline_Data":{}}`:                  "! p.Inline_Data",
	} {
		o, err := Read("p", gjson.Parse(body))
		got := strings.Join(o.Names, " ")
		if refusal := new(chat.Unsupported); errors.As(err, &refusal) {
			got = "! " + refusal.Param
			if !refusal.Invalid {
				t.Errorf("%s: not invalid", body)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func TestValues(t *testing.T) {
	o, err := Read("", gjson.Parse(`{"text":"x","number":3,"big":4,"yes":true,"nothing":null,"list":[1,2],"one":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := o.Text("text"); err != nil || s != "x" {
		t.Error(s, err)
	}
	if s, err := o.Text("nothing"); err != nil || s != "" || o.Has("nothing") {
		t.Error(s, err)
	}
	if yes, err := o.Bool("yes"); err != nil || !yes {
		t.Error(yes, err)
	}
	if n, err := o.Count("number", 3); err != nil || n != 3 {
		t.Error(n, err)
	}
	if n, err := o.Count("absent", 3); err != nil || n != 0 {
		t.Error(n, err)
	}
	for _, err := range []error{second(o.Text("number")), second(o.Bool("text")), second(o.Count("big", 3)), second(o.Count("text", 3)), o.Each("number", nil)} {
		if err == nil {
			t.Errorf("%v", err)
		}
	}
	if place := o.Place(strings.Repeat("ü", 300)); len(place) > 110 || !utf8.ValidString(place) {
		t.Error(place)
	}
	var places []string
	for _, name := range []string{"list", "one", "nothing"} {
		err = o.Each(name, func(param string, _ gjson.Result) error {
			places = append(places, param)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if got := strings.Join(places, " "); got != "list[0] list[1] one" {
		t.Error(got)
	}
}

func TestTexts(t *testing.T) {
	for body, want := range map[string]string{ // the texts, or the place that is refused
		`{"role":"user","parts":[{"text":"a"},{"text":""},{"text":"b"}]}`: "a||b",
		`{"parts":{"text":"a"}}`:               "a",
		`{}`:                                   "",
		`{"parts":[{"text":1}]}`:               "! p.parts[0].text",
		`{"parts":[{"text":"a","thought":1}]}`: "! p.parts[0].thought",
		`{"parts":["a"]}`:                      "! p.parts[0]",
		`"a"`:                                  "! p",
	} {
		texts, err := Texts("p", gjson.Parse(body))
		got := strings.Join(texts, "|")
		if refusal := new(chat.Unsupported); errors.As(err, &refusal) {
			got = "! " + refusal.Param
		}
		if got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// FuzzRead: what is read is in the object, under a canonical name, once.
func FuzzRead(f *testing.F) {
	f.Add(`{"a_b":1,"c":null}`)
	f.Add(`{"aB":1,"a_b":2}`)
	f.Fuzz(func(t *testing.T, body string) {
		if !gjson.Valid(body) {
			return
		}
		o, err := Read("", gjson.Parse(body))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, name := range o.Names {
			if seen[name] || !o.Has(name) || name != Camel(name) && strings.Contains(name, "_") && strings.ToLower(name) == name {
				t.Errorf("%q of %s", name, body)
			}
			seen[name] = true
		}
	})
}
