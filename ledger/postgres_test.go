package ledger

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// refuses fails unless the statement is refused with the SQLSTATE.
func refuses(t *testing.T, conn *pgx.Conn, sql, code string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.Code != code {
		t.Errorf("%s: %v, not %s", sql, err, code)
	}
}

// The SQLSTATEs of a trigger that refuses, and of a right that is missing.
const (
	restrictViolation = "23001"
	noRight           = "42501"
)

// changes are the ways to change events, those that would hit no row among them.
var changes = []string{
	`UPDATE ledger_events SET amount = 1`,
	`UPDATE ledger_events SET amount = 1 WHERE false`,
	`UPDATE ledger_events SET hash = hash WHERE seq = 1`,
	`DELETE FROM ledger_events`,
	`DELETE FROM ledger_events WHERE false`,
	`TRUNCATE ledger_events`,
	`TRUNCATE ledger_events, ledger_accounts CASCADE`,
	`INSERT INTO ledger_events SELECT * FROM ledger_events ON CONFLICT (shard, seq) DO UPDATE SET amount = 1`,
	`MERGE INTO ledger_events e USING ledger_shards s ON e.shard = s.shard WHEN MATCHED THEN DELETE`,
}

func TestEventsAreImmutable(t *testing.T) {
	t.Parallel()
	p, url := openPostgres(t)
	mustOpen(t, p, "alice", "1")
	conn := owner(t, url)
	for _, sql := range changes {
		refuses(t, conn, sql, restrictViolation)
	}
	if n := queryInt(t, conn, `SELECT count(*) FROM ledger_events`); n != 2 {
		t.Errorf("%d events are left", n)
	}
	wantClean(t, p.Reader)
}

// TestServiceRole holds the rights of the role that `serve` works as.
func TestServiceRole(t *testing.T) {
	t.Parallel()
	p, url := openPostgres(t)
	mustOpen(t, p, "alice", "1")
	config, err := ConnConfig(url, testRole, false)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer drop(conn)
	for _, sql := range changes {
		refuses(t, conn, sql, noRight)
	}
	for _, table := range []string{"ledger_meta", "ledger_shards", "ledger_accounts", "ledger_reservations", "ledger_idempotency", "api_keys"} {
		refuses(t, conn, `DELETE FROM `+table, noRight)
		refuses(t, conn, `TRUNCATE `+table, noRight)
		refuses(t, conn, `DROP TABLE `+table, noRight)
	}
	for _, sql := range []string{
		`INSERT INTO ledger_meta (id, shards, currency) VALUES (gen_random_uuid(), 1, 'USD')`,
		`UPDATE ledger_meta SET currency = 'EUR'`,
		`UPDATE ledger_responses SET body = ''`,
		`INSERT INTO ledger_shards VALUES (9, 0, sha256(''), 'epoch')`,
		`UPDATE ledger_idempotency SET key = 'x'`,
		`ALTER TABLE ledger_events DISABLE TRIGGER ALL`,
		`ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_immutable`,
		`DROP TRIGGER ledger_events_immutable ON ledger_events`,
		`CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
		`CREATE TABLE mine (x int)`,
		`SET session_replication_role = replica`,
	} {
		refuses(t, conn, sql, noRight)
	}
	mustExec(t, conn, `GRANT UPDATE ON ledger_events TO llm_gateway`) // a warning, and nothing is granted
	refuses(t, conn, changes[0], noRight)
	wantClean(t, p.Reader)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	empty, migrated, url := pgtest.Empty(t), pgtest.URL(t), pgtest.URL(t)
	openAt(t, url)
	for name, test := range map[string]struct {
		config Config
		want   error
		text   string
	}{
		"an empty database":     {Config{URL: empty, Role: testRole}, ErrNotInitialised, ""},
		"a migrated database":   {Config{URL: migrated, Role: testRole}, ErrNotInitialised, ""},
		"other shards":          {Config{URL: url, Shards: testShards + 1}, ErrMismatch, "LEDGER_SHARDS"},
		"another currency":      {Config{URL: url, Shards: testShards, Currency: "EUR"}, ErrMismatch, "BILLING_CURRENCY"},
		"no URL at all":         {Config{URL: "postgres://u:secret@:x"}, nil, "postgres://user:password@host"},
		"nobody at home":        {Config{URL: "postgres://u:secret@127.0.0.1:1/x"}, nil, "127.0.0.1"},
		"a role without rights": {Config{URL: url, Role: "no_such_role"}, nil, "no_such_role"},
	} {
		p, err := Open(t.Context(), test.config)
		if err == nil {
			p.Close()
		}
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInit(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	made := map[uuid.UUID]int{}
	together(t, 8, func(int) error {
		m, err := Init(t.Context(), config, uuid.New(), 3, "USD")
		mu.Lock()
		defer mu.Unlock()
		made[m.ID]++
		return err
	})
	if len(made) != 1 {
		t.Errorf("%d ledgers were made", len(made))
	}
	for _, test := range []struct {
		shards   int
		currency string
		want     string
	}{{4, "USD", "LEDGER_SHARDS"}, {3, "EUR", "BILLING_CURRENCY"}, {0, "USD", "LEDGER_SHARDS"}, {domain.MaxShards + 1, "USD", "LEDGER_SHARDS"}, {3, "usd", "BILLING_CURRENCY"}} {
		if _, err := Init(t.Context(), config, uuid.New(), test.shards, test.currency); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%d shards in %s: %v", test.shards, test.currency, err)
		}
	}
}

// TestPoolerSeesNoSession holds what is sent through a transaction pooler: no statement is kept on
// the server, and what belongs to a session is set anew in each database transaction.
func TestPoolerSeesNoSession(t *testing.T) {
	t.Parallel()
	direct := pgtest.URL(t)
	openAt(t, direct).Close()
	between, through := newProxy(t, direct)
	var begun, roles, named int
	between.every(1, noFault, func(sql string) bool {
		switch {
		case strings.HasPrefix(sql, "begin isolation level read committed"):
			begun++
		case sql == `set local role "llm_gateway"`:
			roles++
		}
		return false
	})
	between.prepared = func(string) { named++ }
	p := open(t, Config{URL: through, Pooled: true, Lanes: 1})
	mustOpen(t, p, "alice", "5")
	must(t, p, command("alice", reserve(uuid.New(), "1")))
	if _, err := p.Account(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	p.Close()
	between.mu.Lock()
	defer between.mu.Unlock()
	if begun != 2 || roles != 2 || named != 0 {
		t.Errorf("%d database transactions, %d roles set, %d statements kept", begun, roles, named)
	}
}
