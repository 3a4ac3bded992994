package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

func is(sql string) func(string) bool { return func(s string) bool { return s == sql } }

// openProxied makes a ledger that is reached through a proxy, and returns both with the owner.
func openProxied(t testing.TB, hooks Hooks) (*Postgres, *proxy, *pgx.Conn) {
	t.Helper()
	direct := pgtest.URL(t)
	openAt(t, direct).Close() // initialises it
	between, through := newProxy(t, direct)
	return open(t, Config{URL: through, Hooks: hooks}), between, owner(t, direct)
}

// TestConnectionBreaks breaks the connection at every step of an append: one command must happen
// once and be answered with its place, and under load nothing may be lost or doubled.
func TestConnectionBreaks(t *testing.T) {
	for name, step := range map[string]struct {
		fault    fault
		at       string
		happened bool // before the retry
	}{
		"before the lock":              {cutBefore, lockHeads, false},
		"after loading":                {cutAfter, loadAccounts, false},
		"before the events":            {cutBefore, insertEvents, false},
		"after writing":                {cutAfter, updateHeads, false},
		"before COMMIT":                {cutBefore, "commit", false},
		"after COMMIT":                 {cutAfter, "commit", true},
		"COMMIT answered by ROLLBACK":  {rollback, "commit", false},
		"at the moment of the COMMIT":  {cutAtOnce, "commit", false},
		"at the moment of the writing": {cutAtOnce, insertEvents, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, between, conn := openProxied(t, Hooks{})
			mustOpen(t, p, "alice", "100")
			c := command("alice", credit("1", "once"))
			between.once(step.fault, is(step.at))
			out := must(t, p, c)
			if out.Repeated != step.happened && step.fault != cutAtOnce {
				t.Errorf("repeated: %v", out.Repeated)
			}
			at := out.Position()
			if n := queryInt(t, conn, `SELECT count(*) FROM ledger_events WHERE id = $1 AND shard = $2 AND seq = $3`,
				pgUUID(c.ID), at.Shard, at.Seq); n != 1 || between.done() != 1 {
				t.Fatalf("%d events at %s after %d faults", n, at, between.done())
			}
			between.every(3, step.fault, is(step.at))
			load(t, p, conn, nil)
			if between.done() == 0 {
				t.Error("no connection broke")
			}
		})
	}
}

// load runs whole requests from many sides at once, each command of which must succeed, and verifies
// that there is exactly what was answered. between, if any, is called after each request.
func load(t *testing.T, p *Postgres, conn *pgx.Conn, between func()) {
	t.Helper()
	const sides, requests = 24, 4
	before := queryInt(t, conn, `SELECT count(*) FROM ledger_events`)
	var mu sync.Mutex
	places := map[domain.Position]uuid.UUID{}
	together(t, sides, func(side int) error {
		account := fmt.Sprint("load-", side%5)
		for range requests {
			id := uuid.New()
			for _, op := range []domain.Op{domain.Open{Grant: domain.MustAmount("1000"), Actor: "test"}, reserve(id, "2"), settle(id, "0.5")} {
				out, err := p.Append(context.Background(), command(account, op))
				if err != nil {
					return fmt.Errorf("%T: %w", op, err)
				}
				mu.Lock()
				for _, e := range out.Events {
					if was, twice := places[e.Event.Position()]; twice && was != e.Event.ID {
						t.Errorf("position %s was answered to two commands", e.Event.Position())
					}
					places[e.Event.Position()] = e.Event.ID
				}
				mu.Unlock()
			}
			if between != nil {
				between()
			}
		}
		return nil
	})
	// An account's opening is answered without events to those who find it open.
	const want = 5*2 + sides*requests*3
	if n := queryInt(t, conn, `SELECT count(*) FROM ledger_events`) - before; n != want || len(places) != want {
		t.Errorf("%d events are new and %d were answered, not %d", n, len(places), want)
	}
	wantClean(t, p.Reader)
}

// TestRollbackIsNoCommit wants the writer to read what COMMIT is answered with.
func TestRollbackIsNoCommit(t *testing.T) {
	t.Parallel()
	var why atomic.Value
	p, between, _ := openProxied(t, Hooks{Retry: func(err error) { why.Store(err.Error()) }})
	between.once(rollback, is("commit"))
	mustOpen(t, p, "alice", "1")
	if text, _ := why.Load().(string); text != "commit was answered with ROLLBACK" {
		t.Fatalf("retried because of %q", text)
	}
	wantAccount(t, p, "alice", "1", "0")
}

// TestBackendsKilled ends the writers' sessions in the middle of their database transactions.
func TestBackendsKilled(t *testing.T) {
	t.Parallel()
	p, url := openPostgres(t)
	conn, killer := owner(t, url), owner(t, url)
	var mu sync.Mutex
	killed := int64(0)
	load(t, p, conn, func() {
		mu.Lock()
		defer mu.Unlock()
		killed += queryInt(t, killer, `SELECT count(pg_terminate_backend(pid)) FROM (
			SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
			WHERE c.relnamespace = current_schema()::regnamespace AND l.pid <> pg_backend_pid()) s`)
	})
	if killed == 0 {
		t.Error("no session was ended")
	}
}

// TestPostgresAway wants domain.ErrUnavailable after the window, and the ledger to recover.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	p, between, conn := openProxied(t, Hooks{})
	mustOpen(t, p, "alice", "1")
	p.window = 300 * time.Millisecond
	between.leave(true)
	c := command("alice", credit("1", "while away"))
	began := time.Now()
	if _, err := p.Append(t.Context(), c); !errors.Is(err, domain.ErrUnavailable) {
		t.Fatalf("%v, not domain.ErrUnavailable", err)
	}
	if took := time.Since(began); took > attemptTime {
		t.Fatalf("the answer took %s", took)
	}
	between.leave(false)
	p.window = RetryWindow
	if out := must(t, p, c); out.Repeated {
		t.Fatal("it had not happened before")
	}
	if n := queryInt(t, conn, `SELECT count(*) FROM ledger_events`); n != 3 {
		t.Fatalf("%d events", n)
	}
	if report, err := verify(t.Context(), conn, conn, VerifyOptions{}); err != nil || !report.Clean {
		t.Fatalf("%v, %v", report, err)
	}
}

// TestReconnectIsQuick holds the first statement of a new connection against the compiler: a plan
// with a forbidden step looks dear enough to be compiled, for a quarter of a second.
func TestReconnectIsQuick(t *testing.T) {
	t.Parallel()
	_, url := openPostgres(t)
	config, err := Config{URL: url, Role: testRole}.connConfig()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer drop(conn)
	rows, err := conn.Query(t.Context(), `EXPLAIN (ANALYZE) SELECT id, shards, currency FROM ledger_meta`)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if text := strings.Join(plan, "\n"); err != nil || strings.Contains(text, "JIT") || !strings.Contains(text, "Seq Scan") {
		t.Fatalf("%v\n%s", err, text)
	}
}

// holdHeads locks all heads until release: lanes stop at them.
func holdHeads(t testing.TB, conn *pgx.Conn) (release func()) {
	t.Helper()
	mustExec(t, conn, "BEGIN")
	mustExec(t, conn, "SELECT * FROM ledger_shards ORDER BY shard FOR UPDATE")
	return func() { mustExec(t, conn, "COMMIT") }
}

// waitBlocked returns when somebody waits for a lock that holder has.
func waitBlocked(t testing.TB, asker, holder *pgx.Conn) {
	t.Helper()
	for range 1000 {
		if queryInt(t, asker, `SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))`,
			int32(holder.PgConn().PID())) > 0 {
			return
		}
		mustExec(t, asker, "SELECT pg_sleep(0.005)")
	}
	t.Fatal("nobody waits for the lock")
}

// TestGuiltyInOneBatch puts a command that violates a constraint into one batch with others.
func TestGuiltyInOneBatch(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	openAt(t, url).Close()
	var mu sync.Mutex
	var sizes []int
	p := open(t, Config{URL: url, Lanes: 1, Hooks: Hooks{Batch: func(size int, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		sizes = append(sizes, size)
	}}})
	conn, asker := owner(t, url), owner(t, url)
	mustExec(t, conn, `ALTER TABLE ledger_accounts ADD CHECK (account <> 'mallory')`)
	release := holdHeads(t, conn)
	queue := func(account string) *pending {
		c := command(account, domain.Open{Grant: domain.MustAmount("1"), Actor: "test"})
		q := &pending{command: c, until: time.Now().Add(RetryWindow), done: make(chan answer, 1)}
		if err := p.enqueue(q); err != nil {
			t.Fatal(err)
		}
		return q
	}
	plug := queue("plug")
	waitBlocked(t, asker, conn)
	var queued []*pending
	for _, account := range []string{"a", "b", "c", "mallory", "d", "e", "f", "g"} {
		queued = append(queued, queue(account))
	}
	release()
	for _, q := range append(queued, plug) {
		a := <-q.done
		pg := new(pgconn.PgError)
		if guilty := errors.As(a.err, &pg) && pg.Code == "23514"; guilty != (q.command.Account == "mallory") {
			t.Errorf("%s: %v", q.command.Account, a.err)
		}
	}
	p.Close()
	// One batch of 8, halved down to the guilty one: its halves became durable apart.
	if got := fmt.Sprint(sizes); got != "[1 2 1 4]" {
		t.Errorf("the batches were %s", got)
	}
	again := open(t, Config{URL: url})
	if report := wantClean(t, again.Reader); report.Accounts != 8 {
		t.Errorf("%d accounts", report.Accounts)
	}
}

// TestRowCounts changes an account under a batch that has loaded it: what was decided must not be
// written.
func TestRowCounts(t *testing.T) {
	t.Parallel()
	p, url := openPostgres(t)
	conn, asker := owner(t, url), owner(t, url)
	mustOpen(t, p, "alice", "10")
	mustExec(t, conn, "BEGIN")
	mustExec(t, conn, `UPDATE ledger_accounts SET last_seq = last_seq + 100`)
	failed := make(chan error, 1)
	go func() {
		_, err := p.Append(context.Background(), command("alice", reserve(uuid.New(), "1")))
		failed <- err
	}()
	waitBlocked(t, asker, conn)
	mustExec(t, conn, "COMMIT")
	if err := <-failed; !errors.Is(err, errCount) {
		t.Fatalf("%v, not %v", err, errCount)
	}
	if n := queryInt(t, conn, `SELECT count(*) FROM ledger_events`); n != 2 {
		t.Fatalf("%d events", n)
	}
	mustExec(t, conn, `UPDATE ledger_accounts SET last_seq = last_seq - 100`)
	must(t, p, command("alice", reserve(uuid.New(), "1")))
	wantClean(t, p.Reader)
}

// TestTwoLedgers spends one account from two processes' worth of writers.
func TestTwoLedgers(t *testing.T) {
	t.Parallel()
	const affords, tries = 37, 256
	url := pgtest.URL(t)
	both := []*Postgres{openAt(t, url), open(t, Config{URL: url})}
	mustOpen(t, both[0], "alice", fmt.Sprintf("%d.5", affords))
	var got, refused atomic.Int64
	together(t, tries, func(i int) error {
		_, err := both[i%2].Append(context.Background(), command("alice", reserve(uuid.New(), "1")))
		if r := new(domain.Rejection); errors.As(err, &r) && r.Reason == domain.RejectInsufficientFunds {
			refused.Add(1)
			return nil
		}
		got.Add(1)
		return err
	})
	if got.Load() != affords || refused.Load() != tries-affords {
		t.Errorf("%d reserved and %d refused", got.Load(), refused.Load())
	}
	wantAccount(t, both[1], "alice", "0.5", fmt.Sprint(affords))
	wantClean(t, both[0].Reader)
}

// TestFrozenWriter holds the heads as a writer that froze would: Postgres ends its session, and the
// others go on within their window.
func TestFrozenWriter(t *testing.T) {
	t.Parallel()
	p, url := openPostgres(t)
	config, err := Config{URL: url, Role: testRole}.connConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "4000" // above lock_timeout: the others try twice
	frozen, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer drop(frozen)
	mustExec(t, frozen, "BEGIN")
	mustExec(t, frozen, lockHeads, []int32{0, 1, 2, 3})
	mustOpen(t, p, "alice", "1")
	_, err = frozen.Exec(t.Context(), "COMMIT")
	if err == nil || !strings.Contains(err.Error(), "25P03") && !frozen.IsClosed() {
		t.Errorf("the frozen writer still has its session: %v", err)
	}
	wantClean(t, p.Reader)
}
