// Package migrations holds the database schema as goose SQL files and brings a database up to it.
//
// schema.sql beside the files shows the result, for reading; a test keeps it true. Any number of
// processes may call Up at once: one migrates, the others wait and find nothing to do.
package migrations

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed 0*.sql
var files embed.FS

// lockWait bounds how long a process waits for another one's migration.
const lockWait = 5 * time.Minute

// lockKey is the advisory lock of migrations: "llmgw" in ASCII. It is held by a transaction, never
// by a session, so that a transaction pooler may stand in between.
const lockKey = 0x6c6c6d6777

// Up applies what is missing to the database at config and makes member, where it is another login
// than the owner, a member of the role that `serve` works as. It returns how many migrations it
// applied.
func Up(ctx context.Context, config *pgx.ConnConfig, member string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	lock, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	defer lock.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the transaction ends with it
	tx, err := lock.Begin(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockKey); err != nil {
		return 0, fmt.Errorf("waiting for another migration: %w", err)
	}
	n, err := UpTo(ctx, config, goose.MaxVersion)
	if err != nil {
		return n, err
	}
	if err := grantRole(ctx, tx, member); err != nil {
		return n, err
	}
	return n, tx.Commit(ctx)
}

// UpTo applies what is missing up to a version, as an older release did, and returns how many migrations that
// were. It takes no lock: it is for a database that nobody else migrates.
func UpTo(ctx context.Context, config *pgx.ConnConfig, version int64) (int, error) {
	db := stdlib.OpenDB(*config)
	defer db.Close() //nolint:errcheck // nothing is left in it
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		return 0, err
	}
	done, err := provider.UpTo(ctx, version)
	if err != nil {
		return len(done), fmt.Errorf("migrating: %w", err)
	}
	return len(done), nil
}

// grantRole lets the owner, and the login that `serve` uses, become the service's role.
func grantRole(ctx context.Context, tx pgx.Tx, member string) error {
	const isMember = `SELECT pg_has_role($1::text::regrole, 'llm_gateway', 'MEMBER')`
	for _, login := range []string{tx.Conn().Config().User, member} {
		var already bool
		if login == "" {
			continue
		}
		if err := tx.QueryRow(ctx, isMember, pgx.Identifier{login}.Sanitize()).Scan(&already); err != nil {
			return fmt.Errorf("looking up the login %s: %w", login, err)
		}
		if already {
			continue
		}
		if _, err := tx.Exec(ctx, `GRANT llm_gateway TO `+pgx.Identifier{login}.Sanitize()); err != nil {
			return fmt.Errorf("making %s a member of llm_gateway: %w", login, err)
		}
	}
	return nil
}

// Latest is the version that Up leads to.
func Latest() (latest int64) {
	names, err := files.ReadDir(".")
	if err != nil {
		return 0 // what is embedded can be listed
	}
	for _, f := range names {
		if n, err := goose.NumericComponent(f.Name()); err == nil {
			latest = max(latest, n)
		}
	}
	return latest
}
