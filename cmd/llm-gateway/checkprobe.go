package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"llm-gateway/cmd/llm-gateway/upstreams"
)

// Bounds of asking providers.
const (
	checkTimeout    = 10 * time.Second // for one answer, where --timeout says nothing else
	maxCheckTimeout = time.Minute
	probesAtOnce    = 8
	maxModelsAnswer = 16 << 20 // bytes of a list of models
	maxProbeHeaders = 64 << 10 // bytes
)

// probe is one free request, by one key.
type probe struct {
	out    probeOut
	header http.Header
}

// probeOut is one line of `check providers --json`.
type probeOut struct {
	Provider  string `json:"provider"`
	Type      string `json:"type"`
	Key       int    `json:"key"`  // from 1, in the order of the settings; 0: it was asked without one
	Keys      int    `json:"keys"` // how many the provider has
	URL       string `json:"url"`
	OK        bool   `json:"ok"`
	Status    int    `json:"status,omitempty"` // of HTTP; missing where there was no answer
	RoundTrip int64  `json:"round_trip_ms"`
	Problem   string `json:"problem,omitempty"`
}

// probes are the requests that the configured providers are checked by.
func probes(all []upstreams.Upstream) (out []probe) {
	for i := range all {
		u := &all[i]
		if len(u.Keys) == 0 {
			out = append(out, probeOf(u, 0))
		}
		for k := range u.Keys {
			out = append(out, probeOf(u, k+1))
		}
	}
	return out
}

// probeOf asks by the key of that number; 0: by none.
func probeOf(u *upstreams.Upstream, key int) probe {
	p := probe{out: probeOut{Provider: u.Name, Type: u.Type, Key: key, Keys: len(u.Keys), URL: modelsURL(u)}, header: maps.Clone(u.Headers)}
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set("Accept", "application/json")
	p.header.Set("User-Agent", program)
	if u.Type == upstreams.TypeAnthropic {
		p.header.Set("Anthropic-Version", "2023-06-01")
	}
	if key == 0 {
		return p
	}
	switch secret := string(u.Keys[key-1].Secret); u.Type {
	case upstreams.TypeAnthropic:
		p.header.Set("X-Api-Key", secret)
	case upstreams.TypeGemini:
		p.header.Set("X-Goog-Api-Key", secret)
	case upstreams.TypeAzure:
		p.header.Set("Api-Key", secret)
	default:
		p.header.Set("Authorization", "Bearer "+secret)
	}
	return p
}

// modelsURL is where an upstream lists its models.
func modelsURL(u *upstreams.Upstream) string {
	base := strings.TrimRight(u.BaseURL, "/")
	switch u.Type {
	case upstreams.TypeAzure:
		return strings.TrimSuffix(base, "/openai") + "/openai/models?api-version=" + u.APIVersion
	case upstreams.TypeGemini:
		return strings.TrimSuffix(base, "/v1beta") + "/v1beta/models?pageSize=1"
	case upstreams.TypeAnthropic:
		return strings.TrimSuffix(base, "/v1") + "/v1/models?limit=1"
	}
	if parsed, err := url.Parse(base); err == nil && parsed.Path != "" && !upstreams.Builtin(u.Name) {
		return base + "/models" // its path is the whole of it
	}
	return strings.TrimSuffix(base, "/v1") + "/v1/models"
}

// askProviders asks some at a time, and returns the answers in the order of the probes.
func askProviders(ctx context.Context, all []probe, timeout time.Duration) []probeOut {
	answers := make([]probeOut, len(all))
	slots := make(chan struct{}, probesAtOnce)
	var wait sync.WaitGroup
	for i := range all {
		slots <- struct{}{}
		wait.Go(func() {
			answers[i] = all[i].ask(ctx, timeout)
			<-slots
		})
	}
	wait.Wait()
	return answers
}

// ask sends the request, without following redirects: a key goes nowhere but where it was meant to.
func (p *probe) ask(ctx context.Context, timeout time.Duration) probeOut {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, began := p.out, time.Now()
	status, body, err := p.fetch(ctx)
	out.Status, out.RoundTrip = status, time.Since(began).Milliseconds()
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		out.Problem = fmt.Sprintf("it does not answer within %s", timeout)
	case err != nil && status != 0:
		out.Problem = "its answer broke off: " + reason(err)
	case err != nil:
		out.Problem = "no connection: " + reason(err)
	default:
		out.Problem = p.judge(status, body)
	}
	out.OK = out.Problem == ""
	return out
}

// fetch returns the answer; status is 0 where there was none.
func (p *probe) fetch(ctx context.Context) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.out.URL, nil)
	if err != nil {
		return 0, nil, errors.New("its address is not a URL")
	}
	request.Header = p.header
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: maxProbeHeaders}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxModelsAnswer))
	return response.StatusCode, body, err
}

// judge says what is wrong with an answer, of which it quotes nothing: some upstreams repeat the key.
func (p *probe) judge(status int, body []byte) string {
	where := "is its base_url right?"
	if p.out.Provider == upstreams.TypeOpenAI {
		where = "is OPENAI_BASE_URL, or its base_url, right?"
	}
	switch {
	case status == http.StatusOK && isModelList(body):
		return ""
	case status == http.StatusOK:
		return "it answers, but not with a list of models: " + where
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && p.out.Key == 0:
		return fmt.Sprintf("it asks for a key (%d), and none is set", status)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Sprintf("it refuses the key (%d)", status)
	case status == http.StatusNotFound:
		return "it lists no models there (404): " + where
	case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		return fmt.Sprintf("it redirects (%d), which is not followed: %s", status, where)
	case status == http.StatusBadRequest && p.out.Type == upstreams.TypeGemini:
		return "it refuses the request (400), which is what Gemini says to a wrong key"
	}
	return fmt.Sprintf("it answers with status %d", status)
}

// isModelList accepts what OpenAI and Anthropic (data), Gemini (models) and some others (a bare list)
// answer with.
func isModelList(body []byte) bool {
	var list struct {
		Data   []json.RawMessage `json:"data"`
		Models []json.RawMessage `json:"models"`
	}
	if body = bytes.TrimSpace(body); len(body) > 0 && body[0] == '[' {
		return json.Valid(body)
	}
	return json.Unmarshal(body, &list) == nil && (list.Data != nil || list.Models != nil)
}
