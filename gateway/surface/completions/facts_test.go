package completions

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

func TestFacts(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]chat.Facts{
		`{"model":"m"}`:                                                                                   {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":"a"}`:                                                                      {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":null}`:                                                                     {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":["a"]}`:                                                                    {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":["a","b","c"],"n":4}`:                                                      {Choices: 12, MaxOutput: 16},
		`{"model":"m","prompt":[1,2,3]}`:                                                                  {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":[[1,2],[3]],"n":2,"max_tokens":7}`:                                         {Choices: 4, MaxOutput: 7},
		`{"model":"m","prompt":["a","b"],"n":2,"best_of":5}`:                                              {Choices: 10, MaxOutput: 16},
		`{"model":"m","prompt":"a","n":3,"best_of":1}`:                                                    {Choices: 3, MaxOutput: 16},
		`{"model":"m","prompt":"a","best_of":0,"n":null}`:                                                 {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":"a","max_tokens":null}`:                                                    {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":"a","max_tokens":0,"echo":true}`:                                           {Choices: 1, MaxOutput: 1},
		`{"model":"m","prompt":"a","max_tokens":1000000}`:                                                 {Choices: 1, MaxOutput: 1000000},
		`{"model":"m","prompt":"a","stream":true,"user":"u"}`:                                             {Choices: 1, MaxOutput: 16, Stream: true, EndUser: "u"},
		`{"model":"m","prompt":"a","stream":true,"stream_options":null}`:                                  {Choices: 1, MaxOutput: 16, Stream: true},
		`{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}`: {Choices: 1, MaxOutput: 16, Stream: true, IncludeUsage: true},
		`{"model":"m","prompt":"a","service_tier":"flex"}`:                                                {Choices: 1, MaxOutput: 16, ServiceTier: "flex"},
		`{"model":"m","prompt":"a","suffix":"x","logprobs":5,"logit_bias":{"50256":-100},"stop":["\n"],"seed":1,"temperature":0.5,"top_k":3}`: {Choices: 1, MaxOutput: 16},
		`{"model":"m","prompt":"a","prompt_embeds":"AAAA"}`: {Choices: 1, MaxOutput: 16, Opaque: true},
		`{"model":"m","prompt":"a","tools":[]}`:             {Choices: 1, MaxOutput: 16, Opaque: true},
		`{"model":"m","prompt":"a","new_thing":null}`:       {Choices: 1, MaxOutput: 16},
	} {
		want.Model, want.Rounds, want.InputBytes = "m", 1, int64(len(body))
		want.Inputs = inputsOf(gjson.Get(body, "prompt"))
		f, err := Facts([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		} else if !reflect.DeepEqual(*f, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", body, *f, want)
		}
	}
}

// TestSuffix: the body has the suffix once, and every prompt is read with it.
func TestSuffix(t *testing.T) {
	t.Parallel()
	body := `{"model":"m","prompt":["a","b","c"],"suffix":"` + strings.Repeat("x", 100) + `"}`
	f, err := Facts([]byte(body))
	if err != nil || f.InputBytes != int64(len(body))+200 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestFactsRefused(t *testing.T) {
	t.Parallel()
	many := `"x"` + strings.Repeat(`,"x"`, maxPrompts)
	for body, param := range map[string]string{
		`{}`:                                                 "model",
		`{"prompt":"a"}`:                                     "model",
		`{"model":""}`:                                       "model",
		`{"model":1}`:                                        "model",
		`{"Model":"m"}`:                                      "Model",
		`[]`:                                                 "model",
		`{"model":"m","prompt":1}`:                           "prompt",
		`{"model":"m","prompt":{}}`:                          "prompt",
		`{"model":"m","prompt":true}`:                        "prompt",
		`{"model":"m","prompt":[]}`:                          "prompt",
		`{"model":"m","prompt":[[]]}`:                        "prompt[0]",
		`{"model":"m","prompt":[null]}`:                      "prompt[0]",
		`{"model":"m","prompt":[{"a":1}]}`:                   "prompt[0]",
		`{"model":"m","prompt":["a",1]}`:                     "prompt[1]",
		`{"model":"m","prompt":[1,"a"]}`:                     "prompt[1]",
		`{"model":"m","prompt":["a",[1]]}`:                   "prompt[1]",
		`{"model":"m","prompt":[[1],[1.5]]}`:                 "prompt[1][0]",
		`{"model":"m","prompt":[[1],[2,-1]]}`:                "prompt[1][1]",
		`{"model":"m","prompt":[1e3]}`:                       "prompt[0]",
		`{"model":"m","prompt":[12345678901]}`:               "prompt[0]",
		`{"model":"m","prompt":[[[1]]]}`:                     "prompt[0][0]",
		`{"model":"m","prompt":[` + many + `]}`:              "prompt",
		`{"model":"m","Prompt":"a"}`:                         "Prompt",
		`{"model":"m","n":0}`:                                "n",
		`{"model":"m","n":-1}`:                               "n",
		`{"model":"m","n":1.0}`:                              "n",
		`{"model":"m","n":"1"}`:                              "n",
		`{"model":"m","n":129}`:                              "n",
		`{"model":"m","N":2}`:                                "N",
		`{"model":"m","best_of":-1}`:                         "best_of",
		`{"model":"m","best_of":99999999999999999999}`:       "best_of",
		`{"model":"m","Best_Of":2}`:                          "Best_Of",
		`{"model":"m","max_tokens":-1}`:                      "max_tokens",
		`{"model":"m","max_tokens":1e3}`:                     "max_tokens",
		`{"model":"m","max_tokens":1000001}`:                 "max_tokens",
		`{"model":"m","MAX_TOKENS":5}`:                       "MAX_TOKENS",
		`{"model":"m","max_completion_tokens":5}`:            "max_completion_tokens",
		`{"model":"m","n_predict":5}`:                        "n_predict",
		`{"model":"m","Max_New_Tokens":5}`:                   "Max_New_Tokens",
		`{"model":"m","echo":1}`:                             "echo",
		`{"model":"m","suffix":[]}`:                          "suffix",
		`{"model":"m","stream":"true"}`:                      "stream",
		`{"model":"m","stream_options":true}`:                "stream_options",
		`{"model":"m","stream_options":{"include_usage":1}}`: "stream_options.include_usage",
		`{"model":"m","service_tier":1}`:                     "service_tier",
		`{"model":"m","user":{}}`:                            "user",
	} {
		f, err := Facts([]byte(body))
		refused := new(chat.Unsupported)
		if !errors.As(err, &refused) || refused.Param != param || !refused.Invalid || refused.Message == "" {
			t.Errorf("%.90s: %+v, %v; want a refusal of %s", body, f, err, param)
		}
		if _, err := Own([]byte(body), "m"); err == nil {
			t.Errorf("%.90s: sent all the same", body)
		}
		if _, err := Foreign([]byte(body), "1", 1); err == nil {
			t.Errorf("%.90s: translated all the same", body)
		}
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	if got, want := string(Error(400, "invalid_request_error", "", `no "x"`, "prompt")),
		`{"error":{"message":"no \"x\"","type":"invalid_request_error","param":"prompt","code":null}}`; got != want {
		t.Errorf("%s", got)
	}
}

// inputsOf is how many texts or lists of tokens there are.
func inputsOf(v gjson.Result) int64 {
	if !v.IsArray() || v.Get("0").Type == gjson.Number {
		return 1
	}
	return v.Get("#").Int()
}
