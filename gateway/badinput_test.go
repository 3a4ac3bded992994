package gateway_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// message is a conversation that nothing is wrong with.
const message = `"messages":[{"role":"user","content":"x"}]`

// good is a body that nothing is wrong with, and more fields.
func good(more string) string { return `{"model":"sim-small",` + message + more + `}` }

func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":0`, i)
	}
	return b.String()
}

// badBodies are bodies with the error that each gets: its code and param.
var badBodies = []struct{ name, body, code, param string }{
	{"empty", "", "invalid_json", ""},
	{"blank", " \n\t ", "invalid_json", ""},
	{"text", "hello", "invalid_json", ""},
	{"cut", `{"model":"sim-small","messages":[{"role":"us`, "invalid_json", ""},
	{"one brace", "{", "invalid_json", ""},
	{"trailing comma", `{"model":"sim-small",` + message + `,}`, "invalid_json", ""},
	{"trailing garbage", good("") + "x", "invalid_json", ""},
	{"two objects", good("") + good(""), "invalid_json", ""},
	{"array", "[" + good("") + "]", "invalid_json", ""},
	{"string", `"` + `model` + `"`, "invalid_json", ""},
	{"number", "7", "invalid_json", ""},
	{"null", "null", "invalid_json", ""},
	{"single quotes", `{'model':'sim-small'}`, "invalid_json", ""},
	{"comment", `{/*x*/"model":"sim-small",` + message + `}`, "invalid_json", ""},
	{"NaN", good(`,"temperature":NaN`), "invalid_json", ""},
	{"a byte order mark", "\xef\xbb\xbf" + good(""), "invalid_json", ""},
	{"UTF-16", "\xff\xfe{\x00}\x00", "invalid_json", ""},
	{"invalid UTF-8 in a value", `{"model":"sim-small","messages":[{"role":"user","content":"` + "\xc3\x28" + `"}]}`, "invalid_json", ""},
	{"invalid UTF-8 in a key", good(",\"\xff\":1"), "invalid_json", ""},
	{"an overlong slash", good(",\"a\":\"\xc0\xaf\""), "invalid_json", ""},
	{"a raw control character", good(",\"a\":\"\x01\""), "invalid_json", ""},
	{"NUL after the end", good("") + "\x00", "invalid_json", ""},
	{"arrays 1000 deep", good(`,"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)), "invalid_json", ""},
	{"objects 1000 deep", good(`,"a":` + strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)), "invalid_json", ""},
	{"arrays a million deep", good(`,"a":` + strings.Repeat("[", 1_000_000)), "invalid_json", ""},
	{"65 deep", good(`,"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), "invalid_json", ""},
	{"100,000 keys", good(keys(100_000)), "invalid_json", ""},

	{"no model", `{` + message + `}`, "missing_model", "model"},
	{"model null", `{"model":null,` + message + `}`, "missing_model", "model"},
	{"model empty", `{"model":"",` + message + `}`, "missing_model", "model"},
	{"model a number", `{"model":5,` + message + `}`, "invalid_type", "model"},
	{"model a list", `{"model":["sim-small"],` + message + `}`, "invalid_type", "model"},
	{"model unknown", `{"model":"sim-huge",` + message + `}`, "model_not_found", "model"},
	{"model with NUL", `{"model":"sim-small\u0000",` + message + `}`, "model_not_found", "model"},
	{"model in capitals", `{"model":"SIM-SMALL",` + message + `}`, "model_not_found", "model"},
	{"model with blanks", `{"model":" sim-small",` + message + `}`, "model_not_found", "model"},
	{"model of another provider", `{"model":"openai/sim-small",` + message + `}`, "model_not_found", "model"},
	{"a long model", `{"model":"` + strings.Repeat("m", 100_000) + `",` + message + `}`, "model_not_found", "model"},
	{"an embedding model", `{"model":"text-embedding-3-small",` + message + `}`, "unsupported_parameter", "model"},
	{"a model of responses only", `{"model":"o1-pro",` + message + `}`, "unsupported_parameter", "model"},

	{"a key twice", `{"model":"sim-free","model":"sim-large",` + message + `}`, "duplicate_key", "model"},
	{"a key twice, equal", `{"model":"sim-free",` + message + `,"model":"sim-free"}`, "duplicate_key", "model"},
	{"a key in two cases", `{"model":"sim-free","Model":"sim-large",` + message + `}`, "duplicate_key", "Model"},
	{"a key with an escape", `{"model":"sim-free","\u006dodel":"sim-large",` + message + `}`, "duplicate_key", "model"},
	{"a key with an escape first", `{"\u006dodel":"sim-free",` + message + `,"model":"sim-large"}`, "duplicate_key", "model"},
	{"a key with a long s", `{"model":"sim-free",` + message + `,"me\u017f\u017fage\u017f":[]}`, "duplicate_key", "meſſageſ"},
	{"a maximum twice", good(`,"max_tokens":1,"max_tokens":100000`), "duplicate_key", "max_tokens"},
	{"nested twice", good(`,"stream":true,"stream_options":{"include_usage":true,"include_usage":false}`), "duplicate_key", "include_usage"},
	{"nested twice in a message", `{"model":"sim-free","messages":[{"role":"user","content":"x","content":"y"}]}`, "duplicate_key", "content"},
	{"the empty key twice", good(`,"":1,"":2`), "duplicate_key", ""},
	{"the 600th key is the first", good(`,"a":{"k0":1` + keys(600) + `}`), "duplicate_key", "k0"},

	{"no messages", `{"model":"sim-small"}`, "missing_messages", "messages"},
	{"messages empty", `{"model":"sim-small","messages":[]}`, "invalid_value", "messages"},
	{"messages null", `{"model":"sim-small","messages":null}`, "invalid_value", "messages"},
	{"messages an object", `{"model":"sim-small","messages":{"0":{"role":"user"}}}`, "invalid_value", "messages"},
	{"messages a string", `{"model":"sim-small","messages":"hi"}`, "invalid_value", "messages"},
	{"a message is text", `{"model":"sim-small","messages":["hi"]}`, "invalid_type", "messages[0]"},
	{"a message is null", `{"model":"sim-small","messages":[{"role":"user","content":"x"},null]}`, "invalid_type", "messages[1]"},
	{"a message is a list", `{"model":"sim-small","messages":[[]]}`, "invalid_type", "messages[0]"},
	{"no role", `{"model":"sim-small","messages":[{"content":"x"}]}`, "invalid_value", "messages[0].role"},
	{"role null", `{"model":"sim-small","messages":[{"role":null,"content":"x"}]}`, "invalid_value", "messages[0].role"},
	{"role empty", `{"model":"sim-small","messages":[{"role":"","content":"x"}]}`, "invalid_value", "messages[0].role"},
	{"role a number", `{"model":"sim-small","messages":[{"role":1,"content":"x"}]}`, "invalid_type", "messages[0].role"},
	{"content a number", `{"model":"sim-small","messages":[{"role":"user","content":1}]}`, "invalid_type", "messages[0].content"},
	{"content an object", `{"model":"sim-small","messages":[{"role":"user","content":{}}]}`, "invalid_type", "messages[0].content"},

	{"stream as text", good(`,"stream":"true"`), "invalid_type", "stream"},
	{"stream as a number", good(`,"stream":1`), "invalid_type", "stream"},
	{"stream as an object", good(`,"stream":{}`), "invalid_type", "stream"},
	{"stream options as a list", good(`,"stream":true,"stream_options":[]`), "invalid_type", "stream_options"},
	{"stream options as text", good(`,"stream":true,"stream_options":"include_usage"`), "invalid_type", "stream_options"},
	{"include_usage as text", good(`,"stream":true,"stream_options":{"include_usage":"yes"}`), "invalid_type", "stream_options.include_usage"},
	{"tools as an object", good(`,"tools":{}`), "invalid_type", "tools"},
	{"tools as text", good(`,"tools":"x"`), "invalid_type", "tools"},
	{"functions as a number", good(`,"functions":1`), "invalid_type", "functions"},
	{"service tier as a number", good(`,"service_tier":1`), "invalid_type", "service_tier"},
	{"user as a list", good(`,"user":[]`), "invalid_type", "user"},
	{"modalities as text", good(`,"modalities":"audio"`), "invalid_type", "modalities"},
	{"a modality as a number", good(`,"modalities":[1]`), "invalid_type", "modalities"},
	{"an unknown modality", good(`,"modalities":["text","smell"]`), "invalid_value", "modalities"},
	{"Max_Tokens", good(`,"Max_Tokens":1000000`), "unsupported_parameter", "Max_Tokens"},
	{"MESSAGES", `{"model":"sim-small","MESSAGES":[]}`, "unsupported_parameter", "MESSAGES"},
	{"N", good(`,"N":128`), "unsupported_parameter", "N"},
	{"Stream", good(`,"Stream":true`), "unsupported_parameter", "Stream"},
	{"a long s", good(`,"\u017ftream":true`), "unsupported_parameter", "ſtream"},
	{"Service_Tier", good(`,"Service_Tier":"priority"`), "unsupported_parameter", "Service_Tier"},
	{"a limit that llama.cpp believes more", good(`,"max_tokens":9,"n_predict":1000000`), "unsupported_parameter", "n_predict"},
	{"a limit of the Responses API", good(`,"max_output_tokens":1000000`), "unsupported_parameter", "max_output_tokens"},
	{"audio from a model that has no price for it", good(`,"modalities":["text","audio"]`), "price_unknown", ""},
	{"audio with an escape", good(`,"modalities":["text","\u0061udio"]`), "price_unknown", ""},
	{"images from a model that has no price for them", good(`,"modalities":["text","image"]`), "price_unknown", ""},
	{"audio settings", good(`,"audio":{"voice":"x"}`), "price_unknown", ""},
	{"audio into a model that has no price for it", `{"model":"sim-small","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]}`, "price_unknown", ""},
	{"a search that has no price", good(`,"web_search_options":{}`), "price_unknown", ""},
}

// badCounts are no numbers of choices or tokens, in JSON.
var badCounts = []struct{ json, code string }{
	{"0", "invalid_value"}, {"-1", "invalid_value"}, {"-0", "invalid_value"}, {"1.0", "invalid_value"}, {"1e3", "invalid_value"},
	{"1E0", "invalid_value"}, {"0.5", "invalid_value"}, {"2147483648", "invalid_value"}, {"-2147483649", "invalid_value"},
	{"9223372036854775807", "invalid_value"}, {"9223372036854775808", "invalid_value"}, {"-9223372036854775808", "invalid_value"},
	{"18446744073709551617", "invalid_value"}, {"1e400", "invalid_value"}, {"-1e400", "invalid_value"},
	{strings.Repeat("9", 5000), "invalid_value"}, {`"1"`, "invalid_type"}, {`"-1"`, "invalid_type"}, {`""`, "invalid_type"},
	{"true", "invalid_type"}, {"false", "invalid_type"}, {"[1]", "invalid_type"}, {"{}", "invalid_type"},
}

func TestBadBodies(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	cases := badBodies
	for _, name := range []string{"n", "max_tokens", "max_completion_tokens"} {
		for _, c := range badCounts {
			cases = append(cases, struct{ name, body, code, param string }{name + " " + c.json[:min(30, len(c.json))],
				good(`,"` + name + `":` + c.json), c.code, name})
		}
	}
	cases = append(cases, []struct{ name, body, code, param string }{
		{"n of 129", good(`,"n":129`), "invalid_value", "n"},
		{"max_tokens of a million and one", good(`,"max_tokens":1000001`), "invalid_value", "max_tokens"},
		{"one maximum bad, one good", good(`,"max_tokens":5,"max_completion_tokens":-5`), "invalid_value", "max_completion_tokens"},
	}...)
	for _, path := range []string{chatPath, streamPath} {
		for _, c := range cases {
			a := e.post("klaus", path, c.body)
			want := http.StatusBadRequest
			if c.code == "model_not_found" {
				want = http.StatusNotFound
			}
			checkError(t, c.name, a, want, "invalid_request_error", c.code)
			if got := a.json("error.param"); got.Str != c.param || c.param == "" && got.Type != gjson.Null {
				t.Errorf("%s: param %s, want %q", c.name, got.Raw, c.param)
			}
		}
	}
	e.untouched("bad bodies", "klaus")
	if a := e.chat("klaus", good("")); a.status != 200 {
		t.Errorf("after all that: %d %s", a.status, a.body)
	}
}

// TestSteering: no request says by itself that its provider may have another, dearer model answer, or do what no
// usage tells, whichever API it speaks. null says nothing.
func TestSteering(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for path, body := range map[string]string{chatPath: good("%s"), streamPath: good("%s"), "/v1/completions": `{"model":"sim-small","prompt":"x"%s}`,
		responsesPath: `{"model":"sim-small","input":"x"%s}`, "/v1/messages": `{"model":"sim-small","max_tokens":9,"messages":[{"role":"user","content":"x"}]%s}`} {
		for name, value := range map[string]string{"models": `["o1-pro"]`, "Models": `["o1-pro"]`, "fallbacks": `["o1-pro"]`, "route": `"fallback"`, "preset": `"mine"`,
			"provider": `{"only":["dear"]}`, "plugins": `[{"id":"web"}]`, "search_parameters": `{"mode":"on"}`} {
			if a := e.post("klaus", path, fmt.Sprintf(body, `,"`+name+`":`+value)); a.status != 400 || !strings.Contains(a.body, name) {
				t.Errorf("%s, %s: %d %s", path, name, a.status, a.body)
			}
		}
	}
	e.untouched("steering", "klaus")
	if a := e.chat("klaus", good(`,"models":null,"provider":null`)); a.status != 200 {
		t.Errorf("null: %d %s", a.status, a.body)
	}
}

// checkError: a whole error in OpenAI's shape, of bounded length, and nothing else.
func checkError(t *testing.T, name string, a answer, status int, kind, code string) {
	t.Helper()
	e := a.json("error")
	if a.status != status || e.Get("type").Str != kind || e.Get("code").Str != code {
		t.Errorf("%s: %d %.300s; want %d %s %s", name, a.status, a.body, status, kind, code)
	}
	if !gjson.Valid(a.body) || len(a.body) > 1000 || e.Get("message").Str == "" || e.Get("@keys.#").Int() != 4 ||
		gjson.Get(a.body, "@keys.#").Int() != 1 || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		t.Errorf("%s: not OpenAI's shape: %.300s", name, a.body)
	}
	if a.id().Version() != 0 && status < 500 {
		t.Errorf("%s: a request id of a request that was none", name)
	}
}

// TestOddBodiesThatAreGood are things that look like mistakes, and are not.
func TestOddBodiesThatAreGood(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for name, body := range map[string]string{
		"64 deep":                  good(`,"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63)),
		"500 keys":                 good(keys(500)),
		"1000 keys below the top":  good(`,"a":{"x":0` + keys(1000) + `}`),
		"cases below the top":      good(`,"metadata":{"a":1,"A":2}`),
		"no content":               `{"model":"sim-small","messages":[{"role":"assistant","content":null}]}`,
		"lone surrogates":          good(`,"metadata":{"a":"\ud800","b":"\udfff"}`),
		"no search":                good(`,"web_search_options":null`),
		"no audio":                 good(`,"audio":null,"modalities":null,"prediction":null,"service_tier":null,"functions":null`),
		"text as modality":         good(`,"modalities":["text"]`),
		"the most":                 good(`,"n":128,"max_tokens":1`),
		"a maximum of a million":   good(`,"max_tokens":1000000`),
		"a field that nobody has":  good(`,"nobody":true`),
		"a picture":                `{"model":"sim-small","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`,
		"a tool of the provider's": good(`,"tools":[{"type":"web_search"}]`),
		"NUL in a prompt":          `{"model":"sim-small","messages":[{"role":"user","content":"a\u0000b"}],"user":"a\u0000b"}`,
	} {
		if a := e.chat("lea", body); a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	const limit = 32 << 20
	// Not JSON: within the limit that is what is wrong, found at the first byte.
	fill := func(size int) io.Reader { return strings.NewReader(strings.Repeat("x", size)) }
	for _, c := range []struct {
		name    string
		size    int
		chunked bool
		want    int
	}{{"the limit, chunked", limit, true, 400},
		{"one more", limit + 1, false, 413}, {"one more, chunked", limit + 1, true, 413}} {
		r := e.request(http.MethodPost, "mara", chatPath, "")
		r.Body, r.GetBody, r.ContentLength = io.NopCloser(fill(c.size)), nil, int64(c.size)
		if c.chunked {
			r.ContentLength = -1
		}
		response, err := e.client.Do(r)
		if err != nil {
			// The gateway may answer and close before the client has sent all.
			if c.want != 413 {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		body, _ := io.ReadAll(response.Body) // checked below
		_ = response.Body.Close()            // it has been read
		if response.StatusCode != c.want || c.want == 413 && gjson.GetBytes(body, "error.code").Str != "body_too_large" {
			t.Errorf("%s: %d %.300s", c.name, response.StatusCode, body)
		}
	}
	head := "POST " + chatPath + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + e.token("nora") + "\r\nConnection: close\r\n"
	for name, c := range map[string]struct{ request, want string }{
		"a huge Content-Length":  {head + "Content-Length: 99999999999\r\n\r\n{", `413 Request Entity Too Large`},
		"a body that ends early": {head + "Content-Length: 500\r\n\r\n" + good(""), `"code":"invalid_json"`},
		"chunks that end early":  {head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"mod", `"code":"invalid_json"`},
		"bad chunks":             {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", `"code":"invalid_json"`},
		"a negative length":      {head + "Content-Length: -1\r\n\r\n", "400 Bad Request"},
	} {
		if got := e.raw(c.request); !strings.Contains(got, c.want) {
			t.Errorf("%s: %.600s", name, got)
		}
	}
	e.untouched("bodies that are none", "nora")
}

func TestContentEncoding(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	io.WriteString(w, good("")) //nolint:errcheck // into memory
	w.Close()                   //nolint:errcheck // into memory
	for encoding, body := range map[string]string{"gzip": packed.String(), "br": "x", "GZIP": packed.String(), "deflate, gzip": "x"} {
		r := e.request(http.MethodPost, "otto", chatPath, body)
		r.Header.Set("Content-Encoding", encoding)
		checkError(t, encoding, e.do(r), 415, "invalid_request_error", "unsupported_content_encoding")
	}
	r := e.request(http.MethodPost, "otto", chatPath, packed.String())
	r.Header["Content-Encoding"] = []string{"identity", "gzip"}
	checkError(t, "two encodings", e.do(r), 415, "invalid_request_error", "unsupported_content_encoding")
	checkError(t, "gzip without saying so", e.chat("otto", packed.String()), 400, "invalid_request_error", "invalid_json")
	e.untouched("encodings", "otto")
	r = e.request(http.MethodPost, "otto", chatPath, good(""))
	r.Header.Set("Content-Encoding", "identity")
	r.Header.Set("Content-Type", "text/plain")
	if a := e.do(r); a.status != 200 {
		t.Errorf("identity: %d %s", a.status, a.body)
	}
}

func TestUnknownURLs(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for _, c := range []struct{ method, path string }{
		{"GET", "/"}, {"GET", chatPath}, {"PUT", chatPath}, {"DELETE", chatPath}, {"PATCH", streamPath}, {"POST", "/v1/models"},
		{"POST", "/v1/chat/completions/"}, {"POST", "/v1/Chat/Completions"}, {"POST", "//v1/chat/completions"},
		{"POST", "/v1/completion"}, {"GET", "/v1/embeddings"}, {"POST", "/v1/responses/x"}, {"POST", "/chat/completions"},
		{"POST", "/v1/chat/completions/stream/x"}, {"GET", "/billing"}, {"GET", "/billing/requests/"}, {"GET", "/billing/requests/a/b"},
		{"POST", "/billing/balance"}, {"GET", "/v1/files"}, {"DELETE", "/v1/models"}, {"GET", "/.env"}, {"GET", "/v1/../billing/balance"},
		{"GET", "/" + strings.Repeat("x", 3000)}, {"GET", "/%00%ff"}, {"OPTIONS", chatPath}, {"GET", "/debug/pprof/"},
		{strings.Repeat("M", 5000), chatPath},
	} {
		for _, account := range []string{"", "paul"} {
			a := e.do(e.request(c.method, account, c.path, good("")))
			checkError(t, c.method[:min(40, len(c.method))]+" "+c.path[:min(40, len(c.path))], a, 404, "invalid_request_error", "unknown_url")
		}
	}
	if len(e.asked.accounts) != 0 {
		t.Errorf("accounts were opened: %v", e.asked.accounts)
	}
}
