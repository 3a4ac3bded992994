package main

import (
	"fmt"
	"time"

	"llm-gateway/cmd/llm-gateway/upstreams"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
)

// resilience is what the settings say of providers that fail or are slow.
type resilience struct {
	RetryBudget      int // retries for a hundred calls; 0 = no bound
	CircuitEnabled   bool
	CircuitThreshold int
	CircuitRecovery  time.Duration

	UpstreamConnect, UpstreamFirstByte, UpstreamIdle, UpstreamTotal time.Duration
}

// Bounds of these settings.
const (
	maxRetryBudget = 1000
	maxThreshold   = 1000
	maxWait        = 24 * time.Hour
)

func resilienceSettings() []setting {
	return []setting{
		{"RETRY_BUDGET_PERCENT", "20", false,
			"How many retries a provider gets for a hundred calls of the last ten seconds at most, beside one a second, so that an outage is not multiplied. 0: as many as RETRY_MAX_ATTEMPTS allows.",
			between(func(s *Settings) *int { return &s.RetryBudget }, 0, maxRetryBudget)},
		{"CIRCUIT_BREAKER_ENABLED", "true", false,
			"true: a provider, or one of its models, that fails again and again is left alone for a while: the next target is called, or the answer is 503 circuit_open at once. GET /health/circuit-breakers shows which.",
			yesNo(func(s *Settings) *bool { return &s.CircuitEnabled })},
		{"CIRCUIT_BREAKER_FAILURE_THRESHOLD", "5", false,
			"How many calls in a row must fail until then: of the provider, where no connection comes about; of one model, where the answer is a 5xx, does not come in time or breaks off.",
			between(func(s *Settings) *int { return &s.CircuitThreshold }, 1, maxThreshold)},
		{"CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "60", false, "After how many seconds one call is let through to see.",
			seconds(func(s *Settings) *time.Duration { return &s.CircuitRecovery }, maxWait)},
		{"UPSTREAM_CONNECT_TIMEOUT", provider.ConnectTimeout.String(), false,
			"How long to wait for a connection with a provider, and again for its TLS: a duration such as 10s. It is tried again after that. For these four, UPSTREAMS may say otherwise for a provider.",
			wait(func(s *Settings) *time.Duration { return &s.UpstreamConnect })},
		{"UPSTREAM_FIRST_BYTE_TIMEOUT", provider.HeaderTimeout.String(), false,
			"How long to wait for the beginning of an answer. A whole answer begins when the model has finished. After that the next target is called, or the answer is 504.",
			wait(func(s *Settings) *time.Duration { return &s.UpstreamFirstByte })},
		{"UPSTREAM_IDLE_TIMEOUT", provider.IdleTimeout.String(), false,
			"How long an answer that has begun may bring nothing, not even a keep-alive.",
			wait(func(s *Settings) *time.Duration { return &s.UpstreamIdle })},
		{"UPSTREAM_TIMEOUT", provider.TotalTimeout.String(), false,
			"How long one call of a provider may take in all. What was delivered until then is charged.",
			wait(func(s *Settings) *time.Duration { return &s.UpstreamTotal })},
	}
}

// wait reads a duration that is not 0.
func wait(into func(*Settings) *time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 || d > maxWait {
			return fmt.Errorf("it must be a duration above 0s and up to %s, such as 10s", maxWait)
		}
		*into(s) = d
		return nil
	}
}

// waits says how long an upstream is waited for: what UPSTREAMS says, otherwise the settings. Where it gives an
// answer more time to begin than a call may take in all, the call may take that time, and begin to idle.
func (s *Settings) waits(u *upstreams.Upstream, c *provider.Config) {
	or := func(own, otherwise time.Duration) time.Duration {
		if own == 0 {
			return otherwise
		}
		return own
	}
	c.ConnectTimeout, c.HeaderTimeout = or(u.Connect, s.UpstreamConnect), or(u.FirstByte, s.UpstreamFirstByte)
	c.IdleTimeout = or(u.Idle, s.UpstreamIdle)
	c.TotalTimeout = or(u.Total, max(s.UpstreamTotal, u.FirstByte+c.IdleTimeout))
}

// failing is how providers that fail are treated.
func (s *Settings) failing() gateway.Resilience {
	r := gateway.Resilience{RetryPercent: s.RetryBudget}
	if s.CircuitEnabled {
		r.Circuits = domain.CircuitRules{Failures: s.CircuitThreshold, Recovery: s.CircuitRecovery}
	}
	return r
}
