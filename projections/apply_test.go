package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// bothModes runs a test directly and as behind a transaction pooler.
func bothModes(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for name, pooled := range map[string]bool{"direct": false, "pooled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, pooled))
		})
	}
}

// TestSplits applies random histories in random batches: it must make no difference which, and the
// tables must be what the ledger says.
func TestSplits(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		whole, split := w.tables(t), w.tables(t)
		rapid.Check(t, func(t *rapid.T) {
			h, m := ofMemory(t, w.meta.ID, worldShards, 4)
			defer m.Close()
			h.some(t, rapid.IntRange(0, 60).Draw(t, "things"))
			w.empty(t, whole, split)
			for _, events := range h.events {
				w.mustApply(t, whole, events)
				for len(events) > 0 {
					n := rapid.IntRange(1, len(events)).Draw(t, "batch")
					w.mustApply(t, split, events[:n])
					events = events[n:]
				}
			}
			w.wantSame(t, whole, split)
			w.wantAccounts(t, whole, h, m)
			w.wantSums(t, whole, h)
		})
	})
}

// wantAccounts holds the balances against a ledger's accounts.
func (w *world) wantAccounts(t tester, suffix string, h *history, m *ledger.Memory) {
	t.Helper()
	for _, name := range h.accounts {
		a, err := m.Account(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		got := w.text(t, `SELECT concat_ws(' ', trim_scale(available), trim_scale(reserved), trim_scale(credit_limit), frozen, last_seq)
			FROM balances`+suffix+` WHERE shard = $1 AND account = $2`, domain.ShardOf(name, worldShards), name)
		frozen := map[bool]string{true: "t", false: "f"}[a.Frozen]
		if want := fmt.Sprint(a.Available, a.Reserved, a.CreditLimit, " ", frozen, " ", a.LastSeq); strings.Join(strings.Fields(want), " ") != got {
			t.Errorf("%s: %s, and the ledger has %s", name, got, want)
		}
	}
}

// wantSums holds the tables against each other and against the events.
func (w *world) wantSums(t tester, suffix string, h *history) {
	t.Helper()
	if n := w.count(t, `SELECT count(*) FROM balances`+suffix+` b LEFT JOIN
		(SELECT shard, account, sum(amount) FROM transactions`+suffix+` GROUP BY 1, 2) t USING (shard, account)
		WHERE b.available + b.reserved <> coalesce(t.sum, 0)`); n != 0 {
		t.Errorf("%d accounts' transactions do not sum to their balance", n)
	}
	var revenue, cost domain.Amount
	var requests int64
	var meters domain.Meters
	for _, r := range h.all() {
		if r.Event.Credit == domain.PlatformRevenue {
			revenue = revenue.Add(r.Event.Amount)
		}
		if d, ok := r.Event.Data.(*domain.CommitData); ok { // the overage repeats the meters of its commit
			requests++
			for _, line := range d.CostLines {
				cost = cost.Add(line.Amount)
			}
			for m, n := range d.Meters {
				meters[m] += n
			}
		}
	}
	sums := "concat_ws(' ', trim_scale(coalesce(sum(amount), 0)), trim_scale(coalesce(sum(cost), 0)), coalesce(sum(requests), 0)"
	for _, column := range meterColumns() {
		sums += ", coalesce(sum(" + column + "), 0)"
	}
	want := strings.Trim(fmt.Sprint(revenue, " ", cost, " ", requests, " ", meters), "]")
	want = strings.ReplaceAll(want, "[", "")
	if got := w.text(t, "SELECT "+sums+") FROM stats"+suffix); got != want {
		t.Errorf("the statistics sum to %s, the events to %s", got, want)
	}
}

// someEvents are those of the shard of a short history that has the most.
func someEvents(t *testing.T, w *world, things int) []domain.Recorded {
	t.Helper()
	m := ledger.NewMemory(w.meta.ID, worldShards, "USD", steadyClock())
	t.Cleanup(m.Close)
	h := newHistory(t, &counter{}, 3, m.Append)
	h.some(t, things)
	var most []domain.Recorded
	for _, events := range h.events {
		if len(events) > len(most) {
			most = events
		}
	}
	return most
}

func TestApplyOnce(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		events := someEvents(t, w, 60)
		half := len(events) / 2
		first := w.steps(t, "", events[:half])
		if err := w.apply(first...); err != nil {
			t.Fatal(err)
		}
		second := w.steps(t, "", events[half:])
		before := w.everything(t)
		if err := w.apply(first...); !errors.Is(err, errMoved) || w.everything(t) != before {
			t.Errorf("the beginning, applied twice: %v", err)
		}
		if err := w.apply(second...); err != nil {
			t.Fatal(err)
		}
		before = w.everything(t)
		if err := w.apply(second...); !errors.Is(err, errMoved) || w.everything(t) != before {
			t.Errorf("the end, applied twice: %v", err)
		}
	})
}

// TestApplyRace has many apply the same step at once: one may.
func TestApplyRace(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		events := someEvents(t, w, 80)
		for i := 0; i < len(events); i += 20 {
			batch := events[i:min(i+20, len(events))]
			steps := w.steps(t, "", batch)
			results := make([]error, 4)
			var wait sync.WaitGroup
			for n := range results {
				mine := slices.Clone(steps)
				if n%2 == 1 {
					slices.Reverse(mine)
				}
				wait.Go(func() { results[n] = w.apply(mine...) })
			}
			wait.Wait()
			done := 0
			for _, err := range results {
				if err == nil {
					done++
				} else if !errors.Is(err, errMoved) {
					t.Errorf("a loser: %v", err)
				}
			}
			if done != 1 {
				t.Fatalf("%d of %d took the step", done, len(results))
			}
		}
		suffix := w.tables(t)
		w.mustApply(t, suffix, events)
		w.wantSame(t, "", suffix)
	})
}

// TestApplyRefuses holds that what does not follow changes nothing, whatever else is asked with it.
func TestApplyRefuses(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		events := someEvents(t, w, 60)
		w.mustApply(t, "", events[:10])
		for name, test := range map[string]struct {
			change func(*step)
			want   error
		}{
			"a gap":         {func(s *step) { s.events = events[11:15] }, errBroken},
			"a gap inside":  {func(s *step) { s.events = append(slices.Clone(events[10:12]), events[13:15]...) }, errBroken},
			"a repeat":      {func(s *step) { s.events = events[9:15] }, errBroken},
			"no events":     {func(s *step) { s.events = nil }, errBroken},
			"another shard": {func(s *step) { s.shard = (s.shard + 1) % worldShards }, errBroken},
			"another hash":  {func(s *step) { s.events = slices.Clone(s.events); s.events[2].Hash[0] ^= 1 }, errBroken},
			"other bytes": {func(s *step) {
				s.events = slices.Clone(s.events)
				s.events[2].Payload = append(slices.Clone(s.events[2].Payload), ' ')
			}, errBroken},
			"another past": {func(s *step) { s.from.hash[5] ^= 1 }, errBroken},
			"behind":       {func(s *step) { s.from = position{seq: 5, hash: events[4].Hash}; s.events = events[5:15] }, errMoved},
			"ahead":        {func(s *step) { s.from = position{seq: 11, hash: events[10].Hash}; s.events = events[11:15] }, errMoved},
		} {
			t.Run(name, func(t *testing.T) {
				for i, p := range all {
					steps := w.steps(t, "", events[10:15])
					test.change(&steps[i])
					before := w.everything(t)
					if err := w.apply(steps...); !errors.Is(err, test.want) {
						t.Errorf("%s: %v, not %v", p.name(), err, test.want)
					}
					if w.everything(t) != before {
						t.Errorf("%s: something was written", p.name())
					}
				}
			})
		}
		w.mustApply(t, "", events[10:])
	})
}

// TestTablesThatAreNot holds that tables which are not what their positions say are found out before
// anything is added to them.
func TestTablesThatAreNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	events := someEvents(t, w, 60)
	w.mustApply(t, "", events[:20])
	before := map[string]string{}
	for _, p := range all {
		before[p.name()] = w.contents(t, p.name())
	}
	w.exec(t, `DELETE FROM projection_positions`)
	for _, s := range w.steps(t, "", events) {
		if err := w.apply(s); !errors.Is(err, errBroken) || w.contents(t, s.table) != before[s.table] {
			t.Errorf("%s without its positions: %v", s.table, err)
		}
	}
	w.exec(t, `INSERT INTO projection_positions SELECT 'balances', $1, 10, $2, 'epoch'`, events[0].Event.Shard, events[9].Hash[:])
	late := w.steps(t, "", events[10:])[0]
	if err := w.apply(late); !errors.Is(err, errBroken) || w.contents(t, "balances") != before["balances"] {
		t.Errorf("balances with a position that is too low: %v", err)
	}
}

// TestColumns holds what projections say of their tables against the tables.
func TestColumns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for _, p := range all {
		key, others := p.columns()
		got := w.text(t, `SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
			WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped`, p.name())
		if want := strings.Join(append(key, others...), " "); got != want {
			t.Errorf("%s has %s, not %s", p.name(), got, want)
		}
		got = w.text(t, `SELECT string_agg(a.attname, ' ' ORDER BY k.n) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(num, n), pg_attribute a
			WHERE i.indrelid = $1::text::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.num`, p.name())
		if want := strings.Join(key, " "); got != want {
			t.Errorf("%s has the key %s, not %s", p.name(), got, want)
		}
		if found, err := find(p.name()); err != nil || found != p {
			t.Errorf("finding %s: %v, %v", p.name(), found, err)
		}
	}
	if _, err := find("none"); err == nil {
		t.Error("a projection none was found")
	}
}

// TestReadPositions reads those of tables with all, some and no positions.
func TestReadPositions(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		events := someEvents(t, w, 20)
		shard := events[0].Event.Shard
		w.mustApply(t, "", events)
		last := events[len(events)-1]
		for n, p := range w.positions(t, "stats") {
			want := noPosition(w.meta.ID, int32(n))
			if int32(n) == shard {
				want = position{seq: last.Event.Seq, hash: last.Hash, at: last.Event.OccurredAt}
			}
			if p != want {
				t.Errorf("shard %d is at %+v, not %+v", n, p, want)
			}
		}
		if none := w.positions(t, "nothing"); len(none) != worldShards || none[2] != noPosition(w.meta.ID, 2) {
			t.Errorf("a table without positions: %+v", none)
		}
		w.exec(t, `INSERT INTO projection_positions SELECT 'odd', $1, 1, $2, 'epoch'`, worldShards, last.Hash[:])
		_, err := w.tryPositions("odd")
		if !errors.Is(err, errBroken) {
			t.Errorf("a position in a shard that is not: %v", err)
		}
	})
}
