package main

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"llm-gateway/cmd/llm-gateway/telemetry"
)

// telemetrySettings are who is told of requests and errors: by default nobody.
type telemetrySettings struct {
	OTLPEndpoint, OTLPTracesEndpoint string // "" = not told
	OTLPHeaders                      Secret
	OTLPProtocol                     string
	OTLPTimeout                      int // milliseconds
	Service                          string
	Resource                         [][2]string
	Sampler, SamplerArg              string

	Langfuse                       bool
	LangfusePublic, LangfuseSecret Secret
	LangfuseHost                   string

	SentryDSN         Secret // "" = not told
	SentryEnvironment string // "" = ENVIRONMENT
	SentryRate        float64
}

// otlpProtocol is the only one of OTLP that is spoken.
const otlpProtocol = "http/protobuf"

// maxOTLPTimeout bounds OTEL_EXPORTER_OTLP_TIMEOUT, in milliseconds.
const maxOTLPTimeout = 60_000

func telemetrySettingsTable() []setting {
	of := func(s *Settings) *telemetrySettings { return &s.Telemetry }
	return []setting{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "", false,
			"An OpenTelemetry receiver that is told of requests as traces, as http://host:4318; /v1/traces is added. Never of prompts or answers. Empty: nobody is. docs/telemetry.md tells more of this and the next ones.",
			webURL(func(s *Settings) *string { return &of(s).OTLPEndpoint })},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", false, "The same as a whole address, to which nothing is added; it wins over OTEL_EXPORTER_OTLP_ENDPOINT.",
			webURL(func(s *Settings) *string { return &of(s).OTLPTracesEndpoint })},
		{"OTEL_EXPORTER_OTLP_HEADERS", "", true, "Headers for that receiver, as name=value with commas between them, percent-encoded: its key is usually one.", readOTLPHeaders},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", otlpProtocol, false, "How that receiver is spoken to: http/protobuf; nothing else is offered.",
			oneOf(func(s *Settings) *string { return &of(s).OTLPProtocol }, otlpProtocol)},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "10000", false, "How long it may take for one batch, in milliseconds. What it has not taken by then is dropped, and counted.",
			between(func(s *Settings) *int { return &of(s).OTLPTimeout }, 1, maxOTLPTimeout)},
		{"OTEL_SERVICE_NAME", "llm-gateway", false, "What this service is called in traces.", anyText(func(s *Settings) *string { return &of(s).Service })},
		{"OTEL_RESOURCE_ATTRIBUTES", "", false, "What else traces say of this process, as name=value with commas between them, percent-encoded.", readResource},
		{"OTEL_TRACES_SAMPLER", "parentbased_always_on", false,
			"Which requests that receiver is told of: always_on, always_off or traceidratio; with parentbased_ before it, a request that comes with a trace of its own is told of as its caller decided.",
			func(s *Settings, value string) error {
				of(s).Sampler = value
				_, err := telemetry.NewSampler(value, "")
				return err
			}},
		{"OTEL_TRACES_SAMPLER_ARG", "", false, "For traceidratio: which share of the traces, from 0 to 1. Empty: 1.",
			func(s *Settings, value string) error {
				of(s).SamplerArg = value
				_, err := telemetry.NewSampler("traceidratio", value)
				return err
			}},
		{"LANGFUSE_ENABLED", "false", false, "true: a Langfuse is told of every model call, with the ledger's cost; never of prompts or answers.",
			yesNo(func(s *Settings) *bool { return &of(s).Langfuse })},
		{"LANGFUSE_PUBLIC_KEY", "", true, "The public key of a project there.", credential(func(s *Settings) *Secret { return &of(s).LangfusePublic })},
		{"LANGFUSE_SECRET_KEY", "", true, "Its secret key.", credential(func(s *Settings) *Secret { return &of(s).LangfuseSecret })},
		{"LANGFUSE_HOST", "https://cloud.langfuse.com", false, "Where that Langfuse is.", webURL(func(s *Settings) *string { return &of(s).LangfuseHost })},
		{"SENTRY_DSN", "", true, "A Sentry project that is told of errors of the gateway's own, without accounts, prompts or answers. Empty: none is.", readSentryDSN},
		{"SENTRY_ENVIRONMENT", "", false, "What Sentry is told as the environment. Empty: ENVIRONMENT.", anyText(func(s *Settings) *string { return &of(s).SentryEnvironment })},
		{"SENTRY_TRACES_SAMPLE_RATE", "0", false, "The share of requests of whose durations Sentry is told too, from 0 to 1.", readSentryRate},
	}
}

func readSentryDSN(s *Settings, value string) error {
	s.Telemetry.SentryDSN = Secret(value)
	if value == "" {
		return nil
	}
	return telemetry.ValidDSN(value)
}

func readSentryRate(s *Settings, value string) error {
	rate, err := strconv.ParseFloat(value, 64)
	if err != nil || !(rate >= 0 && rate <= 1) {
		return errors.New("it must be a number from 0 to 1")
	}
	s.Telemetry.SentryRate = rate
	return nil
}

// pairs reads name=value, with commas between several, percent-encoded.
func pairs(value string) (out [][2]string, ok bool) {
	for part := range strings.SplitSeq(value, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, text, found := strings.Cut(part, "=")
		name, wrongName := url.PathUnescape(strings.TrimSpace(name))
		text, wrong := url.PathUnescape(strings.TrimSpace(text))
		if !found || name == "" || wrongName != nil || wrong != nil {
			return nil, false
		}
		out = append(out, [2]string{name, text})
	}
	return out, true
}

// readOTLPHeaders reads headers; the error does not quote them.
func readOTLPHeaders(s *Settings, value string) error {
	s.Telemetry.OTLPHeaders = Secret(value)
	all, ok := pairs(value)
	for _, pair := range all {
		ok = ok && httpguts.ValidHeaderFieldName(pair[0]) && httpguts.ValidHeaderFieldValue(pair[1])
	}
	if !ok {
		return errNoPairs
	}
	return nil
}

var errNoPairs = errors.New("it must be name=value, or several with commas between them")

func readResource(s *Settings, value string) error {
	all, ok := pairs(value)
	if !ok {
		return errNoPairs
	}
	s.Telemetry.Resource = all
	return nil
}

// contradictions says what is missing.
func (t *telemetrySettings) contradictions() (problems []string) {
	if t.Langfuse && (t.LangfusePublic == "" || t.LangfuseSecret == "" || t.LangfuseHost == "") {
		problems = append(problems, "LANGFUSE_ENABLED: it needs LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_HOST")
	}
	return problems
}

// tracesURL is where OTLP goes; "" = nowhere.
func (t *telemetrySettings) tracesURL() string {
	if t.OTLPTracesEndpoint != "" || t.OTLPEndpoint == "" {
		return t.OTLPTracesEndpoint
	}
	return strings.TrimRight(t.OTLPEndpoint, "/") + "/v1/traces"
}

// openTelemetry starts telling whom the settings name.
func openTelemetry(s *Settings, counts telemetry.Counts, log *slog.Logger) (*telemetry.Telemetry, error) {
	t := &s.Telemetry
	sampler, err := telemetry.NewSampler(t.Sampler, t.SamplerArg)
	if err != nil {
		return nil, err
	}
	c := telemetry.Config{Sampler: sampler, Version: s.version(), Environment: s.Environment, Counts: counts, Log: log}
	if to := t.tracesURL(); to != "" {
		c.OTLP = &telemetry.OTLP{URL: to, Header: http.Header{}, Timeout: time.Duration(t.OTLPTimeout) * time.Millisecond, Service: t.Service, Resource: t.Resource}
		headers, _ := pairs(string(t.OTLPHeaders)) // it has been read before
		for _, pair := range headers {
			c.OTLP.Header.Set(pair[0], pair[1])
		}
	}
	if t.Langfuse {
		c.Langfuse = &telemetry.Langfuse{Host: t.LangfuseHost, PublicKey: string(t.LangfusePublic), SecretKey: string(t.LangfuseSecret)}
	}
	if t.SentryDSN != "" {
		c.Sentry = &telemetry.Sentry{DSN: string(t.SentryDSN), Environment: t.SentryEnvironment, Rate: t.SentryRate}
		if c.Sentry.Environment == "" {
			c.Sentry.Environment = s.Environment
		}
	}
	return telemetry.Open(c)
}
