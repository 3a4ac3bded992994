package projections

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

const (
	benchShards   = 8
	benchAccounts = 64
)

// benchEvents are those of requests: reserve, commit, refund, over all accounts in turn.
func benchEvents(b *testing.B, w *world, n int) (out []domain.Recorded) {
	b.Helper()
	m := ledger.NewMemory(w.meta.ID, benchShards, "USD", time.Now)
	defer m.Close()
	do := func(account string, op domain.Op) {
		id, err := uuid.NewV7()
		if err != nil {
			b.Fatal(err)
		}
		o, err := m.Append(context.Background(), domain.Command{ID: domain.CommandID(id), Account: account, Op: op})
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, o.Events...)
	}
	charge := domain.MustAmount("0.000137")
	line := domain.Line{Meter: domain.Input, Quantity: 137, UnitPrice: domain.MustAmount("0.000001"), Amount: charge}
	d := domain.CommitData{Surface: "chat_completions", ModelRequested: "gpt-4o", ModelServed: "gpt-4o-2024-08-06", Provider: "openai",
		Attempts: []domain.Attempt{{Provider: "openai", Model: "gpt-4o", Status: 200, Millis: 512}}, Lines: []domain.Line{line, line, line},
		PriceVersion: "2026-01-01", UsageSource: domain.UsageProvider, FinishReason: "stop"}
	d.Meters[domain.Input], d.Meters[domain.Output], d.Meters[domain.Requests] = 137, 20, 1
	for i := 0; len(out) < n; i++ {
		account := fmt.Sprint("client-", i%benchAccounts)
		if i < benchAccounts {
			do(account, domain.Open{Grant: domain.MustAmount("1000000"), Actor: "bench"})
			continue
		}
		id := uuid.New()
		do(account, domain.Reserve{RequestID: id, Amount: domain.MustAmount("0.01"), Data: domain.ReserveData{Model: "gpt-4o", Owner: id}})
		do(account, domain.Settle{RequestID: id, Charge: charge, Data: d})
	}
	return out[:n]
}

// BenchmarkApply takes events of all shards to all projections, so many to a database transaction.
func BenchmarkApply(b *testing.B) { //nolint:gocognit // a table of sizes, each measured alike
	for _, batch := range []int{1, 100, 2000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			w := newWorldOf(b, benchShards, false)
			events := benchEvents(b, w, b.N*batch)
			p := &Projector{Config: Config{Pool: w.pool}}
			var at [benchShards]position
			for shard := range at {
				at[shard] = noPosition(w.meta.ID, int32(shard))
			}
			b.ResetTimer()
			for ; len(events) > 0; events = events[batch:] {
				var byShard [benchShards][]domain.Recorded
				for _, e := range events[:batch] {
					byShard[e.Event.Shard] = append(byShard[e.Event.Shard], e)
				}
				var steps []step
				for shard, run := range byShard {
					for _, live := range all {
						if len(run) > 0 {
							steps = append(steps, step{projection: live, table: live.name(), shard: int32(shard), from: at[shard], events: run})
						}
					}
					if len(run) > 0 {
						at[shard] = steps[len(steps)-1].to()
					}
				}
				if err := p.inTx(b.Context(), func(tx pgx.Tx) error { return apply(b.Context(), tx, steps) }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkCatchUp is a projector that finds a full topic in Kafka.
func BenchmarkCatchUp(b *testing.B) {
	w := newWorldOf(b, benchShards, false)
	config := topictest.Config(b, benchShards, w.meta.ID)
	k := topictest.Open(b, config)
	events := benchEvents(b, w, max(b.N, benchShards))
	var byShard [benchShards][]domain.Recorded
	for _, e := range events {
		byShard[e.Event.Shard] = append(byShard[e.Event.Shard], e)
	}
	for _, run := range byShard {
		(&published{realTopic{k}}).publish(b, run)
	}
	done := make(chan int, 1<<16)
	b.ResetTimer()
	start(b, w, k, &archive{events: byShard[:]}, Hooks{Applied: func(name string, n int) {
		if name == "stats" {
			done <- n
		}
	}})
	for n := 0; n < len(events); {
		n += <-done
	}
	b.ReportMetric(float64(len(events))/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkLatency is the time from a record's commit in Kafka to that in Postgres, where nothing else
// happens.
func BenchmarkLatency(b *testing.B) {
	w := newWorldOf(b, benchShards, false)
	k := topictest.Open(b, topictest.Config(b, benchShards, w.meta.ID))
	events := benchEvents(b, w, b.N)
	var producers [benchShards]*topic.Producer
	for shard := range producers {
		var err error
		if producers[shard], err = k.Producer(b.Context(), int32(shard)); err != nil {
			b.Fatal(err)
		}
		defer producers[shard].Close()
	}
	done := make(chan int, 1<<16)
	start(b, w, k, &archive{events: make([][]domain.Recorded, benchShards)}, Hooks{Applied: func(name string, n int) {
		if name == "stats" {
			done <- n
		}
	}})
	var total time.Duration
	for i := range events {
		<-time.After(gatherTime)
		if _, err := producers[events[i].Event.Shard].Publish(b.Context(), events[i:i+1]); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		<-done
		total += time.Since(began)
	}
	b.ReportMetric(float64(total.Microseconds())/float64(len(events)), "us/record")
}

func start(b *testing.B, w *world, k *topic.Topic, l Ledger, hooks Hooks) {
	b.Helper()
	p := Start(context.Background(), Config{Pool: w.pool, Meta: w.meta, Ledger: l, Topic: OfTopic(k), Lease: always{}, Hooks: hooks})
	b.Cleanup(p.Close)
}
