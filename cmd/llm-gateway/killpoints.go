//go:build faults

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
	"llm-gateway/ledger"
)

// A binary built with the tag faults kills itself, as kill -9 would, when it comes to a named point for
// the n-th time: KILL_AT=point:n. The tests build one; nobody else does. The points are where a step
// has become durable, or has been sent, and the next has not:
//
//	reserved    the reserve is committed, the provider has not been called
//	called      the provider has answered, or sent its first chunk
//	settled     the settlement is committed, its answer has not gone out
//	appended    a batch is committed, the relay has not been told
//	batch       a batch is written, COMMIT has not been sent
//	committed   COMMIT has been answered, nobody has been told
//	projected   a projection's table and position are written, COMMIT has not been sent
//	moved       its COMMIT has been answered, Redis does not know
//	journaled   the journal has a settlement, its answer has not gone out
const killSetting = "KILL_AT"

var killAt, killLeft = func() (string, *atomic.Int64) {
	point, text, _ := strings.Cut(os.Getenv(killSetting), ":")
	left := &atomic.Int64{}
	if point == "" {
		return "", left
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		panic(fmt.Sprintf("%s: %q", killSetting, text))
	}
	left.Store(n)
	return point, left
}()

// reach comes to a point.
func reach(point string) {
	if point == killAt && killLeft.Add(-1) == 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it cannot fail
		select {}                                  // until it comes
	}
}

// withKillPoints puts the points of the ledger's writer and of the projector into its configuration.
func withKillPoints(c ledger.Config) ledger.Config {
	feed := c.Hooks.Appended
	c.Hooks.Appended = func(events []domain.Recorded) {
		reach("appended")
		feed(events)
	}
	c.Tracer, c.PoolTracer = killTracer{"batch", "committed"}, killTracer{"projected", "moved"}
	return c
}

// killTracer has the points before and behind each COMMIT of some connections.
type killTracer struct{ before, after string }

type killStatement struct{}

// TraceQueryStart implements pgx.QueryTracer.
func (k killTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL != "commit" {
		return ctx
	}
	reach(k.before)
	return context.WithValue(ctx, killStatement{}, true)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (k killTracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(killStatement{}) != nil {
		reach(k.after)
	}
}

// killLedger has the points between the gateway and its ledger.
type killLedger struct{ gateway.Ledger }

func withKillLedger(l gateway.Ledger) gateway.Ledger { return killLedger{l} }

// Append implements gateway.Ledger.
func (l killLedger) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	out, err := l.Ledger.Append(ctx, c)
	if err == nil {
		switch c.Op.(type) {
		case domain.Reserve:
			reach("reserved")
		case domain.Settle:
			reach("settled")
		}
	}
	return out, err
}

// killJournal has the point behind the journal.
type killJournal struct{ gateway.Journal }

func withKillJournal(j gateway.Journal) gateway.Journal { return killJournal{j} }

// Put implements gateway.Journal.
func (j killJournal) Put(ctx context.Context, c domain.Command) error {
	err := j.Journal.Put(ctx, c)
	if err == nil {
		reach("journaled")
	}
	return err
}

// killProvider has the points of a provider's call.
type killProvider struct{ provider.Provider }

func withKillProviders(all map[string]provider.Provider) map[string]provider.Provider {
	for name, p := range all {
		all[name] = killProvider{p}
	}
	return all
}

// Complete implements provider.Provider.
func (p killProvider) Complete(ctx context.Context, r provider.Request) (*provider.Completion, error) {
	c, err := p.Provider.Complete(ctx, r)
	reach("called")
	return c, err
}

// Stream implements provider.Provider.
func (p killProvider) Stream(ctx context.Context, r provider.Request) (provider.Stream, error) {
	s, err := p.Provider.Stream(ctx, r)
	if err != nil {
		return s, err
	}
	return &killStream{Stream: s}, nil
}

type killStream struct {
	provider.Stream
	chunks int
}

// Next implements provider.Stream.
func (s *killStream) Next() (provider.Chunk, error) {
	c, err := s.Stream.Next()
	if s.chunks++; s.chunks == 2 { // the first brings the role, and nothing that costs
		reach("called")
	}
	return c, err
}
