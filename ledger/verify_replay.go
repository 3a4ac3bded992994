package ledger

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// shardCheck holds one shard's events, and then its tables, against each other.
type shardCheck struct {
	*verifier
	shard int32
	books *domain.Books
	// prices is the record of prices, on its shard: each of its events names what it follows.
	prices domain.PriceRecord

	// The event before, as it is stored: after a broken link the check goes on from what is there,
	// so that one edit is one finding.
	seq     int64
	hash    []byte // nil where it is not known: the event before is missing
	time    time.Time
	charged *domain.Event // a commit that waits for the overage that may follow it

	reserved map[string]domain.Amount // by account, as ledger_accounts has it
}

func newShardCheck(v *verifier, shard int32) *shardCheck {
	genesis := domain.GenesisHash(v.meta.ID, shard)
	return &shardCheck{verifier: v, shard: shard, books: domain.NewBooks(), hash: genesis[:],
		reserved: map[string]domain.Amount{}}
}

func (s *shardCheck) at(seq int64) domain.Position { return domain.Position{Shard: s.shard, Seq: seq} }

// eventRow is a row of ledger_events as it is.
type eventRow struct {
	seq              int64
	schema           int32
	id               [16]byte
	request          *[16]byte
	kind, account    string
	debit, credit    string
	amount, currency string
	occurredAt       pgtype.Timestamptz
	payload, hash    []byte
}

var selectEvents = pageOf(`seq, schema, id, request_id, kind, account, debit, credit, amount::text, currency,
	occurred_at, payload, hash`)

// replay streams the shard's events, page by page, and ends at the head. A page that is not full may end at a hole:
// only an empty one is the end.
func (s *shardCheck) replay(ctx context.Context) error {
	after := int64(math.MinInt64)
	for n := 1; n > 0; {
		n = 0
		err := s.each(ctx, func(rows pgx.Rows) error {
			var r eventRow
			if err := rows.Scan(&r.seq, &r.schema, &r.id, &r.request, &r.kind, &r.account, &r.debit, &r.credit,
				&r.amount, &r.currency, &r.occurredAt, &r.payload, &r.hash); err != nil {
				return fmt.Errorf("after seq %d: %w", after, err)
			}
			n, after = n+1, r.seq
			s.event(&r)
			return nil
		}, selectEvents, s.shard, after, verifyPage)
		if err != nil {
			return err
		}
		if s.progress != nil && (n > 0 || s.seq == 0) {
			s.progress(s.shard, s.seq, s.heads[s.shard].seq)
		}
	}
	s.settleCharge()
	s.head()
	return nil
}

// event checks one event: its place, its link, its bytes, and what they say.
func (s *shardCheck) event(r *eventRow) {
	s.report.Events++
	if r.seq != s.seq+1 {
		s.report.findf(CheckSeq, s.at(s.seq+1), "", "seq goes from %d to %d", s.seq, r.seq)
		s.hash = nil // what stood between is not known, and neither is its hash
	}
	s.link(r)
	s.seq = r.seq
	e, err := domain.Decode(r.payload)
	if err != nil {
		s.report.findf(CheckPayload, s.at(r.seq), r.account, "%s", err)
		s.time = r.occurredAt.Time // the column's, as the payload has none
		return
	}
	s.report.Totals[e.Kind] = s.report.Totals[e.Kind].Add(e.Amount)
	if wrong := s.columns(r, e); wrong != "" {
		s.report.findf(CheckColumns, s.at(r.seq), e.Account, "%s", wrong)
	}
	if e.OccurredAt.Before(s.time) {
		s.report.findf(CheckTime, s.at(r.seq), e.Account, "it occurred at %s, the one before it at %s", stamp(e.OccurredAt), stamp(s.time))
	}
	s.time = e.OccurredAt
	s.charge(e)
	if err := s.books.Apply(e); err != nil {
		s.report.findf(CheckReplay, s.at(r.seq), e.Account, "%s", err)
	}
	if e.Account == domain.PricesAccount {
		if err := s.prices.Add(e); err != nil {
			s.report.findf(CheckReplay, s.at(r.seq), e.Account, "%s", err)
		}
	}
}

// link checks that the stored hash is that of the stored bytes after the stored hash before.
func (s *shardCheck) link(r *eventRow) {
	if s.hash != nil {
		want := domain.ChainHash(domain.Hash(s.hash), r.payload)
		if !bytes.Equal(want[:], r.hash) {
			s.report.findf(CheckChain, s.at(r.seq), r.account, "the hash of its bytes after the event before is %x, stored is %x", want, r.hash)
		}
	}
	s.hash = nil
	if len(r.hash) == len(domain.Hash{}) {
		s.hash = bytes.Clone(r.hash)
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// columns says where a row is not what its payload says, or the payload not of this ledger.
func (s *shardCheck) columns(r *eventRow, e *domain.Event) string {
	var d differences
	d.values("shard", s.shard, e.Shard)
	d.values("seq", r.seq, e.Seq)
	d.values("schema", int(r.schema), e.Schema)
	d.values("id", uuid.UUID(r.id), e.ID)
	d.values("kind", r.kind, string(e.Kind))
	d.values("account", r.account, e.Account)
	request := uuid.Nil
	if r.request != nil {
		request = *r.request
	}
	d.values("request_id", request, e.RequestID)
	d.values("debit", r.debit, e.Debit)
	d.values("credit", r.credit, e.Credit)
	d.amount("amount", r.amount, e.Amount)
	d.values("currency", r.currency, e.Currency)
	d.time("occurred_at", r.occurredAt, e.OccurredAt)
	if home := domain.ShardOf(e.Account, s.meta.Shards); home != s.shard {
		d = append(d, fmt.Sprintf("the account belongs to shard %d", home))
	}
	if e.Currency != s.meta.Currency {
		d = append(d, fmt.Sprintf("the ledger is kept in %s, not %s", s.meta.Currency, e.Currency))
	}
	return d.text()
}

// differences says where a row differs from what the events say.
type differences []string

func (d differences) text() string { return strings.Join(d, "; ") }

func (d *differences) values(name string, row, events any) {
	if row != events {
		*d = append(*d, fmt.Sprintf("%s is %v, the events say %v", name, row, events))
	}
}

// amount compares a column's text, which may be no amount at all, and returns what it is.
func (d *differences) amount(name, row string, events domain.Amount) domain.Amount {
	a, err := domain.ParseAmount(row)
	if err != nil || !a.Equal(events) {
		*d = append(*d, fmt.Sprintf("%s is %s, the events say %s", name, shown(row), events))
	}
	return a
}

// shown is a column's amount without the zeros that pad it to the column's scale.
func shown(text string) string {
	if a, err := domain.ParseAmount(text); err == nil {
		return a.String()
	}
	return text
}

func (d *differences) time(name string, row pgtype.Timestamptz, events time.Time) {
	if !row.Valid || row.InfinityModifier != pgtype.Finite || !row.Time.Equal(events) {
		*d = append(*d, fmt.Sprintf("%s is %s, the events say %s", name, shownTime(row), stamp(events)))
	}
}

func shownTime(t pgtype.Timestamptz) string {
	if t.InfinityModifier != pgtype.Finite {
		return t.InfinityModifier.String()
	}
	return stamp(t.Time)
}

// charge holds commits and overages against their lines. A commit waits for the next event: the
// lines of a charge beyond its reservation sum to the commit and its overage together.
func (s *shardCheck) charge(e *domain.Event) {
	d, over := e.Data.(*domain.OverageData)
	if over && d.Reason == domain.OverageBeyondBound {
		c := s.charged
		if c == nil || c.RequestID != e.RequestID {
			s.settleCharge()
			s.report.findf(CheckCharge, e.Position(), e.Account, "an overage %s follows no commit of its request", d.Reason)
			return
		}
		s.charged = nil
		whole := c.Amount.Add(e.Amount)
		s.explain(c, c.Data.(*domain.CommitData), whole)
		s.explain(e, &d.CommitData, whole)
		return
	}
	s.settleCharge()
	if over {
		s.explain(e, &d.CommitData, e.Amount)
	}
	if e.Kind == domain.KindCommit {
		s.charged = e
	}
}

// settleCharge checks the commit that waits: no overage follows it.
func (s *shardCheck) settleCharge() {
	if c := s.charged; c != nil {
		s.charged = nil
		s.explain(c, c.Data.(*domain.CommitData), c.Amount)
	}
}

func (s *shardCheck) explain(e *domain.Event, d *domain.CommitData, charged domain.Amount) {
	if wrong := unexplained(d, charged); wrong != "" {
		s.report.findf(CheckCharge, e.Position(), e.Account, "%s", wrong)
	}
}

// unexplained says why a charge does not follow from its meters and prices, or "". A meter has one line, or where
// several models served a request, one for each of their prices.
func unexplained(d *domain.CommitData, charged domain.Amount) string {
	type place struct {
		meter   domain.Meter
		version string
	}
	var sum domain.Amount
	var priced domain.Meters
	seen := make(map[place]bool, len(d.Lines))
	for _, l := range d.Lines {
		if want := l.UnitPrice.Times(l.Quantity); !want.Equal(l.Amount) {
			return fmt.Sprintf("the line %s: %d x %s is %s, not %s", l.Meter, l.Quantity, l.UnitPrice, want, l.Amount)
		}
		at := place{l.Meter, l.PriceVersion}
		if l.Quantity < 0 {
			return fmt.Sprintf("the line %s: a quantity of %d", l.Meter, l.Quantity)
		}
		if seen[at] {
			return fmt.Sprintf("the line %s is there twice", l.Meter)
		}
		seen[at] = true
		priced[l.Meter] += l.Quantity
		sum = sum.Add(l.Amount)
	}
	for m, n := range d.Meters {
		if n != priced[m] {
			return fmt.Sprintf("the meter %s says %d, its lines have %d", domain.Meter(m), n, priced[m])
		}
	}
	if !sum.Equal(charged) {
		return fmt.Sprintf("the lines sum to %s, charged is %s", sum, charged)
	}
	return ""
}

// head holds the shard's head against the end of its events.
func (s *shardCheck) head() {
	h, ok := s.heads[s.shard]
	if !ok {
		return // reported already
	}
	if h.seq != s.seq {
		s.report.findf(CheckHead, s.at(min(h.seq, s.seq)+1), "", "the head knows seq %d, the events end at %d", h.seq, s.seq)
		return
	}
	at := s.at(s.seq)
	if s.seq == 0 {
		at = domain.Position{}
		s.time = time.Unix(0, 0)
	}
	if s.hash != nil && !bytes.Equal(h.hash, s.hash) {
		s.report.findf(CheckHead, at, "", "shard %d: the head's hash is %x, the events end with %x", s.shard, h.hash, s.hash)
	}
	var d differences
	d.time("last_time", h.time, s.time)
	if wrong := d.text(); wrong != "" {
		s.report.findf(CheckHead, at, "", "shard %d: %s", s.shard, wrong)
	}
}
