package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

// SQLSTATEs of the two ways in which Postgres refuses to change events.
const (
	byTrigger = "23001" // restrict_violation
	byRight   = "42501" // insufficient_privilege
)

// crimeLedger is a ledger that the binary made, and a connection as its owner.
type crimeLedger struct {
	env   []string
	conn  *pgx.Conn
	shard int32
	last  int64 // the shard's last seq; every crime is at one before it or at the end
}

func newCrimeLedger(t *testing.T) *crimeLedger {
	t.Helper()
	url := pgtest.URL(t)
	c := &crimeLedger{env: []string{"DATABASE_URL=" + url}}
	for i := range 4 {
		succeeds(t, c.env, "account", "credit", "alice", "5", "--open", "--reference", fmt.Sprint("top-up ", i))
	}
	var err error
	if c.conn, err = pgx.Connect(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close(context.Background()) })
	if err := c.conn.QueryRow(t.Context(), `SELECT shard, max(seq) FROM ledger_events GROUP BY shard`).Scan(&c.shard, &c.last); err != nil {
		t.Fatal(err)
	}
	c.do(t, `CREATE TABLE kept AS SELECT * FROM ledger_events`)
	return c
}

func (c *crimeLedger) do(t *testing.T, sql string) {
	t.Helper()
	if _, err := c.conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// asOwner does what only somebody who disables the triggers can.
func (c *crimeLedger) asOwner(t *testing.T, sql string) {
	t.Helper()
	c.do(t, `ALTER TABLE ledger_events DISABLE TRIGGER USER`)
	c.do(t, sql)
	c.do(t, `ALTER TABLE ledger_events ENABLE TRIGGER USER`)
}

// TestEventsAreImmutable: Postgres refuses to change events, to the owner by trigger and to the
// service's role by right; and whoever gets round that is found by the binary, with the place.
func TestEventsAreImmutable(t *testing.T) {
	t.Parallel()
	c := newCrimeLedger(t)
	for role, want := range map[string]string{"": byTrigger, ledger.ServiceRole: byRight} {
		for _, sql := range []string{`UPDATE ledger_events SET amount = 0`, `DELETE FROM ledger_events`, `TRUNCATE ledger_events`,
			`UPDATE ledger_events SET amount = 0 WHERE false`, `DELETE FROM ledger_events WHERE seq > 1000`} {
			c.refused(t, role, sql, want)
		}
	}
	c.refused(t, ledger.ServiceRole, `ALTER TABLE ledger_events DISABLE TRIGGER USER`, byRight)
	c.refused(t, ledger.ServiceRole, `DELETE FROM ledger_accounts`, byRight)
	verified(t, c.env...)
	for _, crime := range []struct {
		name, sql, check string
		at               int64
	}{
		{"change a payload", `UPDATE ledger_events SET payload = convert_to(replace(convert_from(payload, 'UTF8'), '"amount":"5"', '"amount":"6"'), 'UTF8') WHERE seq = %d`, "chain", c.last - 1},
		{"change a column", `UPDATE ledger_events SET amount = 6 WHERE seq = %d`, "columns", c.last - 1},
		{"remove", `DELETE FROM ledger_events WHERE seq = %d`, "seq", c.last - 1},
		{"insert", `INSERT INTO ledger_events SELECT shard, seq + 1, schema, gen_random_uuid(), kind, account, request_id, debit, credit, amount,
			currency, occurred_at, payload, hash FROM ledger_events WHERE seq = %d - 1`, "chain", c.last + 1},
		{"cut off", `DELETE FROM ledger_events WHERE seq = %d`, "head", c.last},
	} {
		c.asOwner(t, fmt.Sprintf(crime.sql, crime.at))
		c.found(t, crime.name, crime.check, fmt.Sprintf("%d:%d", c.shard, crime.at))
		c.asOwner(t, `DELETE FROM ledger_events`)
		c.do(t, `INSERT INTO ledger_events SELECT * FROM kept ORDER BY seq`)
	}
	verified(t, c.env...)
	c.do(t, `ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_immutable`)
	c.found(t, "leave the trigger disabled", "immutable", "")
}

// refused runs a statement as a role ("": the owner), which Postgres must refuse so.
func (c *crimeLedger) refused(t *testing.T, role, sql, code string) {
	t.Helper()
	if role != "" {
		c.do(t, "SET ROLE "+role)
		defer c.do(t, "RESET ROLE")
	}
	_, err := c.conn.Exec(t.Context(), sql)
	if refusal := new(pgconn.PgError); !errors.As(err, &refusal) || refusal.Code != code {
		t.Errorf("%s as %q: %v, want %s", sql, role, err, code)
	}
}

// found runs `ledger verify`, which must end with 1 and name the check and the place.
func (c *crimeLedger) found(t *testing.T, name, check, position string) {
	t.Helper()
	r := run(t, c.env, "ledger", "verify", "--json")
	var report ledger.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.status != 1 || report.Clean {
		t.Errorf("%s: verify ended with %d, %v:\n%s", name, r.status, err, r.stderr)
		return
	}
	var all []string
	for _, f := range report.Findings {
		all = append(all, f.String())
		if string(f.Check) == check && f.Position == position {
			return
		}
	}
	t.Errorf("%s: verify does not say %s at %s, but\n%s", name, check, position, strings.Join(all, "\n"))
}
