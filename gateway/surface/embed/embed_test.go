package embed

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

// outcome is what became of a request: the body, or the place that was refused.
func outcome(body []byte, err error) string {
	if refusal := new(chat.Unsupported); errors.As(err, &refusal) {
		return "! " + refusal.Param
	}
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func TestGeminiToOpenAI(t *testing.T) {
	for body, want := range map[string]string{
		`{"content":{"parts":[{"text":"a"},{"text":"b"}]}}`:                                                                         `{"model":"m","input":["ab"],"encoding_format":"float"}`,
		`{"model":"models/m","content":{"parts":{"text":"a"}},"output_dimensionality":8,"taskType":"X","title":"y"}`:                `{"model":"m","input":["a"],"dimensions":8,"encoding_format":"float"}`,
		`{"content":{"parts":[{"text":"<a>"}]},"embedContentConfig":{"taskType":"X","outputDimensionality":8,"autoTruncate":true}}`: `{"model":"m","input":["<a>"],"dimensions":8,"encoding_format":"float"}`,
		`{"content":{"parts":[{"inlineData":{}}]}}`:                                                                                 "! content.parts[0].inlineData",
		`{"content":{"parts":[{"text":1}]}}`:                                                                                        "! content.parts[0].text",
		`{"content":{"parts":[]},"outputDimensionality":-1}`:                                                                        "! outputDimensionality",
		`{"content":{"parts":[]},"embedContentConfig":{"documentOcr":true}}`:                                                        "! embedContentConfig.documentOcr",
		`{"content":{"parts":[]},"x":1}`:                                                                                            "! x",
		`{}`:                                                                                                                        "! content",
		`{"content":"a"}`:                                                                                                           "! content",
	} {
		if got := outcome(GeminiToOpenAI([]byte(body), "models/m", false)); got != want {
			t.Errorf("%s\nbecame %s, want\n%s", body, got, want)
		}
	}
	for body, want := range map[string]string{
		`{"requests":[{"model":"models/m","content":{"parts":[{"text":"a"}]},"outputDimensionality":8},{"content":{"parts":[{"text":"b"}]},"outputDimensionality":8}]}`: `{"model":"m","input":["a","b"],"dimensions":8,"encoding_format":"float"}`,
		`{"requests":[{"content":{"parts":[{"text":"a"}]},"outputDimensionality":8},{"content":{"parts":[{"text":"b"}]}}]}`:                                             "! requests[1].outputDimensionality",
		`{"requests":[]}`:       "! requests",
		`{}`:                    "! requests",
		`{"requests":3}`:        "! requests",
		`{"requests":[],"x":1}`: "! x",
	} {
		if got := outcome(GeminiToOpenAI([]byte(body), "m", true)); got != want {
			t.Errorf("%s\nbecame %s, want\n%s", body, got, want)
		}
	}
}

func TestOpenAIToGemini(t *testing.T) {
	one := `{"requests":[{"model":"models/g","content":{"parts":[{"text":"a"}]}}]}`
	for body, want := range map[string]string{
		`{"model":"alias","input":"a","user":"u","encoding_format":"base64"}`: one,
		`{"input":["a"],"dimensions":null,"encoding_format":"float"}`:         one,
		`{"input":["a","b"],"dimensions":8}`:                                  `{"requests":[{"model":"models/g","content":{"parts":[{"text":"a"}]},"outputDimensionality":8},{"model":"models/g","content":{"parts":[{"text":"b"}]},"outputDimensionality":8}]}`,
		`{"input":[1,2]}`:                                                     "! input",
		`{"input":[[1,2]]}`:                                                   "! input",
		`{"input":[true]}`:                                                    "! input",
		`{"input":[]}`:                                                        "! input",
		`{}`:                                                                  "! input",
		`{"input":"a","dimensions":1.5}`:                                      "! dimensions",
		`{"input":"a","dimensions":"8"}`:                                      "! dimensions",
		`{"input":"a","encoding_format":"x"}`:                                 "! encoding_format",
		`{"input":"a","input_type":"query"}`:                                  "! input_type",
	} {
		if got := outcome(OpenAIToGemini([]byte(body), "g")); got != want {
			t.Errorf("%s\nbecame %s, want\n%s", body, got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	openAI := `{"data":[{"index":1,"embedding":[3]},{"index":0,"embedding":[-0.5,2]}],"usage":{"prompt_tokens":4,"total_tokens":4}}`
	for _, c := range []struct {
		body, want string
		batch      bool
	}{
		{openAI, `{"embeddings":[{"values":[-0.5,2]},{"values":[3]}],"usageMetadata":{"promptTokenCount":4}}`, true},
		{openAI, `{"embedding":{"values":[-0.5,2]},"usageMetadata":{"promptTokenCount":4}}`, false},
		{`{"data":[{"embedding":[1]}]}`, `{"embeddings":[{"values":[1]}]}`, true},
		{`{"data":[{"embedding":"AAAA"}]}`, errNoEmbeddings.Error(), true},
		{`{"data":[]}`, errNoEmbeddings.Error(), true},
		{`{`, errNoEmbeddings.Error(), true},
	} {
		if got := outcome(GeminiAnswer([]byte(c.body), c.batch)); got != c.want {
			t.Errorf("%s\nbecame %s, want\n%s", c.body, got, c.want)
		}
	}
	google := `{"embeddings":[{"values":[-0.5,2]},{"values":[1e-3]}]}`
	for _, c := range []struct{ body, encoding, want string }{
		{google, "", `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[-0.5,2]},{"object":"embedding","index":1,"embedding":[1e-3]}],"model":"m","usage":{"prompt_tokens":4,"total_tokens":4}}`},
		{google, Base64, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAAvwAAAEA="},{"object":"embedding","index":1,"embedding":"bxKDOg=="}],"model":"m","usage":{"prompt_tokens":4,"total_tokens":4}}`},
		{`{"embedding":{"values":[1]}}`, Float, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1]}],"model":"m","usage":{"prompt_tokens":4,"total_tokens":4}}`},
		{`{"embeddings":[{}]}`, Float, errNoEmbeddings.Error()},
		{`{"embeddings":[{"values":["x"]}]}`, Base64, errNoEmbeddings.Error()},
		{`{}`, Float, errNoEmbeddings.Error()},
		{`{"embeddings":`, Float, errNoEmbeddings.Error()},
	} {
		if got := outcome(OpenAIAnswer([]byte(c.body), "m", c.encoding, 4)); got != c.want {
			t.Errorf("%s as %s\nbecame %s, want\n%s", c.body, c.encoding, got, c.want)
		}
	}
}

// TestRecorded translates a recorded answer, and reads base64 as clients do.
func TestRecorded(t *testing.T) {
	s := chattest.Find(t, chattest.Recorded(t, "embeddings", 1), "ge-emb/0")
	body, err := GeminiToOpenAI([]byte(s.Request), s.Model, true)
	if err != nil || gjson.GetBytes(body, "input.0").Str != "Some text goes here" || gjson.GetBytes(body, "dimensions").Int() != 768 {
		t.Errorf("%v: %s", err, body)
	}
	if back, err := OpenAIToGemini(body, "gemini-embedding-2"); err != nil || gjson.ParseBytes(back).Get("requests.0.content.parts.0.text").Str != "Some text goes here" {
		t.Errorf("%v: %s", err, back)
	}
	native := []byte(s.Body)
	answer, err := OpenAIAnswer(native, "m", Base64, 4)
	if err != nil {
		t.Fatal(err)
	}
	want := gjson.GetBytes(native, "embeddings.0.values").Array()
	packed, err := base64.StdEncoding.DecodeString(gjson.GetBytes(answer, "data.0.embedding").Str)
	if err != nil || len(packed) != 4*len(want) || len(want) < 100 {
		t.Fatalf("%v: %d bytes for %d numbers", err, len(packed), len(want))
	}
	for i, n := range want {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(packed[4*i:])); got != float32(n.Float()) {
			t.Errorf("number %d is %v, want %v", i, got, n)
		}
	}
	plain, err := OpenAIAnswer(native, "m", Float, 4)
	if err != nil {
		t.Fatal(err)
	}
	back, err := GeminiAnswer(plain, true)
	spaces := strings.NewReplacer(" ", "", "\n", "")
	if err != nil || gjson.GetBytes(back, "embeddings.0.values").Raw != spaces.Replace(gjson.GetBytes(native, "embeddings.0.values").Raw) {
		t.Errorf("%v: the numbers have changed", err)
	}
}

// FuzzEmbed: whatever JSON comes, what is made of it is JSON.
func FuzzEmbed(f *testing.F) {
	f.Add(`{"requests":[{"content":{"parts":[{"text":"a"}]}}]}`)
	f.Add(`{"input":["a"],"dimensions":3}`)
	f.Add(`{"embeddings":[{"values":[1,2]}]}`)
	f.Add(`{"data":[{"index":-1,"embedding":[1,2]}],"usage":{"prompt_tokens":1e99}}`)
	f.Fuzz(func(t *testing.T, body string) {
		if !gjson.Valid(body) {
			return
		}
		in := []byte(body)
		for _, made := range []func() ([]byte, error){
			func() ([]byte, error) { return GeminiToOpenAI(in, "m", false) }, func() ([]byte, error) { return GeminiToOpenAI(in, "m", true) },
			func() ([]byte, error) { return OpenAIToGemini(in, "m") },
			func() ([]byte, error) { return GeminiAnswer(in, false) }, func() ([]byte, error) { return GeminiAnswer(in, true) },
			func() ([]byte, error) { return OpenAIAnswer(in, "m", Float, 1) }, func() ([]byte, error) { return OpenAIAnswer(in, "m", Base64, 1) },
		} {
			if out, err := made(); err == nil && !gjson.ValidBytes(out) {
				t.Errorf("%s became %s", body, out)
			}
		}
	})
}
