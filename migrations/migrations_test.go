package migrations_test

import (
	"context"
	"flag"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"llm-gateway/migrations"
	"llm-gateway/migrations/pgtest"
)

var update = flag.Bool("update", false, "rewrite schema.sql")

// TestUpAtOnce lets eight processes' worth of start-ups migrate one database: one does it.
func TestUpAtOnce(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(pgtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	all := 0
	for _, file := range files {
		if strings.HasPrefix(file.Name(), "0") && strings.HasSuffix(file.Name(), ".sql") {
			all++
		}
	}
	var did, idle atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			n, err := migrations.Up(t.Context(), config, "")
			switch {
			case err != nil:
				t.Error(err)
			case n == 0:
				idle.Add(1)
			case n == all:
				did.Add(1)
			default:
				t.Errorf("one applied %d of %d migrations", n, all)
			}
		})
	}
	wait.Wait()
	if did.Load() != 1 || idle.Load() != 7 {
		t.Errorf("%d migrated and %d found nothing to do", did.Load(), idle.Load())
	}
}

// TestSchema keeps schema.sql what the migrations make; -update rewrites it.
func TestSchema(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the test is over
	got := render(t, conn)
	if *update {
		if err := os.WriteFile("schema.sql", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("schema.sql is not what the migrations make (go test ./migrations -update rewrites it):\n%s", firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "made:       " + g[i] + "\nschema.sql: " + w[i]
		}
	}
	return "one is longer than the other"
}

// The parts of the schema, as SQL from the catalogue, in an order that does not depend on how it was
// made. goose's own table is left out, and so is what server versions print differently.
const (
	tables = `SELECT c.relname::text, c.oid::int8, coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '')
		FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
			AND c.relname NOT LIKE 'goose%' ORDER BY c.relname`

	columns = `SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
			|| CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
			|| coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
		FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`

	constraints = `SELECT 'CONSTRAINT ' || quote_ident(conname) || ' ' || pg_get_constraintdef(oid)
		FROM pg_constraint WHERE conrelid = $1::int8::oid AND contype <> 'n' ORDER BY contype DESC, conname`

	indexes = `SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i
		WHERE i.indrelid = $1::int8::oid AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)
		ORDER BY i.indexrelid::regclass::text`

	triggers = `SELECT pg_get_triggerdef(oid, true) FROM pg_trigger
		WHERE tgrelid = $1::int8::oid AND NOT tgisinternal ORDER BY tgname`

	grants = `SELECT 'GRANT ' || string_agg(privilege_type, ', ' ORDER BY privilege_type) || ' ON ' || $2::text || ' TO llm_gateway'
		FROM pg_class, aclexplode(relacl) WHERE oid = $1::int8::oid AND grantee = 'llm_gateway'::regrole HAVING count(*) > 0`

	functions = `SELECT rtrim(pg_get_functiondef(oid), E'\n') FROM pg_proc WHERE pronamespace = current_schema()::regnamespace ORDER BY proname`

	schemaGrants = `SELECT 'GRANT ' || string_agg(privilege_type, ', ' ORDER BY privilege_type) || ' ON SCHEMA ' || nspname || ' TO llm_gateway'
		FROM pg_namespace, aclexplode(nspacl) WHERE nspname = current_schema() AND grantee = 'llm_gateway'::regrole GROUP BY nspname`
)

// render writes the schema of the connection's search path as SQL.
func render(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	schema := lines(t, conn, `SELECT current_schema()::text`)[0]
	b := &strings.Builder{}
	b.WriteString("-- What the migrations make, for reading: `go test ./migrations -update` writes it, a test keeps it\n" +
		"-- true. It is not run; goose's own table is left out.\n\n")
	statements(b, lines(t, conn, schemaGrants))
	statements(b, lines(t, conn, functions))
	rows, err := conn.Query(t.Context(), tables)
	if err != nil {
		t.Fatal(err)
	}
	type table struct {
		Name    string
		OID     int64
		Options string
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range all {
		body := append(lines(t, conn, columns, it.OID), lines(t, conn, constraints, it.OID)...)
		b.WriteString("CREATE TABLE " + it.Name + " (\n    " + strings.Join(body, ",\n    ") + "\n)" + it.Options + ";\n\n")
		statements(b, lines(t, conn, indexes, it.OID))
		statements(b, lines(t, conn, triggers, it.OID))
		statements(b, lines(t, conn, grants, it.OID, it.Name))
	}
	out := strings.ReplaceAll(b.String(), schema+".", "")
	out = strings.ReplaceAll(out, "ON SCHEMA "+schema, "ON SCHEMA public")
	return strings.TrimRight(out, "\n") + "\n"
}

func statements(b *strings.Builder, all []string) {
	for _, sql := range all {
		b.WriteString(sql + ";\n\n")
	}
}

// lines collects the one text column of a query.
func lines(t *testing.T, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}
