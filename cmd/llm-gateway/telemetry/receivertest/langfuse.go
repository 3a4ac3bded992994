package receivertest

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// The keys of a Langfuse of the tests.
const (
	LangfusePublic = "pk-lf-receivertest"
	LangfuseSecret = "sk-lf-receivertest" //nolint:gosec // it opens nothing
)

// Langfuse is a Langfuse that takes traces by OTLP.
type Langfuse struct{ OTLP }

// NewLangfuse serves until the test ends.
func NewLangfuse(t testing.TB) *Langfuse {
	t.Helper()
	l := &Langfuse{OTLP{path: "/api/public/otel/v1/traces", check: func(r *http.Request) error {
		public, secret, ok := r.BasicAuth()
		switch {
		case !ok || public != LangfusePublic || secret != LangfuseSecret:
			return errors.New("the keys are wrong")
		case r.Header.Get("X-Langfuse-Ingestion-Version") != "4":
			return errors.New("the version of the ingestion is another one")
		}
		return nil
	}}}
	l.serve(t, l.take)
	return l
}

// Generation is a model call as Langfuse understood it.
type Generation struct {
	Span
	Model, User, Session, Level string
	Usage                       map[string]int64
	Cost                        map[string]string // exact, as sent
	FirstByte                   string
}

// Generations are the model calls by billing request id. Spans that are none must have no cost, so that the
// cost of a trace is that of its generations.
func (l *Langfuse) Generations() map[string]Generation {
	out := map[string]Generation{}
	for _, s := range l.Spans() {
		at := func(name string) string { return s.Attributes["langfuse.observation."+name] }
		if at("type") != "generation" {
			if at("type") != "span" || at("cost_details") != "" || at("model.name") != "" {
				l.t.Errorf("an observation that would cost by itself: %+v", s)
			}
			continue
		}
		g := Generation{Span: s, Model: at("model.name"), User: s.Attributes["user.id"], Session: s.Attributes["session.id"], Level: at("level"),
			Cost: map[string]string{}}
		if usage := at("usage_details"); usage != "" {
			l.parse(usage, &g.Usage)
		}
		if cost := at("cost_details"); cost != "" {
			numbers := map[string]json.Number{}
			l.parse(cost, &numbers)
			for name, n := range numbers {
				g.Cost[name] = n.String()
			}
		}
		if first := at("completion_start_time"); first != "" {
			l.parse(first, &g.FirstByte)
		}
		id := at("metadata.billing_request_id")
		if _, twice := out[id]; twice {
			l.t.Errorf("%s came twice", id)
		}
		out[id] = g
	}
	return out
}

func (l *Langfuse) parse(text string, into any) {
	in := json.NewDecoder(strings.NewReader(text))
	in.UseNumber()
	if err := in.Decode(into); err != nil {
		l.t.Errorf("Langfuse cannot read %q: %v", text, err)
	}
}
