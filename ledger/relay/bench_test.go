package relay

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// BenchmarkVisible tells how long after its append is answered an event can be read, committed, by a
// consumer: alone, and beside others.
func BenchmarkVisible(b *testing.B) {
	for name, busy := range map[string]bool{"idle": false, "busy": true} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			p := w.start(func(c *Config) { c.times = times{} })
			w.feed.Store(p.Relay)
			p.holdsAll(b)
			w.append(20)
			w.settle()
			seen := w.watch(b)
			if busy {
				defer w.background()()
			}
			var took []time.Duration
			for b.Loop() {
				sleep(b.Context(), 3*Interval/2)
				account := w.onShard(2)
				w.must(w.one(account))
				began := time.Now()
				took = append(took, seen(account).Sub(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "ms-p95")
		})
	}
}

// watch consumes the topic. What it returns tells when an account was first seen there.
func (w *world) watch(b *testing.B) (seen func(account string) time.Time) {
	b.Helper()
	c, err := w.topic.Consume(make([]int64, testShards))
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	var mu sync.Mutex
	changed := sync.NewCond(&mu)
	first := map[string]time.Time{}
	wait.Go(func() {
		for ctx.Err() == nil {
			records, err := c.Poll(ctx, 1000)
			if err != nil {
				return
			}
			mu.Lock()
			for _, r := range records {
				if _, ok := first[r.Key]; !ok {
					first[r.Key] = time.Now()
				}
			}
			mu.Unlock()
			changed.Broadcast()
		}
	})
	b.Cleanup(func() {
		cancel()
		wait.Wait()
		c.Close()
	})
	return func(account string) time.Time {
		mu.Lock()
		defer mu.Unlock()
		for first[account].IsZero() {
			changed.Wait()
		}
		return first[account]
	}
}

// heap is a ledger in memory: what relaying costs, without what Postgres does.
type heap struct {
	meta   ledger.Meta
	mu     sync.Mutex
	shards [][]domain.Recorded
}

func (h *heap) Meta() ledger.Meta { return h.meta }

func (h *heap) Events(_ context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.shards[shard][after:]
	return slices.Clone(all[:min(limit, len(all))]), nil
}

func (h *heap) Heads(context.Context) (heads []ledger.Head, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for shard, events := range h.shards {
		head := ledger.Head{Shard: int32(shard), Hash: domain.GenesisHash(h.meta.ID, int32(shard))}
		if n := len(events); n > 0 {
			head.Seq, head.Hash = int64(n), events[n-1].Hash
		}
		heads = append(heads, head)
	}
	return heads, nil
}

// BenchmarkLoad tells what an event costs on its way from Feed to the topic, at a number of events a
// second over 8 shards: the CPU of the whole process, kfake and its clients.
func BenchmarkLoad(b *testing.B) {
	const shards, batch = 8, 10
	for _, rate := range []int{500, 2000, 6000, 15000} {
		b.Run(fmt.Sprint(rate), func(b *testing.B) {
			h := &heap{meta: ledger.Meta{ID: uuid.New(), Shards: shards}, shards: make([][]domain.Recorded, shards)}
			var chains [][]domain.Recorded
			for shard := range int32(shards) {
				chains = append(chains, topictest.ChainOf(b, h.meta.ID, shard, shards).Next(b, b.N/shards/batch*batch+batch))
			}
			config := topictest.Config(b, shards, h.meta.ID)
			kafka, err := topic.Open(config)
			if err != nil {
				b.Fatal(err)
			}
			defer kafka.Close()
			w := newWorld(b)
			r := Start(context.Background(), Config{
				Topic: OfTopic(kafka), Name: config.Name, Ledger: h, Pool: w.ledger.Pool(), Owner: uuid.New(), Log: slog.New(slog.DiscardHandler),
			})
			defer r.Close()
			p := &process{Relay: r}
			eventually(b, "it publishes", func() bool { return p.alive() == shards })
			before, began := cpu(b), time.Now()
			b.ResetTimer()
			n := 0
			for n = 0; n < b.N; n += batch {
				shard := n / batch % shards
				at := len(h.shards[shard])
				events := chains[shard][at:min(at+batch, len(chains[shard]))]
				h.mu.Lock()
				h.shards[shard] = chains[shard][:at+len(events)]
				h.mu.Unlock()
				r.Feed(events)
				sleep(b.Context(), time.Until(began.Add(time.Duration(n)*time.Second/time.Duration(rate))))
			}
			if err := r.Drain(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(n), "cpu-us/event")
			b.ReportMetric(100*float64(cpu(b)-before)/float64(time.Since(began)), "cpu-%")
		})
	}
}

// cpu is what the process has used.
func cpu(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
