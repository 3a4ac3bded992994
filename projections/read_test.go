package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// told is a world whose ledger has a history.
type told struct {
	*world
	*history
	ledger *ledger.Postgres
}

// tell makes n things happen to a few accounts, half an hour apart.
func tell(t testing.TB, pooled bool, n int) *told {
	t.Helper()
	w := newWorld(t, pooled)
	l, err := ledger.Open(t.Context(), ledger.Config{URL: w.url, Role: serviceRole, Shards: worldShards, Currency: "USD", Lanes: 1, Now: steadyClock()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := newHistory(t, &counter{}, 9, l.Append)
	h.some(t, n)
	return &told{w, h, l}
}

// project applies a part of every shard's events to the live tables.
func (s *told) project(t tester, part, of int) {
	t.Helper()
	err := pgx.BeginFunc(context.Background(), s.pool, func(tx pgx.Tx) error { return ensurePositions(context.Background(), tx, s.meta) })
	if err != nil {
		t.Fatal(err)
	}
	for shard, events := range s.events {
		events = events[s.positions(t, "balances")[shard].seq : len(events)*part/of]
		if len(events) > 0 {
			s.mustApply(t, "", events)
		}
	}
}

func TestReads(t *testing.T) {
	for name, pooled := range map[string]bool{"direct": false, "pooled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, pooled, 300)
			s.project(t, 1, 1)
			r := NewReader(s.pool, s.meta)
			for _, account := range s.accounts {
				s.wantBalance(t, r, account)
				s.wantTransactions(t, r, account)
				s.wantStats(t, r, account)
			}
			s.wantNothing(t, r)
		})
	}
}

// wantNow fails unless a reading has everything.
func (s *told) wantNow(t *testing.T, account string, r domain.Reading) {
	t.Helper()
	shard := domain.ShardOf(account, s.meta.Shards)
	if want := (domain.Position{Shard: shard, Seq: int64(len(s.events[shard]))}); r.Position != want || r.Behind != 0 || time.Since(r.AsOf).Abs() > time.Minute {
		t.Errorf("%+v, and the shard ends at %s", r, want)
	}
}

func (s *told) wantBalance(t *testing.T, r *Reader, account string) {
	t.Helper()
	got, reading, err := r.Balance(t.Context(), account, domain.Position{})
	want, err2 := s.ledger.Account(t.Context(), account)
	if err != nil || err2 != nil || got == nil {
		t.Fatal(got, err, err2)
	}
	if sameAccount(*got) != sameAccount(*want) {
		t.Errorf("%+v, and the ledger has %+v", got, want)
	}
	s.wantNow(t, account, reading)
}

// sameAccount brings an account to what can be compared.
func sameAccount(a domain.Account) [3]any {
	return [3]any{strings.Join([]string{a.Name, a.Available.String(), a.Reserved.String(), a.CreditLimit.String()}, " "), a.Frozen, a.LastSeq}
}

func (s *told) wantTransactions(t *testing.T, r *Reader, account string) {
	t.Helper()
	var want []domain.Transaction
	for _, e := range slices.Backward(s.events[domain.ShardOf(account, s.meta.Shards)]) {
		if tx, ok := domain.TransactionOf(&e.Event); ok && e.Event.Account == account {
			tx.Reference, tx.Reason, tx.Surface, tx.Model = clean(tx.Reference), clean(tx.Reason), clean(tx.Surface), clean(tx.Model)
			want = append(want, tx)
		}
	}
	got, reading, err := r.Transactions(t.Context(), account, MaxTransactions, 0, domain.Position{})
	if err != nil {
		t.Fatal(err)
	}
	s.wantNow(t, account, reading)
	wantLines(t, got, want)
	for _, page := range [][2]int{{0, 0}, {3, 0}, {3, 2}, {5, len(want) - 1}, {5, len(want) + 1}, {-1, -1}} {
		got, _, err := r.Transactions(t.Context(), account, page[0], page[1], domain.Position{})
		if err != nil {
			t.Fatal(err)
		}
		from := min(max(0, page[1]), len(want))
		wantLines(t, got, want[from:min(from+max(0, page[0]), len(want))])
	}
}

func wantLines(t *testing.T, got, want []domain.Transaction) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d transactions, not %d", len(got), len(want))
	}
	for i := range got {
		if !got[i].Amount.Equal(want[i].Amount) {
			t.Errorf("%+v, not %+v", got[i], want[i])
		}
		got[i].Amount = want[i].Amount
		if got[i] != want[i] {
			t.Errorf("%+v, not %+v", got[i], want[i])
		}
	}
}

func (s *told) wantStats(t *testing.T, r *Reader, account string) {
	t.Helper()
	first, last := s.all()[0].Event.OccurredAt, time.Time{}
	for _, e := range s.all() {
		last = cmp.Or(last, e.Event.OccurredAt)
		if e.Event.OccurredAt.After(last) {
			last = e.Event.OccurredAt
		}
	}
	from, to := first.Truncate(time.Hour), last.Truncate(time.Hour).Add(time.Hour)
	for _, group := range []domain.StatsGroup{domain.StatsByHour, domain.StatsByDay, domain.StatsByModel, domain.StatsByProvider} {
		for _, q := range []domain.StatsQuery{{From: from, To: to, Group: group}, {From: from.Add(20 * time.Hour), To: to.Add(-20 * time.Hour), Group: group}, {From: to, To: from, Group: group}} {
			got, reading, err := r.Stats(t.Context(), account, q, domain.Position{})
			if err != nil {
				t.Fatal(err)
			}
			s.wantNow(t, account, reading)
			if want := s.stats(account, q); !reflect.DeepEqual(texted(got), texted(want)) {
				t.Errorf("%+v:\n%+v, not\n%+v", q, texted(got), texted(want))
			}
		}
	}
}

// texted brings amounts to what can be compared.
func texted(rows []domain.StatsRow) (out []any) {
	for _, row := range rows {
		amount, cost := row.Amount.String(), row.Cost.String()
		row.Amount, row.Cost = domain.Amount{}, domain.Amount{}
		out = append(out, row, amount, cost)
	}
	return out
}

// stats adds up what a query is to answer, from the events.
func (s *told) stats(account string, q domain.StatsQuery) (out []domain.StatsRow) {
	sums := map[domain.StatsRow]domain.Consumption{} // by a row without its consumption
	for _, e := range s.all() {
		key, c, ok := domain.ConsumptionOf(&e.Event)
		if !ok || key.Account != account || key.Hour.Before(q.From) || !key.Hour.Before(q.To) {
			continue
		}
		row := map[domain.StatsGroup]domain.StatsRow{
			domain.StatsByHour: {Start: key.Hour}, domain.StatsByDay: {Start: key.Hour.Truncate(24 * time.Hour)},
			domain.StatsByModel: {Name: clean(key.Model)}, domain.StatsByProvider: {Name: clean(key.Provider)},
		}[q.Group]
		sums[row] = sums[row].Add(c)
	}
	for row, c := range maps.All(sums) {
		row.Consumption = c
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b domain.StatsRow) int {
		if q.Group == domain.StatsByHour || q.Group == domain.StatsByDay {
			return a.Start.Compare(b.Start)
		}
		return cmp.Or(b.Amount.Cmp(a.Amount), strings.Compare(a.Name, b.Name))
	})
	return out
}

// wantNothing asks for what is not there.
func (s *told) wantNothing(t *testing.T, r *Reader) {
	t.Helper()
	nobody := "nobody"
	balance, reading, err := r.Balance(t.Context(), nobody, domain.Position{})
	if balance != nil || err != nil {
		t.Error(balance, err)
	}
	s.wantNow(t, nobody, reading)
	lines, reading, err := r.Transactions(t.Context(), nobody, 10, 0, domain.Position{})
	if len(lines) != 0 || err != nil {
		t.Error(lines, err)
	}
	s.wantNow(t, nobody, reading)
	if rows, _, err := r.Stats(t.Context(), nobody, domain.StatsQuery{Group: "week"}, domain.Position{}); err == nil {
		t.Error(rows)
	}
	s.exec(t, `DROP TABLE stats`)
	_, _, err = r.Stats(t.Context(), nobody, domain.StatsQuery{Group: domain.StatsByDay}, domain.Position{})
	if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.Code != undefinedTable {
		t.Errorf("a table that is gone: %v", err)
	}
	s.exec(t, `SELECT create_projection('stats', 'stats')`)
}

// TestReadOfOld reads a projection that is behind, and one that has not begun.
func TestReadOfOld(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 60)
	r := NewReader(s.pool, s.meta)
	account := s.accounts[0]
	shard := domain.ShardOf(account, s.meta.Shards)
	all := s.events[shard]
	balance, reading, err := r.Balance(t.Context(), account, domain.Position{})
	if want := (domain.Reading{Position: domain.Position{Shard: shard}, Behind: int64(len(all))}); balance != nil || err != nil || reading != want {
		t.Errorf("%+v %+v, not %+v; %v", balance, reading, want, err)
	}
	s.project(t, 1, 2)
	_, reading, err = r.Transactions(t.Context(), account, 1, 0, domain.Position{})
	half := all[:len(all)/2]
	last := half[len(half)-1].Event
	if want := (domain.Reading{Position: last.Position(), AsOf: last.OccurredAt, Behind: int64(len(all) - len(half))}); err != nil || reading != want {
		t.Errorf("%+v, not %+v; %v", reading, want, err)
	}
}

// TestReadFollows waits for what the caller wrote, for nothing else, and never for long.
func TestReadFollows(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 60)
	r := NewReader(s.pool, s.meta)
	account := s.accounts[0]
	shard := domain.ShardOf(account, s.meta.Shards)
	head := domain.Position{Shard: shard, Seq: int64(len(s.events[shard]))}
	s.project(t, 1, 2)
	stranger := "" // of the same shard, without an event to wait for
	for i := 0; stranger == ""; i++ {
		if name := fmt.Sprint("stranger-", i); domain.ShardOf(name, s.meta.Shards) == shard {
			stranger = name
		}
	}
	ask := func(account string, atLeast domain.Position) (domain.Reading, time.Duration) {
		began := time.Now()
		_, reading, err := r.Balance(t.Context(), account, atLeast)
		if err != nil {
			t.Fatal(err)
		}
		return reading, time.Since(began)
	}
	for name, p := range map[string]domain.Position{
		"of no event yet": {Shard: shard, Seq: head.Seq + 1}, "of another shard": {Shard: (shard + 1) % worldShards, Seq: head.Seq},
		"reached": {Shard: shard, Seq: 1}, "zero": {}} {
		if reading, took := ask(stranger, p); took >= followTime || reading.Behind == 0 {
			t.Errorf("%s: %+v after %s", name, reading, took)
		}
		if reading, took := ask(account, p); took < followTime || reading.Behind == 0 {
			t.Errorf("%s, with an event of one's own: %+v after %s", name, reading, took)
		}
	}
	if reading, took := ask(stranger, head); took < followTime || reading.Behind == 0 {
		t.Errorf("without a projector: %+v after %s", reading, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.Balance(ctx, account, head); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
	answered := make(chan domain.Reading)
	go func() {
		_, reading, _ := r.Balance(context.Background(), account, head)
		answered <- reading
	}()
	s.project(t, 1, 1)
	if reading := <-answered; reading.Position != head || reading.Behind != 0 {
		t.Errorf("with a projector: %+v", reading)
	}
}

// TestReadAcrossSwap: what a connection has prepared goes on working when the table is exchanged, and
// when it was gone for a while.
func TestReadAcrossSwap(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 100)
	s.project(t, 1, 1)
	config := s.pool.Config()
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	r, c := NewReader(pool, s.meta), s.rebuilds(t)
	account := s.accounts[0]
	q := domain.StatsQuery{From: time.Unix(0, 0), To: time.Unix(1<<33, 0), Group: domain.StatsByModel}
	reads := map[string]func() (any, domain.Reading, error){
		"balances": func() (any, domain.Reading, error) { return any3(r.Balance(t.Context(), account, domain.Position{})) },
		"transactions": func() (any, domain.Reading, error) {
			return any3(r.Transactions(t.Context(), account, 10, 0, domain.Position{}))
		},
		"stats": func() (any, domain.Reading, error) { return any3(r.Stats(t.Context(), account, q, domain.Position{})) },
	}
	for name, read := range reads {
		first, _, err := read()
		for range 8 { // enough for a plan that is kept
			again, reading, err2 := read()
			s.wantNow(t, account, reading)
			if err != nil || err2 != nil || !reflect.DeepEqual(first, again) {
				t.Fatalf("%s: %+v, then %+v; %v, %v", name, first, again, err, err2)
			}
		}
		mustRebuild(t, c, name)
		if again, _, err := read(); err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("%s after the swap: %+v, not %+v; %v", name, again, first, err)
		}
		s.exec(t, `DROP TABLE `+name)
		if again, _, err := read(); err == nil {
			t.Errorf("%s without a table: %+v", name, again)
		}
		mustRebuild(t, c, name)
		if again, _, err := read(); err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("%s after it was gone: %+v, not %+v; %v", name, again, first, err)
		}
	}
}

func any3[T any](answer T, reading domain.Reading, err error) (any, domain.Reading, error) {
	return answer, reading, err
}

func TestStatus(t *testing.T) {
	for name, pooled := range map[string]bool{"direct": false, "pooled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, pooled, 60)
			s.project(t, 1, 2)
			s.exec(t, `DROP TABLE transactions`)
			s.exec(t, `DELETE FROM projection_positions WHERE projection = 'stats'`)
			rows, err := NewReader(s.pool, s.meta).Status(t.Context())
			if err != nil || len(rows) != len(all)*worldShards {
				t.Fatal(rows, err)
			}
			for i, row := range rows {
				shard, head := int32(i%worldShards), int64(len(s.events[int32(i%worldShards)]))
				want := StatusRow{Projection: all[i/worldShards].name(), Shard: shard, Head: head, Exists: i/worldShards != 1}
				if i/worldShards != 2 && head > 0 {
					want.Seq = head / 2
					want.AsOf = s.events[shard][head/2-1].Event.OccurredAt
				}
				want.Position, want.Behind = domain.Position{Shard: shard, Seq: want.Seq}, head-want.Seq
				if head == 0 {
					want.AsOf = row.AsOf
				}
				if row != want {
					t.Errorf("%+v, not %+v", row, want)
				}
			}
		})
	}
}
