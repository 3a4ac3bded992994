package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"llm-gateway/gateway/observe"
	"llm-gateway/ledger"
)

const (
	// gaugesEvery is how often what only Postgres knows is read for the metrics, however often they are scraped.
	gaugesEvery = 15 * time.Second
	// gaugesTime bounds one such reading.
	gaugesTime = 3 * time.Second
)

// gauges keeps the metrics that Postgres must be asked for: what is reserved. A scrape never waits for them.
type gauges struct {
	ledger interface {
		Reservations(ctx context.Context) (ledger.Reservations, error)
	}
	metrics *observe.Metrics
	log     *slog.Logger
	cancel  context.CancelFunc
	wait    sync.WaitGroup
}

// watchMoney keeps those metrics, where anybody asks for them.
func (p *parts) watchMoney(ctx context.Context, s *Settings, log *slog.Logger) {
	if s.Prometheus {
		p.gauges = gauges{ledger: p.ledger, metrics: p.metrics, log: log}
		p.gauges.start(ctx)
	}
}

// start begins to look, at once and then at an interval. close ends it.
func (g *gauges) start(ctx context.Context) {
	ctx, g.cancel = context.WithCancel(ctx)
	g.wait.Go(func() {
		tick := time.NewTicker(gaugesEvery)
		defer tick.Stop()
		for {
			g.look(ctx)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

func (g *gauges) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, gaugesTime)
	defer cancel()
	now, err := g.ledger.Reservations(ctx)
	if err != nil {
		g.metrics.ReservationsUnknown()
		g.log.Debug("what is reserved cannot be read for the metrics", "error", err)
		return
	}
	g.metrics.Reservations(now.Open, now.Oldest, now.Held)
}

func (g *gauges) close() {
	if g.cancel != nil {
		g.cancel()
		g.wait.Wait()
	}
}
