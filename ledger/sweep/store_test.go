package sweep

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// fill writes reservations as they are after a while: many settled, and of each owner some open.
func fill(t testing.TB, conn *pgx.Conn, settled, open int, owners ...uuid.UUID) {
	t.Helper()
	insert := `INSERT INTO ledger_reservations (shard, request_id, account, amount, held, state, reserved_seq, settled_seq, owner)
		SELECT i % 4, gen_random_uuid(), 'account-' || i % 100, 1, $2::int, $3, i, $4, $5::uuid FROM generate_series(1, $1::int) i`
	for _, owner := range owners {
		mustExec(t, conn, insert, settled/len(owners), 0, "settled", 1, owner.String())
		mustExec(t, conn, insert, open/len(owners), 1, "open", 0, owner.String())
	}
}

func newOwners(n int) (out []uuid.UUID) {
	for range n {
		out = append(out, uuid.New())
	}
	return out
}

// TestPlan wants the look to take the partial index over many settled reservations, whatever the
// planner knows; and the deletion to take the index by time.
func TestPlan(t *testing.T) {
	t.Parallel()
	const settled, open = 30_000, 300
	for name, prepare := range map[string]func(t *testing.T, conn *pgx.Conn){
		"never analyzed": func(t *testing.T, conn *pgx.Conn) { fill(t, conn, settled, open, newOwners(4)...) },
		"analyzed": func(t *testing.T, conn *pgx.Conn) {
			fill(t, conn, settled, open, newOwners(4)...)
			mustExec(t, conn, `ANALYZE ledger_reservations, ledger_leases, ledger_responses`)
		},
		"analyzed when all were open": func(t *testing.T, conn *pgx.Conn) {
			fill(t, conn, 0, settled, newOwners(4)...)
			mustExec(t, conn, `ANALYZE ledger_reservations, ledger_leases, ledger_responses`)
			mustExec(t, conn, `UPDATE ledger_reservations SET state = 'settled', held = 0, settled_seq = 1`)
			fill(t, conn, 0, open, newOwners(4)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			conn := asOwner(t, url)
			mustExec(t, conn, `INSERT INTO ledger_responses (shard, request_id, body, broken, stored_at)
				SELECT i % 4, gen_random_uuid(), 'x', false, now() - i * interval '4 seconds' FROM generate_series(1, 30000) i`)
			mustExec(t, conn, `INSERT INTO provider_belongings (digest, account, claimed_at)
				SELECT sha256(i::text::bytea), 'a', now() - i * interval '4 minutes' FROM generate_series(1, 30000) i`)
			prepare(t, conn)
			pool := openPool(t, url, false)
			look := explain(t, pool, selectLook, LookLimit)
			if !strings.Contains(look, "ledger_reservations_open") || strings.Contains(look, "Seq Scan on ledger_reservations") {
				t.Errorf("the look:\n%s", look)
			}
			tidy := explain(t, pool, deleteResponses, responsesKept.Microseconds(), tidyLimit)
			if !strings.Contains(tidy, "ledger_responses_stored") || strings.Contains(tidy, "Seq Scan on ledger_responses") {
				t.Errorf("the deletion:\n%s", tidy)
			}
			tidy = explain(t, pool, deleteBelongings, belongingsKept.Microseconds(), tidyLimit)
			if !strings.Contains(tidy, "provider_belongings_claimed") || strings.Contains(tidy, "Seq Scan on provider_belongings") {
				t.Errorf("the deletion of what belonged to whom:\n%s", tidy)
			}
		})
	}
}

func explain(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) string {
	t.Helper()
	rows, err := pool.Query(t.Context(), "EXPLAIN "+sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// TestLook wants the orphans of all dead owners and nobody else's, at most as many as asked for, and the
// server's times.
func TestLook(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	conn, pool := asOwner(t, url), openPool(t, url, false)
	store := NewStore(pool)
	look, err := store.Look(t.Context(), 10)
	if err != nil || len(look.Orphans) != 0 {
		t.Fatalf("%+v, %v", look, err)
	}
	if d := time.Since(look.Now).Abs(); d > time.Minute || !look.Started.Before(look.Now) {
		t.Errorf("the server, begun at %s, has %s", look.Started, look.Now)
	}
	owners := append(newOwners(5), uuid.Nil, uuid.Max)
	fill(t, conn, 700, 700, owners...)
	leaseOf(t, conn, owners[0], "1 minute")
	leaseOf(t, conn, owners[1], "-1 millisecond")
	mustExec(t, conn, `INSERT INTO ledger_leases VALUES ('relay:x', $1, now() + interval '1 minute')`, owners[2].String())
	if look, err = store.Look(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	found := map[uuid.UUID]int{}
	for _, o := range look.Orphans {
		found[o.Owner]++
		if o.Account == "" || o.RequestID == uuid.Nil {
			t.Fatalf("%+v", o)
		}
	}
	if found[owners[0]] != 0 || len(found) != 6 || len(look.Orphans) != 600 {
		t.Errorf("%v", found)
	}
	if look, err = store.Look(t.Context(), 150); err != nil || len(look.Orphans) != 150 {
		t.Errorf("%d, %v", len(look.Orphans), err)
	}
}

// TestTidy deletes what nobody needs any more, oldest first, so much and no more.
func TestTidy(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	conn, store := asOwner(t, url), NewStore(openPool(t, url, false))
	answers := func() int64 { return queryInt(t, conn, `SELECT count(*) FROM ledger_responses`) }
	for _, age := range []string{"26 hours", "25 hours", "24 hours 59 minutes", "1 second"} {
		mustExec(t, conn, `INSERT INTO ledger_responses (shard, request_id, body, broken, stored_at)
			SELECT 1, gen_random_uuid(), 'x', false, now() - $1::interval - i * interval '1 second' FROM generate_series(1, 3) i`, age)
	}
	for i, want := range []struct {
		more bool
		left int64
	}{{true, 8}, {false, 6}, {false, 6}} {
		if more, err := store.Tidy(t.Context(), 4); err != nil || more != want.more || answers() != want.left {
			t.Errorf("%d: more: %v, %v; %d are left", i, more, err, answers())
		}
	}
	old := `SELECT count(*) FROM ledger_responses WHERE stored_at < now() - interval '25 hours'`
	if n := queryInt(t, conn, old); n != 0 {
		t.Errorf("%d are left that are old", n)
	}

	gone, orphaned, lately, alive := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	leaseOf(t, conn, gone, "-25 hours")
	leaseOf(t, conn, orphaned, "-25 hours")
	leaseOf(t, conn, lately, "-23 hours")
	leaseOf(t, conn, alive, "1 second")
	mustExec(t, conn, `INSERT INTO ledger_leases VALUES ('relay:x', $1, now() - interval '25 hours')`, gone.String())
	fill(t, conn, 10, 10, orphaned)
	fill(t, conn, 10, 0, gone)
	if more, err := store.Tidy(t.Context(), 4); err != nil || more {
		t.Errorf("%v, %v", more, err)
	}
	if n := queryInt(t, conn, `SELECT count(*) FROM ledger_leases WHERE name = $1`, ownerLease(gone)); n != 0 {
		t.Error("the lease of one that is long gone is left")
	}
	if n := queryInt(t, conn, `SELECT count(*) FROM ledger_leases`); n != 4 {
		t.Errorf("%d leases are left", n)
	}
}

// BenchmarkLook looks over 100,000 settled and 1,000 open reservations of 10 owners.
func BenchmarkLook(b *testing.B) {
	for _, dead := range []int{0, 1, 10} {
		b.Run(fmt.Sprint("dead=", dead), func(b *testing.B) {
			url := pgtest.URL(b)
			conn, store := asOwner(b, url), NewStore(openPool(b, url, false))
			owners := newOwners(10)
			fill(b, conn, 100_000, 1000, owners...)
			for _, o := range owners[dead:] {
				leaseOf(b, conn, o, "1 hour")
			}
			mustExec(b, conn, `ANALYZE ledger_reservations, ledger_leases`)
			for b.Loop() {
				if look, err := store.Look(b.Context(), LookLimit); err != nil || len(look.Orphans) != 100*dead {
					b.Fatal(len(look.Orphans), err)
				}
			}
		})
	}
}

// BenchmarkSweep refunds orphans of one dead owner, of 64 accounts.
func BenchmarkSweep(b *testing.B) {
	l, url := postgresLedger(b)
	dead := uuid.New()
	var wait sync.WaitGroup
	for i := range 64 {
		wait.Go(func() {
			account := fmt.Sprint("account-", i)
			mustAppend(b, l, account, domain.Open{Grant: domain.MustAmount("1000000"), Actor: "test"})
			for range (b.N + 63) / 64 {
				mustAppend(b, l, account, domain.Reserve{RequestID: uuid.New(), Amount: domain.MustAmount("1"), Data: domain.ReserveData{Surface: "test", Owner: dead}})
			}
		})
	}
	wait.Wait()
	times := usual
	times.term = 0
	swept := 0
	r := &Rounds{Store: NewStore(openPool(b, url, false)), Ledger: l, Log: quiet, times: times, Hooks: Hooks{Swept: func(n int) { swept += n }}}
	if _, err := r.Step(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for swept < b.N {
		if _, err := r.Step(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(swept)/b.Elapsed().Seconds(), "refunds/s")
}
