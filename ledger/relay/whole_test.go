package relay

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
)

// TestWhole lets commands of every size lie across every bound, in what was fed and in what is read from
// the ledger: no transaction ends within one.
func TestWhole(t *testing.T) {
	t.Parallel()
	for size := 1; size <= 4; size++ {
		for first := 1; first <= size; first++ { // it moves all others
			next := first
			chain, ends := commands(t, feedEvents+2*topic.MaxTransaction, func() int {
				defer func() { next = size }()
				return next
			})
			for _, fed := range []bool{true, false} {
				got := transactions(t, chain, fed)
				for _, seq := range got {
					if _, whole := slices.BinarySearch(ends, seq); !whole {
						t.Errorf("commands of %d behind one of %d, fed %v: a transaction ends at seq %d", size, first, fed, seq)
					}
				}
				if most := len(chain)/(topic.MaxTransaction-size) + 2; len(got) > most {
					t.Errorf("commands of %d, fed %v: %d transactions", size, fed, len(got))
				}
			}
		}
	}
}

// transactions is where the transactions end in which a shard's events are published.
func transactions(t *testing.T, chain []domain.Recorded, fed bool) (ends []int64) {
	t.Helper()
	s := heldShard()
	s.relay.config.Ledger = &heap{meta: ledger.Meta{Shards: 1}, shards: [][]domain.Recorded{chain}}
	s.at.hash = domain.GenesisHash(uuid.Nil, 0)
	s.head = int64(len(chain))
	if fed {
		s.feed(chain)
	}
	for s.at.seq < s.head {
		events, at, err := s.next(t.Context())
		if err != nil || len(events) == 0 || len(events) > topic.MaxTransaction {
			t.Fatalf("behind seq %d come %d events: %v", s.at.seq, len(events), err)
		}
		s.moved(at)
		ends = append(ends, at.seq)
	}
	return ends
}

// TestWholeGoesOn publishes what no ledger has, more events of one command than fit, rather than nothing.
func TestWholeGoesOn(t *testing.T) {
	t.Parallel()
	events := make([]domain.Recorded, topic.MaxTransaction+1)
	if got := whole(events); len(got) != topic.MaxTransaction {
		t.Errorf("%d events are published", len(got))
	}
}

// deaf is a ledger that does not tell where its shards end, and counts how often its events are read.
type deaf struct {
	Ledger

	reads atomic.Int64
}

func (*deaf) Heads(context.Context) ([]ledger.Head, error) { return nil, errors.New("deaf") }

func (d *deaf) Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	d.reads.Add(1)
	return d.Ledger.Events(ctx, shard, after, limit)
}

// TestWholeTransactions publishes many settlements, of two events each, that lie across the bound of a
// transaction: in the topic none is in two transactions.
func TestWholeTransactions(t *testing.T) {
	t.Parallel()
	for name, fed := range map[string]bool{"fed": true, "read": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const shard, requests = 1, topic.MaxTransaction - 101 // behind an odd number of reserves: they begin with an even seq
			w.requests(w.onShard(shard), requests)
			source := &deaf{Ledger: w.ledger}
			p := w.start(func(c *Config) {
				if c.times = (times{}); fed { // the lease must last as long as the feed waits
					c.Ledger = source
				}
			})
			p.holdsAll(t)
			if fed {
				all, err := w.ledger.Events(t.Context(), shard, 0, ledger.MaxEvents)
				w.must(err)
				p.Feed(all)
			}
			w.settle()
			want := []int{topic.MaxTransaction - 1, topic.MaxTransaction, 3*requests + 2 - 2*topic.MaxTransaction + 1}
			if got := w.transactions(shard); !slices.Equal(got, want) {
				t.Errorf("the topic has transactions of %d events, not %d", got, want)
			}
			if n := source.reads.Load(); n > 0 {
				t.Errorf("what was fed was read from the ledger %d times", n)
			}
		})
	}
}

// requests opens an account, reserves so often, and then settles it all, from several sides at once.
func (w *world) requests(account string, n int) {
	w.t.Helper()
	price := domain.MustAmount("0.5")
	used := domain.CommitData{Surface: "test", ModelServed: "m", UsageSource: domain.UsageProvider}
	used.Meters[domain.Requests] = 1
	used.Lines = []domain.Line{{Meter: domain.Requests, Quantity: 1, UnitPrice: price, Amount: price}}
	w.do(account, domain.Open{Grant: domain.MustAmount("1000"), Actor: "test"})
	ids := make([]uuid.UUID, n)
	w.together(n, func(i int) {
		ids[i] = uuid.New()
		w.do(account, domain.Reserve{RequestID: ids[i], Amount: domain.MustAmount("1"), Data: domain.ReserveData{Surface: "test", Model: "m"}})
	})
	w.together(n, func(i int) { w.do(account, domain.Settle{RequestID: ids[i], Charge: price, Data: used}) })
}

// do appends one command.
func (w *world) do(account string, op domain.Op) {
	id := domain.CommandID(uuid.Must(uuid.NewV7()))
	if _, err := w.ledger.Append(context.Background(), domain.Command{ID: id, Account: account, Op: op}); err != nil {
		w.t.Errorf("%T: %v", op, err)
	}
}

// together does something n times, a few at the same time.
func (w *world) together(n int, do func(i int)) {
	const sides = 8
	var wait sync.WaitGroup
	var next atomic.Int64
	for range sides {
		wait.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				do(i - 1)
			}
		})
	}
	wait.Wait()
}

// transactions is how many committed records each of a partition's transactions has: the mark of a
// transaction's end takes an offset.
func (w *world) transactions(shard int32) (sizes []int) {
	w.t.Helper()
	next := int64(-1)
	for r, err := range w.topic.Scan(w.t.Context(), shard) {
		w.must(err)
		if r.Offset != next {
			sizes = append(sizes, 0)
		}
		sizes[len(sizes)-1]++
		next = r.Offset + 1
	}
	return sizes
}
