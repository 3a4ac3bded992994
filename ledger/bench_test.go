package ledger

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// BenchmarkRequests is one request's two appends, by 64 clients over 64 accounts at once.
func BenchmarkRequests(b *testing.B) {
	p, _ := openPostgres(b)
	const clients = 64
	for i := range clients {
		mustOpen(b, p, fmt.Sprint("client-", i), "1000000")
	}
	b.ResetTimer()
	var wait sync.WaitGroup
	for i := range clients {
		wait.Go(func() {
			account := fmt.Sprint("client-", i)
			for range (b.N + clients - 1) / clients {
				id := uuid.New()
				for _, op := range []domain.Op{reserve(id, "1"), settle(id, "0.25")} {
					if _, err := p.Append(context.Background(), command(account, op)); err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	wait.Wait()
	b.ReportMetric(3*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
