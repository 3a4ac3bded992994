package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// correctionSpan is for how many events of a shard the corrections of their charges are known at once: so
// many entries are in memory at most, however long the ledger. The events that come after are looked through
// once for each span.
const correctionSpan = 500_000

// Span is events of a shard: behind seq After, up to seq UpTo.
type Span struct {
	Shard       int32
	After, UpTo int64
}

// Spans are the events that occurred at from or later and before to, by shard; of one account, those of its
// shard. What is appended afterwards is in none of them, so that reading them again gives the same events.
func (r *Reader) Spans(ctx context.Context, account string, from, to time.Time) ([]Span, error) {
	var out []Span
	for shard := range int32(r.meta.Shards) {
		if account != "" && shard != domain.ShardOf(account, r.meta.Shards) {
			continue
		}
		seqs, err := r.seqsAt(ctx, shard, from, to)
		if err != nil {
			return nil, err
		}
		out = append(out, Span{shard, seqs[0], max(seqs[0], seqs[1])})
	}
	return out, nil
}

// EachCharged calls do with every charge of a span, in order, with all that has been corrected of it up to
// now: by credits and debits that name its position (corrects), or that of such a correction. account, where
// it is not "", is whose charges. progress may be nil.
func (r *Reader) EachCharged(ctx context.Context, account string, s Span, progress Progress, do func(*domain.Charged) error) error {
	ofAccount := ``
	if account != "" {
		ofAccount = ` AND account = $4`
	}
	query := func(where string, after, upTo int64, each func(*domain.Event) error) error {
		ctx, cancel := context.WithTimeout(ctx, sumTime)
		defer cancel()
		args := []any{s.Shard, after, upTo}
		if account != "" {
			args = append(args, account)
		}
		return eachOf(ctx, r.pool, func(rows pgx.Rows) error {
			var payload []byte
			if err := rows.Scan(&payload); err != nil {
				return err
			}
			e, err := domain.Decode(payload)
			if err != nil {
				return err
			}
			return each(e)
		}, `SELECT payload FROM ledger_events WHERE shard = $1 AND seq > $2 AND seq <= $3`+where+ofAccount+` ORDER BY seq`, args...)
	}
	head := func() (seq int64, err error) {
		ctx, cancel := context.WithTimeout(ctx, readTime)
		defer cancel()
		return seq, r.pool.QueryRow(ctx, `SELECT last_seq FROM ledger_shards WHERE shard = $1`, s.Shard).Scan(&seq)
	}
	return eachCharged(s, progress, do, chargedFrom{span: correctionSpan, head: head,
		charges: func(after, upTo int64, each func(*domain.Event) error) error {
			return query(` AND kind IN ('commit', 'overage')`, after, upTo, each)
		},
		// The last condition spares decoding: only what corrects something has the field.
		movements: func(after, upTo int64, each func(*domain.Event) error) error {
			return query(` AND kind IN ('credit', 'debit') AND position(convert_to('"corrects":"', 'UTF8') IN payload) > 0`, after, upTo, each)
		}})
}

// chargedFrom is where charges are read from: events of one shard behind a seq, up to another, in order.
type chargedFrom struct {
	span               int64 // correctionSpan
	head               func() (int64, error)
	charges, movements func(after, upTo int64, each func(*domain.Event) error) error
}

// chargePage is how many events are read by one statement: what is done with the charges of a page delays
// nothing but its reader.
const chargePage = 2000

func eachCharged(s Span, progress Progress, do func(*domain.Charged) error, from chargedFrom) error {
	var open *domain.Charged // waits for the overage that may follow it
	settle := func() error {
		if open == nil {
			return nil
		}
		c := open
		open = nil
		return do(c)
	}
	for after := s.After; after < s.UpTo; {
		upTo := min(after+from.span, s.UpTo)
		known, err := correctionsOf(s.Shard, after, upTo, from)
		if err != nil {
			return fmt.Errorf("reading the corrections of shard %d: %w", s.Shard, err)
		}
		for after < upTo {
			end := min(after+chargePage, upTo)
			var page []*domain.Event
			if err := from.charges(after, end, func(e *domain.Event) error { page = append(page, e); return nil }); err != nil {
				return fmt.Errorf("reading the charges of shard %d: %w", s.Shard, err)
			}
			for _, e := range page {
				c := chargedOf(e)
				if open != nil && isRest(open, e) {
					open.Amount = open.Amount.Add(e.Amount)
					known.addTo(open, e.Seq)
					continue
				}
				if err := settle(); err != nil {
					return err
				}
				known.addTo(c, e.Seq)
				open = c
			}
			if after = end; progress != nil {
				progress(s.Shard, after, s.UpTo)
			}
		}
	}
	return settle()
}

// chargedOf is what a commit or an overage says of a charge.
func chargedOf(e *domain.Event) *domain.Charged {
	c := &domain.Charged{Position: e.Position(), Account: e.Account, RequestID: e.RequestID, At: e.OccurredAt, Amount: e.Amount}
	switch d := e.Data.(type) {
	case *domain.CommitData:
		c.Data = d
	case *domain.OverageData:
		c.Data = &d.CommitData
	default:
		c.Data = &domain.CommitData{} // unreachable: commits and overages were asked for
	}
	return c
}

// isRest says whether an event is the rest of a charge that exceeded its reserve: it follows its commit.
func isRest(open *domain.Charged, e *domain.Event) bool {
	d, ok := e.Data.(*domain.OverageData)
	return ok && d.Reason == domain.OverageBeyondBound && e.RequestID == open.RequestID && e.Seq == open.Position.Seq+1
}

// corrected is an event that was corrected.
type corrected struct {
	account string
	seq     int64
}

// correction is what corrections of one event came to.
type correction struct {
	taken domain.Amount // less what was given back
	uses  []string
}

// corrections are those of some events of a shard.
type corrections map[corrected]*correction

// correctionsOf reads all corrections of the events behind seq after, up to seq upTo. A correction that is
// itself corrected is so for the event that it corrects.
func correctionsOf(shard int32, after, upTo int64, from chargedFrom) (corrections, error) {
	head, err := from.head()
	if err != nil {
		return nil, err
	}
	known, of := corrections{}, map[int64]int64{} // of: by a correction's seq, what it corrects in the end
	for at := after; at < head; at += from.span {
		err := from.movements(at, min(at+from.span, head), func(e *domain.Event) error {
			d, ok := e.Data.(*domain.MovementData)
			if !ok || d.Corrects == "" {
				return nil
			}
			p, err := domain.ParsePosition(d.Corrects)
			if err != nil || p.Shard != shard {
				return nil //nolint:nilerr // it corrects nothing here
			}
			seq := p.Seq
			if root, ok := of[seq]; ok {
				seq = root
			}
			if seq <= after || seq > upTo || seq >= e.Seq {
				return nil
			}
			of[e.Seq] = seq
			known.add(corrected{e.Account, seq}, e, d.Reference)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return known, nil
}

func (k corrections) add(what corrected, e *domain.Event, reference string) {
	c := k[what]
	if c == nil {
		c = &correction{}
		k[what] = c
	}
	if e.Kind == domain.KindDebit {
		c.taken = c.taken.Add(e.Amount)
	} else {
		c.taken = c.taken.Sub(e.Amount)
	}
	c.uses = append(c.uses, reference)
}

// addTo adds what was corrected of an event to its charge.
func (k corrections) addTo(c *domain.Charged, seq int64) {
	if found := k[corrected{c.Account, seq}]; found != nil {
		c.Corrected, c.Uses = c.Corrected.Add(found.taken), append(c.Uses, found.uses...)
	}
}

// Spans are the events that occurred at from or later and before to, by shard.
func (m *Memory) Spans(_ context.Context, account string, from, to time.Time) ([]Span, error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	var out []Span
	for shard := range int32(m.store.shards) {
		if account != "" && shard != domain.ShardOf(account, m.store.shards) {
			continue
		}
		s := Span{Shard: shard}
		for _, w := range m.store.events[shard] {
			if w.event.OccurredAt.Before(from) {
				s.After = w.event.Seq
			}
			if w.event.OccurredAt.Before(to) {
				s.UpTo = w.event.Seq
			}
		}
		s.UpTo = max(s.After, s.UpTo)
		out = append(out, s)
	}
	return out, nil
}

// EachCharged calls do with every charge of a span, as Reader does.
func (m *Memory) EachCharged(_ context.Context, account string, s Span, progress Progress, do func(*domain.Charged) error) error {
	return eachCharged(s, progress, do, m.chargedFrom(account, s))
}

func (m *Memory) chargedFrom(account string, s Span) chargedFrom {
	read := func(kinds ...domain.Kind) func(after, upTo int64, each func(*domain.Event) error) error {
		return func(after, upTo int64, each func(*domain.Event) error) error {
			for _, e := range m.between(s.Shard, after, upTo) {
				if e.Kind != kinds[0] && e.Kind != kinds[1] || account != "" && e.Account != account {
					continue
				}
				if err := each(&e); err != nil {
					return err
				}
			}
			return nil
		}
	}
	head := func() (int64, error) {
		m.store.mu.Lock()
		defer m.store.mu.Unlock()
		return m.store.heads[s.Shard].Seq, nil
	}
	return chargedFrom{span: correctionSpan, head: head, charges: read(domain.KindCommit, domain.KindOverage),
		movements: read(domain.KindCredit, domain.KindDebit)}
}

// between copies a shard's events behind seq after, up to seq upTo.
func (m *Memory) between(shard int32, after, upTo int64) (out []domain.Event) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	for _, w := range m.store.events[shard] {
		if w.event.Seq > after && w.event.Seq <= upTo {
			out = append(out, w.event)
		}
	}
	return out
}
