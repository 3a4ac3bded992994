package projections

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
)

// forge makes the events of one account by hand: such as no gateway writes, but the form allows.
func forge(t *testing.T, w *world, account string, datas []domain.Data, amounts ...string) (out []domain.Recorded) {
	t.Helper()
	shard := domain.ShardOf(account, worldShards)
	hash, at := domain.GenesisHash(w.meta.ID, shard), time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for i, d := range datas {
		e := domain.Event{Schema: domain.EventSchema, Shard: shard, Seq: int64(i + 1), ID: uuid.New(), Account: account,
			Currency: "USD", OccurredAt: at.Add(time.Duration(i) * time.Second), Data: d, Amount: domain.MustAmount(amounts[i])}
		switch d.(type) {
		case *domain.MovementData:
			e.Kind, e.Debit, e.Credit = domain.KindCredit, domain.PlatformFunding, domain.AvailableOf(account)
		case *domain.OverageData:
			e.Kind, e.Debit, e.Credit, e.RequestID = domain.KindOverage, domain.AvailableOf(account), domain.PlatformRevenue, uuid.New()
		case *domain.CommitData:
			e.Kind, e.Debit, e.Credit, e.RequestID = domain.KindCommit, domain.ReservedOf(account), domain.PlatformRevenue, uuid.New()
		}
		payload, err := domain.Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		hash = domain.ChainHash(hash, payload)
		out = append(out, domain.Recorded{Event: e, Payload: payload, Hash: hash})
	}
	return out
}

// TestHostileText holds that no text of an event stops a projection: what columns and indexes refuse is
// cleaned and cut, the same way in every batch.
func TestHostileText(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		var datas []domain.Data
		var amounts []string
		for _, text := range []string{"", "a", "a\x00", "\x00", "\u2028\u202e", `"\'; DROP TABLE stats`, "NULL", "{,}", "\U0010ffff", strings.Repeat("é", 8000)} {
			datas = append(datas, &domain.CommitData{ModelServed: text, ModelRequested: text, Provider: text, Surface: text},
				&domain.MovementData{Reference: text, Reason: text})
			amounts = append(amounts, "1", "2")
		}
		events := forge(t, w, accountOf(0), datas, amounts...)
		w.mustApply(t, "", events)
		suffix := w.tables(t)
		for i := range events {
			w.mustApply(t, suffix, events[i:i+1])
		}
		w.wantSame(t, "", suffix)
		if n := w.count(t, `SELECT requests FROM stats WHERE model = 'a'`); n != 2 {
			t.Errorf("a and a with U+0000 are %d requests", n)
		}
		if n := w.count(t, `SELECT max(octet_length(model)) FROM stats`); n != domain.MaxReference {
			t.Errorf("the longest model has %d bytes", n)
		}
		if n := w.count(t, `SELECT count(*) FROM transactions WHERE model = '"\''; DROP TABLE stats'`); n != 1 {
			t.Errorf("a quoted model is there %d times", n)
		}
	})
}

// TestHugeAmounts holds that what many events add up to may leave the range of amounts, as long as no
// balance does.
func TestHugeAmounts(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		const huge = "99999999999999999999999999.999999999999"
		grant, taken := &domain.MovementData{Reference: "r"}, &domain.OverageData{Reason: domain.OverageLate}
		datas, amounts := []domain.Data{grant}, []string{huge}
		for range 3 { // down to the lowest balance and up to the highest, twice the range each time
			datas, amounts = append(datas, taken, taken, grant, grant), append(amounts, huge, huge, huge, huge)
		}
		for i := range datas { // statistics cannot hold this much in one hour
			if o, ok := datas[i].(*domain.OverageData); ok {
				copied := *o
				copied.ModelServed = string(rune('a' + i))
				datas[i] = &copied
			}
		}
		events := forge(t, w, accountOf(0), datas, amounts...)
		w.mustApply(t, "", events)
		suffix := w.tables(t)
		for i := range events {
			w.mustApply(t, suffix, events[i:i+1])
		}
		w.wantSame(t, "", suffix)
		pairs := w.tables(t)
		w.mustApply(t, pairs, events[:1])
		for i := 1; i < len(events); i += 2 { // each pair is more than an amount
			w.mustApply(t, pairs, events[i:i+2])
		}
		w.wantSame(t, "", pairs)
		if got := w.text(t, `SELECT available::text FROM balances`); got != huge {
			t.Errorf("the balance is %s", got)
		}
	})
}

// TestCountsBeyondRange holds that counts which cannot be added up are an error, in one batch or in
// two, and never a wrong sum.
func TestCountsBeyondRange(t *testing.T) {
	bothModes(t, func(t *testing.T, w *world) {
		d := &domain.CommitData{ModelServed: "m"}
		d.Meters[domain.Input] = math.MaxInt64 - 1
		events := forge(t, w, accountOf(0), []domain.Data{d, d}, "1", "1")
		err := w.apply(w.steps(t, "", events)...)
		if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.Code != "22003" {
			t.Errorf("in one batch: %v", err)
		}
		w.mustApply(t, "", events[:1])
		err = w.apply(w.steps(t, "", events[1:])...)
		if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.Code != "22003" {
			t.Errorf("in two: %v", err)
		}
		if n := w.count(t, `SELECT meter_input FROM stats`); n != math.MaxInt64-1 {
			t.Errorf("the count is %d", n)
		}
	})
}

// TestTableNames holds that a table may have any name.
func TestTableNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	const suffix = ` "; DROP TABLE stats; --`
	for _, p := range all {
		w.exec(t, `SELECT create_projection($1, $2)`, p.name(), p.name()+suffix)
	}
	w.mustApply(t, suffix, someEvents(t, w, 30))
	for _, p := range all {
		if w.count(t, `SELECT count(*) FROM `+quoted(p.name()+suffix)) == 0 || w.count(t, `SELECT count(*) FROM `+p.name()) != 0 {
			t.Errorf("%s: the rows are elsewhere", p.name())
		}
	}
}
