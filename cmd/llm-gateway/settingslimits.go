package main

import (
	"log/slog"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/limit"
)

// Limits are the settings of rate limits and of requests in flight.
type Limits struct {
	Storage  string // redis or memory
	Account  domain.Quotas
	All      domain.Quotas
	InFlight gateway.InFlight
}

// The words of RATE_LIMIT_STORAGE.
const (
	limitsInRedis  = "redis"
	limitsInMemory = "memory"
)

const (
	// maxInFlight bounds MAX_IN_FLIGHT and MAX_IN_FLIGHT_PER_ACCOUNT.
	maxInFlight = 1_000_000
	// maxInFlightWait bounds IN_FLIGHT_WAIT: whoever waits holds a connection.
	maxInFlightWait = time.Minute
)

func limitSettings() []setting {
	quota := func(into func(*Settings) *int64) func(*Settings, string) error {
		return func(s *Settings, value string) error {
			var n int
			err := between(func(*Settings) *int { return &n }, 0, domain.MaxQuota)(s, value)
			*into(s) = int64(n)
			return err
		}
	}
	return []setting{
		{"RATE_LIMIT_STORAGE", limitsInRedis, false,
			"Where rate limits are kept: redis, for all gateways together by REDIS_URL (each falls back to its memory while Redis is away; where REDIS_URL is empty there is only that), or memory, for each gateway by itself.",
			oneOf(func(s *Settings) *string { return &s.Limits.Storage }, limitsInRedis, limitsInMemory)},
		{"RATE_LIMIT_REQUESTS_PER_MINUTE", "60", false,
			"Model calls that an account may make in a minute: so many at once, then as they come back, evenly. 0: no limit. `account limits` and `key create` set others.",
			quota(func(s *Settings) *int64 { return &s.Limits.Account[domain.RequestsMinute] })},
		{"RATE_LIMIT_REQUESTS_PER_HOUR", "1000", false, "The same for an hour. 0: no limit.",
			quota(func(s *Settings) *int64 { return &s.Limits.Account[domain.RequestsHour] })},
		{"RATE_LIMIT_TOKENS_PER_MINUTE", "0", false,
			"Tokens that an account may use in a minute, input and output: an estimate when a call begins, what it used when it has ended. 0: no limit.",
			quota(func(s *Settings) *int64 { return &s.Limits.Account[domain.TokensMinute] })},
		{"RATE_LIMIT_GLOBAL_REQUESTS_PER_MINUTE", "0", false, "Model calls of all accounts together in a minute. 0: no limit.",
			quota(func(s *Settings) *int64 { return &s.Limits.All[domain.RequestsMinute] })},
		{"RATE_LIMIT_GLOBAL_REQUESTS_PER_HOUR", "0", false, "The same for an hour. 0: no limit.",
			quota(func(s *Settings) *int64 { return &s.Limits.All[domain.RequestsHour] })},
		{"MAX_IN_FLIGHT", "10000", false,
			"Model calls that this gateway serves at once, streams until they end; more of them wait for IN_FLIGHT_WAIT and are then told 503 overloaded. 0: no bound.",
			between(func(s *Settings) *int { return &s.Limits.InFlight.Most }, 0, maxInFlight)},
		{"MAX_IN_FLIGHT_PER_ACCOUNT", "0", false, "The same for each account on this gateway. 0: no bound.",
			between(func(s *Settings) *int { return &s.Limits.InFlight.PerAccount }, 0, maxInFlight)},
		{"IN_FLIGHT_WAIT", "1s", false, "How long a call waits for one of those to end, at most 1m. 0s: not at all.",
			duration(func(s *Settings) *time.Duration { return &s.Limits.InFlight.Wait }, maxInFlightWait)},
	}
}

// limits are those of a gateway: shared by way of Redis, unless shared is nil or memory is wanted. An embedded
// Redis is this process's memory already, no other gateway's and gone with it: by way of its scripts a request
// would cost twice what it does. The caller closes the Limiter.
func (p *parts) limits(s *Settings, shared limit.Shared, overrides gateway.Overrides, log *slog.Logger) gateway.RateLimits {
	c := limit.Config{Now: time.Now, Log: log, Count: p.metrics.RateLimited}
	if s.Limits.Storage == limitsInRedis && s.RedisURL != "" {
		c.Shared = shared
	}
	p.limiter = limit.New(c)
	return gateway.RateLimits{Limiter: p.limiter, Account: s.Limits.Account, All: s.Limits.All, Overrides: overrides}
}
