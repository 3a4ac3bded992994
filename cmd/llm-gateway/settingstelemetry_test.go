package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestTelemetrySettings: what each setting takes, and what is said of what it does not take, without quoting
// what is secret.
func TestTelemetrySettings(t *testing.T) {
	t.Parallel()
	langfuse := "LANGFUSE_ENABLED=true LANGFUSE_PUBLIC_KEY=pk LANGFUSE_SECRET_KEY=hunter2"
	for _, c := range []struct {
		set, problem string
		got          func(t *telemetrySettings) any
		want         any
	}{
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318/", "", func(t *telemetrySettings) any { return t.tracesURL() }, "http://c:4318/v1/traces"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318 OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://d/x", "", func(t *telemetrySettings) any { return t.tracesURL() }, "http://d/x"},
		{"", "", func(t *telemetrySettings) any { return t.tracesURL() }, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=c:4317", "OTEL_EXPORTER_OTLP_ENDPOINT: it must be http://... or https://..., without credentials", nil, nil},
		{"OTEL_EXPORTER_OTLP_HEADERS=a=b%20c,d=hunter2", "", func(t *telemetrySettings) any { return string(t.OTLPHeaders) }, "a=b%20c,d=hunter2"},
		{"OTEL_EXPORTER_OTLP_HEADERS=hunter2", "OTEL_EXPORTER_OTLP_HEADERS: it must be name=value, or several with commas between them", nil, nil},
		{"OTEL_EXPORTER_OTLP_HEADERS=a=%0ahunter2", "OTEL_EXPORTER_OTLP_HEADERS: it must be name=value", nil, nil},
		{"OTEL_EXPORTER_OTLP_HEADERS=a%20b=hunter2", "OTEL_EXPORTER_OTLP_HEADERS: it must be name=value", nil, nil},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=grpc", `OTEL_EXPORTER_OTLP_PROTOCOL: it must be http/protobuf, not "grpc"`, nil, nil},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=http/json", `OTEL_EXPORTER_OTLP_PROTOCOL: it must be http/protobuf, not "http/json"`, nil, nil},
		{"OTEL_EXPORTER_OTLP_TIMEOUT=0", "OTEL_EXPORTER_OTLP_TIMEOUT: it must be a whole number from 1 to 60000", nil, nil},
		{"OTEL_RESOURCE_ATTRIBUTES=a=b,c=d%2Ce", "", func(t *telemetrySettings) any { return t.Resource }, [][2]string{{"a", "b"}, {"c", "d,e"}}},
		{"OTEL_RESOURCE_ATTRIBUTES=a", "OTEL_RESOURCE_ATTRIBUTES: it must be name=value", nil, nil},
		{"OTEL_TRACES_SAMPLER=jaeger_remote", "OTEL_TRACES_SAMPLER: it must be one of always_on,", nil, nil},
		{"OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=0.25", "", func(t *telemetrySettings) any { return t.Sampler + t.SamplerArg }, "traceidratio0.25"},
		{"OTEL_TRACES_SAMPLER_ARG=2", "OTEL_TRACES_SAMPLER_ARG: it must be a number from 0 to 1", nil, nil},
		{langfuse, "", func(t *telemetrySettings) any { return t.Langfuse && t.LangfuseHost == "https://cloud.langfuse.com" }, true},
		{"LANGFUSE_ENABLED=true LANGFUSE_PUBLIC_KEY=pk", "LANGFUSE_ENABLED: it needs LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_HOST", nil, nil},
		{"SENTRY_DSN=https://hunter2@sentry.invalid/1", "", func(t *telemetrySettings) any { return string(t.SentryDSN) }, "https://hunter2@sentry.invalid/1"},
		{"SENTRY_DSN=https://hunter2", "SENTRY_DSN: it must be a DSN, as https://key@host/project", nil, nil},
		{"SENTRY_TRACES_SAMPLE_RATE=NaN", "SENTRY_TRACES_SAMPLE_RATE: it must be a number from 0 to 1", nil, nil},
		{"SENTRY_TRACES_SAMPLE_RATE=0.5", "", func(t *telemetrySettings) any { return t.SentryRate }, 0.5},
	} {
		s, err := load(t, "", strings.Fields(c.set)...)
		if c.problem != "" {
			if err == nil || !strings.Contains(err.Error(), c.problem) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v, want %s", c.set, err, c.problem)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.set, err)
			continue
		}
		if got := c.got(&s.Telemetry); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.set, got, c.want)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", s, *s), "hunter2") {
			t.Errorf("%s: formatting the settings shows what is secret", c.set)
		}
	}
}
