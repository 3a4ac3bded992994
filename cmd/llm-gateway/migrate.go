package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/ledger"
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

// withLedger runs a verb on the open ledger.
func withLedger(ctx context.Context, a *app, run func(*ledger.Postgres) error) error {
	return withOpen(ctx, a, ledger.Open, run)
}

// withReader runs a verb that does not append.
func withReader(ctx context.Context, a *app, run func(*ledger.Reader) error) error {
	return withOpen(ctx, a, ledger.OpenReader, run)
}

func withOpen[L interface{ Close() }](ctx context.Context, a *app, open func(context.Context, ledger.Config) (L, error), run func(L) error) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	d, release, err := openDatabase(ctx, a)
	if err != nil {
		return err
	}
	defer release()
	m, err := verbLedger(ctx, s, d)
	if err != nil {
		return err
	}
	l, err := open(ctx, d.config(m))
	if err != nil {
		return databaseError(err, d.URL)
	}
	defer l.Close()
	return databaseError(run(l), d.URL)
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
	d, release, err := openDatabase(ctx, a)
	if err != nil {
		return err
	}
	defer release()
	m, err := migrate(ctx, s, d)
	if err != nil {
		return err
	}
	if *asJSON {
		return a.printJSON(m)
	}
	fmt.Fprintf(a.stdout, "%d migrations applied; ledger %s has %d shards, in %s\n", m.Applied, m.ID, m.Shards, m.Currency)
	return nil
}
