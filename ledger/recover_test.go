package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/migrations/pgtest"
)

// longTail lets alice's shard grow by events of all kinds, 86 for each side, keeps a copy of what the
// tables came to, and restores the shard to the past. It returns how many events are lost.
func (h *history) longTail(sides int) int64 {
	h.Helper()
	yes, no, limit := true, false, domain.MustAmount("7")
	together(h.T, sides, func(i int) error {
		for n := range 6 {
			name := fmt.Sprint(i, "-", n)
			a, b, c := uuid.New(), uuid.New(), uuid.New()
			for _, op := range []domain.Op{
				reserve(a, "1"), settle(a, "0.4"), reserve(b, "0.5"), settle(b, "0.75"),
				domain.Configure{Data: domain.AccountData{Frozen: &no, CreditLimit: &limit, Actor: "test"}},
				reserve(c, "0.1"), domain.Release{RequestID: c, Reason: domain.RefundClientAbort}, reserve(uuid.New(), "0.01"),
				credit("2", name), domain.Debit{Amount: domain.MustAmount("0.5"), Data: domain.MovementData{Reference: "d" + name, Actor: "test"}},
			} {
				if _, err := h.ledger.Append(context.Background(), command(inLost, op)); err != nil {
					return fmt.Errorf("%T: %w", op, err)
				}
			}
		}
		return nil
	})
	must(h, h.ledger, command("ivan", domain.Open{Grant: domain.MustAmount("5"), Actor: "test"})) // of the same shard
	must(h, h.ledger, command("ivan", domain.Configure{Data: domain.AccountData{Frozen: &yes, Actor: "test"}}))
	h.topic.fill(h, h.ledger.Reader)
	for _, table := range ledgerTables {
		mustExec(h, h.conn, `CREATE TABLE whole_`+table+` AS SELECT * FROM `+table)
	}
	seq, _ := h.head(lostShard)
	h.restore(lostShard)
	return seq - 4
}

// wantWhole wants every row to be as it was before the restore; the epoch counts recoveries.
func (h *history) wantWhole(epoch int64) {
	h.Helper()
	mustExec(h, h.conn, `UPDATE whole_ledger_shards SET epoch = $1 WHERE shard = $2`, epoch, lostShard)
	for _, table := range ledgerTables {
		if n := queryInt(h, h.conn, fmt.Sprintf(`SELECT count(*) FROM ((TABLE %[1]s EXCEPT TABLE whole_%[1]s)
			UNION ALL (TABLE whole_%[1]s EXCEPT TABLE %[1]s)) d`, table)); n != 0 {
			h.Errorf("%s: %d rows differ", table, n)
		}
	}
	h.wantClean()
}

// TestRecover brings back bit for bit what was lost, after saying dry what it would do, beside a gateway.
func TestRecover(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	lost := h.longTail(8)
	h.wantRefused(h.ledger, ErrTailLost)
	dry, err := h.recoverShard(RecoverOptions{Dry: true})
	if err != nil {
		t.Fatal(err)
	}
	h.wantHead(4, 0)
	var progress []string
	got, err := h.recoverShard(RecoverOptions{Progress: func(shard int32, seq, last int64) {
		progress = append(progress, fmt.Sprint(shard, ":", seq, "/", last))
	}})
	if err != nil || got.Appended != lost || got.Epoch != 1 || got.Topic != lost+4 || got.Head != lost+4 {
		t.Fatalf("%+v, %v", got, err)
	}
	h.wantWhole(1)
	dry.Dry = false
	if fmt.Sprint(dry) != fmt.Sprint(got) {
		t.Errorf("dry it said %+v, then it was %+v", dry, got)
	}
	if want := fmt.Sprint("1:", lost+4, "/", lost+4); len(progress) < 2 || progress[len(progress)-1] != want {
		t.Errorf("progress %v", progress)
	}
	if got, err = h.recoverShard(RecoverOptions{}); err != nil || got.Appended != 0 || got.Compared != lost+4 {
		t.Errorf("again: %+v, %v", got, err)
	}
	h.wantWhole(1)
	h.wantGoesOn(h.ledger)
}

// TestRecoverIsKilled breaks the connection at every statement of a recovery, in its first and a later
// batch: nothing may be there half, and the next run must finish what this one began.
func TestRecoverIsKilled(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	between, through := newProxy(t, url)
	h := newHistory(t, url, Config{})
	lost := h.longTail(4) // one full batch and one more
	p := open(t, Config{URL: through})
	for _, at := range []string{lockHeads, loadAccounts, insertEvents, updateAccounts, insertReservations, updateHeads, raiseEpoch, "commit"} {
		for _, f := range []fault{cutBefore, cutAfter, cutAtOnce, rollback} {
			for _, n := range []int{1, 2} {
				if n == 2 && at == raiseEpoch || f == rollback && at != "commit" {
					continue
				}
				between.every(n, f, is(at))
				second := h.killedAndAgain(p, between, lost)
				if f == cutAtOnce { // after those before it, one look at everything is enough
					h.wantWhole(second.Epoch)
				}
				h.restore(lostShard)
			}
		}
	}
}

// killedAndAgain runs a recovery that between breaks, and another one that must end it.
func (h *history) killedAndAgain(p *Postgres, between *proxy, lost int64) Recovered {
	h.Helper()
	first, err := p.Recover(h.Context(), lostShard, h.topic, RecoverOptions{})
	if err == nil || between.done() == 0 {
		h.Fatalf("the fault did nothing: %+v", first)
	}
	between.every(1, noFault, is("nothing"))
	if _, epoch := h.head(lostShard); epoch > 1 || first.Appended > 0 && epoch == 0 {
		h.Fatalf("epoch %d after %+v", epoch, first)
	}
	second, err := p.Recover(h.Context(), lostShard, h.topic, RecoverOptions{})
	if err != nil || second.Head != lost+4 || first.Appended+second.Appended > lost {
		h.Fatalf("%+v, then %+v, %v", first, second, err)
	}
	return second
}

// TestRecoverEndsWithin recovers from a topic that ends anywhere, within a settlement too: what comes back
// is what was there, and whole.
func TestRecoverEndsWithin(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	lost := h.longTail(1)
	p := open(t, Config{URL: h.url})
	all := h.topic.records[lostShard]
	completed := map[domain.Kind]int64{}
	for end := len(all); end > len(all)-30; end-- {
		h.topic.records[lostShard] = all[:end]
		dry, err := p.Recover(t.Context(), lostShard, h.topic, RecoverOptions{Dry: true})
		if err != nil {
			t.Fatalf("dry to %d: %v", end, err)
		}
		got, err := p.Recover(t.Context(), lostShard, h.topic, RecoverOptions{})
		dry.Dry = false
		if err != nil || fmt.Sprint(got) != fmt.Sprint(dry) || got.Appended != lost-int64(len(all)-end) || got.Head != int64(end)+got.Completed {
			t.Fatalf("to %d: %+v, dry %+v, %v", end, got, dry, err)
		}
		if n := queryInt(t, h.conn, `SELECT count(*) FROM (TABLE ledger_events EXCEPT TABLE whole_ledger_events) d`); n != 0 {
			t.Fatalf("to %d: %d events are not what they were", end, n)
		}
		if got.Completed > 0 {
			e, err := domain.Decode(all[end].Payload)
			if err != nil {
				t.Fatal(err)
			}
			completed[e.Kind]++
		}
		h.wantClean()
		h.restore(lostShard)
	}
	if completed[domain.KindRefund] == 0 || completed[domain.KindOverage] == 0 || len(completed) != 2 {
		t.Errorf("completed %v", completed)
	}
}

// TestRecoverKeepsCommandsTogether lets the bound of a batch fall within a settlement: a commit without its
// refund is nothing that the tables could hold.
func TestRecoverKeepsCommandsTogether(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	together(t, MaxBatch-4, func(i int) error { // behind the two that are lost already
		_, err := h.ledger.Append(context.Background(), command(inLost, credit("1", fmt.Sprint("together-", i))))
		return err
	})
	id := uuid.New()
	must(t, h.ledger, command(inLost, reserve(id, "1")))
	if out := must(t, h.ledger, command(inLost, settle(id, "0.5"))); out.Events[0].Event.Seq != 4+MaxBatch || len(out.Events) != 2 {
		t.Fatalf("the settlement is at %s", out.Position())
	}
	must(t, h.ledger, command(inLost, credit("1", "behind")))
	h.topic.fill(t, h.ledger.Reader)
	h.restore(lostShard)
	if got := h.mustRecover(); got.Appended != MaxBatch+2 || got.Completed != 0 {
		t.Fatalf("%+v", got)
	}
	h.wantClean()
}

// TestRecoverTogether runs several recoveries at once.
func TestRecoverTogether(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	lost := h.longTail(8)
	p := open(t, Config{URL: h.url})
	var appended atomic.Int64
	together(t, 6, func(int) error {
		got, err := p.Recover(t.Context(), lostShard, h.topic, RecoverOptions{})
		appended.Add(got.Appended)
		if err == nil && got.Head != lost+4 {
			err = fmt.Errorf("it ended at %d", got.Head)
		}
		return err
	})
	if appended.Load() != lost {
		t.Errorf("%d events were appended, not %d", appended.Load(), lost)
	}
	_, epoch := h.head(lostShard)
	if epoch < 1 || epoch > 6 {
		t.Errorf("epoch %d", epoch)
	}
	h.wantWhole(epoch)
}

// TestRecoverBesideAppends recovers a shard that never lost anything and is appended to meanwhile.
func TestRecoverBesideAppends(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	p := open(t, Config{URL: h.url})
	var wait sync.WaitGroup
	defer wait.Wait()
	stop := make(chan struct{})
	defer close(stop)
	wait.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := h.ledger.Append(context.Background(), command(inLost, credit("1", fmt.Sprint("n", n)))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 50 {
		h.topic.fill(t, p.Reader)
		if got, err := p.Recover(t.Context(), lostShard, h.topic, RecoverOptions{}); err != nil || got.Epoch != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
}

// TestRecoverFork wants a recovery to stop at a fork: another history went on from where the tail was lost.
func TestRecoverFork(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	h.restore(lostShard)
	unaware := open(t, Config{URL: h.url})
	must(h, unaware, command(inLost, credit("66", "forged")))
	h.wantRefused(h.ledger, ErrTailLost)
	_, err := h.recoverShard(RecoverOptions{})
	wantError(t, "one event", err, ErrFork, "1:5")
	must(h, unaware, command(inLost, credit("66", "more")))
	must(h, unaware, command(inLost, credit("66", "and more")))
	_, err = h.recoverShard(RecoverOptions{GiveUp: true})
	wantError(t, "a longer history", err, ErrFork, "1:5")
	h.wantRefused(h.ledger, ErrTailLost)
	h.wantHead(7, 0)
}

// brokenCopy is a topic whose Scan ends early, with err if there is one, and that runs meanwhile before.
type brokenCopy struct {
	*fakeTopic
	after     int
	err       error
	meanwhile func()
}

func (b brokenCopy) Scan(ctx context.Context, shard int32) iter.Seq2[*topic.Record, error] {
	return func(yield func(*topic.Record, error) bool) {
		n := 0
		for r, err := range b.fakeTopic.Scan(ctx, shard) {
			if n == b.after {
				break
			}
			if n++; !yield(r, err) {
				return
			}
		}
		if b.meanwhile != nil {
			b.meanwhile()
		}
		if b.err != nil {
			yield(nil, b.err)
		}
	}
}

// TestRecoverBrokenCopy reads a topic that breaks off, and a ledger that is restored once more meanwhile.
func TestRecoverBrokenCopy(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	p := open(t, Config{URL: h.url})
	for _, c := range []struct {
		name string
		copy brokenCopy
		want error
		text string
	}{
		{"the brokers leave", brokenCopy{after: 5, err: errAway}, errAway, ""},
		{"it ends early", brokenCopy{after: 5}, nil, "ended at 1:5, before its last record, 1:6"},
		{"it has nothing", brokenCopy{}, nil, "ended at 1:0, before its last record, 1:6"},
	} {
		h.restore(lostShard)
		c.copy.fakeTopic = h.topic
		_, err := p.Recover(t.Context(), lostShard, c.copy, RecoverOptions{})
		wantError(t, c.name, err, c.want, c.text)
	}
	if _, err := p.Recover(t.Context(), testShards, h.topic, RecoverOptions{}); err == nil {
		t.Error("there is no such shard")
	}
	h.topic.leave(errAway)
	if _, err := p.Recover(t.Context(), lostShard, h.topic, RecoverOptions{}); !errors.Is(err, errAway) {
		t.Error(err)
	}
	h.topic.leave(nil)
	h.restore(lostShard)
	h.mustRecover()
	must(h, p, command(inLost, credit("7", "seven")))
	h.topic.fill(t, p.Reader)
	all := h.topic.records[lostShard]
	for text, records := range map[string][]*topic.Record{
		"it had an event at 1:5":                all,
		"from 5 (epoch 1) to 4 (epoch 0)":       all[5:],
		"the topic begins with it, the ledger ": all[6:],
	} {
		h.restore(lostShard)
		h.recoverHalf()
		h.topic.records[lostShard] = records
		moved := brokenCopy{fakeTopic: h.topic, after: 7, meanwhile: func() { h.restore(lostShard) }}
		_, err := p.Recover(t.Context(), lostShard, moved, RecoverOptions{})
		want := ErrMoved
		if len(records) == 1 {
			want = ErrRecord
		}
		wantError(t, "restored meanwhile", err, want, text)
		h.topic.records[lostShard] = all
	}
	h.restore(lostShard)
	h.mustRecover()
	h.wantClean()
}
