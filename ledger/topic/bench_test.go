package topic_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/ledger/topic/topictest"
)

// BenchmarkPublish tells what a transaction costs, Kafka's side included where that is in-process:
// CPU of the whole process, client and cluster.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("%d-events", n), func(b *testing.B) {
			ledger := uuid.New()
			t := topictest.New(b, 1, ledger)
			chain := topictest.ChainOf(b, ledger, 0, 1)
			p, err := t.Producer(b.Context(), 0)
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			before := cpu(b)
			for b.Loop() {
				if _, err := p.Publish(b.Context(), chain.Next(b, n)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
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
