package main

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"llm-gateway/gateway"
)

// caching is what the settings say of the response cache.
type caching struct {
	CacheStore    string // off, redis or memory
	CacheTTL      time.Duration
	CacheMaxBytes int
	CacheShared   bool
	CachePercent  int
}

// The places of RESPONSE_CACHE.
const (
	cacheOff    = "off"
	cacheRedis  = "redis"
	cacheMemory = "memory"
)

// maxCacheBytes bounds RESPONSE_CACHE_MAX_BYTES.
const maxCacheBytes = 16 << 30

func cacheSettings() []setting {
	return []setting{
		{"RESPONSE_CACHE", cacheOff, false,
			"redis or memory: a model call that was answered before is answered with the same, without the provider, and x-cache says hit, miss or bypass. Only the very same request of the same account counts. Cache-Control: no-cache passes it by. off: never.",
			oneOf(func(s *Settings) *string { return &s.CacheStore }, cacheOff, cacheRedis, cacheMemory)},
		{"RESPONSE_CACHE_TTL", "1h", false, "How long an answer is kept: a duration such as 10m.",
			wait(func(s *Settings) *time.Duration { return &s.CacheTTL })},
		{"RESPONSE_CACHE_MAX_BYTES", "67108864", false,
			"How much memory keeps at most, in bytes; what was used the longest ago makes room. In Redis that is Redis's maxmemory to say. One answer is at most 1 MiB.",
			between(func(s *Settings) *int { return &s.CacheMaxBytes }, 0, maxCacheBytes)},
		{"RESPONSE_CACHE_SHARED", "false", false,
			"true: one account's answer is another's, too. Whoever asks can then find out what others have asked.",
			yesNo(func(s *Settings) *bool { return &s.CacheShared })},
		{"RESPONSE_CACHE_PRICE", "0", false, "What such an answer costs the account, in per cent of what it costs otherwise, from 0 to 100.",
			between(func(s *Settings) *int { return &s.CachePercent }, 0, 100)},
	}
}

// of is the response cache of a ledger, of whose answers others know nothing. Where there is no ledger, there may
// be no Redis either (nil): then it is in memory.
func (s caching) of(client redis.UniversalClient, ledgerID uuid.UUID) gateway.Caching {
	c := gateway.Caching{Keep: s.CacheTTL, Shared: s.CacheShared, Percent: s.CachePercent}
	switch {
	case s.CacheStore == cacheOff:
	case s.CacheStore == cacheRedis && client != nil:
		c.Store = redisResponses{client, "llm-gateway:response:" + ledgerID.String() + ":"}
	default:
		c.Store = gateway.NewMemoryCache(s.CacheMaxBytes, time.Now)
	}
	return c
}

// redisResponses is a gateway.ResponseCache in Redis.
type redisResponses struct {
	client redis.UniversalClient
	prefix string
}

// Get implements gateway.ResponseCache.
func (r redisResponses) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := r.client.Get(ctx, r.prefix+key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return value, err
}

// Put implements gateway.ResponseCache.
func (r redisResponses) Put(ctx context.Context, key string, value []byte, keep time.Duration) error {
	return r.client.Set(ctx, r.prefix+key, value, keep).Err()
}
