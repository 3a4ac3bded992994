package completions

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
)

func TestForeign(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"model":"m","prompt":"Hi <b>"}`:                                                    `{"model":"m","messages":[{"role":"user","content":"Hi <b>"}],"max_completion_tokens":16}`,
		`{"prompt":["Hi"],"model":"m","max_tokens":7}`:                                       `{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_completion_tokens":7}`,
		`{"model":"m","prompt":"Hi","stream":true,"stream_options":{"include_usage":false}}`: `{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_completion_tokens":16,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","prompt":"Hi","temperature":0.50,"top_p":1,"n":2,"stop":["a","b"],"presence_penalty":-1,"frequency_penalty":2,"seed":-5,"user":"u","logit_bias":{"1":-100},"service_tier":"flex","top_k":4}`: `{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_completion_tokens":16,"temperature":0.50,"top_p":1,"n":2,"stop":["a","b"],"presence_penalty":-1,"frequency_penalty":2,"seed":-5,"user":"u","logit_bias":{"1":-100},"service_tier":"flex","top_k":4}`,
		`{"model":"m","prompt":"Hi","echo":false,"suffix":"","best_of":1,"logprobs":null,"stop":null,"unknown":null,"stream":false}`:                                                                               `{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_completion_tokens":16}`,
	} {
		f, err := Foreign([]byte(body), "1", 1)
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if got := string(f.Chat()); got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
		if _, err := chat.Parse(f.Chat()); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestForeignRefused(t *testing.T) {
	t.Parallel()
	for rest, param := range map[string]string{
		``:                                      "prompt",
		`,"prompt":""`:                          "prompt",
		`,"prompt":["a","b"]`:                   "prompt",
		`,"prompt":[1,2]`:                       "prompt",
		`,"prompt":[[1,2]]`:                     "prompt",
		`,"prompt":"a","echo":true`:             "echo",
		`,"prompt":"a","suffix":"b"`:            "suffix",
		`,"prompt":"a","best_of":2`:             "best_of",
		`,"prompt":"a","logprobs":0`:            "logprobs",
		`,"prompt":"a","max_tokens":0`:          "max_tokens",
		`,"prompt":"a","min_p":0.1`:             "min_p",
		`,"prompt":"a","web_search_options":{}`: "web_search_options",
		`,"prompt":"a","messages":[]`:           "messages",
	} {
		_, err := Foreign([]byte(`{"model":"m"`+rest+`}`), "1", 1)
		refused := new(chat.Unsupported)
		if !errors.As(err, &refused) || refused.Param != param || refused.Invalid {
			t.Errorf("%s: %v; want a refusal of %s", rest, err, param)
		}
	}
}

func foreignOf(t *testing.T) chat.Foreign {
	t.Helper()
	f, err := Foreign([]byte(`{"model":"m","prompt":"Hi","stream":true}`), "42", 1700000000)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestForeignAnswer(t *testing.T) {
	t.Parallel()
	for completion, want := range map[string]string{
		`{"id":"x","object":"chat.completion","created":1,"model":"s","system_fingerprint":"fp","service_tier":"default",
			"choices":[{"index":0,"message":{"role":"assistant","content":"a < b","refusal":null,"reasoning_content":"so"},"finish_reason":"stop","logprobs":null},
			{"index":1,"message":{"role":"assistant","content":null,"refusal":"No."},"finish_reason":"content_filter"},
			{"index":2,"message":{"content":[{"type":"thinking","thinking":[]},{"type":"text","text":"c"}]},"finish_reason":"tool_calls"},{"index":3,"message":{"content":""},"finish_reason":null}],
			"usage":{"prompt_tokens":1,"completion_tokens":2,
			"total_tokens":3}}`: `{"id":"cmpl-42","object":"text_completion","created":1700000000,"model":"s","system_fingerprint":"fp","service_tier":"default",` +
			`"choices":[{"text":"a < b","index":0,"logprobs":null,"finish_reason":"stop"},{"text":"No.","index":1,"logprobs":null,"finish_reason":"content_filter"},` +
			`{"text":"c","index":2,"logprobs":null,"finish_reason":"stop"},{"text":"","index":3,"logprobs":null,"finish_reason":null}],` +
			`"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`,
		`{"choices":[]}`: `{"id":"cmpl-42","object":"text_completion","created":1700000000,"model":"m","choices":[]}`,
		`{`:              ``, `[]`: ``, `{}`: ``, `{"choices":1}`: ``,
	} {
		got, err := foreignOf(t).Answer([]byte(completion))
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%s:\n got %s, %v\nwant %s", completion, got, err, want)
		}
	}
}

const chunkHead = `{"id":"cmpl-42","object":"text_completion","created":1700000000,"model":"s",`

func TestWriter(t *testing.T) {
	t.Parallel()
	const usage = `"usage":{"prompt_tokens":1,"completion_tokens":2}`
	told := chunkHead + `"choices":[],` + usage + `}`
	for name, c := range map[string]struct{ chunks, want []string }{
		"a plain stream": {[]string{
			`{"model":"s","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
			`{"model":"s","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}`,
			`{"model":"s","choices":[{"index":1,"delta":{"refusal":"b"},"finish_reason":null}],"usage":null}`,
			`{"model":"s","choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}`,
			`{"model":"s","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}`,
			`{"model":"s","choices":[],` + usage + `}`,
		}, []string{
			chunkHead + `"choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":null}]}`,
			chunkHead + `"choices":[{"text":"b","index":1,"logprobs":null,"finish_reason":null}]}`,
			chunkHead + `"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}]}`,
			told,
		}},
		"a usage beside a choice comes at the end, once": {[]string{
			`{"model":"s","choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}`,
			`{"model":"s","choices":[{"delta":{},"finish_reason":"stop"}],` + usage + `}`,
		}, []string{
			chunkHead + `"choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":null}]}`,
			chunkHead + `"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}]}`,
			told,
		}},
		"nothing": {[]string{``, `[DONE]`, `[]`, `{}`, `{"choices":{"a":1}}`, `{"choices":[1]}`}, nil},
	} {
		w := foreignOf(t).Writer()
		var got []chat.Chunk
		for _, chunk := range c.chunks {
			got = w.Chunk([]byte(chunk), got)
		}
		got = w.End(w.End(got))
		if len(got) != len(c.want) {
			t.Errorf("%s: %d events", name, len(got))
			continue
		}
		for i := range got {
			if string(got[i].Data) != c.want[i] || got[i].Last || got[i].Event != "" || got[i].UsageOnly != (c.want[i] == told) {
				t.Errorf("%s:\n got %s %+v\nwant %s", name, got[i].Data, got[i], c.want[i])
			}
		}
	}
}

// gathered is what a client puts together of a stream, of the first choice.
type gathered struct{ text, finish, usage string }

func gather(t *testing.T, chunks []chat.Chunk) (g gathered) {
	t.Helper()
	for _, c := range chunks {
		v := gjson.ParseBytes(c.Data)
		if !json.Valid(c.Data) || strings.Contains(string(c.Data), "\n") || v.Get("id").Str == "" || v.Get("object").Str != objectCompletion || !v.Get("choices").IsArray() {
			t.Errorf("no chunk: %s", c.Data)
		}
		for _, choice := range v.Get("choices").Array() {
			if choice.Get("index").Int() == 0 {
				g.text += choice.Get("text").Str
				g.finish += choice.Get("finish_reason").Str
			}
		}
		g.usage += v.Get("usage").Raw
	}
	return g
}
