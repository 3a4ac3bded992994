package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"

	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/migrations"
)

// newLedgerShards is how many shards a new ledger has where LEDGER_SHARDS is not set.
const newLedgerShards = 8

var migrateVerb = verb{
	name: "migrate", args: "[--json]", summary: "bring the database up to date, and make the ledger where there is none",
	about: `It connects by DATABASE_MIGRATE_URL (or DATABASE_URL), applies what is missing, makes the role
llm_gateway that the gateway works as, and initialises the ledger with LEDGER_SHARDS and
BILLING_CURRENCY. It can be run any number of times, and beside running gateways.`,
	run: runMigrate,
}

// migration is what a migration did and which ledger there is now.
type migration struct {
	Applied int `json:"applied"` // schema changes
	ledger.Meta
}

// migrate brings a database up to date, as its owner, and makes the ledger where there is none.
func migrate(ctx context.Context, s *Settings, d database) (migration, error) {
	m, err := migrateOwner(ctx, s, d)
	return m, databaseError(err, d.OwnerURL)
}

func migrateOwner(ctx context.Context, s *Settings, d database) (m migration, err error) {
	config, err := ledger.ConnConfig(string(d.OwnerURL), "", d.ownerPooled())
	if err != nil {
		return m, err
	}
	if m.Applied, err = migrations.Up(ctx, config.Copy(), d.Member); err != nil {
		return m, err
	}
	shards := s.LedgerShards
	if shards == 0 {
		if shards, err = shardsOf(ctx, d); err != nil {
			return m, err
		}
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return m, err
	}
	m.Meta, err = ledger.Init(ctx, config, id, shards, s.Currency)
	return m, err
}

// shardsOf is how many shards the ledger has, or is to have.
func shardsOf(ctx context.Context, d database) (int, error) {
	r, err := ledger.OpenReader(ctx, ledger.Config{URL: string(d.OwnerURL), Pooled: d.ownerPooled()})
	if errors.Is(err, ledger.ErrNotInitialised) {
		return newLedgerShards, nil
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return r.Meta().Shards, nil
}

// readyLedger is what `serve` begins with: the ledger, migrated where AUTO_MIGRATE says so, and
// matching the settings.
func readyLedger(ctx context.Context, s *Settings, d database) (ledger.Meta, error) {
	if !s.AutoMigrate {
		return existingLedger(ctx, s, d)
	}
	m, err := migrate(ctx, s, d)
	return m.Meta, err
}

// existingLedger says which ledger a database holds. Settings that are for another one are refused.
func existingLedger(ctx context.Context, s *Settings, d database) (ledger.Meta, error) {
	r, err := ledger.OpenReader(ctx, ledger.Config{URL: string(d.URL), Role: d.Role, Pooled: d.Pooled})
	switch {
	case errors.Is(err, ledger.ErrNotInitialised), roleMissing(err):
		return ledger.Meta{}, fmt.Errorf("%w: run `llm-gateway migrate`", ledger.ErrNotInitialised)
	case err != nil:
		return ledger.Meta{}, databaseError(err, d.URL)
	}
	defer r.Close()
	return r.Meta(), r.Meta().Check(s.LedgerShards, s.Currency)
}

// roleMissing says whether a login failed because nobody has made the service's role yet.
func roleMissing(err error) bool {
	const invalidParameterValue = "22023"
	pg := new(pgconn.PgError)
	return errors.As(err, &pg) && pg.Code == invalidParameterValue
}

// verbLedger is existingLedger for a short verb: a database that has never been used is made ready,
// but one that is in use is left as it is, for a running gateway may be of another release.
func verbLedger(ctx context.Context, s *Settings, d database) (ledger.Meta, error) {
	m, err := existingLedger(ctx, s, d)
	if errors.Is(err, ledger.ErrNotInitialised) && s.AutoMigrate {
		return readyLedger(ctx, s, d)
	}
	return m, err
}

// opened is the servers that a verb works with, and the topic, if there is a Kafka.
type opened struct {
	backend
	topic *topic.Topic // may be nil
}

// withLedger runs a verb on the open ledger; where there is a Kafka, its topic witnesses that the ledger
// has not lost its tail.
func withLedger(ctx context.Context, a *app, run func(*ledger.Postgres) error) error {
	return withTopic(ctx, a, topicWitness, ledger.Open, func(l *ledger.Postgres, _ *opened) error { return run(l) })
}

// withReader runs a verb that does not append.
func withReader(ctx context.Context, a *app, run func(*ledger.Reader) error) error {
	return withTopic(ctx, a, topicNone, ledger.OpenReader, func(r *ledger.Reader, _ *opened) error { return run(r) })
}

// topicUse is what a verb wants of the topic.
type topicUse int

const (
	topicNone    topicUse = iota
	topicCopy             // to be read, if it is there
	topicSource           // to make something from: it must be there, and be this ledger's
	topicWitness          // to witness appends; it is made where it is not there
)

// withTopic runs a verb on the ledger and, where it is wanted and there is a Kafka, the topic.
func withTopic[L interface{ Close() }](ctx context.Context, a *app, use topicUse, open func(context.Context, ledger.Config) (L, error), run func(L, *opened) error) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	b, release, err := openBackend(ctx, a, needs{kafka: use != topicNone})
	if err != nil {
		return err
	}
	defer release()
	begin := verbLedger
	if use == topicSource { // a ledger that is made now has no topic yet
		begin = existingLedger
	}
	m, err := begin(ctx, s, b.database)
	if err != nil {
		return err
	}
	config, o := b.config(m), &opened{backend: b}
	if use != topicNone && len(b.brokers) > 0 {
		if o.topic, err = openTopic(ctx, b.kafkaConfig(s, m, a.logger(s)), use); err != nil {
			return kafkaError(err, b.brokers)
		}
	}
	if o.topic != nil {
		defer o.topic.Close()
	}
	if o.topic != nil && use == topicWitness {
		config.Witness = o.topic
	}
	l, err := open(ctx, config)
	if err != nil {
		return databaseError(err, b.URL)
	}
	defer l.Close()
	return databaseError(run(l, o), b.URL)
}

// openTopic opens the topic for a verb; nil where it is to be read, if it is there, and is not. A Kafka
// that is away is no error of a witness: the ledger says itself what it makes of that.
func openTopic(ctx context.Context, c topic.Config, use topicUse) (*topic.Topic, error) {
	t, err := topic.Open(c)
	if err != nil {
		return nil, err
	}
	switch use {
	case topicWitness:
		if err = t.Ensure(ctx); !errors.Is(err, topic.ErrMismatch) {
			return t, nil
		}
	case topicSource:
		err = checkSource(ctx, t, c)
	default:
		_, err = t.State(ctx)
	}
	if err == nil {
		return t, nil
	}
	t.Close()
	if use == topicCopy && errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = nil
	}
	return nil, err
}

// checkSource refuses a topic that is not there, or that has records and none of them at its ends is of
// this ledger. A foreign record among others is for the verb to find: it says where it is.
func checkSource(ctx context.Context, t *topic.Topic, c topic.Config) error {
	const hint = "is KAFKA_USAGE_TOPIC as the gateways have it?"
	_, err := t.State(ctx)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("the Kafka at %s has no topic %s: %s", strings.Join(c.Brokers, ","), c.Name, hint)
	}
	own, foreign := topic.Source(c.Ledger), ""
	for shard := int32(0); err == nil && int(shard) < c.Shards; shard++ {
		var last *topic.Record
		switch last, err = t.Tail(ctx, shard); {
		case err != nil || last == nil:
		case last.Source == own:
			return nil
		default:
			foreign = last.Source
		}
	}
	if err == nil && foreign != "" {
		err = fmt.Errorf("%w: topic %s is of %.80q, not of this ledger, %s: %s", topic.ErrMismatch, c.Name, foreign, own, hint)
	}
	return err
}

func runMigrate(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	b, release, err := openBackend(ctx, a, needs{})
	if err != nil {
		return err
	}
	defer release()
	m, err := migrate(ctx, s, b.database)
	if err != nil {
		return err
	}
	if *asJSON {
		return a.printJSON(m)
	}
	fmt.Fprintf(a.stdout, "%d migrations applied; ledger %s has %d shards, in %s\n", m.Applied, m.ID, m.Shards, m.Currency)
	return nil
}
