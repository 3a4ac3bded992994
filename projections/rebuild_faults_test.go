package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/lease"
	"llm-gateway/ledger/topic"
)

var errDead = errors.New("the process is dead")

// mortal is a process that dies when it has written to Postgres so often: all its connections end, and
// it can make no more.
type mortal struct {
	arrives bool // the last that it writes
	die     context.CancelFunc
	left    atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

func (m *mortal) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left.Load() <= 0 {
		conn.Close()
		return nil, errDead
	}
	m.conns = append(m.conns, conn)
	return mortalConn{conn, m}, nil
}

type mortalConn struct {
	net.Conn
	*mortal
}

// Write implements net.Conn.
func (c mortalConn) Write(b []byte) (int, error) {
	left := c.left.Add(-1)
	if left > 0 {
		return c.Conn.Write(b)
	}
	if left == 0 && c.arrives {
		c.Conn.Write(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.die()
	return 0, errDead
}

// dying is a configuration whose process dies at its n-th write.
func (s *told) dying(t *testing.T, n int64, arrives bool) (RebuildConfig, context.Context, *mortal) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	c, m := s.rebuilds(t), &mortal{arrives: arrives, die: cancel}
	m.left.Store(n)
	c.Owner.DialFunc = m.dial
	return c, ctx, m
}

// TestRebuildDies kills a rebuild at each of its writes, which arrives or does not. The live table is
// then as it was, or as it will be; the next rebuild finds what the dead one left, and makes do with it.
func TestRebuildDies(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 40)
	s.project(t, 1, 1)
	right := s.everything(t)
	const crime = `UPDATE balances SET available = available + 1 WHERE account = $1`
	live := `SELECT string_agg(t::text, E'\n' ORDER BY t::text) FROM (SELECT b::text FROM balances b
		UNION ALL SELECT p::text FROM projection_positions p WHERE projection = 'balances') AS t(t)`
	mended := s.text(t, live)
	s.exec(t, crime, s.accounts[0])
	wrong := s.text(t, live)
	ends, n, lived := map[string]int{}, int64(0), false
	for ; !lived; n++ {
		for _, arrives := range []bool{false, true} {
			if s.text(t, live) == mended {
				s.exec(t, crime, s.accounts[0])
			}
			c, ctx, m := s.dying(t, n+1, arrives)
			_, err := Rebuild(ctx, c, "balances")
			lived = m.left.Load() > 0
			now := s.text(t, live)
			if now != wrong && now != mended || now == wrong && (err == nil || lived) {
				t.Fatalf("dead at write %d, which arrives: %t: %v\n%s", n, arrives, err, now)
			}
			ends[map[string]string{wrong: "wrong", mended: "mended"}[now]]++
			s.exec(t, `DELETE FROM ledger_leases`)
		}
	}
	if n < 20 || ends["wrong"] == 0 || ends["mended"] == 0 {
		t.Errorf("after %d of them they ended so: %v", n, ends)
	}
	mustRebuild(t, s.rebuilds(t), "balances")
	wantLinesEqual(t, s.everything(t), right)
	s.wantTidy(t)
}

// TestRebuildCancelled: who ends a rebuild leaves nothing behind.
func TestRebuildCancelled(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 60)
	s.project(t, 1, 1)
	before := s.everything(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := s.rebuilds(t)
	c.Progress = func(int32, int64, int64) { cancel() }
	for name, run := range map[string]func() error{
		"rebuild": func() error { _, err := Rebuild(ctx, c, "stats"); return err },
		"verify":  func() error { _, err := Verify(ctx, c, "stats"); return err },
	} {
		if err := run(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}

// TestRebuildWaits: a reader that holds the live table for long is waited for, and the others do not
// wait behind the swap.
func TestRebuildWaits(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 40)
	s.project(t, 1, 1)
	tx, err := s.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `LOCK TABLE balances IN ACCESS SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	done := make(chan *Result)
	go func() {
		r, err := Rebuild(context.Background(), s.rebuilds(t), "balances")
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	waiting := `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'balances'::regclass`
	for range 2 {
		eventually(t, "the swap's wait", func() bool { return s.count(t, waiting) == 1 })
		if _, _, err := NewReader(s.pool, s.meta).Balance(t.Context(), s.accounts[0], domain.Position{}); err != nil {
			t.Error(err)
		}
		eventually(t, "the swap's giving way", func() bool { return s.count(t, waiting) == 0 })
	}
	tx.Rollback(context.Background())
	if r := <-done; !r.Swapped {
		t.Errorf("%+v", r)
	}
	s.wantTidy(t)
}

// TestRebuildUnderLoad rebuilds while events come, a projector applies them, and readers read on
// prepared statements: every answer is what the events up to its position make, no reader is ever sent
// back, no rebuild finds a difference.
func TestRebuildUnderLoad(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 100)
	to := s.publish(t, 1, 1)
	p := Start(t.Context(), Config{Pool: s.pool, Meta: s.meta, Ledger: s.ledger, Topic: OfTopic(to), Lease: &lease.Keeper{Pool: s.pool, Owner: uuid.New()}})
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	book := newBook(s)
	var wait sync.WaitGroup
	wait.Go(func() { s.goOn(ctx, t, to, book) })
	for reader := range 3 {
		pool := s.connect(t, serviceRole, reader == 2, nil)
		wait.Go(func() { s.readOn(ctx, t, NewReader(pool, s.meta), book) })
	}
	c := s.rebuilds(t)
	for i, name := range []string{"balances", "transactions", "stats", "balances", "balances", "transactions"} {
		if c.Topic = nil; i%2 == 1 {
			c.Topic = to
		}
		r := mustRebuild(t, c, name)
		if !r.Compared || r.Differences.Count() != 0 || !r.Swapped {
			t.Errorf("%+v", r)
		}
	}
	cancel()
	wait.Wait()
	head := book.heads()
	eventually(t, "the projector", func() bool { return fmt.Sprint(seqs(s.positions(t, "balances"))) == fmt.Sprint(head) })
	found, err := Verify(t.Context(), c)
	for _, r := range found {
		if r.Differences.Count() != 0 {
			t.Errorf("%+v", r)
		}
	}
	if err != nil || len(found) != len(all) || book.read.Load() == 0 {
		t.Errorf("%d verified, %d read; %v", len(found), book.read.Load(), err)
	}
}

// TestRebuildZombie: a rebuild that goes on after another one has taken its table's name does no harm, nor
// does it to the other one.
func TestRebuildZombie(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 100)
	s.project(t, 1, 1)
	before := s.everything(t)
	// start begins a rebuild without a lease, which stops after its first page.
	start := func() (goOn chan struct{}, ended chan error) {
		stopped, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		var once sync.Once
		c := s.rebuilds(t)
		c.Progress = func(int32, int64, int64) { once.Do(func() { close(stopped); <-goOn }) }
		go func() {
			pool, err := c.open(context.Background())
			if err != nil {
				ended <- err
				return
			}
			defer pool.Close()
			b, err := c.builder(pool, "balances", "balances_rebuild", nil)
			if err == nil {
				err = b.rebuild(context.Background())
			}
			ended <- err
		}()
		select {
		case <-stopped:
		case err := <-ended: // the other one was faster
			ended <- err
		}
		return goOn, ended
	}
	first, firstEnds := start()
	second, secondEnds := start()
	close(first)
	t.Log("the first:", <-firstEnds)
	close(second)
	t.Log("the second:", <-secondEnds)
	mustRebuild(t, s.rebuilds(t), "balances")
	wantLinesEqual(t, s.everything(t), before)
	s.wantTidy(t)
}

// TestRebuildOvertakes: what the projector applied since the catching up is not lost by the swap, be it
// little or much.
func TestRebuildOvertakes(t *testing.T) {
	t.Parallel()
	s := tell(t, false, 100)
	s.project(t, 1, 3)
	c := s.rebuilds(t)
	for name, more := range map[string]int{"little": 20, "much": swapEvents + 100} {
		b := s.builder(t, c)
		s.upTo(t, b, b.build, b.compare, b.catchUp)
		s.bulk(t, more)
		for shard, at := range s.positions(t, "balances") {
			next := step{projection: balances{}, table: "balances", shard: int32(shard), from: at, events: s.events[int32(shard)][at.seq:]}
			if err := s.apply(next); err != nil {
				t.Fatal(err)
			}
		}
		want := s.contents(t, "balances") + s.contents(t, "(SELECT * FROM projection_positions WHERE projection = 'balances')")
		if name == "much" {
			if err := b.trySwap(t.Context()); !errors.Is(err, errFar) {
				t.Errorf("%d events more: %v", more, err)
			}
		}
		s.upTo(t, b, b.swap)
		wantLinesEqual(t, s.contents(t, "balances")+s.contents(t, "(SELECT * FROM projection_positions WHERE projection = 'balances')"), want)
	}
}

// bulk adds events, many at a time.
func (s *told) bulk(t *testing.T, n int) {
	t.Helper()
	var wait sync.WaitGroup
	var mu sync.Mutex
	queue := make(chan int, n)
	for i := range n {
		queue <- i
	}
	close(queue)
	for range 64 {
		wait.Go(func() {
			for i := range queue {
				out, err := s.ledger.Append(context.Background(), domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())),
					Account: s.accounts[i%len(s.accounts)], Op: domain.Credit{Amount: domain.MustAmount("0.5"), Data: domain.MovementData{Reference: uuid.NewString(), Actor: "test"}}})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, e := range out.Events {
					s.events[e.Event.Shard] = append(s.events[e.Event.Shard], e)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	for _, events := range s.events {
		slices.SortFunc(events, func(a, b domain.Recorded) int { return cmp.Compare(a.Event.Seq, b.Event.Seq) })
	}
}

// book is what every account's balances were after each of its events.
type book struct {
	mu     sync.Mutex
	states map[string][]domain.Account // by account, in order
	ends   []int64                     // by shard
	read   atomic.Int64
}

func newBook(s *told) *book {
	b := &book{states: map[string][]domain.Account{}, ends: make([]int64, s.meta.Shards)}
	for _, e := range s.all() {
		b.add(&e.Event)
	}
	return b
}

func (b *book) add(e *domain.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var a domain.Account
	if states := b.states[e.Account]; len(states) > 0 {
		a = states[len(states)-1]
	}
	available, reserved := e.Change()
	a.Available, a.Reserved, a.LastSeq = a.Available.Add(available), a.Reserved.Add(reserved), e.Seq
	b.states[e.Account] = append(b.states[e.Account], a)
	b.ends[e.Shard] = e.Seq
}

// at is an account as of a position; false where that is not known yet.
func (b *book) at(account string, p domain.Position) (a domain.Account, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, state := range b.states[account] {
		if state.LastSeq <= p.Seq {
			a = state
		}
	}
	return a, b.ends[p.Shard] >= p.Seq
}

func (b *book) heads() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]int64(nil), b.ends...)
}

// goOn makes things happen and publishes them, until ctx ends.
func (s *told) goOn(ctx context.Context, t *testing.T, to *topic.Topic, b *book) {
	producers := make([]*topic.Producer, s.meta.Shards)
	for shard := range producers {
		p, err := to.Producer(context.Background(), int32(shard))
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		producers[shard] = p
	}
	s.append = func(ctx context.Context, c domain.Command) (domain.Outcome, error) {
		out, err := s.ledger.Append(ctx, c)
		for i := range out.Events {
			b.add(&out.Events[i].Event)
		}
		if len(out.Events) > 0 {
			if _, err := producers[out.Events[0].Event.Shard].Publish(context.Background(), out.Events); err != nil {
				t.Error(err)
			}
		}
		return out, err
	}
	for ctx.Err() == nil {
		s.some(t, 5)
	}
}

// readOn reads balances and holds them against the book, until ctx ends.
func (s *told) readOn(ctx context.Context, t *testing.T, r *Reader, b *book) {
	last := make([]int64, s.meta.Shards)
	for i := 0; ctx.Err() == nil; i++ {
		account := s.accounts[i%len(s.accounts)]
		got, reading, err := r.Balance(context.Background(), account, domain.Position{})
		if err != nil {
			t.Error(err)
			return
		}
		p := reading.Position
		if p.Seq < last[p.Shard] {
			t.Errorf("read at %s after %d", p, last[p.Shard])
		}
		last[p.Shard] = p.Seq
		var want domain.Account
		eventually(t, "the book", func() (known bool) { want, known = b.at(account, p); return known })
		if got == nil {
			got = &domain.Account{}
		}
		if !got.Available.Equal(want.Available) || !got.Reserved.Equal(want.Reserved) || got.LastSeq != want.LastSeq {
			t.Errorf("%s at %s: %+v, not %+v", account, p, got, want)
			return
		}
		b.read.Add(1)
	}
}
