package receivertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// The key and the project of a Sentry of the tests.
const (
	SentryKey     = "5e7712ece1be71e57"
	sentryProject = "42"
)

// Sentry is a Sentry that takes envelopes.
type Sentry struct {
	inbox
	events []SentryEvent
}

// SentryEvent is what an event or a transaction says.
type SentryEvent struct {
	Type                 string // of the envelope's item: event or transaction
	EventID              string `json:"event_id"`
	Message, Level       string
	Release, Environment string
	Transaction          string
	Tags                 map[string]string
	User, Request        json.RawMessage
	Contexts             map[string]map[string]any
	Exception            []SentryException
	Spans                []SentrySpan
	Start                json.RawMessage `json:"start_timestamp"`
}

// SentryException is one, with its stack.
type SentryException struct {
	Type, Value string
	Stacktrace  struct {
		Frames []struct{ Function, Module string }
	}
}

// SentrySpan is a part of a transaction.
type SentrySpan struct {
	Op, Description, Status string
	Trace                   string `json:"trace_id"`
	Parent                  string `json:"parent_span_id"`
}

// NewSentry serves until the test ends.
func NewSentry(t testing.TB) *Sentry {
	t.Helper()
	s := &Sentry{}
	s.serve(t, s.take)
	return s
}

// DSN is what a client of it is configured with.
func (s *Sentry) DSN() string { return DSN(s.URL()) }

// DSN is that of a Sentry at a URL.
func DSN(url string) string {
	return strings.Replace(url, "://", "://"+SentryKey+"@", 1) + "/" + sentryProject
}

// Events are those that came, in their order.
func (s *Sentry) Events() []SentryEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]SentryEvent(nil), s.events...)
}

func (s *Sentry) take(r *http.Request, body []byte) (int, []byte) {
	if r.Method != http.MethodPost || r.URL.Path != "/api/"+sentryProject+"/envelope/" {
		return http.StatusNotFound, nil
	}
	if r.Header.Get("Content-Type") != "application/x-sentry-envelope" || !strings.Contains(r.Header.Get("X-Sentry-Auth"), "sentry_key="+SentryKey) ||
		!strings.Contains(r.Header.Get("X-Sentry-Auth"), "sentry_version=7") {
		return http.StatusUnauthorized, nil
	}
	events, id, err := readEnvelope(body)
	if err != nil {
		return http.StatusBadRequest, []byte(err.Error())
	}
	s.mu.Lock()
	s.events = append(s.events, events...)
	s.mu.Unlock()
	return http.StatusOK, fmt.Appendf(nil, `{"id":%q}`, id)
}

// readEnvelope reads a line of headers, and items: each a line of headers and as many bytes as that says.
func readEnvelope(body []byte) (events []SentryEvent, id string, err error) {
	line, rest, _ := bytes.Cut(body, []byte("\n"))
	var head struct {
		EventID string `json:"event_id"`
		SentAt  string `json:"sent_at"`
	}
	if err := json.Unmarshal(line, &head); err != nil || head.EventID == "" || head.SentAt == "" {
		return nil, "", fmt.Errorf("no envelope: %w: %.200s", err, line)
	}
	for len(bytes.TrimSpace(rest)) > 0 {
		if line, rest, _ = bytes.Cut(rest, []byte("\n")); len(line) == 0 {
			continue
		}
		var item struct {
			Type   string
			Length int
		}
		if err := json.Unmarshal(line, &item); err != nil || item.Length > len(rest) || item.Type != "event" && item.Type != "transaction" { //nolint:musttag // by their own names
			return nil, "", fmt.Errorf("no item: %w: %.200s", err, line)
		}
		var e SentryEvent
		if err := json.Unmarshal(rest[:item.Length], &e); err != nil { //nolint:musttag // by their own names
			return nil, "", fmt.Errorf("no event: %w", err)
		}
		e.Type = item.Type
		if e.EventID == "" || item.Type == "transaction" && (len(e.Start) == 0 || e.Contexts["trace"]["trace_id"] == nil) {
			return nil, "", fmt.Errorf("an event without what it needs: %s", rest[:item.Length])
		}
		events, rest = append(events, e), rest[item.Length:]
	}
	return events, head.EventID, nil
}
