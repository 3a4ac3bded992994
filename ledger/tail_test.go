package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/migrations/pgtest"
)

// recoverShard recovers alice's shard as the command line would, beside the gateway.
func (h *history) recoverShard(o RecoverOptions) (Recovered, error) {
	h.Helper()
	p := open(h.T, Config{URL: h.url})
	defer p.Close()
	return p.Recover(h.Context(), lostShard, h.topic, o)
}

func (h *history) mustRecover() Recovered {
	h.Helper()
	got, err := h.recoverShard(RecoverOptions{})
	if err != nil {
		h.Fatal(err)
	}
	return got
}

// TestLostTail restores a shard to the past under a writer: it must refuse, the others go on, and after
// `ledger recover` it goes on by itself.
func TestLostTail(t *testing.T) {
	for name, find := range map[string]func(h *history, between *proxy) *Postgres{
		"by a writer that reconnects": func(h *history, between *proxy) *Postgres {
			between.leave(false)
			return h.ledger
		},
		"by a writer without a break": func(h *history, _ *proxy) *Postgres { return h.ledger },
		"by a writer that starts": func(h *history, _ *proxy) *Postgres {
			return open(h.T, Config{URL: h.url, Witness: h.topic, Hooks: h.said.hooks()})
		},
		"with the topic away, by a writer that knew more": func(h *history, between *proxy) *Postgres {
			h.topic.leave(errAway)
			between.leave(false)
			return h.ledger
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			between, through := newProxy(t, url)
			h := newHistory(t, url, Config{URL: through})
			h.restore(lostShard)
			p := find(h, between)
			h.wantRefused(p, ErrTailLost)
			must(h, p, command(inOther, credit("5", "five")))
			h.wantRefused(p, ErrTailLost)
			h.wantHead(4, 0)
			h.topic.leave(nil)
			got := h.mustRecover()
			if got.Before != 4 || got.Appended != 2 || got.Compared != 4 || got.Head != 6 || got.Epoch != 1 || got.Kinds[domain.KindCredit] != 2 {
				t.Fatalf("recovered %+v", got)
			}
			h.wantHead(6, 1)
			h.wantGoesOn(p)
			h.wantHead(7, 1)
			wantAccount(h, p, inLost, "115", "0")
			if want := fmt.Sprintf("[%d lost %d <nil>]", lostShard, lostShard); h.said.text() != want {
				t.Errorf("the hooks said %s, not %s", h.said.text(), want)
			}
		})
	}
}

// TestRefusedCostsNoOther puts commands for a shard that refuses into one batch with others.
func TestRefusedCostsNoOther(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	h := newHistory(t, url, Config{Lanes: 1})
	h.restore(lostShard)
	batch := []domain.Command{
		command(inLost, credit("1", "a")), command(inOther, credit("1", "a")), command(inLost, reserve(uuid.New(), "1")),
		command(inOther, reserve(uuid.New(), "1000")), command("trent", domain.Open{Actor: "test"}),
	}
	for range 2 { // found while locking, and then known
		answers, err := h.ledger.appends.append(t.Context(), 0, batch)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range answers {
			r := new(domain.Rejection)
			switch {
			case a.err == nil:
				got = append(got, "done")
			case errors.Is(a.err, ErrTailLost):
				got = append(got, "lost")
			case errors.As(a.err, &r):
				got = append(got, string(r.Reason))
			default:
				got = append(got, a.err.Error())
			}
		}
		if text := strings.Join(got, " "); text != "lost done lost insufficient_funds done" {
			t.Fatal(text)
		}
	}
	h.wantHead(4, 0)
}

// TestTopicAway is what becomes of appends while the topic cannot be asked.
func TestTopicAway(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(h *history, between *proxy)
		refused   error
		said      string
	}{
		"nothing happens":                     {func(*history, *proxy) {}, nil, "[]"},
		"the connection breaks":               {func(_ *history, between *proxy) { between.leave(false) }, nil, "[]"},
		"another server answers":              {func(h *history, between *proxy) { h.anotherServer(); between.leave(false) }, ErrTailUnknown, "[1 unknown 1 <nil>]"},
		"the tail is lost and half recovered": {func(h *history, between *proxy) { h.restore(lostShard); h.recoverHalf(); between.leave(false) }, ErrTailUnknown, "[1 unknown 1 lost 1 <nil>]"},
		"the brokers hang":                    {func(h *history, between *proxy) { h.hang(true); between.leave(false) }, nil, "[]"},
		"they hang, and another server answers": {func(h *history, between *proxy) { h.hang(true); h.anotherServer(); between.leave(false) },
			ErrTailUnknown, "[1 unknown 1 <nil>]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			between, through := newProxy(t, url)
			h := newHistory(t, url, Config{URL: through})
			h.topic.leave(errAway)
			test.meanwhile(h, between)
			if test.refused != nil {
				h.wantRefused(h.ledger, test.refused)
			} else {
				must(h, h.ledger, command(inLost, credit("9", "nine")))
			}
			h.topic.leave(nil)
			h.hang(false)
			if name == "the tail is lost and half recovered" {
				h.wantRefusedSoon(ErrTailLost)
				h.mustRecover()
			}
			h.wantGoesOn(h.ledger)
			if h.said.text() != test.said {
				t.Errorf("the hooks said %s, not %s", h.said.text(), test.said)
			}
		})
	}
}

func (h *history) hang(yes bool) {
	h.topic.mu.Lock()
	defer h.topic.mu.Unlock()
	for shard := range int32(testShards) {
		h.topic.hangs[shard] = yes
	}
}

// recoverHalf recovers one event of two, from a copy of the topic that is there while the topic is away.
func (h *history) recoverHalf() {
	h.Helper()
	half := newFakeTopic(h.ledger.Meta())
	half.records[lostShard] = h.topic.records[lostShard][:5]
	p := open(h.T, Config{URL: h.url})
	defer p.Close()
	if got, err := p.Recover(h.Context(), lostShard, half, RecoverOptions{}); err != nil || got.Appended != 1 {
		h.Fatalf("%+v, %v", got, err)
	}
}

func (h *history) wantRefusedSoon(want error) {
	h.Helper()
	eventually(h, want.Error(), func() bool {
		for _, r := range h.ledger.Refused() {
			if r.Shard == lostShard && errors.Is(r.Err, want) {
				return true
			}
		}
		return false
	})
}

// TestStartWithTopicAway wants a writer that was never able to compare to refuse every shard, to say so
// before anybody appends, and to begin when the topic answers.
func TestStartWithTopicAway(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	h.topic.leave(errAway)
	p := open(t, Config{URL: h.url, Witness: h.topic})
	eventually(t, "all shards refuse", func() bool { return len(p.Refused()) == testShards })
	h.wantRefused(p, ErrTailUnknown)
	h.topic.leave(nil)
	eventually(t, "no shard refuses, though nobody appends", func() bool { return len(p.Refused()) == 0 })
	h.wantGoesOn(p)
}

// TestLookPause holds how often a shard that refuses is looked at, however many ask.
func TestLookPause(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	h.restore(lostShard)
	h.wantRefused(h.ledger, ErrTailLost)
	h.topic.mu.Lock()
	before := h.topic.asked[lostShard]
	h.topic.mu.Unlock()
	began, tries := time.Now(), 0
	for ; time.Since(began) < 1500*time.Millisecond; tries++ {
		h.wantRefused(h.ledger, ErrTailLost)
	}
	h.topic.mu.Lock()
	defer h.topic.mu.Unlock()
	if looks := h.topic.asked[lostShard] - before; looks < 1 || looks > 2 || tries < 10 {
		t.Errorf("%d looks for %d tries", looks, tries)
	}
}

// TestHangingWitnessHoldsNobodyUp wants shards that were looked at to go on while another one's look waits.
func TestHangingWitnessHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{Lanes: 1})
	h.topic.mu.Lock()
	h.topic.hangs[lostShard] = true
	h.topic.mu.Unlock()
	p := open(t, Config{URL: h.url, Lanes: 1, Witness: h.topic})
	must(h, p, command(inOther, credit("5", "five")))
	h.wantRefused(p, ErrTailUnknown)
	for i, first := 0, time.Now(); time.Since(first) < 3*lookPause/2; i++ { // each may cause a look
		began := time.Now()
		h.wantRefused(p, ErrTailUnknown)
		must(h, p, command(inOther, credit("1", fmt.Sprint("more-", i))))
		if took := time.Since(began); took > tailTime/2 {
			t.Fatalf("an append took %s", took)
		}
	}
}

// TestForeignTail holds the topic's last record, which may be anybody's.
func TestForeignTail(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	h := newHistory(t, url, Config{})
	good := *h.topic.records[lostShard][5]
	for name, test := range map[string]struct {
		spoil func(r *topic.Record)
		want  string
	}{
		"another ledger's":    {func(r *topic.Record) { r.Source = "/llm-gateway/" + uuid.NewString() }, "not of this ledger"},
		"nobody's":            {func(r *topic.Record) { *r = topic.Record{Shard: r.Shard, Payload: []byte("hello")} }, "not of this ledger"},
		"of a negative place": {func(r *topic.Record) { r.Seq = -1 }, "not of this ledger"},
		"of a place far off":  {func(r *topic.Record) { r.Seq = 1 << 62 }, "ledger recover"},
		"with another hash":   {func(r *topic.Record) { r.Hash[0]++ }, "forked"},
		"of an earlier place": {func(r *topic.Record) { r.Seq = 3 }, "forked"},
		"one place too far":   {func(r *topic.Record) { r.Seq = 7 }, "the topic ends at 1:7, the ledger at seq 6"},
	} {
		record := good
		test.spoil(&record)
		h.topic.records[lostShard] = []*topic.Record{&record}
		p := open(t, Config{URL: url, Witness: h.topic})
		h.wantRefused(p, ErrTailLost)
		if _, err := p.Append(t.Context(), command(inLost, credit("9", "nine"))); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		p.Close()
	}
	h.wantHead(6, 0)
	// An emptied topic is filled again from the ledger: nothing speaks against going on.
	h.topic.records[lostShard] = nil
	must(h, open(t, Config{URL: url, Witness: h.topic}), command(inLost, credit("9", "nine")))
}

// TestGiveUp loses events that had not been published: a writer that saw them refuses until somebody
// decides to go on without them, and names them.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	h.restore(lostShard)
	h.topic.records[lostShard] = h.topic.records[lostShard][:4]
	h.wantRefused(h.ledger, ErrTailLost)
	if got := h.mustRecover(); got.Appended != 0 || got.Epoch != 0 {
		t.Fatalf("recovered %+v", got)
	}
	h.wantRefused(h.ledger, ErrTailLost)
	for _, o := range []RecoverOptions{{GiveUp: true, Dry: true}, {GiveUp: true}} {
		if got, err := h.recoverShard(o); err != nil || got.Appended != 0 || (got.Epoch == 1) == o.Dry {
			t.Fatalf("recovered %+v, %v", got, err)
		}
	}
	h.wantGoesOn(h.ledger)
	h.wantHead(5, 1)
	if h.said.text() != "[1 lost 1 <nil> gone]" {
		t.Errorf("the hooks said %s", h.said.text())
	}
	// An epoch that goes back is a lost tail as well, at whatever seq.
	mustExec(h, h.conn, `UPDATE ledger_shards SET epoch = 0 WHERE shard = $1`, lostShard)
	h.wantRefused(h.ledger, ErrTailLost)
}

// TestHeadForks changes the head's hash between two appends: what is seen must be what was committed.
func TestHeadForks(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	mustExec(h, h.conn, `UPDATE ledger_shards SET last_hash = sha256(last_hash) WHERE shard = $1`, lostShard)
	h.wantRefused(h.ledger, ErrTailLost)
	must(h, h.ledger, command(inOther, credit("5", "five")))
}

// TestPoolerChangesServer puts another server behind a pooler that keeps its connections.
func TestPoolerChangesServer(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	h := newHistory(t, url, Config{Pooled: true})
	h.topic.mu.Lock()
	before := h.topic.asked[lostShard]
	h.topic.mu.Unlock()
	h.anotherServer()
	must(h, h.ledger, command(inLost, credit("5", "five")))
	h.topic.mu.Lock()
	if h.topic.asked[lostShard] != before+1 {
		t.Errorf("the topic was asked %d times", h.topic.asked[lostShard]-before)
	}
	h.topic.mu.Unlock()
	h.topic.leave(errAway)
	h.anotherServer()
	h.wantRefused(h.ledger, ErrTailUnknown)
	h.topic.leave(nil)
	h.wantGoesOn(h.ledger)
}

// TestOthersTail loses what another gateway had appended: this one, which has not seen it, is told by the
// topic when it connects again.
func TestOthersTail(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	between, through := newProxy(t, url)
	h := newHistory(t, url, Config{})
	h.topic.records[lostShard] = h.topic.records[lostShard][:4]
	h.restore(lostShard)
	p := open(t, Config{URL: through, Witness: h.topic})
	mustOpen(t, p, "ivan", "1") // in alice's shard
	h.topic.fill(t, p.Reader)
	for _, table := range ledgerTables {
		mustExec(t, h.conn, `DROP TABLE saved_`+table)
		mustExec(t, h.conn, `CREATE TABLE saved_`+table+` AS SELECT * FROM `+table)
	}
	other := open(t, Config{URL: url, Witness: h.topic})
	must(t, other, command(inLost, credit("3", "three")))
	h.topic.fill(t, other.Reader)
	h.restore(lostShard)
	between.leave(false)
	h.wantRefused(p, ErrTailLost)
	h.wantRefused(other, ErrTailLost)
	h.topic.leave(errAway) // that they had once agreed on this server counts no more
	eventually(t, "it is not known any more", func() bool {
		_, err := p.Append(t.Context(), command(inLost, credit("9", "nine")))
		if !errors.Is(err, domain.ErrUnavailable) {
			t.Fatal(err)
		}
		return errors.Is(err, ErrTailUnknown)
	})
	h.topic.leave(nil)
	h.mustRecover()
	h.wantGoesOn(p)
	eventually(t, "the other goes on", func() bool {
		_, err := other.Append(t.Context(), command(inLost, credit("6", "six")))
		return err == nil
	})
}

// TestLaterLookWins lets a look that began earlier end later: what it found is old.
func TestLaterLookWins(t *testing.T) {
	var said refusals
	g := newTailGuard(Meta{Shards: 1}, nil, said.hooks(), nil)
	defer g.close()
	now := time.Now()
	g.keep(&end{}, verdict{err: ErrTailLost, began: now})
	g.keep(&end{}, verdict{began: now.Add(-time.Second)})
	if refused := g.refusals(); len(refused) != 1 || said.text() != "[0 lost]" {
		t.Errorf("refused %v, said %s", refused, said.text())
	}
}

// busyWitness is a topic whose relay goes on between the question and the answer.
type busyWitness struct {
	*fakeTopic
	before func()
}

func (b busyWitness) Tail(ctx context.Context, shard int32) (*topic.Record, error) {
	b.before()
	return b.fakeTopic.Tail(ctx, shard)
}

// TestLookBesideTheRelay appends and publishes while a look asks the topic: that is no lost tail.
func TestLookBesideTheRelay(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.URL(t), Config{})
	var n atomic.Int64
	busy := busyWitness{h.topic, func() {
		must(t, h.ledger, command(inLost, credit("1", fmt.Sprint("busy-", n.Add(1)))))
		h.topic.fill(t, h.ledger.Reader)
	}}
	for range 5 {
		p := open(t, Config{URL: h.url, Witness: busy})
		must(t, p, command(inOther, credit("1", fmt.Sprint("busy-", n.Add(1)))))
		must(t, p, command(inLost, credit("1", fmt.Sprint("busy-", n.Add(1)))))
		p.Close()
		if refused := p.Refused(); len(refused) > 0 {
			t.Fatal(refused)
		}
	}
}
