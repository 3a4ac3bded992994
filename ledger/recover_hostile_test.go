package ledger

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/migrations/pgtest"
)

func wantError(t *testing.T, name string, err, want error, text string) {
	t.Helper()
	if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, not %v with %q", name, err, want, text)
	}
}

// tape is a shard's records in hostile hands; record n is at index n-1. Six are there, and the ledger
// has the first four.
type tape struct {
	*testing.T
	meta    Meta
	records []*topic.Record
}

// rehash makes the hashes from record seq on follow.
func (t *tape) rehash(seq int) {
	prev := domain.GenesisHash(t.meta.ID, lostShard)
	for i, r := range t.records {
		if i >= seq-1 {
			r.Hash = domain.ChainHash(prev, r.Payload)
		}
		prev = r.Hash
	}
}

// edit changes text in a record's bytes.
func (t *tape) edit(seq int, old, new string) {
	t.Helper()
	r := t.records[seq-1]
	if !bytes.Contains(r.Payload, []byte(old)) {
		t.Fatalf("%s has no %s", r.Payload, old)
	}
	r.Payload = bytes.Replace(r.Payload, []byte(old), []byte(new), 1)
}

// fit edits a record's bytes and makes the hashes follow.
func (t *tape) fit(seq int, old, new string) {
	t.Helper()
	t.edit(seq, old, new)
	t.rehash(seq)
}

// instead puts an event in place of a record's and makes the hashes follow.
func (t *tape) instead(seq int, change func(e *domain.Event)) {
	t.Helper()
	r := t.records[seq-1]
	e, err := domain.Decode(r.Payload)
	if err != nil {
		t.Fatal(err)
	}
	change(e)
	if r.Payload, err = domain.Encode(e); err != nil {
		t.Fatal(err)
	}
	r.Key = e.Account
	t.rehash(seq)
}

// become makes an event one of another kind.
func become(kind domain.Kind, data domain.Data, amount string) func(e *domain.Event) {
	return func(e *domain.Event) {
		e.Kind, e.Data, e.Amount = kind, data, domain.MustAmount(amount)
		e.RequestID = uuid.New()
		e.Debit, e.Credit = domain.ReservedOf(e.Account), domain.AvailableOf(e.Account)
		if kind == domain.KindCommit {
			e.Credit = domain.PlatformRevenue
		}
		if kind == domain.KindAccount {
			e.Debit, e.RequestID = e.Credit, uuid.Nil
		}
	}
}

// hostile are records that nobody may append, all in one batch with good ones: nothing may be written.
var hostile = []struct {
	name   string
	tamper func(t *tape)
	want   error
	text   string
}{
	{"another partition's", func(t *tape) { t.records[4].Shard++ }, ErrRecord, "1:5 at offset 14"},
	{"another ledger's", func(t *tape) { t.records[4].Source = "/llm-gateway/" + uuid.NewString() }, ErrRecord, "1:5"},
	{"of no source", func(t *tape) { t.records[5].Source = "" }, ErrRecord, "1:6"},
	{"one missing", func(t *tape) { t.records = slices.Delete(t.records, 4, 5) }, ErrRecord, "1:6 at offset 15: it comes after 1:4"},
	{"one missing that the ledger has", func(t *tape) { t.records = slices.Delete(t.records, 2, 3) }, ErrRecord, "1:4 at offset 13: it comes after 1:2"},
	{"one twice", func(t *tape) { t.records = slices.Insert(t.records, 5, t.records[4]) }, ErrRecord, "1:5 at offset 14: it comes after 1:5"},
	{"two the other way round", func(t *tape) { t.records[4], t.records[5] = t.records[5], t.records[4] }, ErrRecord, "it comes after 1:4"},
	{"no place", func(t *tape) { t.records[4].Seq = 0 }, ErrRecord, "1:0 at offset 14"},
	{"a first place below 1", func(t *tape) { t.records[0].Seq = -4 }, ErrRecord, "offset 10"},
	{"the beginning missing", func(t *tape) { t.records = t.records[5:] }, ErrRecord, "the topic begins with it, the ledger ends at 4"},
	{"a byte", func(t *tape) { t.edit(5, `"three"`, `"thref"`) }, ErrRecord, "1:5 at offset 14: its hash"},
	{"a byte that the ledger has", func(t *tape) { t.edit(3, `"one"`, `"own"`) }, ErrRecord, "1:3 at offset 12: its hash"},
	{"a hash", func(t *tape) { t.records[4].Hash[31]++ }, ErrRecord, "1:5"},
	{"the last hash", func(t *tape) { t.records[5].Hash[0]++ }, ErrRecord, "1:6"},
	{"a past of its own", func(t *tape) { t.fit(3, `"amount":"1"`, `"amount":"9"`) }, ErrFork, "at 1:3"},
	{"a past of its own, to the head only", func(t *tape) { t.fit(4, `"amount":"2"`, `"amount":"9"`) }, ErrFork, "at 1:4"},
	{"a past that begins at the head", func(t *tape) {
		t.records = t.records[3:]
		t.records[0].Hash[0]++
		t.records[1].Hash = domain.ChainHash(t.records[0].Hash, t.records[1].Payload)
		t.records[2].Hash = domain.ChainHash(t.records[1].Hash, t.records[2].Payload)
	}, ErrFork, "at 1:4"},
	{"a past that ends before", func(t *tape) {
		t.records = t.records[4:]
		t.records[0].Hash = domain.ChainHash(domain.Hash{}, t.records[0].Payload)
	}, ErrRecord, "1:5 at offset 14: its hash"},
	{"no event", func(t *tape) { t.fit(5, `{"schema"`, `["schema"`) }, domain.ErrEvent, "1:5"},
	{"nothing", func(t *tape) { t.records[4].Payload = nil; t.rehash(5) }, domain.ErrEvent, "1:5"},
	{"a newer schema", func(t *tape) { t.fit(5, `"schema":1`, `"schema":2`) }, domain.ErrSchemaTooNew, "1:5"},
	{"another seq inside", func(t *tape) { t.fit(5, `"seq":5`, `"seq":6`) }, ErrRecord, "its event says 1:6"},
	{"another shard inside", func(t *tape) { t.fit(5, `"shard":1`, `"shard":2`) }, ErrRecord, "its event says 2:5"},
	{"another key", func(t *tape) { t.records[4].Key = "mallory" }, ErrRecord, `its key is "mallory"`},
	{"an account of another shard", func(t *tape) {
		t.instead(5, func(e *domain.Event) { e.Account, e.Credit = inOther, domain.AvailableOf(inOther) })
	}, ErrRecord, "the account bob belongs to shard 2"},
	{"another currency", func(t *tape) { t.fit(5, `"USD"`, `"EUR"`) }, ErrRecord, "kept in USD"},
	{"an earlier time", func(t *tape) { t.fit(5, `"occurred_at":"2`, `"occurred_at":"1`) }, ErrRecord, "1:5 occurred at 1"},
	{"too many bytes", func(t *tape) {
		t.fit(5, `{"schema"`, `{"more":"`+strings.Repeat("x", domain.MaxPayload)+`","schema"`)
	}, ErrRecord, "more than an event has"},
	{"a reference again", func(t *tape) { t.fit(5, `"three"`, `"two"`) }, domain.ErrImpossible, `reference "two" is used twice`},
	{"a reference twice in one batch", func(t *tape) { t.fit(6, `"four"`, `"three"`) }, domain.ErrImpossible, `reference "three" is used twice`},
	{"an account that is not open", func(t *tape) {
		t.instead(5, func(e *domain.Event) { e.Account, e.Credit = "ivan", domain.AvailableOf("ivan") })
	}, domain.ErrImpossible, "ivan: the account is not open"},
	{"an account opened again", func(t *tape) {
		t.instead(5, become(domain.KindAccount, &domain.AccountData{Opened: true, Actor: "x"}, "0"))
	}, domain.ErrImpossible, "open already"},
	{"a commit of nothing reserved", func(t *tape) {
		t.instead(6, become(domain.KindCommit, &domain.CommitData{Surface: "test", UsageSource: domain.UsageProvider}, "1"))
	}, domain.ErrImpossible, "has no reservation"},
	{"a refund of nothing reserved", func(t *tape) {
		t.instead(6, become(domain.KindRefund, &domain.RefundData{Reason: domain.RefundExpired}, "1"))
	}, domain.ErrImpossible, "has no reservation"},
	{"an event's id again", func(t *tape) {
		first, err := domain.Decode(t.records[3].Payload)
		if err != nil {
			t.Fatal(err)
		}
		t.instead(6, func(e *domain.Event) { e.ID = first.ID })
	}, ErrRecord, "ledger_events_id"},
	{"more than a balance holds", func(t *tape) {
		t.fit(5, `"amount":"3"`, `"amount":"99999999999999999999999999"`)
	}, ErrRecord, "22003"},
}

// TestRecoverHostile wants each to be refused and named, dry as in earnest, and nothing written.
func TestRecoverHostile(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	h.restore(lostShard)
	p := open(t, Config{URL: h.url})
	all := h.topic.records[lostShard]
	for _, test := range hostile {
		for _, dry := range []bool{true, false} {
			if dry && (test.text == "22003" || test.text == "ledger_events_id") {
				continue // what only Postgres can say
			}
			tampered := &tape{t, h.ledger.Meta(), nil}
			for _, r := range all {
				copied := *r
				tampered.records = append(tampered.records, &copied)
			}
			test.tamper(tampered)
			h.topic.records[lostShard] = tampered.records
			got, err := p.Recover(t.Context(), lostShard, h.topic, RecoverOptions{Dry: dry})
			wantError(t, test.name, err, test.want, test.text)
			if seq, epoch := h.head(lostShard); seq != 4 || epoch != 0 || got.Appended != 0 || got.Epoch != 0 {
				t.Fatalf("%s: %d in epoch %d was written: %+v", test.name, seq, epoch, got)
			}
		}
	}
	h.topic.records[lostShard] = all[3:] // a topic whose beginning is gone
	if got := h.mustRecover(); got.Compared != 1 || got.Appended != 2 {
		t.Fatalf("%+v", got)
	}
	h.restore(lostShard)
	h.topic.records[lostShard] = all[4:]
	if got := h.mustRecover(); got.Compared != 0 || got.Appended != 2 {
		t.Fatalf("%+v", got)
	}
	h.topic.records[lostShard] = all
	h.wantClean()
}
