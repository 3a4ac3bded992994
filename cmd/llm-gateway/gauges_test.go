package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"llm-gateway/domain"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/observe"
	"llm-gateway/ledger"
)

// lookedAt is a ledger that answers as its test says, and counts who asks.
type lookedAt struct {
	answer func(ctx context.Context) (ledger.Reservations, error)
	looks  int
}

func (l *lookedAt) Reservations(ctx context.Context) (ledger.Reservations, error) {
	l.looks++
	return l.answer(ctx)
}

// TestGauges: what is reserved is read at once and every 15 seconds, however often it is scraped; a ledger that
// hangs is given up on and not known, and an end ends it.
func TestGauges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := observe.NewMetrics()
		scrape := func(want string) {
			t.Helper()
			w := httptest.NewRecorder()
			promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
				t.Errorf("no %s", want)
			}
		}
		scrape("ledger_open_reservations NaN")
		l := &lookedAt{answer: func(context.Context) (ledger.Reservations, error) {
			return ledger.Reservations{Open: 3, Held: domain.MustAmount("0.75"), Oldest: time.Minute}, nil
		}}
		g := &gauges{ledger: l, metrics: m, log: slog.New(slog.DiscardHandler)}
		g.start(t.Context())
		synctest.Wait()
		for range 100 {
			scrape("ledger_open_reservations 3")
		}
		scrape("ledger_reserved_amount 0.75")
		scrape("ledger_open_reservation_oldest_seconds 60")
		<-time.After(gaugesEvery - time.Second)
		if l.looks != 1 {
			t.Errorf("%d looks", l.looks)
		}
		l.answer = func(ctx context.Context) (ledger.Reservations, error) {
			<-ctx.Done()
			return ledger.Reservations{}, errors.Join(errors.New("away"), ctx.Err())
		}
		<-time.After(2*time.Second + gaugesTime)
		synctest.Wait()
		scrape("ledger_reserved_amount NaN")
		<-time.After(gaugesEvery)
		g.close()
		if l.looks != 3 {
			t.Errorf("%d looks", l.looks)
		}
	})
}

// TestDependencyMetric: what the health check saw is what the metrics say: who is slow has answered, who is down has not,
// and of whom nobody is asked nothing is said.
func TestDependencyMetric(t *testing.T) {
	t.Parallel()
	m := observe.NewMetrics()
	scraped := func() (out []string) {
		w := httptest.NewRecorder()
		promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for line := range strings.Lines(w.Body.String()) {
			if strings.HasPrefix(line, "dependency_up{") {
				out = append(out, strings.TrimSpace(line))
			}
		}
		return out
	}
	for _, look := range []struct {
		states map[string]health.State
		want   string
	}{
		{map[string]health.State{"disk": health.Up}, ""},
		{map[string]health.State{"postgres": health.Degraded, "redis": health.Down, "clock": health.Down},
			`dependency_up{dependency="postgres"} 1 dependency_up{dependency="redis"} 0`},
		{map[string]health.State{"postgres": health.Down, "redis": health.Up},
			`dependency_up{dependency="postgres"} 0 dependency_up{dependency="redis"} 1`},
	} {
		r := &health.Report{Components: map[string]*health.Component{}}
		for name, state := range look.states {
			r.Components[name] = &health.Component{State: state}
		}
		tellMetrics(m, r)
		if got := strings.Join(scraped(), " "); got != look.want {
			t.Errorf("%v: %s", look.states, got)
		}
	}
}
