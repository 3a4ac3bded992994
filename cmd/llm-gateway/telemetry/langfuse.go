package telemetry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	spans "go.opentelemetry.io/proto/slim/otlp/trace/v1"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe/trace"
)

var (
	errUnencoded = errors.New("it could not be encoded")
	errPartly    = errors.New("it took only a part")
)

// Langfuse is a Langfuse, which takes traces by OTLP.
type Langfuse struct {
	Host                 string // http(s)://host
	PublicKey, SecretKey string
}

// The attributes that Langfuse knows.
const (
	langfuseType       = "langfuse.observation.type"
	langfuseModel      = "langfuse.observation.model.name"
	langfuseUsage      = "langfuse.observation.usage_details"
	langfuseCost       = "langfuse.observation.cost_details"
	langfuseFirst      = "langfuse.observation.completion_start_time"
	langfuseLevel      = "langfuse.observation.level"
	langfuseMessage    = "langfuse.observation.status_message"
	langfuseMeta       = "langfuse.observation.metadata."
	langfuseTraceName  = "langfuse.trace.name"
	langfuseEnviroment = "langfuse.environment"
	langfuseRelease    = "langfuse.release"
)

const (
	langfusePath = "/api/public/otel/v1/traces"
	// langfuseVersion is of how Langfuse reads what comes: at once, and each span as an observation.
	langfuseVersion = "4"
)

// sender sends requests as Langfuse understands them.
func (l *Langfuse) sender(c *Config) *otlpSender {
	header := http.Header{}
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(l.PublicKey+":"+l.SecretKey)))
	header.Set("X-Langfuse-Ingestion-Version", langfuseVersion)
	environment, release := c.Environment, c.Version
	return newOTLPSender(strings.TrimRight(l.Host, "/")+langfusePath, header, c.resource(), func(r *trace.Request) []*spans.Span {
		return langfuseSpans(r, text(langfuseEnviroment, environment), text(langfuseRelease, release))
	})
}

// langfuseSpans are a model call as one generation, which has all of its cost, and each attempt below it.
func langfuseSpans(r *trace.Request, more ...*common.KeyValue) []*spans.Span {
	own := serverSpan(r)
	own.Attributes = append(generation(r), more...)
	out := []*spans.Span{own}
	for _, s := range r.Steps {
		if s.Kind != trace.Attempt {
			continue
		}
		step := stepSpan(r, s)
		step.Attributes = append(langfuseLevels([]*common.KeyValue{text(langfuseType, "span"), text(langfuseMeta+"provider", s.Provider),
			text(langfuseMeta+"model", s.Model), text(langfuseMeta+"status", strconv.Itoa(s.Status))}, s.Error), more...)
		out = append(out, step)
	}
	return out
}

func generation(r *trace.Request) []*common.KeyValue {
	c := r.Call
	out := []*common.KeyValue{text(langfuseType, "generation"), text(langfuseTraceName, r.Method+" "+r.Route), text(langfuseModel, c.Model),
		text(langfuseMeta+"billing_request_id", c.BillingID), text(langfuseMeta+"request_id", r.RequestID), text(langfuseMeta+"currency", c.Currency)}
	out = someText(out, keyUser, r.Account)
	out = someText(out, keySession, r.Session)
	out = someText(out, langfuseMeta+"position", c.Position)
	out = someText(out, langfuseMeta+"model_served", c.ModelServed)
	if !c.FirstByte.IsZero() { // it wants it as JSON
		out = append(out, text(langfuseFirst, `"`+c.FirstByte.UTC().Format("2006-01-02T15:04:05.000Z")+`"`))
	}
	switch {
	case c.Charge != nil:
		out = append(out, text(langfuseUsage, usageDetails(c.Charge)), text(langfuseCost, costDetails(c.Charge)))
	case c.Refunded:
		out = append(out, text(langfuseCost, `{"total":0}`))
	}
	return langfuseLevels(out, r.Failure())
}

// langfuseLevels says that something failed.
func langfuseLevels(to []*common.KeyValue, failure string) []*common.KeyValue {
	if failure == "" {
		return to
	}
	return append(to, text(langfuseLevel, "ERROR"), text(langfuseMessage, failure))
}

// usageDetails are the meters by their names. The total is tokens: searches and requests are none.
func usageDetails(c *domain.Charge) string {
	used := metersOf(c)
	details := map[string]int64{"total": used.InputTokens() + used.OutputTokens()}
	for m, n := range used {
		if n > 0 {
			details[domain.Meter(m).String()] = n
		}
	}
	return encoded(details)
}

// costDetails are the amounts of the meters, and the whole: exact numbers, as the ledger has them.
func costDetails(c *domain.Charge) string {
	details, sums := map[string]json.Number{"total": json.Number(c.Amount.String())}, map[domain.Meter]domain.Amount{}
	for _, line := range c.Lines {
		sums[line.Meter] = sums[line.Meter].Add(line.Amount)
		details[line.Meter.String()] = json.Number(sums[line.Meter].String())
	}
	return encoded(details)
}

func encoded(details any) string {
	out, _ := json.Marshal(details) //nolint:errcheck,errchkjson // maps of numbers always encode
	return string(out)
}
