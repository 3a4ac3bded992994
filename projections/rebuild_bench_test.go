package projections

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic/topictest"
	"llm-gateway/migrations/pgtest"
)

// rebuiltEvents is how many events BenchmarkRebuild makes tables of; each is as a gateway writes them.
const rebuiltEvents = 100_000

// BenchmarkRebuild rebuilds every projection from the ledger and from the topic: events/s, and how much
// memory the process took on top, at most, while it did.
func BenchmarkRebuild(b *testing.B) {
	s := busy(b)
	c := s.rebuilds(b)
	for _, p := range all { // the first one finds nothing to compare, and waits for a projector
		mustRebuild(b, c, p.name())
	}
	for _, source := range []string{SourceLedger, SourceTopic} {
		if c.Topic = nil; source == SourceTopic {
			to := topictest.New(b, s.meta.Shards, s.meta.ID)
			for shard := range int32(s.meta.Shards) {
				s.copyShard(b, func(events []domain.Recorded) { s.send(b, to, shard, events) }, shard)
			}
			c.Topic = to
		}
		for _, p := range all {
			b.Run(p.name()+"/"+source, func(b *testing.B) {
				var n int64
				top := watchMemory(b)
				for b.Loop() {
					n += mustRebuild(b, c, p.name()).Events
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
				b.ReportMetric(float64(top())/(1<<20), "MB")
			})
		}
	}
}

// busy is a ledger of rebuiltEvents events, and nothing projected yet.
func busy(b *testing.B) *told {
	const shards, clients, accounts = 8, 128, 1000
	w := &world{url: pgtest.URL(b)}
	owner, err := pgx.ParseConfig(w.url)
	if err != nil {
		b.Fatal(err)
	}
	if w.meta, err = ledger.Init(b.Context(), owner, uuid.New(), shards, "USD"); err != nil {
		b.Fatal(err)
	}
	l, err := ledger.Open(b.Context(), ledger.Config{URL: w.url, Role: serviceRole, Shards: shards, Currency: "USD"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.Close)
	s := &told{world: w, ledger: l}
	var wait sync.WaitGroup
	var made atomic.Int64
	for client := range clients {
		wait.Go(func() {
			for i := client; made.Load() < rebuiltEvents; i += clients {
				account := fmt.Sprint("account-", i%accounts)
				for _, op := range request() {
					id := domain.CommandID(uuid.Must(uuid.NewV7()))
					out, err := s.ledger.Append(context.Background(), domain.Command{ID: id, Account: account, Op: op})
					if err != nil {
						b.Error(err)
						return
					}
					made.Add(int64(len(out.Events)))
				}
			}
		})
	}
	wait.Wait()
	return s
}

// request is what a model call does to the ledger: five of the six events are its own.
func request() []domain.Op {
	id, price := uuid.New(), domain.MustAmount("0.0000025")
	lines := []domain.Line{{Meter: domain.Input, Quantity: 1200, UnitPrice: price, Amount: price.Times(1200)},
		{Meter: domain.CachedInput, Quantity: 800, UnitPrice: price, Amount: price.Times(800)}, {Meter: domain.Output, Quantity: 350, UnitPrice: price, Amount: price.Times(350)}}
	d := domain.CommitData{Surface: "chat_completions", ModelRequested: "gpt-4o-mini", ModelServed: "gpt-4o-mini-2024-07-18", Provider: "openai",
		Attempts: []domain.Attempt{{Provider: "openai", Model: "gpt-4o-mini", Status: 200, Millis: 812}}, Lines: lines, CostLines: lines,
		PriceVersion: "2026-01-01", UsageSource: domain.UsageProvider, FinishReason: "stop", TTFTMillis: 230, LatencyMillis: 812}
	d.Meters[domain.Input], d.Meters[domain.CachedInput], d.Meters[domain.Output], d.Meters[domain.Requests] = 1200, 800, 350, 1
	return []domain.Op{
		domain.Open{Grant: domain.MustAmount("1000"), Actor: "test"},
		domain.Reserve{RequestID: id, Amount: price.Times(5000), Data: domain.ReserveData{Surface: d.Surface, Model: d.ModelRequested,
			Bound: domain.Bound{Input: 4000, Output: 1000, Lines: lines}, PriceVersion: d.PriceVersion, BodyHash: fmt.Sprintf("%064x", 7), MaxOutput: 1000, Owner: id}},
		domain.Settle{RequestID: id, Charge: price.Times(2350), Data: d},
	}
}

// copyShard hands over a shard's events, page by page.
func (s *told) copyShard(b *testing.B, to func([]domain.Recorded), shard int32) {
	for after := int64(0); ; {
		events, err := s.ledger.Events(context.Background(), shard, after, 1000)
		if err != nil {
			b.Fatal(err)
		}
		if len(events) == 0 {
			return
		}
		to(events)
		after = events[len(events)-1].Event.Seq
	}
}

// watchMemory returns what tells how much the heap has grown at most since then.
func watchMemory(b *testing.B) func() uint64 {
	b.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	first, top, stop := m.HeapInuse, uint64(0), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				runtime.ReadMemStats(&m)
				top = max(top, m.HeapInuse)
			}
		}
	})
	return func() uint64 {
		close(stop)
		wait.Wait()
		return top - min(top, first)
	}
}
