package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	requestLimit = 90 * time.Second // for one request, waiting for a sick ledger included
	longestLine  = 1 << 20          // bytes of one line of a stream
	clientConns  = 64               // kept connections per host
)

// usage is what a provider says it used, in OpenAI's words.
type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	In         struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	Out struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// reply is what a client saw of one request.
type reply struct {
	status   int
	header   http.Header
	request  string // x-billing-request-id
	answer   string // the answer's own id
	cost     string // as the header or the comment says it
	position string // the same of its last event
	usage    *usage // nil where none was sent
	body     string // of a whole answer or an error
	code     string // of an error
	complete bool   // the last byte came: the end of the JSON, or [DONE]
	err      error  // of the connection
	took     time.Duration
}

func (r *reply) String() string {
	return fmt.Sprintf("status %d, complete %v, code %s, error %v, %.300s", r.status, r.complete, r.code, r.err, r.body)
}

// newClient is an HTTP client of the test's own, whose connections end with it.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: clientConns}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: scanAnswers(t, transport), Timeout: requestLimit}
}

// chatBody asks for a completion. more is further JSON members, each behind a comma.
func chatBody(model, prompt string, stream bool, more string) string {
	if stream {
		more += `,"stream":true`
	}
	text, _ := json.Marshal(prompt) //nolint:errcheck // a string always encodes
	return `{"model":"` + model + `","messages":[{"role":"user","content":` + string(text) + `}]` + more + `}`
}

// chat asks for a chat completion and reads all of its answer.
func chat(ctx context.Context, c *http.Client, base, token, body string) reply {
	return post(ctx, c, base+"/v1/chat/completions", token, body)
}

// post sends one POST and reads all of its answer.
func post(ctx context.Context, c *http.Client, url, token, body string) reply {
	return send(ctx, c, http.MethodPost, url, token, body)
}

// send sends one request and reads all of its answer.
func send(ctx context.Context, c *http.Client, method, url, token, body string) (r reply) {
	begin := time.Now()
	defer func() { r.took = time.Since(begin) }()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return reply{err: err}
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	r = reply{status: resp.StatusCode, header: resp.Header, request: resp.Header.Get("x-billing-request-id"),
		cost: resp.Header.Get("x-billing-cost"), position: resp.Header.Get("x-billing-position")}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		r.readStream(resp.Body)
		return r
	}
	whole, err := io.ReadAll(resp.Body)
	r.body, r.err = string(whole), err
	r.look(whole)
	r.complete = err == nil && json.Valid(whole)
	return r
}

func (r *reply) readStream(body io.Reader) {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), longestLine)
	for lines.Scan() {
		line := lines.Bytes()
		if bill, ok := bytes.CutPrefix(line, []byte(": billing ")); ok {
			var b struct{ Cost, Position string }
			r.err = json.Unmarshal(bill, &b)
			r.cost, r.position = b.Cost, b.Position
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case !ok:
		case string(data) == "[DONE]":
			r.complete = true
		case r.answer == "", bytes.Contains(data, []byte(`"usage":{`)), bytes.Contains(data, []byte(`"error":{`)):
			r.look(data)
		}
	}
	if err := lines.Err(); err != nil {
		r.err = err
	}
}

// look takes out of an answer or a chunk what tests ask for.
func (r *reply) look(data []byte) {
	var a struct {
		ID    string
		Usage *usage
		Error struct{ Code any }
	}
	if json.Unmarshal(data, &a) != nil {
		return
	}
	if a.ID != "" {
		r.answer = a.ID
	}
	if a.Usage != nil {
		r.usage = a.Usage
	}
	if a.Error.Code != nil {
		r.code = fmt.Sprint(a.Error.Code)
	}
}

// fetch is a GET; the status is 0 where nobody answered.
func fetch(t testing.TB, c *http.Client, url, token string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}
