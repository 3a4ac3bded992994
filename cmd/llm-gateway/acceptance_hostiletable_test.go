package main

// How testdata/hostile.txt is read and sent. A line is `want | name | content`; a section says what the
// content is. Every request goes out as bytes over a connection of its own, because what is hostile is
// mostly what no HTTP client would send.

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/tidwall/gjson"
)

const (
	hostileFile   = "testdata/hostile.txt"
	hostileAnswer = 20 * time.Second // for one request's last answer, on a loaded machine
	hostileLong   = 1500             // bytes that an error's body may have
	hostilePlain  = 100              // bytes that net/http's own refusal may have
	hostileMarker = "tell-nobody"    // stands in every prompt, and must be in no log and no error
)

// hostileSurface is one API: where its requests go, what a good body has, and how its errors look.
type hostileSurface struct{ path, good, errors string }

var hostileSurfaces = map[string]hostileSurface{
	"chat":        {"/v1/chat/completions", `"model":"gpt-4o-mini","messages":[{"role":"user","content":"tell-nobody"}]`, "openai"},
	"completions": {"/v1/completions", `"model":"gpt-4o-mini","prompt":"tell-nobody"`, "openai"},
	"embeddings":  {"/v1/embeddings", `"model":"text-embedding-3-small","input":"tell-nobody"`, "openai"},
	"responses":   {"/v1/responses", `"model":"gpt-4o-mini","input":"tell-nobody"`, "openai"},
	"messages":    {"/v1/messages", `"model":"gpt-4o-mini","max_tokens":9,"messages":[{"role":"user","content":"tell-nobody"}]`, "anthropic"},
	"generate":    {"/v1beta/models/gpt-4o-mini:generateContent", `"contents":[{"parts":[{"text":"tell-nobody"}]}]`, "google"},
}

// hostileAll is the order of `body all`.
var hostileAll = []string{"chat", "completions", "embeddings", "responses", "messages", "generate"}

// hostileRequest is one request of the table.
type hostileRequest struct {
	line                int // in the file
	section, name, want string
	way, surface        string
	at                  string // which gateway
	content             string // as the table has it
}

func (r *hostileRequest) String() string {
	return strings.TrimSpace(r.section + " " + r.surface + ": " + r.name)
}

// readHostile reads the table.
func readHostile(t testing.TB) (lines []string, requests []*hostileRequest) {
	t.Helper()
	text, err := os.ReadFile(hostileFile)
	if err != nil {
		t.Fatal(err)
	}
	lines = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	var section string
	var way []string
	for i, line := range lines {
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			name, rest, _ := strings.Cut(line[1:], "] ")
			section, way = name, strings.Fields(rest)
			continue
		}
		cells := strings.SplitN(line, " | ", 3)
		if len(cells) != 3 || len(way) == 0 {
			t.Fatalf("%s:%d: no request: %s", hostileFile, i+1, line)
		}
		r := hostileRequest{line: i, section: section, want: strings.TrimSpace(cells[0]), name: strings.TrimSpace(cells[1]), way: way[0], content: cells[2]}
		surfaces := way[1:]
		if r.way == "jwt" {
			r.at, surfaces = strings.Join(surfaces, ""), nil
		}
		if slices.Equal(surfaces, []string{"all"}) {
			surfaces = hostileAll
		}
		for _, r.surface = range append(surfaces, map[bool][]string{true: {""}}[len(surfaces) == 0]...) {
			one := r
			requests = append(requests, &one)
		}
	}
	return lines, requests
}

var (
	hostileEscape = regexp.MustCompile(`\\r|\\n|\\x[0-9a-f]{2}`)
	hostileMacro  = regexp.MustCompile(`<([a-z]+)(?: ([^<>]*))?>`)
)

// fill replaces escapes and what stands in <>: in bytes, as they are sent.
func (h *assault) fill(text, good string) string {
	text = hostileEscape.ReplaceAllStringFunc(text, func(e string) string {
		switch e {
		case `\r`:
			return "\r"
		case `\n`:
			return "\n"
		}
		b, _ := strconv.ParseUint(e[2:], 16, 8) //nolint:errcheck // the pattern has two hexadecimal digits
		return string([]byte{byte(b)})
	})
	return hostileMacro.ReplaceAllStringFunc(text, func(macro string) string {
		m := hostileMacro.FindStringSubmatch(macro)
		count, of, _ := strings.Cut(m[2], " ")
		n, _ := strconv.Atoi(count) //nolint:errcheck // 0 where there is none
		switch m[1] {
		case "good":
			return good
		case "repeat": // of n times
			return strings.Repeat(of, n)
		case "keys": // n fields
			return hostileNumbered(n, `,"k%d":0`)
		case "in": // n seconds from now
			return strconv.FormatInt(time.Now().Unix()+int64(n), 10)
		case "who":
			return h.who()
		case "token":
			return h.token
		case "auth":
			return "Host: " + hostileHost + "\r\nAuthorization: Bearer " + h.token + "\r\nConnection: close\r\n"
		case "headers": // n of them
			return hostileNumbered(n, "X-%d: 0\r\n")
		case "chunks": // of one blank
			return strings.Repeat("1;evil=evil\r\n \r\n", n)
		case "canary":
			return h.canary.URL
		case "gzip": // of n blanks
			return packed(n)
		}
		return macro
	})
}

// who are the claims of a good token, but for its braces.
func (h *assault) who() string {
	return fmt.Sprintf(`"sub":%q,"iss":%q,"aud":%q,"exp":%d`, hostileAccount, hostileIssuer, hostileAudience, time.Now().Add(time.Hour).Unix())
}

func hostileNumbered(n int, form string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, form, i)
	}
	return b.String()
}

// packed is so many blanks, by gzip.
func packed(n int) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	blanks := make([]byte, 1<<16)
	for i := range blanks {
		blanks[i] = ' '
	}
	for ; n > 0; n -= len(blanks) {
		w.Write(blanks[:min(n, len(blanks))]) //nolint:errcheck // into memory
	}
	w.Close() //nolint:errcheck // into memory
	return out.String()
}

// forged is a token of a header, claims and the name of a key.
func (h *assault) forged(t testing.TB, content string) string {
	t.Helper()
	parts := strings.Split(content, " ")
	if len(parts) != 3 {
		t.Fatalf("%q is not a header, claims and a key", content)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(parts[0])) + "." + b64([]byte(parts[1]))
	sign := func(m jwt.SigningMethod, key any) string {
		signature, err := m.Sign(signed, key)
		if err != nil {
			t.Fatal(err)
		}
		return signed + "." + b64(signature)
	}
	switch key := parts[2]; key {
	case "secret":
		return sign(jwt.SigningMethodHS256, []byte(testSecret))
	case "secret-384":
		return sign(jwt.SigningMethodHS384, []byte(testSecret))
	case "wrong":
		return sign(jwt.SigningMethodHS256, []byte("another"))
	case "empty":
		return sign(jwt.SigningMethodHS256, []byte{})
	case "issuer":
		return sign(jwt.SigningMethodRS256, h.issuerKey)
	case "issuer-512":
		return sign(jwt.SigningMethodRS512, h.issuerKey)
	case "stranger":
		return sign(jwt.SigningMethodRS256, h.strangerKey)
	case "public-key":
		return sign(jwt.SigningMethodHS256, h.publicPEM)
	case "modulus":
		return sign(jwt.SigningMethodHS256, h.issuerKey.N.Bytes())
	default: // what stands there is the rest
		return signed + key
	}
}

// bytes is the request as it is sent.
func (h *assault) bytes(t testing.TB, r *hostileRequest) string {
	t.Helper()
	s := hostileSurfaces[r.surface]
	content := h.fill(r.content, s.good)
	const read = "GET /billing/balance HTTP/1.1\r\nHost: " + hostileHost + "\r\nConnection: close\r\n"
	switch r.way {
	case "jwt":
		return read + "Authorization: Bearer " + h.forged(t, content) + "\r\n\r\n"
	case "credential":
		return read + content + "\r\n\r\n"
	case "head":
		return read + "Authorization: Bearer " + h.token + "\r\n" + content + "\r\n\r\n"
	case "post": // headers of a model call that would be good but for its model
		body := `{"model":"no-such-model","messages":[{"role":"user","content":"tell-nobody"}]}`
		return "POST /v1/chat/completions HTTP/1.1\r\n" + h.fill("<auth>", "") + content + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	case "target":
		return content + " HTTP/1.1\r\n" + h.fill("<auth>", "") + "Content-Length: 0\r\n\r\n"
	case "body", "served":
		return "POST " + s.path + " HTTP/1.1\r\n" + strings.Replace(h.fill("<auth>", ""), h.token, map[bool]string{true: h.payer, false: h.token}[r.way == "served"], 1) +
			"Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(content)) + "\r\n\r\n" + content
	case "raw":
		return content
	}
	t.Fatalf("%s:%d: unknown way %q", hostileFile, r.line+1, r.way)
	return ""
}

// got is what a request gets, in the words of the table: every answer on its connection, and how that ended.
type got struct {
	words string
	wrong []string // what no answer may be
}

// send sends a request and reads all of its answers.
func (h *assault) send(t testing.TB, r *hostileRequest) (g got) {
	t.Helper()
	base := h.main.url
	if r.at != "" {
		base = h.federated.url
	}
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(base, "http://"), hostileAnswer)
	if err != nil {
		return got{words: err.Error()}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(hostileAnswer)) //nolint:errcheck // a reader without it waits for the test's end
	request, half := strings.CutSuffix(h.bytes(t, r), "<half>")
	sent := make(chan struct{})
	go func() { // ends with the connection
		defer close(sent)
		io.WriteString(conn, request) //nolint:errcheck // an early refusal closes the connection
		if half {
			conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // the same
		}
	}()
	var words []string
	for answers := bufio.NewReader(conn); ; {
		method, _, _ := strings.Cut(request, " ")
		resp, err := http.ReadResponse(answers, &http.Request{Method: method}) //nolint:bodyclose // the connection is closed
		if err != nil {
			if end := howItEnded(err); end != "" {
				words = append(words, end)
			}
			break
		}
		body, err := io.ReadAll(resp.Body)
		word, wrong := hostileWord(r, resp, body)
		words = append(words, word)
		if g.wrong = append(g.wrong, wrong...); err != nil {
			g.wrong = append(g.wrong, "it broke off: "+err.Error())
		}
	}
	conn.Close() //nolint:errcheck // everything has been read
	<-sent
	g.words = strings.Join(words, " + ")
	if g.words == "" {
		g.words = "closed"
	}
	return g
}

// howItEnded is a word for an end that is not a close after the last answer.
func howItEnded(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "open"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "reset by peer"):
		return ""
	}
	return "garbage"
}

// hostileTypes are the types of errors by status, as OpenAI and Anthropic call them.
var hostileTypes = map[int][2]string{400: {"invalid_request_error", "invalid_request_error"}, 401: {"invalid_request_error", "authentication_error"},
	402: {"insufficient_quota", "billing_error"}, 403: {"permission_error", "permission_error"}, 404: {"invalid_request_error", "not_found_error"},
	413: {"invalid_request_error", "request_too_large"}, 414: {"invalid_request_error", "invalid_request_error"}, 415: {"invalid_request_error", "invalid_request_error"},
	431: {"invalid_request_error", "invalid_request_error"}}

// hostileWord is an answer in a word, and what is wrong with its form.
func hostileWord(r *hostileRequest, resp *http.Response, body []byte) (word string, wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	status := strconv.Itoa(resp.StatusCode)
	if resp.StatusCode == http.StatusContinue {
		return status, nil
	}
	if resp.StatusCode >= 400 && resp.Header.Get("x-request-id") == "" {
		if said := string(body); said != "" && !strings.HasPrefix(said, status) && said != "Unsupported transfer encoding" || len(said) > hostilePlain {
			bad("net/http says more than its status: %.200q", body)
		}
		return status + " plain", wrong // net/http's own refusal: it has reached no handler
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"} {
		if resp.Header.Get(name) != want {
			bad("%s is %q", name, resp.Header.Get(name))
		}
	}
	if resp.Header.Get("x-request-id") == "" {
		bad("no x-request-id")
	}
	for name, values := range resp.Header {
		if strings.Contains(strings.Join(values, ""), "evil") {
			bad("the header %s reflects: %q", name, values)
		}
	}
	if resp.StatusCode < 400 || resp.StatusCode == http.StatusNoContent {
		return status, wrong
	}
	if len(body) == 0 && resp.Request.Method == http.MethodHead {
		return status, wrong
	}
	if len(body) > hostileLong || bytes.Contains(body, []byte("<script")) || bytes.Contains(body, []byte(hostileMarker)) || !json.Valid(body) {
		bad("the body is long, reflects, or is no JSON: %.300q", body)
	}
	return status + " " + hostileCode(r, resp.StatusCode, body, bad), wrong
}

// hostileCode is the code of an error, which must have the form of its surface.
func hostileCode(r *hostileRequest, status int, body []byte, bad func(format string, args ...any)) string {
	e, form := gjson.GetBytes(body, "error"), hostileSurfaces[r.surface].errors
	types := hostileTypes[status]
	code, fits := e.Get("code").Str, false
	switch form {
	case "anthropic":
		code = e.Get("details.error_code").Str
		fits = gjson.GetBytes(body, "type").Str == "error" && e.Get("type").Str == types[1]
	case "google":
		code = e.Get("details.0.reason").Str
		fits = e.Get("code").Int() == int64(status) && e.Get("status").Str != "" && e.Get("status").Str != "INTERNAL"
	default:
		fits = e.Get("type").Str == types[0] && e.Get("param").Exists() && e.Get("@keys.#").Int() == 4
	}
	if !fits || code == "" || e.Get("message").Str == "" {
		bad("not an error of the form %q: %.300s", form, body)
	}
	return code
}
