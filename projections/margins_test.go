package projections

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/migrations"
	"llm-gateway/migrations/pgtest"
)

var anyTime = [2]time.Time{time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}

// TestMargins: by every group the margins of all accounts are what the accounts' own statistics add up to, and
// the total is the sum of its groups, cut or not.
func TestMargins(t *testing.T) {
	for name, pooled := range map[string]bool{"direct": false, "pooled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, pooled, 300)
			s.project(t, 1, 1)
			r := NewReader(s.pool, s.meta)
			for _, group := range []domain.StatsGroup{domain.StatsByHour, domain.StatsByDay, domain.StatsByModel, domain.StatsByProvider, domain.StatsByAccount} {
				s.wantMargins(t, r, group, "")
				s.wantMargins(t, r, group, s.accounts[1])
			}
			if m, err := r.Margins(t.Context(), domain.MarginQuery{StatsQuery: domain.StatsQuery{Group: "week"}}); err == nil {
				t.Error(m)
			}
			none, err := r.Margins(t.Context(), marginsOf(domain.StatsByDay, "nobody", 5))
			if err != nil || len(none.Rows) != 0 || none.More || none.Total.Requests != 0 || none.Total.Amount.String() != "0" || none.Behind != 0 {
				t.Errorf("%+v %v", none, err)
			}
		})
	}
}

func marginsOf(group domain.StatsGroup, account string, limit int) domain.MarginQuery {
	return domain.MarginQuery{StatsQuery: domain.StatsQuery{From: anyTime[0], To: anyTime[1], Group: group}, Account: account, Limit: limit}
}

func (s *told) wantMargins(t *testing.T, r *Reader, group domain.StatsGroup, account string) {
	t.Helper()
	q := marginsOf(group, account, 1000)
	got, err := r.Margins(t.Context(), q)
	if err != nil || got.More || got.Behind != 0 {
		t.Fatalf("%+v %v", got, err)
	}
	var want []domain.StatsRow
	for _, name := range s.accounts {
		if account != "" && name != account {
			continue
		}
		var total domain.Consumption
		for _, row := range s.stats(name, domain.StatsQuery{From: q.From, To: q.To, Group: domain.StatsByModel}) {
			total = total.Add(row.Consumption)
		}
		if group == domain.StatsByAccount && total.Requests > 0 {
			want = append(want, domain.StatsRow{Name: name, Consumption: total})
		}
		if group != domain.StatsByAccount {
			want = append(want, s.stats(name, q.StatsQuery)...)
		}
	}
	var sum domain.Consumption
	for _, row := range want {
		sum = sum.Add(row.Consumption)
	}
	if total := []domain.StatsRow{{Consumption: got.Total}}; !reflect.DeepEqual(texted(total), texted([]domain.StatsRow{{Consumption: sum}})) {
		t.Errorf("by %s of %q: the total is %+v, not %+v", group, account, texted(total), sum)
	}
	if want = merged(want, group); !reflect.DeepEqual(texted(got.Rows), texted(want)) {
		t.Errorf("by %s of %q:\n%+v, not\n%+v", group, account, texted(got.Rows), texted(want))
	}
	q.Limit = 1
	cut, err := r.Margins(t.Context(), q)
	if err != nil || cut.More != (len(want) > 1) || !reflect.DeepEqual(texted(cut.Rows), texted(want[:min(1, len(want))])) ||
		cut.Total.Amount.String() != sum.Amount.String() || cut.Total.Cost.String() != sum.Cost.String() {
		t.Errorf("by %s of %q, one: %+v %v", group, account, cut, err)
	}
}

// merged adds up the rows of one group of several accounts, and sorts them.
func merged(rows []domain.StatsRow, group domain.StatsGroup) (out []domain.StatsRow) {
	for _, row := range rows {
		same := func(o domain.StatsRow) bool { return o.Name == row.Name && o.Start.Equal(row.Start) }
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i].Consumption = out[i].Add(row.Consumption)
			continue
		}
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b domain.StatsRow) int {
		if group == domain.StatsByHour || group == domain.StatsByDay {
			return a.Start.Compare(b.Start)
		}
		if c := b.Amount.Cmp(a.Amount); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// TestMarginsOfOld: what is not included is told, and of an empty table there is no time.
func TestMarginsOfOld(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 60)
	r := NewReader(s.pool, s.meta)
	m, err := r.Margins(t.Context(), marginsOf(domain.StatsByDay, "", 10))
	if err != nil || m.Behind != int64(len(s.all())) || !m.AsOf.IsZero() || m.Total.Requests != 0 {
		t.Errorf("%+v %v", m, err)
	}
	s.project(t, 1, 2)
	m, err = r.Margins(t.Context(), marginsOf(domain.StatsByDay, "", 10))
	var oldest time.Time
	behind := int64(0)
	for _, events := range s.events {
		last := events[len(events)/2-1].Event.OccurredAt
		behind += int64(len(events) - len(events)/2)
		if oldest.IsZero() || last.Before(oldest) {
			oldest = last
		}
	}
	if err != nil || m.Behind != behind || !m.AsOf.Equal(oldest) {
		t.Errorf("%+v, want %d behind %s; %v", m, behind, oldest, err)
	}
}

// lastWithoutCost is the last migration before the statistics had costs.
const lastWithoutCost = 3

// TestUpgradeFillsCosts: a ledger of an older release, its statistics filled, gets its costs by the migration
// and a projector, to the digit; a projector of the older release writes nothing after it.
func TestUpgradeFillsCosts(t *testing.T) {
	t.Parallel()
	w := &world{url: pgtest.Older(t, lastWithoutCost)}
	config, err := pgx.ParseConfig(w.url)
	if err != nil {
		t.Fatal(err)
	}
	if w.meta, err = ledger.Init(t.Context(), config, uuid.New(), worldShards, "USD"); err != nil {
		t.Fatal(err)
	}
	w.owner, w.pool = w.connect(t, "", false, nil), w.connect(t, serviceRole, false, nil)
	p := newPlay(t, w, newShelf(w.meta))
	p.happen(t, 300)
	w.exec(t, `INSERT INTO stats SELECT shard, account, date_trunc('hour', occurred_at), 'm', 'p', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, sum(amount)
		FROM ledger_events WHERE kind = 'commit' GROUP BY 1, 2, 3`)
	w.exec(t, `INSERT INTO projection_positions SELECT 'stats', shard, last_seq, last_hash, last_time FROM ledger_shards`)
	w.exec(t, `SELECT create_projection('stats', 'stats_rebuild')`) // an older release is at a rebuild
	if n, err := migrations.Up(t.Context(), config, ""); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if n := w.count(t, `SELECT count(*) FROM pg_class WHERE relname = 'stats_rebuild' AND relnamespace = current_schema()::regnamespace`); n != 0 {
		t.Error("the older release's rebuild is still there")
	}
	_, err = w.pool.Exec(t.Context(), `INSERT INTO stats (shard, account, hour, model, provider, requests, `+strings.Join(meterColumns(), ", ")+`, amount)
		VALUES (0, 'a', now(), 'm', 'p', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)`)
	if err == nil || !strings.Contains(err.Error(), "23502") {
		t.Errorf("an older release's write: %v", err)
	}
	p.start(t, nil)
	p.happen(t, 60) // what comes meanwhile
	p.reach(t)
	p.wantTrue(t)
	c := RebuildConfig{Owner: config, Meta: w.meta, Ledger: p.ledger, Log: slog.New(slog.DiscardHandler)}
	same, err := Verify(context.WithoutCancel(t.Context()), c, "stats")
	if err != nil || !same[0].Compared || same[0].Differences.Count() != 0 || same[0].Rows == 0 {
		t.Errorf("%+v %v", same, err)
	}
}
