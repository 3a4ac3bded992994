package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// rebuilds is how the world's projections are rebuilt from the ledger.
func (s *told) rebuilds(t testing.TB) RebuildConfig {
	t.Helper()
	owner, err := ledger.ConnConfig(s.url, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return RebuildConfig{Owner: owner, Meta: s.meta, Ledger: s.ledger, Log: slog.New(slog.DiscardHandler)}
}

// publish makes a topic and puts the first events of each shard there.
func (s *told) publish(t testing.TB, part, of int) *topic.Topic {
	t.Helper()
	to := topictest.New(t, s.meta.Shards, s.meta.ID)
	for shard, events := range s.events {
		s.send(t, to, shard, events[:len(events)*part/of])
	}
	return to
}

// send publishes events of one shard, a few at a time.
func (s *told) send(t testing.TB, to *topic.Topic, shard int32, events []domain.Recorded) {
	t.Helper()
	p, err := to.Producer(t.Context(), shard)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for len(events) > 0 {
		n := min(len(events), 20)
		if _, err := p.Publish(t.Context(), events[:n]); err != nil {
			t.Fatal(err)
		}
		events = events[n:]
	}
}

func mustRebuild(t testing.TB, c RebuildConfig, name string) *Result {
	t.Helper()
	result, err := Rebuild(t.Context(), c, name)
	if err != nil {
		t.Fatalf("%v (%+v)", err, result)
	}
	return result
}

// wantTidy fails unless there are the live tables, as they were made, and nothing beside them.
func (s *told) wantTidy(t tester) {
	t.Helper()
	for what, sql := range map[string]string{
		"tables":    `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname ~ '^(balances|stats|transactions)'`,
		"positions": `SELECT string_agg(DISTINCT projection, ' ' ORDER BY projection) FROM projection_positions`,
		"leases":    `SELECT coalesce(string_agg(name, ' '), '') FROM ledger_leases`,
	} {
		want := map[string]string{"tables": "balances balances_pkey stats stats_pkey transactions transactions_pkey", "positions": "balances stats transactions"}[what]
		if got := s.text(t, sql); got != want {
			t.Errorf("%s: %s", what, got)
		}
	}
	if n := s.count(t, `SELECT count(*) FROM unnest(ARRAY['balances', 'stats', 'transactions']) AS t, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r
		WHERE has_table_privilege('llm_gateway', t, r)`); n != 12 {
		t.Errorf("the service has %d rights of 12", n)
	}
}

// wantLinesEqual shows only what differs.
func wantLinesEqual(t tester, got, want string) {
	t.Helper()
	have := map[string]int{}
	for line := range strings.SplitSeq(got, "\n") {
		have[line]++
	}
	for line := range strings.SplitSeq(want, "\n") {
		have[line]--
	}
	for line, n := range have {
		if n > 0 {
			t.Errorf("new:  %s", line)
		} else if n < 0 {
			t.Errorf("gone: %s", line)
		}
	}
}

// TestRebuild: a rebuild from either source, of whatever projection, changes nothing that was right.
func TestRebuild(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 400)
	s.project(t, 1, 1)
	s.exec(t, `UPDATE projection_positions SET next_offset = CASE shard WHEN 0 THEN 0 WHEN 1 THEN 1 ELSE 1000000 END`)
	before := s.everything(t)
	c := s.rebuilds(t)
	to := s.publish(t, 1, 1)
	for _, p := range all {
		for source, from := range map[string]History{SourceLedger: nil, SourceTopic: to} {
			c.Topic = from
			hints := s.hints(t, p.name())
			seen := map[int32]int64{}
			c.Progress = func(shard int32, seq, last int64) {
				if seq <= seen[shard] || seq > last || last != int64(len(s.events[shard])) {
					t.Errorf("%d:%d of %d after %d", shard, seq, last, seen[shard])
				}
				seen[shard] = seq
			}
			r := mustRebuild(t, c, p.name())
			want := Result{Projection: p.name(), Source: source, Events: int64(len(s.all())), Compared: true, Swapped: true,
				Rows: s.count(t, "SELECT count(*) FROM "+p.name()), Took: r.Took, Positions: places(s.positions(t, p.name()))}
			if fmt.Sprint(*r) != fmt.Sprint(want) {
				t.Errorf("%+v\nnot %+v", *r, want)
			}
			s.wantHints(t, p.name(), source, hints)
		}
		s.exec(t, `UPDATE projection_positions SET next_offset = CASE shard WHEN 0 THEN 0 WHEN 1 THEN 1 ELSE 1000000 END`)
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}

// hints are the offsets that a projection goes on from.
func (s *told) hints(t tester, table string) (out []int64) {
	t.Helper()
	for _, p := range s.positions(t, table) {
		out = append(out, p.offset)
	}
	return out
}

// wantHints: of two hints the smaller one misses nothing, and 0 is none.
func (s *told) wantHints(t tester, table, source string, before []int64) {
	t.Helper()
	for shard, hint := range s.hints(t, table) {
		if source == SourceLedger && hint != before[shard] || source == SourceTopic &&
			(hint == 0 || hint > before[shard] && before[shard] != 0 || hint > int64(2*len(s.events[int32(shard)]))) {
			t.Errorf("%s from the %s: shard %d goes on from %d, and %d before", table, source, shard, hint, before[shard])
		}
	}
}

// TestRebuildMends: rows that somebody changed are found, each at its place, and right afterwards.
func TestRebuildMends(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 400)
	s.project(t, 1, 1)
	before, c := s.everything(t), s.rebuilds(t)
	one, two := s.accounts[0], s.accounts[1]
	crimes := map[string][]string{
		"balances": {
			`UPDATE balances SET available = available + 0.000000000001 WHERE account = '` + one + `'`,
			`DELETE FROM balances WHERE account = '` + two + `'`,
			`INSERT INTO balances SELECT shard, 'nobody', 1, 2, 3, true, 4 FROM balances WHERE account = '` + one + `'`,
			`UPDATE projection_positions SET hash = sha256('') WHERE projection = 'balances' AND shard = 0`},
		"transactions": {
			`UPDATE transactions SET request_id = NULL WHERE (account, seq) IN (SELECT account, seq FROM transactions WHERE request_id IS NOT NULL LIMIT 1)`},
		"stats": {`TRUNCATE stats`},
	}
	want := map[string]Differences{"balances": {Missing: 1, Extra: 1, Different: 2}, "transactions": {Different: 1},
		"stats": {Missing: s.count(t, `SELECT count(*) FROM stats`)}}
	lines := map[string][]string{
		"balances":     {"position 0:", "hash=", "account=" + one, "available=", "shard=", "account=nobody", "available=1.000000000000 reserved=2.000000000000 credit_limit=3.000000000000 frozen=true last_seq=4"},
		"transactions": {"request_id=null"},
		"stats":        {"requests="},
	}
	for name, sqls := range crimes {
		for _, sql := range sqls {
			s.exec(t, sql)
		}
		found, err := Verify(t.Context(), c, name)
		if err != nil {
			t.Fatal(err)
		}
		r := mustRebuild(t, c, name)
		for _, d := range []Differences{found[0].Differences, r.Differences} {
			text := fmt.Sprintf("%+v", d.List)
			if d.Missing != want[name].Missing || d.Extra != want[name].Extra || d.Different != want[name].Different || int64(len(d.List)) != min(d.Count(), maxDifferences) {
				t.Errorf("%s: %+v", name, d)
			}
			for _, line := range lines[name] {
				if !strings.Contains(text, line) {
					t.Errorf("%s: %s is not in %s", name, line, text)
				}
			}
		}
		if r := mustRebuild(t, c, name); r.Differences.Count() != 0 {
			t.Errorf("%s after it was mended: %+v", name, r.Differences)
		}
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}

// TestRebuildPooled does everything behind a transaction pooler.
func TestRebuildPooled(t *testing.T) {
	t.Parallel()
	s := tell(t, true, 100)
	s.project(t, 1, 1)
	before := s.everything(t)
	c := s.rebuilds(t)
	var err error
	if c.Owner, err = ledger.ConnConfig(s.url, "", true); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		s.exec(t, `DELETE FROM `+p.name()+` WHERE shard = 1`)
		if r := mustRebuild(t, c, p.name()); !r.Compared || r.Differences.Missing == 0 || !r.Swapped {
			t.Errorf("%+v", r)
		}
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
	c.Topic = s.publish(t, 1, 1)
	for _, p := range all {
		if sides, err := SideBySide(t.Context(), c, p.name()); err != nil || !sides.Equal() {
			t.Errorf("%+v, %v", sides, err)
		}
	}
	found, err := Verify(t.Context(), c)
	if err != nil || len(found) != len(all) || found[0].Differences.Count()+found[1].Differences.Count()+found[2].Differences.Count() != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}

// TestRebuildBoundsDifferences: a table that is wrong as a whole is counted, and listed in part.
func TestRebuildBoundsDifferences(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 10)
	s.project(t, 1, 1)
	s.exec(t, `INSERT INTO balances SELECT 0, 'ghost-' || n, 0, 0, 0, false, 1 FROM generate_series(1, 1000) n`)
	r := mustRebuild(t, s.rebuilds(t), "balances")
	if r.Differences.Extra != 1000 || len(r.Differences.List) != maxDifferences {
		t.Errorf("%d, %d listed", r.Differences.Extra, len(r.Differences.List))
	}
}

// TestRebuildOfNothing: tables that are gone, positions that are gone, a table of another form: each is
// as it should be afterwards, and what could not be compared is said.
func TestRebuildOfNothing(t *testing.T) {
	t.Parallel()
	for name, crime := range map[string]struct {
		sql      []string
		compared bool
	}{
		"dropped":             {[]string{`DROP TABLE balances`}, false},
		"dropped with places": {[]string{`DROP TABLE balances`, `DELETE FROM projection_positions WHERE projection = 'balances'`}, false},
		"emptied with places": {[]string{`TRUNCATE balances`, `DELETE FROM projection_positions WHERE projection = 'balances'`}, true},
		"emptied":             {[]string{`TRUNCATE balances`}, true},
		"only places":         {[]string{`DELETE FROM projection_positions WHERE projection = 'balances'`}, true},
		"without a column":    {[]string{`ALTER TABLE balances DROP COLUMN frozen`}, false},
		"of another type":     {[]string{`ALTER TABLE balances ALTER COLUMN frozen TYPE text`}, false},
		"without a key":       {[]string{`ALTER TABLE balances DROP CONSTRAINT balances_pkey`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, false, 60)
			s.project(t, 1, 1)
			before := s.everything(t)
			for _, sql := range crime.sql {
				s.exec(t, sql)
			}
			c := s.rebuilds(t)
			found, err := Verify(t.Context(), c, "balances")
			if err != nil {
				t.Fatal(err)
			}
			r := mustRebuild(t, c, "balances")
			for _, r := range []*Result{found[0], r} {
				if r.Compared != crime.compared || (r.NotCompared == "") != crime.compared {
					t.Errorf("compared %t, %q", r.Compared, r.NotCompared)
				}
			}
			wantLinesEqual(t, s.everything(t), before)
			s.wantTidy(t)
		})
	}
}

// TestRebuildOfOld: a projection that nobody moves is compared where it is, and complete afterwards.
func TestRebuildOfOld(t *testing.T) {
	t.Parallel()
	for source, whole := range map[string]bool{SourceLedger: true, SourceTopic: false} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			s := tell(t, false, 300)
			s.project(t, 1, 3)
			at := places(s.positions(t, "stats"))
			c := s.rebuilds(t)
			if !whole {
				c.Topic = s.publish(t, 1, 1)
			}
			r := mustRebuild(t, c, "stats")
			if !r.Compared || r.Differences.Count() != 0 || fmt.Sprint(r.Positions) != fmt.Sprint(at) || r.Events != int64(len(s.all())) || r.FilledFromLedger != 0 {
				t.Errorf("%+v", r)
			}
			again, err := Verify(t.Context(), c, "stats")
			if err != nil || again[0].Differences.Count() != 0 || again[0].Events != r.Events {
				t.Errorf("%+v, %v", again, err)
			}
		})
	}
}

// TestRebuildRefuses: what cannot come out right leaves all as it was.
func TestRebuildRefuses(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 60)
	s.project(t, 1, 1)
	before := s.everything(t)
	good := s.rebuilds(t)
	short, broken := good, good
	short.Ledger = cutLedger{good.Ledger, 3}
	broken.Ledger = bentLedger{good.Ledger}
	for name, test := range map[string]struct {
		config RebuildConfig
		name   string
		want   error
	}{
		"a projection that is none":          {good, "ledger_events", nil},
		"a ledger that ends before the live": {short, "balances", errShort},
		"a ledger with another hash":         {broken, "balances", errBroken},
	} {
		_, err := Rebuild(t.Context(), test.config, test.name)
		_, err2 := Verify(t.Context(), test.config, test.name)
		if err == nil || err2 == nil || test.want != nil && (!errors.Is(err, test.want) || !errors.Is(err2, test.want)) {
			t.Errorf("%s: %v, %v", name, err, err2)
		}
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}

// cutLedger has only the first events of each shard.
type cutLedger struct {
	whole Events
	last  int64
}

// Events implements Events.
func (l cutLedger) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	return l.whole.Events(ctx, shard, after, min(limit, int(max(0, l.last-after))))
}

// bentLedger has one event with another hash.
type bentLedger struct{ whole Events }

// Events implements Events.
func (l bentLedger) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	events, err := l.whole.Events(ctx, shard, after, limit)
	if err == nil && after < 2 && len(events) > 2 {
		events[2].Hash[0]++
	}
	return events, err
}

// TestRebuildAlone: a second rebuild is refused while one is running; and if the lease fails, the two do
// no harm.
func TestRebuildAlone(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 200)
	s.project(t, 1, 1)
	before := s.everything(t)
	c, held := s.rebuilds(t), make(chan struct{})
	var once sync.Once
	slow := c
	slow.Progress = func(int32, int64, int64) { once.Do(func() { <-held }) }
	var wait sync.WaitGroup
	wait.Go(func() { mustRebuild(t, slow, "balances") })
	eventually(t, "the lease", func() bool { return s.count(t, `SELECT count(*) FROM ledger_leases`) == 1 })
	if r, err := Rebuild(t.Context(), c, "balances"); !errors.Is(err, ErrRunning) {
		t.Errorf("%+v %v", r, err)
	}
	mustRebuild(t, c, "stats")
	close(held)
	wait.Wait()
	for range 6 {
		wait.Go(func() {
			pool, err := c.open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer pool.Close()
			b, err := c.builder(pool, "balances", "balances_rebuild", nil)
			if err == nil {
				err = b.rebuild(context.Background())
			}
			t.Log(err)
		})
	}
	wait.Wait()
	mustRebuild(t, c, "balances")
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}
