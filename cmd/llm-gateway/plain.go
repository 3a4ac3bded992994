package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/cmd/llm-gateway/embedded"
	"llm-gateway/gateway"
	"llm-gateway/gateway/health"
	"llm-gateway/ledger"
	"llm-gateway/projections"
)

// With BILLING_ENABLED=false the gateway is a plain one: no ledger, no topic, no journal. The flow of a call
// is the same one, over a ledger that takes everything and keeps nothing (gateway.Unbilled).

// warnPlain is said at every start.
const warnPlain = "BILLING_ENABLED=false: NOTHING IS BILLED. Whoever has a credential calls every configured provider without limit of money, and no trace is kept"

// holdPlain takes the DATA_DIR, and starts nothing in it.
func holdPlain(s *Settings) (*holding, error) {
	lock, err := embedded.Lock(s.DataDir)
	if err != nil {
		if errors.Is(err, embedded.ErrLocked) {
			return nil, errors.New("DATA_DIR is taken: another process works in it")
		}
		return nil, err
	}
	h := &holding{dataDir: s.DataDir, lock: lock, plain: true, over: make(chan struct{}), stopped: make(chan struct{})}
	h.streams = externalStreams(s)
	if s.DatabaseURL != "" {
		if h.database, err = externalDatabase(s); err != nil {
			return nil, errors.Join(err, lock.Unlock())
		}
	}
	if err := h.publish(); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	go h.watch() // ends by release
	return h, nil
}

// wirePlain puts a gateway together that bills nothing.
func wirePlain(ctx context.Context, s *Settings, catalog *catalogFile, b backend, log *slog.Logger) (_ *parts, err error) {
	log.Warn(warnPlain)
	tokens, err := tokensOf(ctx, s, log)
	if err != nil {
		return nil, err
	}
	p, log, err := newParts(s, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	var keys gateway.Keys = noKeys{}
	checks := []health.Check{{Name: "disk", Run: checkDisk(s.DataDir)}}
	degraded := func(context.Context) []string { return nil }
	if b.URL != "" {
		if p.keys, err = leasePool(ctx, b.config(ledger.Meta{})); err != nil {
			return nil, databaseError(err, b.URL)
		}
		keys, degraded = keyStore{p.keys}, func(ctx context.Context) []string { return awayOf(ctx, p.keys) }
		checks = append(checks, health.Check{Name: "postgres", Run: func(ctx context.Context) health.Result {
			began := time.Now()
			return answered(began, p.keys.Ping(ctx), "Postgres, which has the API keys,", slowPostgres)
		}})
	}
	limits, err := p.plainLimits(s, log)
	if err != nil {
		return nil, err
	}
	p.startChecker(ctx, s, catalog, checks, log)
	c := p.edgeConfig(s, catalog, tokens, log)
	c.Owner, c.Unbilled = uuid.New(), true
	c.Ledger, c.Facts, c.Projections = gateway.Unbilled{}, gateway.Unbilled{}, gateway.Unbilled{}
	c.Currency, c.Keys, c.Degraded = s.Currency, keys, degraded
	c.Limits, c.Caching = limits, s.of(p.shared, uuid.Nil)
	p.gateway, err = gateway.New(c)
	p.serving.Store(p.gateway)
	return p, err
}

// plainLimits are shared by way of REDIS_URL, if there is one.
func (p *parts) plainLimits(s *Settings, log *slog.Logger) (gateway.RateLimits, error) {
	if s.RedisURL == "" {
		return p.limits(s, nil, nil, log), nil
	}
	var err error
	if p.shared, err = openRedis(s, s.RedisURL); err != nil {
		return gateway.RateLimits{}, err
	}
	return p.limits(s, projections.NewCache(p.shared, uuid.Nil, 1), nil, log), nil
}

// awayOf names Postgres while API keys cannot be looked up.
func awayOf(ctx context.Context, pool *pgxpool.Pool) []string {
	ctx, cancel := context.WithTimeout(ctx, awayLook)
	defer cancel()
	if pool.Ping(ctx) != nil {
		return []string{"postgres"}
	}
	return nil
}

// noKeys knows no API key: they are kept in Postgres, and there is none.
type noKeys struct{}

func (noKeys) Lookup(context.Context, [sha256.Size]byte) (*gateway.Identity, error) { return nil, nil }

// servingPlain begins to serve without a ledger.
func servingPlain(ctx context.Context, s *Settings, catalog *catalogFile, b backend, listener net.Listener, log *slog.Logger) (*serving, error) {
	behind, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p, err := wirePlain(behind, s, catalog, b, log)
	if err != nil {
		cancel()
		return nil, err
	}
	return serveParts(s, p, cancel, listener, log), nil
}
