package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"llm-gateway/ledger/relay/relaytest"
	"llm-gateway/ledger/topic"
)

// maxSteps is more than the steps that one transaction takes on the network, whatever goes wrong.
const maxSteps = 60

// quiet lets nothing use the network but publishing.
func quiet(c *Config) { c.times.check = time.Hour }

// TestCutAtEveryStep breaks the connection at the n-th step of publishing, for n until nothing happens
// any more: no event may be lost, repeated or out of order.
func TestCutAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start(quiet)
	w.append(20)
	w.settle()
	n := 1
	for ; n <= maxSteps; n++ {
		p.wire.arm(n, cut)
		if err := w.one(w.onShard(2)); err != nil {
			t.Fatal(err)
		}
		w.settle()
		w.wantKnown(p)
		if !p.wire.disarm() {
			break
		}
	}
	if n < 4 || n > maxSteps {
		t.Errorf("publishing took %d steps", n)
	}
	t.Logf("%d steps, %d new beginnings", n-1, len(p.restarted()))
}

// TestFrozenAtEveryStep freezes a process at the n-th step of publishing, lets another take over, and
// thaws it: what it still sends may come to nothing.
func TestFrozenAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.append(20)
	n := 1
	for ; n <= maxSteps; n++ {
		a := w.start(quiet)
		a.holdsAll(t)
		w.settle()
		a.wire.arm(n, freeze)
		if err := w.one(w.onShard(2)); err != nil {
			t.Fatal(err)
		}
		if !w.frozen(a) {
			break
		}
		b := w.start(quiet)
		b.holdsAll(t)
		w.append(5)
		w.settle()
		w.append(5)
		a.wire.heal()
		w.append(5)
		w.settle()
		b.end()
		w.append(5)
		w.settle()
		a.end()
	}
	if n < 4 || n > maxSteps {
		t.Errorf("publishing took %d steps", n)
	}
	t.Logf("%d steps", n-1)
}

// TestFrozenTakingOver freezes a process at steps of its taking over, while another, which it takes over
// from, is frozen too; a third then publishes, and the two thaw.
func TestFrozenTakingOver(t *testing.T) {
	t.Parallel()
	const stride = 41 // not every step, for there are many; others each time
	w := newWorld(t)
	w.append(20)
	n := 1 + rand.IntN(stride)
	for ; n <= 100*stride; n += stride {
		a := w.start(quiet)
		a.holdsAll(t)
		a.wire.arm(2, freeze)
		w.append(5)
		eventually(t, "a freezes", func() bool { return a.wire.happened() })
		b := w.start(quiet)
		b.wire.arm(n, freeze)
		eventually(t, "b freezes or takes over", func() bool { return b.wire.happened() || b.alive() == testShards })
		clean := !b.wire.disarm()
		if clean {
			b.end()
		}
		c := w.start(quiet)
		c.holdsAll(t)
		w.append(5)
		b.wire.heal()
		w.append(5)
		a.wire.heal()
		w.append(5)
		w.settle()
		for _, p := range []*process{a, b, c} {
			p.end()
		}
		if clean {
			break
		}
	}
	if n <= stride || n > 100*stride {
		t.Errorf("taking over took %d steps", n)
	}
	t.Logf("at most %d steps", n)
}

// knows says whether a process has published everything, and knows it.
func (w *world) knows(p *process) bool {
	heads, err := w.ledger.Heads(context.Background())
	if err != nil {
		return false
	}
	all, _, _ := p.sights()
	for _, h := range heads {
		if s := all[h.Shard]; s.life == 0 || s.at.seq != h.Seq {
			return false
		}
	}
	return true
}

func (w *world) wantKnown(p *process) {
	w.t.Helper()
	eventually(w.t, "it knows that all is published", func() bool { return w.knows(p) })
}

// frozen waits until a process has frozen, or has published everything without.
func (w *world) frozen(p *process) bool {
	w.t.Helper()
	eventually(w.t, "it freezes or publishes", func() bool { return p.wire.happened() || w.knows(p) })
	return p.wire.disarm()
}

// TestDeletedTopic deletes the topic while others append: it is made again and filled.
func TestDeletedTopic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	w.feed.Store(p.Relay)
	w.append(50)
	w.settle()
	for range 3 {
		stop := w.background()
		before := p.published()
		eventually(t, "it publishes", func() bool { return p.published() > before })
		w.deleteTopic()
		stop()
		w.settle()
	}
	w.deleteTopic() // and while nothing happens
	w.settle()
}

// TestEmptiedIdle deletes all records while nothing happens: the topic is filled again.
func TestEmptiedIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	w.append(50)
	for range 3 {
		w.settle()
		w.deleteRecords()
	}
	w.settle()
}

// TestEmptiedBusy deletes all records while others append. What comes behind the deletion, until it is
// noticed, stays; then all is published again, from the first event on.
func TestEmptiedBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	w.feed.Store(p.Relay)
	w.append(50)
	w.settle()
	for range 3 {
		stop := w.background()
		before := p.published()
		eventually(t, "it publishes", func() bool { return p.published() > before+100 })
		w.deleteRecords()
		before = p.published()
		eventually(t, "it has noticed", func() bool { return p.saw(errEmptied) })
		eventually(t, "it publishes", func() bool { return p.published() > before+100 })
		stop()
		relaytest.Settle(t, w.ledger.Reader, w.topic, patiently)
		for shard := range int32(testShards) {
			// Each shard notices by itself, some of them only now.
			eventually(t, "the whole shard is there again", func() bool {
				return relaytest.Compare(t.Context(), w.ledger.Reader, w.topic, shard, w.beforeLast(shard)) == nil
			})
		}
	}
}

// beforeLast is how many records a partition has before the last that has seq 1.
func (w *world) beforeLast(shard int32) (skip int) {
	w.t.Helper()
	n := 0
	for r, err := range w.topic.Scan(w.t.Context(), shard) {
		if err != nil {
			w.t.Fatal(err)
		}
		if r.Seq == 1 {
			skip = n
		}
		n++
	}
	return skip
}

// saw says whether publishing began again because of an error since it was asked last.
func (p *process) saw(why error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, err := range p.restarts {
		if errors.Is(err, why) {
			p.restarts = nil
			return true
		}
	}
	return false
}

// TestDifferentSettings stops loudly at a topic that is not as it must be, and goes on when it is.
func TestDifferentSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.append(5)
	if _, err := w.admin.CreateTopic(t.Context(), testShards+1, 1, nil, w.config.Name); err != nil {
		t.Fatal(err)
	}
	p := w.start(quiet)
	eventually(t, "it has stopped", func() bool { return p.saw(topic.ErrMismatch) })
	if p.published() != 0 {
		t.Error("it published")
	}
	w.deleteTopic()
	w.settle()

	w.deleteTopic() // and what another makes in its place may not be any topic either
	_, err := w.admin.CreateTopic(t.Context(), testShards, 1, nil, w.config.Name)
	w.must(err)
	p.saw(topic.ErrMismatch) // as before: that is over
	for shard := range int32(testShards) {
		w.must(w.one(w.onShard(shard))) // nothing else makes it look
	}
	eventually(t, "it has stopped", func() bool { return p.alive() == 0 && p.saw(topic.ErrMismatch) })
	w.deleteTopic()
	w.settle()
}
