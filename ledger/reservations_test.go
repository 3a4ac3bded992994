package ledger

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// TestReservations: what is open is counted, with what it holds and since when, over all shards; what is settled
// or released is not.
func TestReservations(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), config, uuid.New(), 4, "USD"); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-90 * time.Second) // the ledger's clock: what it reserves is old at once
	l, err := Open(t.Context(), Config{URL: url, Role: "llm_gateway", Shards: 4, Currency: "USD", Now: func() time.Time { return began }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	want := func(open int64, held string, oldest time.Duration) {
		t.Helper()
		got, err := l.Reservations(t.Context())
		if err != nil || got.Open != open || got.Held.String() != held || got.Oldest < oldest || got.Oldest > oldest+time.Minute {
			t.Errorf("%+v %v, want %d holding %s since %s", got, err, open, held, oldest)
		}
	}
	do := func(account string, op domain.Op) {
		t.Helper()
		if _, err := l.Append(t.Context(), domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: account, Op: op}); err != nil {
			t.Fatal(err)
		}
	}
	want(0, "0", 0)
	var first uuid.UUID
	for i, account := range []string{"anna", "bert", "carl", "dora", "anna"} {
		if i < 4 {
			do(account, domain.Open{Grant: domain.MustAmount("10"), Actor: "test"})
		}
		id := uuid.New()
		do(account, domain.Reserve{RequestID: id, Amount: domain.MustAmount("1.000000000001"), Data: domain.ReserveData{Model: "m", Owner: uuid.New()}})
		if i == 0 {
			first = id
			began = began.Add(60 * time.Second)
		}
	}
	want(5, "5.000000000005", 90*time.Second)
	do("anna", domain.Release{RequestID: first, Reason: domain.RefundClientAbort})
	want(4, "4.000000000004", 30*time.Second)
}

// TestReservationsPlan wants the index of what is open, whatever the planner knows.
func TestReservationsPlan(t *testing.T) {
	t.Parallel()
	const fill = `INSERT INTO ledger_reservations (shard, request_id, account, amount, held, state, reserved_seq, settled_seq, owner)
		SELECT i % 4, gen_random_uuid(), 'account-' || i % 100, 1, $2::int, $3, i, $4, gen_random_uuid() FROM generate_series(1, $1::int) i`
	for name, prepare := range map[string]func(conn *pgx.Conn){
		"never analyzed": func(conn *pgx.Conn) { mustExec(t, conn, fill, 30_000, 0, "settled", 1) },
		"analyzed when all were open": func(conn *pgx.Conn) {
			mustExec(t, conn, fill, 30_000, 1, "open", 0)
			mustExec(t, conn, `ANALYZE ledger_reservations`)
			mustExec(t, conn, `UPDATE ledger_reservations SET state = 'settled', held = 0, settled_seq = 1`)
		},
	} {
		conn := owner(t, pgtest.URL(t))
		prepare(conn)
		mustExec(t, conn, fill, 300, 1, "open", 0)
		tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{BeginQuery: beginReservations})
		if err != nil {
			t.Fatal(err)
		}
		rows, err := tx.Query(t.Context(), "EXPLAIN "+selectReservations)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if plan := strings.Join(lines, "\n"); err != nil || !strings.Contains(plan, "Index Scan using ledger_reservations_open") {
			t.Errorf("%s: %v\n%s", name, err, plan)
		}
		tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // it only reads
	}
}
