package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/cmd/llm-gateway/embedded"
	"llm-gateway/ledger"
	"llm-gateway/migrations"
)

const (
	oldestPostgres = 14 // major version: what older ones lack has not been tried
	gatewayConns   = 20 // connections that one gateway may have open
)

// checkDatabase connects to Postgres as `serve` does, and names what is missing.
func checkDatabase(ctx context.Context, s *Settings) (f findings) {
	at, own := f.serverAt(s, "DATABASE_URL", string(s.DatabaseURL), func(e embedded.Endpoints) string { return e.PostgresURL })
	if at == "" {
		return f
	}
	d := embeddedDatabase(at)
	if !own {
		var err error
		if d, err = externalDatabase(s); err != nil {
			f.failf("connection", "DATABASE_URL: %s", err)
			return f
		}
	}
	return append(f, examineDatabase(ctx, s, d)...)
}

func examineDatabase(ctx context.Context, s *Settings, d database) (f findings) {
	config, err := ledger.ConnConfig(string(d.URL), "", d.Pooled)
	if err != nil {
		f.failf("connection", "DATABASE_URL: %s", err)
		return f
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		f.failf("connection", "DATABASE_URL: %s", databaseError(err, d.URL))
		return f
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left on it
	x := &examined{conn: conn, settings: s, of: d, findings: f}
	x.okf("connection", "as %s", config.User)
	x.encryption(config)
	if !x.median("SELECT 1", func() error { _, err := conn.Exec(ctx, "SELECT 1"); return err }) {
		return x.findings
	}
	x.server(ctx)
	x.pooler(ctx)
	x.clock(ctx)
	x.durability(ctx)
	x.capacity(ctx)
	x.schema(ctx)
	return x.findings
}

// examined is a database that is being checked.
type examined struct {
	findings
	conn     *pgx.Conn
	settings *Settings
	of       database
}

// show is a setting of the server; "" where it cannot be read.
func (x *examined) show(ctx context.Context, name string) (value string) {
	if x.conn.QueryRow(ctx, `SELECT current_setting($1, true)`, name).Scan(&value) != nil {
		return ""
	}
	return value
}

func (x *examined) encryption(config *pgx.ConnConfig) {
	_, encrypted := x.conn.PgConn().Conn().(*tls.Conn)
	switch {
	case encrypted && config.TLSConfig != nil && config.TLSConfig.InsecureSkipVerify && config.TLSConfig.VerifyPeerCertificate == nil && config.TLSConfig.VerifyConnection == nil:
		x.warnf("TLS", "encrypted, but whoever answers is believed: DATABASE_URL with sslmode=verify-full and sslrootcert knows its server")
	case encrypted:
		x.okf("TLS", "encrypted, and the certificate is checked")
	case local(config.Host):
		x.okf("TLS", "none, on this machine")
	default:
		x.warnf("TLS", "none: passwords and events can be read on the way. Set sslmode=verify-full in DATABASE_URL")
	}
}

func (x *examined) server(ctx context.Context) {
	number, _ := strconv.Atoi(x.show(ctx, "server_version_num"))
	x.either(number/10000 >= oldestPostgres, "version", x.show(ctx, "server_version"), verdictFail,
		fmt.Sprintf("%s; %d or newer is needed", x.show(ctx, "server_version"), oldestPostgres))
	encoding := x.show(ctx, "server_encoding")
	x.either(encoding == "UTF8", "encoding", encoding, verdictFail, encoding+": make the database with ENCODING 'UTF8'")
	var standby bool
	if x.conn.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby) == nil && standby {
		x.failf("primary", "this is a standby, which takes no writes: DATABASE_URL must lead to the primary")
	}
}

// pooler compares the process that the connection was told of with the one that answers.
func (x *examined) pooler(ctx context.Context) {
	var pid uint32
	if err := x.conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		return
	}
	between := pid != x.conn.PgConn().PID()
	switch {
	case between && !x.of.Pooled:
		x.failf("pooler", "a pooler stands before Postgres: set PG_POOLER=transaction, or connect to Postgres itself")
	case between:
		x.okf("pooler", "PG_POOLER=transaction, and there is one")
	case x.of.Pooled:
		x.okf("pooler", "PG_POOLER=transaction, though none shows itself")
	default:
		x.okf("pooler", "none")
	}
}

func (x *examined) clock(ctx context.Context) {
	var theirs time.Time
	began := time.Now()
	if err := x.conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&theirs); err != nil {
		x.failf("clock", "it is not told: %s", reason(err))
		return
	}
	skew := theirs.Sub(began.Add(time.Since(began) / 2)).Round(time.Millisecond)
	x.either(skew.Abs() <= clockTolerance, "clock", fmt.Sprintf("%s from this machine's", skew), verdictFail,
		fmt.Sprintf("%s from this machine's; a gateway here is not ready beyond %s. Run NTP on both", skew, clockTolerance))
}

// durability: what Postgres acknowledges must be on a disk, or the ledger has nothing to stand on.
func (x *examined) durability(ctx context.Context) {
	for _, must := range []struct{ name, why string }{
		{"synchronous_commit", "charges that were acknowledged are lost when the server dies. Set it to on"},
		{"fsync", "a power cut can damage the ledger. Set it to on"},
		{"full_page_writes", "a power cut can damage the ledger. Set it to on"},
	} {
		value := x.show(ctx, must.name)
		x.either(value != "off", must.name, value, verdictFail, "off: "+must.why)
	}
	var standbys int
	if x.conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_replication`).Scan(&standbys) != nil {
		standbys = 0
	}
	archive := x.show(ctx, "archive_mode")
	switch {
	case x.of.Embedded:
		x.okf("replication", "embedded: it has one disk")
	case standbys == 0 && archive == "off":
		x.warnf("replication", "no standby is connected, and archive_mode is off: the ledger is on one disk. (Where the disk itself is replicated, that is fine.)")
	case standbys > 0 && x.show(ctx, "synchronous_standby_names") == "":
		x.okf("replication", "%d standbys, none of them synchronous: at a failover the topic is the witness (`ledger recover --from-topic`)", standbys)
	default:
		x.okf("replication", "%d standbys, archive_mode %s, wal_level %s", standbys, archive, x.show(ctx, "wal_level"))
	}
}

func (x *examined) capacity(ctx context.Context) {
	most, _ := strconv.Atoi(x.show(ctx, "max_connections"))
	kept, _ := strconv.Atoi(x.show(ctx, "superuser_reserved_connections"))
	room := (most - kept) / gatewayConns
	x.either(room >= 2 || x.of.Pooled || x.of.Embedded, "max_connections", fmt.Sprintf("%d: room for %d gateways of at most %d", most, room, gatewayConns), verdictWarn,
		fmt.Sprintf("%d: room for %d gateways of up to %d connections. Raise it, or put a pooler in between (PG_POOLER)", most, room, gatewayConns))
}

// schema checks the migrations, the role and what guards the events.
func (x *examined) schema(ctx context.Context) {
	var at int64
	err := x.conn.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&at)
	missing := new(pgconn.PgError)
	switch {
	case errors.As(err, &missing) && missing.Code == "42P01":
		v := verdictFail
		if x.settings.AutoMigrate {
			v = verdictWarn
		}
		x.addf(v, "migrations", "the database is empty: `llm-gateway migrate` makes the tables (serve does it by itself while AUTO_MIGRATE is true)")
		return
	case err != nil && !errors.As(err, &missing):
		x.failf("migrations", "%s", reason(err))
		return
	case err != nil: // the service's login need not read goose's own table
		x.skipf("migrations", "this login may not read which were made")
	case at < migrations.Latest():
		x.addf(map[bool]verdict{true: verdictWarn, false: verdictFail}[x.settings.AutoMigrate], "migrations", "at %d of %d: run `llm-gateway migrate`", at, migrations.Latest())
	case at > migrations.Latest():
		x.failf("migrations", "at %d, and this release knows %d: a newer release has been here", at, migrations.Latest())
	default:
		x.okf("migrations", "at %d, the latest", at)
	}
	x.role(ctx)
	x.guards(ctx)
	x.ledger(ctx)
}

// mustNot are rights on events that nobody who serves may have.
var mustNot = []string{"UPDATE", "DELETE", "TRUNCATE"}

func (x *examined) role(ctx context.Context) {
	role := x.of.Role
	if _, err := x.conn.Exec(ctx, `SET ROLE `+pgx.Identifier{role}.Sanitize()); err != nil {
		x.failf("role", "the login cannot become %s (%s): run `llm-gateway migrate` with DATABASE_MIGRATE_URL, which makes it a member", role, reason(err))
		return
	}
	defer x.conn.Exec(ctx, `RESET ROLE`) //nolint:errcheck // the connection ends soon
	var lacks, has []string
	for _, right := range append([]string{"SELECT", "INSERT"}, mustNot...) {
		var may bool
		if err := x.conn.QueryRow(ctx, `SELECT has_table_privilege($1, 'ledger_events', $2)`, role, right).Scan(&may); err != nil {
			x.failf("role", "%s", reason(err))
			return
		}
		switch forbidden := slices.Contains(mustNot, right); {
		case may && forbidden:
			has = append(has, right)
		case !may && !forbidden:
			lacks = append(lacks, right)
		}
	}
	switch {
	case len(lacks) > 0:
		x.failf("role", "%s lacks %s on ledger_events: run `llm-gateway migrate`", role, strings.Join(lacks, ", "))
	case len(has) > 0:
		x.failf("role", "%s may %s events: REVOKE that", role, strings.Join(has, ", "))
	default:
		x.okf("role", "serve works as %s, which may insert and select events and nothing else", role)
	}
	x.owner(ctx)
}

// owner says whether the login itself could do what its role cannot.
func (x *examined) owner(ctx context.Context) {
	var super, owns bool
	err := x.conn.QueryRow(ctx, `SELECT r.rolsuper, pg_has_role(session_user, c.relowner, 'MEMBER') FROM pg_roles r, pg_class c
		WHERE r.rolname = session_user AND c.oid = 'ledger_events'::regclass`).Scan(&super, &owns)
	switch {
	case err != nil || x.of.Embedded:
	case super || owns:
		x.warnf("separate login", "the login of DATABASE_URL owns the tables: whoever has it can remove the guards. Migrate by DATABASE_MIGRATE_URL, and serve by a login of its own")
	default:
		x.okf("separate login", "the login of DATABASE_URL does not own the tables")
	}
}

// guardTriggers are what refuses changes of events.
var guardTriggers = []string{"ledger_events_immutable", "ledger_events_no_truncate"}

func (x *examined) guards(ctx context.Context) {
	rows, err := x.conn.Query(ctx, `SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'ledger_events'::regclass AND tgenabled IN ('O', 'A')`)
	if err != nil {
		x.failf("triggers", "%s", reason(err))
		return
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	gone := slices.DeleteFunc(slices.Clone(guardTriggers), func(name string) bool { return slices.Contains(found, name) })
	switch {
	case err != nil:
		x.failf("triggers", "%s", reason(err))
	case len(gone) > 0:
		x.failf("triggers", "%s is gone or disabled: events can be changed. Run `llm-gateway ledger verify`, then put it back", strings.Join(gone, ", "))
	default:
		x.okf("triggers", "changes of events are refused")
	}
}

func (x *examined) ledger(ctx context.Context) {
	var shards int
	var currency string
	err := x.conn.QueryRow(ctx, `SELECT shards, currency FROM ledger_meta`).Scan(&shards, &currency)
	switch s := x.settings; {
	case errors.Is(err, pgx.ErrNoRows):
		x.okf("ledger", "not initialised yet: the first serve does that")
	case err != nil:
		x.failf("ledger", "%s", reason(err))
	case s.LedgerShards != 0 && s.LedgerShards != shards:
		x.failf("ledger", "LEDGER_SHARDS is %d, and the ledger has %d for good", s.LedgerShards, shards)
	case s.Currency != currency:
		x.failf("ledger", "BILLING_CURRENCY is %s, and the ledger is in %s for good", s.Currency, currency)
	default:
		x.okf("ledger", "%d shards, in %s", shards, currency)
	}
}

// ledgerShards is how many shards a ledger has.
func ledgerShards(ctx context.Context, config *pgx.ConnConfig) (n int, err error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left on it
	err = conn.QueryRow(ctx, `SELECT shards FROM ledger_meta`).Scan(&n)
	return n, err
}
