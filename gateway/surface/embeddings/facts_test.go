package embeddings

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

func TestFacts(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]chat.Facts{
		`{"model":"m","input":"a"}`:         {},
		`{"model":"m","input":["a","b"]}`:   {},
		`{"model":"m","input":[1,22,333]}`:  {},
		`{"model":"m","input":[[1,2],[3]]}`: {},
		`{"model":"m","input":"a","encoding_format":"base64","dimensions":256,"user":"u","stream":false}`: {EndUser: "u"},
		`{"model":"m","input":"a","encoding_format":null,"dimensions":null,"input_type":null}`:            {},
		`{"model":"m","input":"a","encoding_format":"float","service_tier":"flex"}`:                       {ServiceTier: "flex"},
		`{"model":"m","input":["a",{"image":"https://a.b/c.png"}]}`:                                       {Opaque: true},
		`{"model":"m","input":{"text":"a"}}`:                                                              {Opaque: true},
		`{"model":"m","input":"a","input_type":"query"}`:                                                  {Opaque: true},
	} {
		want.Model, want.Choices, want.Rounds, want.NoOutput, want.InputBytes = "m", 1, 1, true, int64(len(body))
		want.Inputs = inputsOf(gjson.Get(body, "input"))
		f, err := Facts([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		} else if !reflect.DeepEqual(*f, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", body, *f, want)
		}
	}
}

func TestFactsRefused(t *testing.T) {
	t.Parallel()
	many := `"x"` + strings.Repeat(`,"x"`, MaxInputs)
	for body, param := range map[string]string{
		`{}`:                                                 "model",
		`[]`:                                                 "model",
		`{"model":"","input":"a"}`:                           "model",
		`{"model":1,"input":"a"}`:                            "model",
		`{"MODEL":"m","input":"a"}`:                          "MODEL",
		`{"model":"m"}`:                                      "input",
		`{"model":"m","input":null}`:                         "input",
		`{"model":"m","input":""}`:                           "input",
		`{"model":"m","input":[]}`:                           "input",
		`{"model":"m","input":1}`:                            "input",
		`{"model":"m","input":true}`:                         "input",
		`{"model":"m","Input":"a"}`:                          "Input",
		`{"model":"m","input":["a",""]}`:                     "input[1]",
		`{"model":"m","input":["a",null]}`:                   "input[1]",
		`{"model":"m","input":["a",1]}`:                      "input[1]",
		`{"model":"m","input":[1,"a"]}`:                      "input[1]",
		`{"model":"m","input":[1,-2]}`:                       "input[1]",
		`{"model":"m","input":[[]]}`:                         "input[0]",
		`{"model":"m","input":[[1],[2.0]]}`:                  "input[1][0]",
		`{"model":"m","input":[[1],["a"]]}`:                  "input[1][0]",
		`{"model":"m","input":[1234567890]}`:                 "input[0]",
		`{"model":"m","input":[` + many + `]}`:               "input",
		`{"model":"m","input":"a","encoding_format":"int8"}`: "encoding_format",
		`{"model":"m","input":"a","encoding_format":1}`:      "encoding_format",
		`{"model":"m","input":"a","dimensions":0}`:           "dimensions",
		`{"model":"m","input":"a","dimensions":-1}`:          "dimensions",
		`{"model":"m","input":"a","dimensions":1.5}`:         "dimensions",
		`{"model":"m","input":"a","dimensions":"256"}`:       "dimensions",
		`{"model":"m","input":"a","dimensions":9999999}`:     "dimensions",
		`{"model":"m","input":"a","stream":true}`:            "stream",
		`{"model":"m","input":"a","Stream":true}`:            "Stream",
		`{"model":"m","input":"a","user":1}`:                 "user",
	} {
		f, err := Facts([]byte(body))
		refused := new(chat.Unsupported)
		if !errors.As(err, &refused) || refused.Param != param || !refused.Invalid || refused.Message == "" {
			t.Errorf("%.90s: %+v, %v; want a refusal of %s", body, f, err, param)
		}
		if _, err := Own([]byte(body), "m"); err == nil {
			t.Errorf("%.90s: sent all the same", body)
		}
		if _, err := Inputs([]byte(body)); err == nil {
			t.Errorf("%.90s: read all the same", body)
		}
	}
}

func TestInputs(t *testing.T) {
	t.Parallel()
	for body, want := range map[string][]string{
		`{"model":"m","input":"a\n"}`:     {"a\n"},
		`{"input":["a","b"],"model":"m"}`: {"a", "b"},
	} {
		if got, err := Inputs([]byte(body)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", body, got, err)
		}
	}
	for input, param := range map[string]string{`[1,2]`: "input", `["a",[1],[2]]`: "input[1]", `{"text":"a"}`: "input", `["a",{"image":"b"}]`: "input[1]"} {
		_, err := Inputs([]byte(`{"model":"m","input":` + input + `}`))
		refused := new(chat.Unsupported)
		if !errors.As(err, &refused) || refused.Param != param || refused.Invalid {
			t.Errorf("%s: %v", input, err)
		}
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	if got, want := string(Error(404, "invalid_request_error", "model_not_found", "no", "model")),
		`{"error":{"message":"no","type":"invalid_request_error","param":"model","code":"model_not_found"}}`; got != want {
		t.Errorf("%s", got)
	}
}

// TestTokens: no list of token ids has more of them than bytes.
func TestTokens(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 10_000} {
		ids := strings.TrimSuffix(strings.Repeat("1,", n), ",")
		for _, input := range []string{"[" + ids + "]", "[[" + ids + "]]", "[" + strings.TrimSuffix(strings.Repeat("[1],", min(n, MaxInputs)), ",") + "]"} {
			f, err := Facts([]byte(`{"model":"m","input":` + input + `}`))
			if err != nil || f.InputBytes < int64(n) && f.InputBytes < MaxInputs {
				t.Errorf("%d: %+v, %v", n, f, err)
			}
		}
	}
}

// FuzzRequest: what is sent is what was read, for another model.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"model":"o","input":[[1,2],[3]],"dimensions":3}`))
	f.Add([]byte(`{"input":["a","b"],"model":"m","encoding_format":"base64"}`))
	f.Add([]byte(`{"model":"o","input":[1,2,3,4,5,6,7,8,9]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		facts, err := Facts(body)
		if !json.Valid(body) || err != nil || strings.Count(strings.ToLower(string(body)), "model") != 1 || strings.Contains(string(body), `\`) {
			return
		}
		x, err := Own(body, "m")
		if err != nil {
			t.Fatal(err)
		}
		sent, err := Facts(x.Body())
		if err != nil {
			t.Fatalf("%v: %s", err, x.Body())
		}
		want := *facts
		want.Model, want.InputBytes = "m", sent.InputBytes
		if !reflect.DeepEqual(*sent, want) {
			t.Errorf("%+v of %s;\n%+v of %s", *facts, body, *sent, x.Body())
		}
	})
}

// inputsOf is how many texts or lists of tokens there are.
func inputsOf(v gjson.Result) int64 {
	if !v.IsArray() || v.Get("0").Type == gjson.Number {
		return 1
	}
	return v.Get("#").Int()
}
