package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/observe"
	"llm-gateway/ledger"
	"llm-gateway/ledger/lease"
	"llm-gateway/ledger/relay"
	"llm-gateway/ledger/topic"
	"llm-gateway/projections"
)

// drainTopic bounds how long an orderly end waits for Kafka to have everything. What it has not by then,
// the next relay publishes.
const drainTopic = 3 * time.Second

// followers is what follows the ledger: the relay to the topic, the projector from it, the cache.
type followers struct {
	topic     *topic.Topic
	redis     redis.UniversalClient
	balances  gateway.Balances
	name      string // of the topic
	relay     atomic.Pointer[relay.Relay]
	projector *projections.Projector
	refiller  *projections.Refiller
	sights    *sights
}

// openFollowers opens the topic and the cache. A topic that is not as it must be ends the start; a Kafka
// that does not answer does not: the relay waits for it.
func openFollowers(ctx context.Context, s *Settings, b backend, m ledger.Meta, log *slog.Logger) (*followers, error) {
	t, err := topic.Open(b.kafkaConfig(s, m, log))
	if err != nil {
		return nil, kafkaError(err, b.brokers)
	}
	switch err := t.Ensure(ctx); {
	case errors.Is(err, topic.ErrMismatch):
		t.Close()
		return nil, err
	case err != nil:
		log.Warn("Kafka cannot be used yet; nothing is published until it can", "error", kafkaError(err, b.brokers))
	}
	f := &followers{topic: t, name: s.KafkaTopic, sights: newSights()}
	if f.redis, err = openRedis(s, b.redis); err != nil {
		t.Close()
		return nil, err
	}
	return f, nil
}

// openRedis opens the Redis of a URL: of the settings, or the embedded one.
func openRedis(s *Settings, at Secret) (redis.UniversalClient, error) {
	trust, err := s.RedisTrust.config()
	if err != nil {
		return nil, err
	}
	return projections.OpenRedis(string(at), trust)
}

// feed hands durable events to the relay.
func (f *followers) feed(events []domain.Recorded) {
	if r := f.relay.Load(); r != nil {
		r.Feed(events)
	}
}

// forgetLeases gives up the leases in an embedded Postgres: it belongs to the DATA_DIR, which this process
// holds, so whoever has leases there is dead, and nobody need wait until they run out.
func forgetLeases(ctx context.Context, l *ledger.Postgres, log *slog.Logger) {
	if _, err := l.Pool().Exec(ctx, `DELETE FROM ledger_leases`); err != nil {
		log.Warn("the leases of the process before run out by themselves", "error", err)
	}
}

// follow starts what follows an open ledger.
func (f *followers) follow(ctx context.Context, l *ledger.Postgres, owner uuid.UUID, metrics *observe.Metrics, log *slog.Logger) {
	f.relay.Store(relay.Start(ctx, relay.Config{Topic: relay.OfTopic(f.topic), Name: f.name, Ledger: l.Reader, Pool: l.Pool(), Owner: owner, Log: log,
		Hooks: relay.Hooks{Lag: both(metrics.RelayLag, f.sights.relayLag), Published: metrics.RelayPublished, Restarted: metrics.RelayRestarted}}))
	cache := projections.NewCache(f.redis, l.Meta().ID, l.Meta().Shards)
	f.refiller = projections.NewRefiller(cache, l.Pool(), metrics.CacheError)
	f.balances = f.refiller
	f.projector = projections.Start(ctx, projections.Config{
		Pool: l.Pool(), Meta: l.Meta(), Ledger: l.Reader, Topic: projections.OfTopic(f.topic), Cache: cache, Log: log,
		Lease: &lease.Keeper{Pool: l.Pool(), Owner: owner, Log: log},
		Hooks: projections.Hooks{Applied: metrics.ProjectionApplied, Lag: metrics.ProjectionLag, Halted: func(projection string, shard int32, err error) {
			metrics.ProjectionHalted(projection, shard, err)
			f.sights.projectionHalted(projection, shard, err)
		},
			Restarted: metrics.ProjectionRestarted, NotCached: metrics.CacheError},
	})
}

// both is two hooks in one.
func both(one, other func(int32, int64)) func(int32, int64) {
	return func(shard int32, events int64) {
		one(shard, events)
		other(shard, events)
	}
}

// drain waits until the topic has what the ledger has, for a while.
func (f *followers) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTopic)
	defer cancel()
	if r := f.relay.Load(); r != nil {
		r.Drain(ctx) //nolint:errcheck // the next relay goes on where this one ended
	}
}

// close ends them; leases are given up, so that others take over at once.
func (f *followers) close() {
	if f.projector != nil {
		f.projector.Close()
	}
	if r := f.relay.Load(); r != nil {
		r.Close()
	}
	if f.refiller != nil {
		f.refiller.Close()
	}
	f.redis.Close() //nolint:errcheck // a cache
	f.topic.Close()
}
