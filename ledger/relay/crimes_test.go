package relay

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// owner is a connection that may do to the ledger what nobody should.
func (w *world) owner() *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close(w.t.Context()) })
	return conn
}

func (w *world) crime(sql ...string) {
	w.t.Helper()
	conn := w.owner()
	defer conn.Close(w.t.Context())
	for _, s := range append([]string{`ALTER TABLE ledger_events DISABLE TRIGGER ALL`}, sql...) {
		if _, err := conn.Exec(w.t.Context(), s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
}

// TestLedgerCrimes does to the ledger what must stop a shard loudly, before or while it is published;
// nothing of that shard may be published then, and the others must go on.
func TestLedgerCrimes(t *testing.T) {
	t.Parallel()
	const cutTail = `WITH gone AS (DELETE FROM ledger_events WHERE shard = 1 AND seq > 6)
		UPDATE ledger_shards SET last_seq = 6, last_hash = (SELECT hash FROM ledger_events WHERE shard = 1 AND seq = 6) WHERE shard = 1`
	for name, crime := range map[string]struct {
		published bool // before the crime
		sql       []string
		want      error
	}{
		"a gap": {false, []string{`CREATE TABLE kept AS SELECT * FROM ledger_events WHERE shard = 1 AND seq = 5`,
			`DELETE FROM ledger_events WHERE shard = 1 AND seq = 5`}, ErrGap},
		"a first event that is gone": {false, []string{`DELETE FROM ledger_events WHERE shard = 1 AND seq = 1`}, ErrGap},
		"last events that are gone":  {false, []string{`DELETE FROM ledger_events WHERE shard = 1 AND seq > 6`}, ErrGap},
		"another hash":               {false, []string{`UPDATE ledger_events SET hash = sha256(hash) WHERE shard = 1 AND seq = 5`}, ErrDiverged},
		"another payload":            {false, []string{`UPDATE ledger_events SET payload = payload || '\x20' WHERE shard = 1 AND seq = 5`}, ErrDiverged},
		"bytes that are no event":    {false, []string{`UPDATE ledger_events SET payload = '\x00' WHERE shard = 1 AND seq = 5`}, domain.ErrEvent},
		"a lost tail":                {true, []string{cutTail}, ErrDiverged},
		"a last event that is other": {true, []string{`UPDATE ledger_shards SET last_hash = sha256(last_hash) WHERE shard = 1`,
			`UPDATE ledger_events SET hash = sha256(hash) WHERE (shard, seq) = (SELECT 1, max(seq) FROM ledger_events WHERE shard = 1)`}, ErrDiverged},
		"a last payload that is other": {true, []string{`UPDATE ledger_shards SET last_hash = sha256(last_hash) WHERE shard = 1`,
			`UPDATE ledger_events SET payload = payload || '\x20' WHERE (shard, seq) = (SELECT 1, max(seq) FROM ledger_events WHERE shard = 1)`}, ErrDiverged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for range 5 {
				w.must(w.one(w.onShard(1)))
			}
			var p *process
			if crime.published {
				p = w.start()
				w.settle()
				w.wantKnown(p)
			}
			w.crime(crime.sql...)
			if p == nil {
				p = w.start()
			}
			eventually(t, "it has stopped", func() bool { return p.saw(crime.want) })
			before := w.records(1)
			if want := map[bool]int{true: 10}[crime.published]; before != want {
				t.Errorf("%d events of the shard are in the topic, not %d", before, want)
			}
			w.must(w.one(w.onShard(2)))
			eventually(t, "other shards go on", func() bool { return w.records(2) == 2 })
			again := len(p.restarted())
			eventually(t, "it has tried again", func() bool { return len(p.restarted()) > again })
			if after := w.records(1); after != before {
				t.Errorf("%d more events of the shard came to the topic", after-before)
			}
			if name == "a gap" {
				w.crime(`INSERT INTO ledger_events SELECT * FROM kept`)
				w.settle()
			}
		})
	}
}

// TestForeignTail does not go on behind what is no record of a relay.
func TestForeignTail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.one(w.onShard(1)))
	p := w.start()
	w.settle()
	p.end()
	w.produce(1, "an intruder's")
	w.must(w.one(w.onShard(1)))
	p = w.start()
	eventually(t, "it has stopped", func() bool { return p.saw(ErrDiverged) })
	if n := w.records(1); n != 3 {
		t.Errorf("the partition has %d records", n)
	}
}
