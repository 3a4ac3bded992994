package ledger

import (
	"context"
	"errors"
	"time"

	"llm-gateway/domain"
)

// chargedTime bounds the search for charges by other prices.
const chargedTime = 3 * time.Second

// chargedPage is how many candidates of it are read at once; they are told from charges that only look
// alike by reading them, and one is enough.
const chargedPage = 16

// ErrNotSearched says that there is more than could be searched within chargedTime.
var ErrNotSearched = errors.New("too much has been charged since then to be searched")

// Charged is a charge that was made by another version than a book has for its time.
type Charged struct {
	domain.Repricing
	By         string // the version that it was made by
	Position   domain.Position
	OccurredAt time.Time
}

// selectRecord is behind the index on (shard, account, seq).
const selectRecord = `SELECT payload, hash FROM ledger_events
	WHERE shard = $1 AND account = $2 AND seq > $3 ORDER BY seq LIMIT $4`

// ReadPrices adds what was recorded of prices since record's last event. The events are few: one for each
// change of prices ever made.
func (r *Reader) ReadPrices(ctx context.Context, record *domain.PriceRecord) error {
	return r.EachPrices(ctx, record.Last, record.Add)
}

// EachPrices calls do with the events of the record of prices behind a seq, in order.
func (r *Reader) EachPrices(ctx context.Context, after int64, do func(*domain.Event) error) error {
	shard := domain.ShardOf(domain.PricesAccount, r.meta.Shards)
	return paged(after, func(after int64) ([]domain.Recorded, error) {
		return r.recorded(ctx, selectRecord, shard, domain.PricesAccount, after, spanPage)
	}, do)
}

// selectCharged finds charges since $2 within one of the times $5 to $6 whose text names a version of the
// model in $3 that is not the one in $4. Which they truly are is told by reading them.
const selectCharged = `SELECT payload, hash FROM ledger_events e
	WHERE shard = $1 AND seq > $2 AND seq < $7 AND kind IN ('commit', 'overage') AND EXISTS (
		SELECT 1 FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[]) r(model, version, since, until)
		WHERE e.occurred_at >= r.since AND e.occurred_at < r.until
			AND position(r.model IN replace(convert_from(e.payload, 'UTF8'), r.version, '')) > 0)
	ORDER BY seq DESC LIMIT $8`

// ChargedOtherwise finds a charge that contradicts a book: of each shard's newest, the newest. It is nil where
// there is none. What is searched is what was charged since the first of the times, so nothing where all are
// to come; it is ErrNotSearched where that is too much.
func (r *Reader) ChargedOtherwise(ctx context.Context, prices []domain.Repricing) (*Charged, error) {
	if len(prices) == 0 {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, chargedTime)
	defer cancel()
	var newest *Charged
	for shard := range int32(r.meta.Shards) {
		found, err := r.chargedIn(limited, shard, prices)
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			err = ErrNotSearched
		}
		if err != nil {
			return nil, err
		}
		newest = newer(newest, found)
	}
	return newest, nil
}

func newer(a, b *Charged) *Charged {
	if a == nil || b != nil && b.OccurredAt.After(a.OccurredAt) {
		return b
	}
	return a
}

// chargedIn looks through one shard.
func (r *Reader) chargedIn(ctx context.Context, shard int32, prices []domain.Repricing) (*Charged, error) {
	first := prices[0].From
	var models, versions []string
	var since, until []time.Time
	for _, p := range prices {
		if p.From.Before(first) {
			first = p.From
		}
		models, versions = append(models, `_version":"`+p.Prefix()), append(versions, `_version":"`+p.Version)
		since, until = append(since, p.From), append(until, p.Until)
	}
	seqs, err := r.seqsAt(ctx, shard, first)
	if err != nil {
		return nil, err
	}
	for before := int64(1<<63 - 1); ; {
		page, err := r.recorded(ctx, selectCharged, shard, seqs[0], models, versions, since, until, before, chargedPage)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if found := chargedBy(&page[i].Event, prices); found != nil {
				return found, nil
			}
			before = page[i].Event.Seq
		}
		if len(page) < chargedPage {
			return nil, nil
		}
	}
}

// chargedBy says which of the times an event contradicts; nil for none.
func chargedBy(e *domain.Event, prices []domain.Repricing) *Charged {
	for i := range prices {
		if by, charged := prices[i].Charged(e); charged {
			return &Charged{prices[i], by, e.Position(), e.OccurredAt}
		}
	}
	return nil
}

// ReadPrices adds what was recorded of prices since record's last event.
func (m *Memory) ReadPrices(_ context.Context, record *domain.PriceRecord) error {
	for _, r := range m.pick(domain.PricesAccount, func(e *domain.Event) bool { return e.Seq > record.Last }) {
		if err := record.Add(&r.Event); err != nil {
			return err
		}
	}
	return nil
}

// ChargedOtherwise finds a charge that contradicts a book: of each shard's newest, the newest; nil for none.
func (m *Memory) ChargedOtherwise(_ context.Context, prices []domain.Repricing) (newest *Charged, _ error) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	for _, events := range m.store.events {
		for i := len(events) - 1; i >= 0; i-- {
			if found := chargedBy(&events[i].event, prices); found != nil {
				newest = newer(newest, found)
				break
			}
		}
	}
	return newest, nil
}
