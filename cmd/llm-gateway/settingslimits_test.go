package main

import (
	"context"
	"log/slog"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe"
)

// sharedLimits counts how often limits are asked for by way of Redis.
type sharedLimits struct{ asked int }

// Admit implements limit.Shared.
func (s *sharedLimits) Admit(context.Context, *domain.RateAsk, bool) (out domain.Admission) {
	s.asked++
	out.Own.Fits, out.All.Fits = true, true
	return out
}

// Adjust implements limit.Shared.
func (s *sharedLimits) Adjust(context.Context, []domain.RateAdjustment) error { return nil }

// TestLimitsKeptWhere: limits are kept in a Redis that gateways share, where there is one and it is wanted. In
// memory, as where Redis is embedded, they hold all the same.
func TestLimitsKeptWhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		storage string
		redis   Secret
		asked   int
	}{{limitsInRedis, "redis://127.0.0.1:6379/0", 2}, {limitsInRedis, "", 0}, {limitsInMemory, "redis://127.0.0.1:6379/0", 0}, {limitsInMemory, "", 0}} {
		shared, p := &sharedLimits{}, &parts{metrics: observe.NewMetrics()}
		s := &Settings{RedisURL: c.redis, Limits: Limits{Storage: c.storage, Account: domain.Quotas{domain.RequestsHour: 1}}}
		limits := p.limits(s, shared, nil, slog.New(slog.DiscardHandler))
		through := 0
		for range 2 {
			ask := domain.RateAsk{Account: "alice", Want: domain.OneRequest(0), Quotas: [domain.RateScopes]domain.Quotas{domain.RateAccount: limits.Account}}
			if limits.Limiter.Admit(t.Context(), ask, false).Refused == nil {
				through++
			}
		}
		limits.Limiter.Close()
		if shared.asked != c.asked || through != max(c.asked, 1) {
			t.Errorf("%s, REDIS_URL=%s: asked %d times, %d of 2 came through a limit of 1", c.storage, string(c.redis), shared.asked, through)
		}
	}
}
