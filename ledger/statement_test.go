package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// watch is a clock that a test sets.
type watch struct {
	mu sync.Mutex
	at time.Time
}

func (w *watch) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *watch) set(text string) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = at
}

// timedSubjects are both stores, on one clock.
func timedSubjects(t *testing.T) (*watch, map[string]subject) {
	w := &watch{}
	w.set("2026-01-01T00:00:00Z")
	m := NewMemory(uuid.New(), testShards, "USD", w.now)
	t.Cleanup(m.Close)
	url := pgtest.URL(t)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), config, uuid.New(), testShards, "USD"); err != nil {
		t.Fatal(err)
	}
	p := open(t, Config{URL: url, Now: w.now})
	t.Cleanup(func() { wantClean(t, p.Reader) })
	return w, map[string]subject{"memory": m, "postgres": p}
}

func monthOf(t *testing.T, name, zone string) domain.Month {
	t.Helper()
	z, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	m, err := domain.ParseMonth(name, z)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustState(t *testing.T, s subject, account string, m domain.Month) *domain.Statement {
	t.Helper()
	out, err := s.Statement(context.Background(), account, m)
	if err != nil || out == nil {
		t.Fatalf("%s of %s: %v", m.Name, account, err)
	}
	return out
}

// lived is some months of two accounts in one shard. The edges are the last and the first microsecond of
// months, in UTC and in Berlin, where clocks change in March.
func lived(t *testing.T, w *watch, s subject, accounts [2]string) {
	n := 0
	for _, at := range []string{"2026-01-31T22:59:59.999999Z", "2026-01-31T23:00:00Z", "2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z",
		"2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-31T21:59:59.999999Z", "2026-03-31T22:00:00Z", "2026-03-31T23:59:59.999999Z",
		"2026-05-15T12:00:00Z"} {
		w.set(at)
		for i, account := range accounts {
			n++
			if at == "2026-01-31T22:59:59.999999Z" {
				mustOpen(t, s, account, "100")
			}
			first, second := uuid.UUID{6: 0x70, 8: 0x80, 14: 1, 15: byte(n)}, uuid.UUID{6: 0x70, 8: 0x80, 14: 2, 15: byte(n)}
			must(t, s, command(account, credit(fmt.Sprintf("%d.000000000001", n), fmt.Sprintf("inv %d", n))))
			must(t, s, command(account, reserve(first, "3")))
			must(t, s, command(account, settle(first, fmt.Sprintf("%d.5", i*3)))) // of the second account beyond its bound
			must(t, s, command(account, reserve(second, "0.25")))                 // is given back in the next month
			if n > 2 {
				must(t, s, command(account, release(uuid.UUID{6: 0x70, 8: 0x80, 14: 2, 15: byte(n - 2)}, domain.RefundProviderError)))
			}
		}
	}
}

// statements are an account's months as JSON. Each must begin with what the one before closed with, and the
// last close with what the account has.
func statements(t *testing.T, s subject, account, zone string) (out []string) {
	t.Helper()
	var last domain.StatementBalance
	for month := range strings.FieldsSeq("2025-12 2026-01 2026-02 2026-03 2026-04 2026-05 2026-06") {
		st := mustState(t, s, account, monthOf(t, month, zone))
		if !st.Opening.Balance.Equal(last.Balance) || !st.Opening.Reserved.Equal(last.Reserved) {
			t.Errorf("%s of %s in %s opens with %+v, and the one before closed with %+v", month, account, zone, st.Opening, last)
		}
		last = st.Closing
		st.Complete = true // of Postgres's clock, which the test does not set
		text, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(text))
	}
	wantAccount(t, s, account, last.Available.String(), last.Reserved.String())
	return out
}

// TestStatements: the two stores make the same statements of the same life, in any zone; each begins with
// what the one before closed with, and the last closes with what the account has.
func TestStatements(t *testing.T) {
	t.Parallel()
	w, subjects := timedSubjects(t)
	accounts := [2]string{"sam", ""}
	for i := 0; accounts[1] == ""; i++ {
		if name := fmt.Sprintf("tim%d", i); domain.ShardOf(name, testShards) == domain.ShardOf("sam", testShards) {
			accounts[1] = name
		}
	}
	said := map[string][]string{}
	for name, s := range subjects {
		w.set("2026-01-01T00:00:00Z")
		lived(t, w, s, accounts)
		for _, zone := range []string{"UTC", "Europe/Berlin", "America/Havana"} {
			for _, account := range accounts {
				said[name] = append(said[name], statements(t, s, account, zone)...)
			}
		}
		if none, err := s.Statement(context.Background(), "nobody", monthOf(t, "2026-01", "UTC")); none != nil || err != nil {
			t.Errorf("%s: nobody has %+v, %v", name, none, err)
		}
	}
	for i, text := range said["memory"] {
		if text != said["postgres"][i] {
			t.Errorf("memory says\n%s\npostgres\n%s", text, said["postgres"][i])
		}
	}
}

// TestStatementEdges: what happened in the last microsecond of a month is in it, and the next is in the
// next.
func TestStatementEdges(t *testing.T) {
	t.Parallel()
	w, subjects := timedSubjects(t)
	for name, s := range subjects {
		w.set("2026-01-01T00:00:00Z")
		lived(t, w, s, [2]string{"sam", "tim"})
		for _, c := range []struct {
			month, zone string
			credits     int // the grant is one
		}{{"2026-01", "UTC", 4}, {"2026-02", "UTC", 1}, {"2026-01", "Europe/Berlin", 2}, {"2026-02", "Europe/Berlin", 3},
			{"2026-03", "UTC", 5}, {"2026-03", "Europe/Berlin", 3}, {"2026-04", "Europe/Berlin", 2}, {"2026-04", "UTC", 0}} {
			st := mustState(t, s, "sam", monthOf(t, c.month, c.zone))
			if len(st.Credits) != c.credits {
				t.Errorf("%s: %s in %s has %d credits, not %d", name, c.month, c.zone, len(st.Credits), c.credits)
			}
		}
	}
}

// TestStatementComplete: a month is complete once something happened in its shard after it, or the clock
// says so.
func TestStatementComplete(t *testing.T) {
	t.Parallel()
	p, _ := openPostgres(t)
	mustOpen(t, p, "sam", "1")
	this := time.Now().UTC()
	for month, want := range map[string]bool{this.Format("2006-01"): false, this.AddDate(0, -2, 0).Format("2006-01"): true} {
		if got := mustState(t, p, "sam", monthOf(t, month, "UTC")).Complete; got != want {
			t.Errorf("%s is complete: %t", month, got)
		}
	}
}

// TestStatementPages: a month of more events than are read at once, between those of others in its shard.
func TestStatementPages(t *testing.T) {
	t.Parallel()
	p, _ := openPostgres(t)
	mustOpen(t, p, "sam", "1")
	mustOpen(t, p, "tim", "1")
	var all sync.WaitGroup
	for i := range 2*spanPage + 1 {
		all.Go(func() {
			account := []string{"sam", "sam", "tim"}[i%3]
			if _, err := p.Append(context.Background(), command(account, credit("0.000000000001", fmt.Sprintf("r%d", i)))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	st := mustState(t, p, "sam", monthOf(t, time.Now().UTC().Format("2006-01"), "UTC"))
	if want := (2*spanPage+1)*2/3 + 1; len(st.Credits) != want {
		t.Errorf("%d credits, not %d", len(st.Credits), want)
	}
	n, last := 0, ""
	for _, l := range st.Credits {
		if l.Position == last {
			t.Fatalf("%s comes twice", last)
		}
		n, last = n+1, l.Position
	}
}

// TestStatementOfForgedColumns: where the columns say something else than the events, or an event is
// gone, there is no statement.
func TestStatementOfForgedColumns(t *testing.T) {
	t.Parallel()
	for _, crime := range []string{
		`UPDATE ledger_events SET amount = amount + 0.000000000001 WHERE kind = 'commit' AND account = 'alice'`,
		`UPDATE ledger_events SET kind = 'overage' WHERE kind = 'commit' AND account = 'alice'`,
		`UPDATE ledger_events SET account = 'alice' WHERE account = 'ivan'`,
		`DELETE FROM ledger_events WHERE shard = 1 AND seq = 8`, // the middle of the shard, which every search asks for
	} {
		c, m := commitCrime(t), monthOf(t, time.Now().UTC().Format("2006-01"), "UTC")
		mustState(t, c.ledger, "alice", m)
		c.do(crime)
		if s, err := c.ledger.Statement(t.Context(), "alice", m); err == nil {
			t.Errorf("%s: it closes with %+v", crime, s.Closing)
		}
	}
}

// TestEachCharge: the charges of a time, of all accounts and shards, each once.
func TestEachCharge(t *testing.T) {
	t.Parallel()
	w, subjects := timedSubjects(t)
	p := subjects["postgres"].(*Postgres)
	w.set("2026-01-01T00:00:00Z")
	lived(t, w, p, [2]string{"sam", "tim"})
	for _, c := range []struct {
		from, to      string
		commits, over int
	}{{"2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 20, 10}, {"2026-01-31T23:00:00Z", "2026-02-01T00:00:00Z", 4, 2},
		{"2026-02-01T00:00:00Z", "2026-02-01T00:00:00.000001Z", 2, 1}, {"2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z", 0, 0}} {
		from, _ := time.Parse(time.RFC3339, c.from)
		to, _ := time.Parse(time.RFC3339, c.to)
		kinds := map[domain.Kind]int{}
		err := p.EachCharge(t.Context(), from, to, func(e *domain.Event) error { kinds[e.Kind]++; return nil })
		if err != nil || kinds[domain.KindCommit] != c.commits || kinds[domain.KindOverage] != c.over || len(kinds) > 2 {
			t.Errorf("from %s to %s: %v, %v", c.from, c.to, kinds, err)
		}
	}
	broken := fmt.Errorf("enough")
	if err := p.EachCharge(t.Context(), time.Time{}, time.Now().AddDate(10, 0, 0), func(*domain.Event) error { return broken }); err != broken {
		t.Errorf("%v", err)
	}
}
