package projections

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
)

// TestRebuildTooLate: the swap of a rebuild whose table another one has replaced.
func TestRebuildTooLate(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 40)
	s.project(t, 1, 1)
	before := s.everything(t)
	late, next := s.builder(t, s.rebuilds(t)), s.builder(t, s.rebuilds(t))
	s.upTo(t, late, late.build, late.compare, late.catchUp)
	s.upTo(t, next, next.prepare)
	if err := late.swap(t.Context()); !errors.Is(err, errGone) {
		t.Errorf("%v", err)
	}
	late.discard(t.Context())
	s.upTo(t, next, next.compare, next.catchUp, next.swap)
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}

// builder is a rebuild of balances, to be done step by step and without a lease.
func (s *told) builder(t *testing.T, c RebuildConfig) *builder {
	t.Helper()
	pool, err := c.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b, err := c.builder(pool, "balances", "balances_rebuild", c.Topic)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// upTo takes steps of a rebuild.
func (s *told) upTo(t *testing.T, b *builder, steps ...func(context.Context) error) {
	t.Helper()
	for i, do := range steps {
		if err := do(t.Context()); err != nil {
			t.Fatalf("step %d of %s: %v", i, b.table, err)
		}
	}
}

// TestCompareAfterASwap: a comparison that begins while another swap is under way sees the table that
// was swapped in, and as it is.
func TestCompareAfterASwap(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 40)
	s.project(t, 1, 1)
	b := s.builder(t, s.rebuilds(t))
	s.upTo(t, b, b.build)
	tx, err := s.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	exec := func(sql string) {
		t.Helper()
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(`LOCK TABLE balances`)
	compared := make(chan error, 1)
	go func() { compared <- b.compare(context.Background()) }()
	eventually(t, "the comparison's wait", func() bool {
		return s.count(t, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'balances'::regclass`) == 1
	})
	exec(`SELECT create_projection('balances', 'balances_other')`)
	exec(`INSERT INTO balances_other SELECT * FROM balances`)
	exec(`DROP TABLE balances`)
	exec(`ALTER TABLE balances_other RENAME TO balances`)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-compared; err != nil || !b.result.Compared || b.result.Differences.Count() != 0 {
		t.Errorf("%+v, %v", b.result, err)
	}
}

// lossy breaks the connection when the swap's COMMIT has been answered, before the answer is seen.
type lossy struct {
	net.Conn
	swaps, lost *atomic.Bool
}

// Write implements net.Conn.
func (c lossy) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("RENAME CONSTRAINT")) {
		c.swaps.Store(true)
	}
	if !c.swaps.Load() || c.lost.Load() || !bytes.Contains(bytes.ToLower(b), []byte("commit")) {
		return c.Conn.Write(b)
	}
	c.lost.Store(true)
	c.Conn.Write(b)
	c.Read(make([]byte, 1))
	c.Close()
	return 0, errDead
}

// TestRebuildLosesAnswer: the answer to the swap's COMMIT is lost, and the rebuild finds out by itself.
func TestRebuildLosesAnswer(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 40)
	s.project(t, 1, 1)
	before := s.everything(t)
	c, swaps, lost := s.rebuilds(t), new(atomic.Bool), new(atomic.Bool)
	c.Owner.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return lossy{conn, swaps, lost}, err
	}
	if r := mustRebuild(t, c, "balances"); !r.Swapped || !lost.Load() || r.Events != int64(len(s.all())) {
		t.Errorf("%+v, lost %t", r, lost.Load())
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}
