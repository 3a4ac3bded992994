package ledger

import (
	"context"
	"errors"
	"strings"
	"time"

	"llm-gateway/domain"
)

// chargedTime bounds the search for charges by other prices.
const chargedTime = 3 * time.Second

// Bounds of how many candidates of it are read at once; they are told from charges that only look alike by reading
// them. One is enough, so the first page is short. Each that has none is followed by one of twice as many.
const (
	chargedPage    = 16
	maxChargedPage = 1024 // of at most domain.MaxPayload each
)

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

// selectCharged finds charges since $2 within one of the times $5 to $6 whose text has what is in $3 where all of
// $4 is taken out of it: a version of the model that is not the one of the time. They are of one of the accounts $9,
// or like one of $10, where these are not null. Which they truly are is told by reading them.
const selectCharged = `SELECT payload, hash FROM ledger_events e
	WHERE shard = $1 AND seq > $2 AND seq < $7 AND kind IN ('commit', 'overage')
		AND ($9::text[] IS NULL OR account = ANY($9) OR account LIKE ANY($10::text[])) AND EXISTS (
		SELECT 1 FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[]) r(model, version, since, until)
		WHERE e.occurred_at >= r.since AND e.occurred_at < r.until
			AND position(r.model IN replace(convert_from(e.payload, 'UTF8'), r.version, '')) > 0)
	ORDER BY seq DESC LIMIT $8`

// candidates are what selectCharged looks for.
type candidates struct {
	first           time.Time
	models, without []string
	since, until    []time.Time
	accounts, alike []string // nil = everybody's charges
}

func candidatesOf(prices []domain.Repricing) *candidates {
	type need struct {
		model, without string
		since, until   time.Time
	}
	c, seen, anybody := &candidates{first: prices[0].From, accounts: []string{}, alike: []string{}}, map[need]bool{}, false
	groups := map[string]bool{}
	for i := range prices {
		p := &prices[i]
		n := need{`_version":"` + p.Prefix(), `_version":"` + p.Version, p.From, p.Until}
		if p.Payers != nil {
			n.model, n.without = `"price_version":"`+p.Prefix(), `"price_version":"`+p.Version+`"`
		}
		if !seen[n] {
			seen[n] = true
			c.models, c.without = append(c.models, n.model), append(c.without, n.without)
			c.since, c.until = append(c.since, n.since), append(c.until, n.until)
		}
		if p.From.Before(c.first) {
			c.first = p.From
		}
		patterns := p.Payers.Patterns()
		if anybody = anybody || patterns == nil; !anybody && !groups[p.Payers.Group] {
			groups[p.Payers.Group] = true
			c.add(patterns)
		}
	}
	if anybody {
		c.accounts, c.alike = nil, nil
	}
	return c
}

// likeText writes a pattern for LIKE.
var likeText = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`)

// add takes in accounts, by name or by a pattern in which * stands for any text.
func (c *candidates) add(patterns []string) {
	for _, pattern := range patterns {
		if strings.Contains(pattern, "*") {
			c.alike = append(c.alike, likeText.Replace(pattern))
			continue
		}
		c.accounts = append(c.accounts, pattern)
	}
}

// ChargedOtherwise finds a charge that contradicts a book: of each shard's newest, the newest. It is nil where
// there is none. What is searched is what was charged since the first of the times, so nothing where all are
// to come; it is ErrNotSearched where that is too much.
func (r *Reader) ChargedOtherwise(ctx context.Context, prices []domain.Repricing) (*Charged, error) {
	if len(prices) == 0 {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, chargedTime)
	defer cancel()
	look := candidatesOf(prices)
	var newest *Charged
	for shard := range int32(r.meta.Shards) {
		found, err := r.chargedIn(limited, shard, look, prices)
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
func (r *Reader) chargedIn(ctx context.Context, shard int32, c *candidates, prices []domain.Repricing) (*Charged, error) {
	seqs, err := r.seqsAt(ctx, shard, c.first)
	if err != nil {
		return nil, err
	}
	before := int64(1<<63 - 1)
	for size := chargedPage; ; size = min(2*size, maxChargedPage) {
		page, err := r.recorded(ctx, selectCharged, shard, seqs[0], c.models, c.without, c.since, c.until, before, size, c.accounts, c.alike)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if found := chargedBy(&page[i].Event, prices); found != nil {
				return found, nil
			}
			before = page[i].Event.Seq
		}
		if len(page) < size {
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
