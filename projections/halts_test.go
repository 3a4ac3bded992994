package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
)

// onlyIn says whether what stopped is all projections of one shard, and nothing else.
func onlyIn(stopped map[place]error, shard int32) bool {
	for at := range stopped {
		if at.shard != shard {
			return false
		}
	}
	return len(stopped) == len(all)
}

// crimes are records that must stop their shard: made of the record that should stand there.
var crimes = map[string]func(r *topic.Record){
	"another hash":      func(r *topic.Record) { r.Hash[0] ^= 1 },
	"other bytes":       func(r *topic.Record) { r.Payload = append(slices.Clone(r.Payload), ' ') },
	"another ledger's":  func(r *topic.Record) { r.Source += "0" },
	"nobody's":          func(r *topic.Record) { r.Source = "" },
	"nothing":           func(r *topic.Record) { r.Payload = nil },
	"a tombstone":       func(r *topic.Record) { r.Payload, r.Seq = nil, 0 },
	"not a position":    func(r *topic.Record) { r.Seq = 0 },
	"another's account": func(r *topic.Record) { r.Key += "x" },
	"a newer release's": func(r *topic.Record) {
		r.Payload = []byte(strings.Replace(string(r.Payload), `"schema":1`, `"schema":2`, 1))
	},
	"from far ahead": func(r *topic.Record) {
		r.Payload = []byte(strings.Replace(string(r.Payload), fmt.Sprintf(`"seq":%d`, r.Seq), `"seq":1000000`, 1))
		r.Seq = 1000000
	},
}

// TestBrokenRecord holds that a record which is not what it must be stops its shard, for all
// projections, and no other; and that a topic that was made anew sets it going again.
func TestBrokenRecord(t *testing.T) {
	t.Parallel()
	for name, crime := range crimes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, false)
			s := newShelf(w.meta)
			p := newPlay(t, w, s)
			_, d := p.start(t, nil)
			p.happen(t, 30)
			p.reach(t)
			before := p.positions(t, "stats")
			p.history.some(t, 40)
			shard := int32(1)
			victim := p.history.events[shard][before[shard].seq+1]
			good := p.history.events[shard][before[shard].seq : before[shard].seq+1]
			bad := s.record(victim)
			crime(bad)
			s.publish(t, good)
			s.put(bad)
			p.published[shard] = int(before[shard].seq) + 1 // the right one follows
			p.publish(t)
			eventually(t, "the shard stops and the others go on", func() bool { return onlyIn(d.stopped(), shard) && p.behind(t) == 3 })
			for _, live := range all {
				if at := p.positions(t, live.name())[shard]; at.seq != before[shard].seq+1 {
					t.Errorf("%s stands at %d, not before the record", live.name(), at.seq)
				}
			}
			s.recreate()
			clear(p.published)
			p.publish(t)
			p.reach(t)
			eventually(t, "it is told that they go on", func() bool { return len(d.stopped()) == 0 })
			p.wantTrue(t)
			if len(d.changed()) != 6 {
				t.Errorf("what was told: %q", d.changed())
			}
		})
	}
}

// TestDroppedTable holds that a projection whose table is gone stops alone, and catches up on a new one.
func TestDroppedTable(t *testing.T) {
	onEachTopic(t, func(t *testing.T, w *world, s source) {
		p := newPlay(t, w, s)
		_, d := p.start(t, nil)
		p.happen(t, 30)
		p.reach(t)
		p.exec(t, `DROP TABLE balances`)
		for range 3 {
			p.happen(t, 10)
			p.reach(t, "stats", "transactions")
		}
		for at, err := range d.stopped() {
			if at.projection != "balances" || !strings.Contains(err.Error(), "42P01") {
				t.Errorf("%v: %v", at, err)
			}
		}
		if len(d.stopped()) != worldShards {
			t.Errorf("stopped: %v", d.stopped())
		}
		p.exec(t, `SELECT create_projection('balances', 'balances')`)
		p.exec(t, `DELETE FROM projection_positions WHERE projection = 'balances'`)
		p.reach(t)
		eventually(t, "it is told that balances goes on", func() bool { return len(d.stopped()) == 0 })
		p.wantTrue(t)
		if len(d.changed()) != 2*worldShards || d.restarted() != 0 {
			t.Errorf("what was told: %q, and %v", d.changed(), d.reasons())
		}
	})
}

// TestBrokenPosition holds that one projection whose hash is not the ledger's stops alone, in that shard.
func TestBrokenPosition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	p := newPlay(t, w, newShelf(w.meta))
	p.happen(t, 30)
	projector, _ := p.start(t, nil)
	p.reach(t)
	projector.Close()
	p.exec(t, `UPDATE projection_positions SET hash = sha256(hash) WHERE projection = 'stats' AND shard = 2`)
	_, d := p.start(t, nil)
	p.happen(t, 30)
	p.reach(t, "balances", "transactions")
	eventually(t, "one is behind", func() bool { return p.behind(t) == 1 })
	if stopped := d.stopped(); len(stopped) != 1 || !errors.Is(stopped[place{"stats", 2}], errBroken) {
		t.Errorf("stopped: %v", stopped)
	}
	p.exec(t, `UPDATE projection_positions p SET hash = e.hash FROM ledger_events e WHERE e.shard = p.shard AND e.seq = p.seq`)
	p.reach(t)
	p.wantTrue(t)
}

// TestPastTheBreak holds that projections that were rebuilt past a broken record are followed from there.
func TestPastTheBreak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	s := newShelf(w.meta)
	p := newPlay(t, w, s)
	_, d := p.start(t, nil)
	p.happen(t, 20)
	p.reach(t)
	at := p.positions(t, "stats")[0]
	p.history.some(t, 30)
	bad := s.record(p.history.events[0][at.seq])
	bad.Hash[7] ^= 1
	s.put(bad)
	eventually(t, "the shard stops", func() bool { return onlyIn(d.stopped(), 0) })
	p.skip()
	for shard, from := range p.positions(t, "stats") {
		p.mustApply(t, "", p.history.events[int32(shard)][from.seq:])
	}
	p.happen(t, 30)
	p.reach(t)
	p.happen(t, 10)
	p.reach(t)
	eventually(t, "it is told that they go on", func() bool { return len(d.stopped()) == 0 })
	p.wantTrue(t)
}

// holey is a ledger that lacks events.
type holey struct {
	Ledger
	hidden func(e *domain.Event) bool
}

func (h holey) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	events, err := h.Ledger.Events(ctx, shard, after, ledger.MaxEvents)
	events = slices.DeleteFunc(events, func(r domain.Recorded) bool { return h.hidden(&r.Event) })
	return events[:min(limit, len(events))], err
}

// TestGapInTheLedger holds that what neither the topic nor the ledger has stops the shard.
func TestGapInTheLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	p := newPlay(t, w, newShelf(w.meta))
	p.happen(t, 20)
	missing := p.positions(t, "stats")[0].seq + int64(len(p.history.events[0])) + 2
	p.history.some(t, 60)
	for shard := range int32(worldShards) { // the topic lacks it too, and what is around it
		p.published[shard] += 4
	}
	_, d := p.start(t, func(c *Config) {
		c.Ledger = holey{c.Ledger, func(e *domain.Event) bool { return e.Shard == 0 && e.Seq == missing }}
	})
	p.publish(t)
	eventually(t, "the shard stops and the others go on", func() bool { return onlyIn(d.stopped(), 0) && p.behind(t) == 3 })
	for _, err := range d.stopped() {
		if !errors.Is(err, errBroken) {
			t.Error(err)
		}
	}
	if at := p.positions(t, "stats")[0]; at.seq >= missing {
		t.Errorf("it went past %d to %d", missing, at.seq)
	}
}

// TestAheadOfTheLedger holds that projections which have what the ledger has not stop, in that shard.
func TestAheadOfTheLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	p := newPlay(t, w, newShelf(w.meta))
	p.happen(t, 30)
	projector, _ := p.start(t, nil)
	p.reach(t)
	projector.Close()
	p.exec(t, `UPDATE projection_positions SET seq = seq + 1000 WHERE shard = 1`)
	const ofShard = `(SELECT * FROM transactions WHERE shard = 1)`
	before := p.contents(t, ofShard)
	p.happen(t, 40)
	projector, d := p.start(t, nil)
	eventually(t, "the shard stops and the others go on", func() bool { return onlyIn(d.stopped(), 1) && p.behind(t) == 3 })
	p.happen(t, 20)
	eventually(t, "the others go on", func() bool { return p.behind(t) == 3 })
	if p.contents(t, ofShard) != before {
		t.Error("something was applied")
	}
	if d.restarted() != 0 {
		t.Errorf("it began again: %v", d.reasons())
	}
	projector.Close()
	if len(d.stopped()) != 0 {
		t.Errorf("a projector that has ended tells of what stopped: %v", d.stopped())
	}
}

// TestSetBack holds that a table which was exchanged for one that is behind catches up, though nothing
// else happens.
func TestSetBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	p := newPlay(t, w, newShelf(w.meta))
	p.happen(t, 20)
	_, d := p.start(t, nil)
	p.reach(t)
	p.save(t)
	p.happen(t, 30)
	p.reach(t)
	p.exec(t, `BEGIN; LOCK projection_positions;
		DELETE FROM stats; INSERT INTO stats TABLE saved_stats;
		DELETE FROM projection_positions WHERE projection = 'stats';
		INSERT INTO projection_positions SELECT * FROM saved_projection_positions WHERE projection = 'stats'; COMMIT`)
	p.reach(t)
	p.wantTrue(t)
	if len(d.changed())+d.restarted() != 0 {
		t.Errorf("what was told: %q, %v", d.changed(), d.reasons())
	}
}

// TestRebuiltToTheEnd holds that a projection that was rebuilt up to the last event is told to go on,
// though there is nothing left for it to do.
func TestRebuiltToTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	p := newPlay(t, w, newShelf(w.meta))
	_, d := p.start(t, nil)
	p.happen(t, 20)
	p.reach(t)
	p.exec(t, `DROP TABLE balances`)
	p.happen(t, 30)
	p.reach(t, "stats", "transactions")
	eventually(t, "it stops", func() bool { return len(d.stopped()) == worldShards })
	err := pgx.BeginFunc(t.Context(), w.owner, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `DELETE FROM projection_positions WHERE projection = 'balances'`); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), `SELECT create_projection('balances', 'balances')`); err != nil {
			return err
		}
		var steps []step
		for shard, events := range p.history.events {
			steps = append(steps, step{projection: balances{}, table: "balances", shard: shard, from: noPosition(w.meta.ID, shard), events: events})
		}
		return apply(t.Context(), tx, steps)
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return len(d.stopped()) == 0 })
	p.wantTrue(t)
}
