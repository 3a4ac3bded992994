package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"

	"llm-gateway/cmd/llm-gateway/telemetry"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/limit"
	"llm-gateway/gateway/observe"
	"llm-gateway/ledger"
	"llm-gateway/ledger/journal"
	"llm-gateway/projections"
)

// clockTolerance is how far this process's clock may be from Postgres's: the events' times are the
// gateway's, and two gateways must not tell them apart by more.
const clockTolerance = 2 * time.Second

const (
	// issuerTime bounds one fetch of an issuer's keys.
	issuerTime = 5 * time.Second
	// issuerPause is how long after one fetch a token with an unknown key may cause another: so a new key of
	// the issuer's is known that soon, whoever else sends tokens, and it is not asked more often.
	issuerPause = 10 * time.Second
)

// parts is a wired gateway: what serve runs and tests drive.
type parts struct {
	journal   *journal.Journal
	ledger    *ledger.Postgres
	recovery  *recovery
	gateway   *gateway.Gateway
	serving   atomic.Pointer[gateway.Gateway] // the same, for what began before it
	limiter   *limit.Limiter
	metrics   *observe.Metrics
	traffic   *health.Traffic
	health    *health.Checker
	keys      *pgxpool.Pool         // where there is no ledger: of the API keys
	shared    redis.UniversalClient // where there is no ledger: of the limits
	telemetry *telemetry.Telemetry
	gauges    gauges
	*followers
}

// newParts is what every gateway begins with, billed or plain: its metrics, its telemetry, and the log that tells
// both. Nothing runs yet but telemetry, which close ends.
func newParts(s *Settings, log *slog.Logger) (*parts, *slog.Logger, error) {
	p := &parts{metrics: observe.NewMetrics(), traffic: health.NewTraffic(nil)}
	p.metrics.Build(s.version())
	var err error
	if p.telemetry, err = openTelemetry(s, p.metrics, log); err != nil {
		return nil, nil, err
	}
	return p, p.telemetry.Logger(log), nil
}

// edgeConfig is the part of a gateway's configuration that is the same whether it bills or not: what comes from the
// settings, and how the gateway is watched. What is behind the edge is for wire and wirePlain to say.
func (p *parts) edgeConfig(s *Settings, catalog *catalogFile, tokens *gateway.Tokens, log *slog.Logger) gateway.Config {
	return gateway.Config{
		Edge: s.edge(), Tokens: tokens, SharedIDs: s.SharedIDs, ModelsArray: s.ModelsFormat == "array",
		Catalog: catalog.now, Retry: s.retry(), Resilience: s.failing(),
		ReservePolicy: gateway.ReservePolicy(s.ReservePolicy), InFlight: s.Limits.InFlight,
		Health: p.health, HealthPublic: s.HealthPublic, Traffic: p.traffic,
		Version: s.version(), Environment: s.Environment,
		Metrics: p.metrics, NoMetrics: !s.Prometheus, Tracer: p.telemetry.Tracer(), Log: log,
	}
}

// wire puts a gateway together over an initialised ledger. ctx is the life of what runs behind it.
func wire(ctx context.Context, s *Settings, catalog *catalogFile, b backend, m ledger.Meta, log *slog.Logger) (_ *parts, err error) {
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
	metrics, owner := p.metrics, uuid.New()
	metrics.ShowBalances(s.UserBalances)
	if p.journal, err = openJournal(s.DataDir, metrics, log); err != nil {
		return nil, err
	}
	if p.followers, err = openFollowers(ctx, s, b, m, log); err != nil {
		return nil, err
	}
	config := b.config(m)
	config.Hooks = ledgerHooks(metrics, log, p.feed)
	config.Witness = p.topic
	if p.ledger, err = ledger.Open(ctx, withKillPoints(config)); err != nil {
		return nil, databaseError(err, b.URL)
	}
	if b.Embedded {
		forgetLeases(ctx, p.ledger, log)
	}
	if p.recovery, err = startRecovery(ctx, p.journal, config, owner, log); err != nil {
		return nil, databaseError(err, b.URL)
	}
	p.follow(ctx, p.ledger, owner, metrics, log)
	p.startHealth(ctx, s, catalog, log)
	pool, c := p.ledger.Pool(), p.edgeConfig(s, catalog, tokens, log)
	c.Owner, c.Owned = owner, p.recovery.owner.Held
	c.Ledger, c.Facts, c.Journal, c.Spool = withKillLedger(p.ledger), p.ledger, withKillJournal(p.journal), p.spool(s)
	c.Projections, c.Balances = projections.NewReader(pool, m), p.balances
	c.Currency, c.DefaultBalance = m.Currency, s.DefaultBalance
	c.Keys, c.Belongings = keyStore{pool}, belongings{pool}
	c.Limits, c.Caching = p.limits(s, p.refiller, limitStore{pool}, log), s.of(p.redis, m.ID)
	c.Ready, c.Degraded = p.readiness(s), p.degraded
	p.gateway, err = gateway.New(c)
	p.serving.Store(p.gateway)
	if err == nil {
		p.recovery.run(ctx, p.gateway.Book, p.ledger, owner, metrics, p.sights.sweepFailed, log)
		p.watchMoney(ctx, s, log)
	}
	return p, err
}

// spool is where money is held while Postgres is away; nil where requests are denied then.
func (p *parts) spool(s *Settings) gateway.Spool {
	if s.Degraded != degradedSpool {
		return nil
	}
	return p.refiller
}

// ledgerHooks tell the metrics and the log how the writer fares, and feed what follows it.
func ledgerHooks(metrics *observe.Metrics, log *slog.Logger, feed func([]domain.Recorded)) ledger.Hooks {
	return ledger.Hooks{
		Batch: metrics.Batch, Appended: feed,
		Retry: func(err error) {
			metrics.BatchRetry(err)
			log.Warn("the ledger tries a batch again", "error", err)
		},
		Refused: func(shard int32, err error) {
			metrics.ShardRefused(shard, err)
			metrics.TailLost(shard, errors.Is(err, ledger.ErrTailLost))
			if err != nil {
				log.Error("a shard refuses appends", "shard", shard, "error", err)
				return
			}
			log.Info("a shard takes appends again", "shard", shard)
		},
		Lost: func(err error) {
			metrics.LedgerRecoveredWithLoss()
			log.Error("the ledger was recovered without events that it had acknowledged", "error", err)
		},
	}
}

// close lets what is under way settle and be published, then closes the ledger, and the journal last. It
// closes what there is of a gateway that was not wired to its end, too.
func (p *parts) close() {
	if p.health != nil {
		p.health.Close()
	}
	p.gauges.close()
	if p.gateway != nil {
		p.gateway.Close()
	}
	if p.limiter != nil {
		p.limiter.Close()
	}
	if p.recovery != nil {
		p.recovery.close()
	}
	if p.followers != nil {
		p.drain()
		p.followers.close()
	}
	if p.ledger != nil {
		p.ledger.Close()
	}
	if p.keys != nil {
		p.keys.Close()
	}
	if p.shared != nil {
		p.shared.Close() //nolint:errcheck // limits alone
	}
	if p.journal != nil {
		p.journal.Close() //nolint:errcheck // what it has is on the disk
	}
	if p.telemetry != nil { // what all of that had to say is said
		p.telemetry.Close()
	}
}

// errPostgresAway is why a gateway is not ready: the cause may name hosts and logins.
var errPostgresAway = errors.New("Postgres does not answer")

// readiness says whether requests can be served: by the ledger, or where the operator chose so, without it
// as long as there is a Redis to hold money in.
func (p *parts) readiness(s *Settings) func(context.Context) error {
	ready := readiness(p.ledger)
	if s.Degraded != degradedSpool {
		return ready
	}
	return readyWithout(ready, func(ctx context.Context) error { return p.redis.Ping(ctx).Err() })
}

// spoolPatience is how long /ready waits for a Postgres that hangs where requests can do without it: balancers take
// an answer that comes after a second for a no.
const spoolPatience = 500 * time.Millisecond

// readyWithout is ready, too, where Postgres does not answer soon and Redis does.
func readyWithout(ready, redis func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		soon, cancel := context.WithTimeout(ctx, spoolPatience)
		defer cancel()
		err := ready(soon)
		if errors.Is(err, errPostgresAway) && redis(ctx) == nil {
			return nil
		}
		return err
	}
}

// readiness asks Postgres for its time: it must answer, and be ours; and every shard must take appends.
func readiness(l *ledger.Postgres) func(context.Context) error {
	return func(ctx context.Context) error {
		skew, err := l.ClockSkew(ctx)
		switch {
		case err != nil:
			return errPostgresAway
		case skew.Abs() > clockTolerance:
			return fmt.Errorf("this gateway's clock is %s from Postgres's; at most %s is tolerated", skew.Round(time.Millisecond), clockTolerance)
		}
		if refused := l.Refused(); len(refused) > 0 {
			return shardsRefuse(refused)
		}
		return nil
	}
}

// shardsRefuse says why shards refuse appends.
func shardsRefuse(refused []ledger.Refusal) error {
	if errors.Is(refused[0].Err, ledger.ErrTailLost) {
		return fmt.Errorf("%d shards refuse appends: the ledger has lost its tail (`llm-gateway ledger recover --from-topic`)", len(refused))
	}
	return fmt.Errorf("%d shards refuse appends: the ledger cannot be compared with the topic, Kafka does not answer", len(refused))
}

// awayLook bounds the look at what a gateway can do without.
const awayLook = 300 * time.Millisecond

// degraded names what is away, or has left something behind, while requests go on: postgres where money is
// held in Redis meanwhile, redis, kafka, and the journal while it waits for Postgres.
func (p *parts) degraded(ctx context.Context) (away []string) {
	ctx, cancel := context.WithTimeout(ctx, awayLook)
	defer cancel()
	var postgresAway, redisAway, kafkaAway error
	var wait sync.WaitGroup
	wait.Go(func() { _, postgresAway = p.ledger.ClockSkew(ctx) })
	wait.Go(func() { redisAway = p.redis.Ping(ctx).Err() })
	wait.Go(func() { _, kafkaAway = p.topic.State(ctx) }) // past what the client remembers
	wait.Wait()
	if postgresAway != nil {
		away = append(away, "postgres")
	}
	if redisAway != nil {
		away = append(away, "redis")
	}
	if kafkaAway != nil {
		away = append(away, "kafka")
	}
	if waiting, _, _ := p.journal.Waiting(); waiting > 0 {
		away = append(away, "journal")
	}
	return away
}

// tokensOf checks tokens by the shared secret, or by an issuer's public keys, which are fetched now
// and kept fresh until ctx ends.
func tokensOf(ctx context.Context, s *Settings, log *slog.Logger) (*gateway.Tokens, error) {
	if s.JWTJWKSURL == "" {
		secret, err := s.signingSecret()
		if err != nil {
			return nil, err
		}
		tokens, err := gateway.NewTokens(s.JWTAlgorithm, secret)
		if err != nil {
			return nil, err
		}
		return tokens.Demand(s.JWTIssuer, s.JWTAudience...), nil
	}
	mustAnswer := false // a gateway without keys would refuse every token and look as if it worked
	keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{s.JWTJWKSURL}, keyfunc.Override{
		HTTPTimeout: issuerTime, NoErrorReturnFirstHTTPReq: &mustAnswer,
		RefreshUnknownKID: rate.NewLimiter(rate.Inf, 1), RateLimitWaitMax: issuerTime, // of the fetch: issuerKeys limits them
		RefreshErrorHandlerFunc: func(string) func(context.Context, error) {
			return func(_ context.Context, err error) { log.Warn("JWT_JWKS_URL: the keys were not fetched", "error", err) }
		},
	})
	if err != nil {
		return nil, fmt.Errorf("JWT_JWKS_URL: the issuer's keys cannot be fetched: %s", reason(err))
	}
	tokens, err := gateway.NewIssuerTokens(s.JWTAlgorithm, newIssuerKeys(ctx, keys).find)
	if err != nil {
		return nil, err
	}
	return tokens.Demand(s.JWTIssuer, s.JWTAudience...), nil
}
