package messages

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"llm-gateway/gateway/provider/chat"
	"llm-gateway/gateway/provider/chat/chattest"
)

var update = flag.Bool("update", false, "write what is asked into testdata/requests.txt, to be read before it is believed")

func isObject(body []byte) bool { return json.Valid(body) && gjson.ParseBytes(body).IsObject() }

func foreignOf(t testing.TB, body string) chat.Foreign {
	t.Helper()
	f, err := Foreign([]byte(body), "x", 0)
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return f
}

func TestRequests(t *testing.T) {
	const file = "testdata/requests.txt"
	head, cases := chattest.Cases(t, file)
	var out strings.Builder
	out.WriteString(head)
	for _, c := range cases {
		f, err := Foreign([]byte(c.Request), "x", 0)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		got := string(f.Chat())
		if got != c.Want && !*update {
			t.Errorf("%s:\n got %s\nwant %s", c.Name, got, c.Want)
		}
		if _, err := chat.Parse(f.Chat()); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		out.WriteString("\n= " + c.Name + "\n" + c.Request + "\n->\n" + got + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusals(t *testing.T) {
	_, cases := chattest.Cases(t, "testdata/refusals.txt")
	for _, c := range cases {
		_, err := Foreign([]byte(c.Request), "x", 0)
		var refused *chat.Unsupported
		if !errors.As(err, &refused) || refused.Param != c.Want || refused.Message == "" {
			t.Errorf("%s: %v, want a refusal of %s", c.Name, err, c.Want)
		}
	}
}

// FuzzForeign takes any JSON object whose facts can be told: what comes of it is a refusal by name, or a
// chat completion that can be read.
func FuzzForeign(f *testing.F) {
	for _, file := range []string{"testdata/facts.txt", "testdata/requests.txt", "testdata/refusals.txt"} {
		_, cases := chattest.Cases(f, file)
		for _, c := range cases {
			f.Add([]byte(c.Request))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !isObject(body) {
			return
		}
		_, wrong := CountFacts(body)
		foreign, err := Foreign(body, "x", 0)
		var refused *chat.Unsupported
		switch {
		case err != nil:
			if !errors.As(err, &refused) || refused.Param == "" || refused.Message == "" {
				t.Fatalf("refused with %v", err)
			}
		case wrong == nil:
			if _, err := chat.Parse(foreign.Chat()); err != nil {
				t.Fatalf("%v: %s", err, foreign.Chat())
			}
		}
	})
}

func TestError(t *testing.T) {
	for _, c := range []struct {
		status                     int
		kind, code, message, param string
		want                       string
	}{
		{400, "invalid_request_error", "", "`n` is wrong.", "n", `{"type":"error","error":{"type":"invalid_request_error","message":"` + "`n` is wrong." + `"},"request_id":null}`},
		{400, "invalid_request_error", "context_length_exceeded", "Too many.", "", `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: Too many.","details":{"error_code":"context_length_exceeded"}},"request_id":null}`},
		{404, "invalid_request_error", "model_not_found", "There is none.", "model", `{"type":"error","error":{"type":"not_found_error","message":"model: There is none.","details":{"error_code":"model_not_found"}},"request_id":null}`},
		{400, "invalid_request_error", "unsupported_parameter", "No `thread`.", "thread", `{"type":"error","error":{"type":"invalid_request_error","message":"` + "No `thread`." + `","details":{"error_code":"thread_unsupported_request"}},"request_id":null}`},
	} {
		if got := string(Error(c.status, c.kind, c.code, c.message, c.param)); got != c.want {
			t.Errorf("%d %s:\n got %s\nwant %s", c.status, c.kind, got, c.want)
		}
	}
	for status, want := range map[int]string{401: "authentication_error", 402: "billing_error", 403: "permission_error", 409: "invalid_request_error",
		413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error", 500: "api_error", 502: "api_error",
		503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error"} {
		if got := gjson.GetBytes(Error(status, "", "", "m", ""), "error.type").Str; got != want {
			t.Errorf("%d: %s, want %s", status, got, want)
		}
	}
	for _, c := range [][3]string{{"server_error", "overloaded_error", "overloaded_error"}, {"server_error", "", "api_error"}, {"upstream_error", "upstream_timeout", "timeout_error"},
		{"insufficient_quota", "insufficient_quota", "billing_error"}, {"rate_limit_error", "", "rate_limit_error"}} {
		if got := gjson.GetBytes(Error(200, c[0], c[1], "m", ""), "error.type").Str; got != c[2] {
			t.Errorf("%v: %s", c, got)
		}
	}
}
