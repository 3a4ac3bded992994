// Package pgtest gives each test a Postgres schema of its own, so that tests run in parallel on one
// server. The server is the one at DATABASE_URL; `make test` starts an embedded one and sets it.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/migrations"
)

// setUp bounds making and dropping a schema.
const setUp = 60 * time.Second

// URL makes a fresh, migrated schema and returns a connection string that works in it. The schema
// is dropped when the test ends. Without DATABASE_URL the test is skipped.
func URL(t testing.TB) string {
	t.Helper()
	fresh := Empty(t)
	config, err := pgx.ParseConfig(fresh)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrations.Up(t.Context(), config, ""); err != nil {
		t.Fatal(err)
	}
	return fresh
}

// Older is URL with the migrations up to a version and no further: a database as an older release left it.
func Older(t testing.TB, version int64) string {
	t.Helper()
	older := Empty(t)
	config, err := pgx.ParseConfig(older)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrations.UpTo(t.Context(), config, version); err != nil {
		t.Fatal(err)
	}
	return older
}

// Empty is URL without the migration.
func Empty(t testing.TB) string {
	t.Helper()
	server := os.Getenv("DATABASE_URL")
	if server == "" {
		t.Skip("DATABASE_URL is not set: run `make test`, which starts an embedded Postgres")
	}
	schema := "t" + strings.ReplaceAll(uuid.NewString(), "-", "")
	exec(t, server, "CREATE SCHEMA "+schema)
	t.Cleanup(func() { exec(t, server, "DROP SCHEMA "+schema+" CASCADE") })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}

func exec(t testing.TB, server, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setUp)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err == nil {
		_, err = conn.Exec(ctx, sql)
		err = errors.Join(err, conn.Close(ctx))
	}
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", sql, err))
	}
}
