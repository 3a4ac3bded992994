package relay

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// heldShard is a shard of a relay that does nothing.
func heldShard() *shard {
	s := newShard(&Relay{}, 0)
	s.tenure = context.Background()
	return s
}

// commands are the first events of shard 0 of the ledger uuid.Nil, at least so many, and where their
// commands end.
func commands(t testing.TB, events int, size func() int) (chain []domain.Recorded, ends []int64) {
	t.Helper()
	c := topictest.ChainOf(t, uuid.Nil, 0, 1)
	for ends = append(ends, 0); len(chain) < events; ends = append(ends, c.Seq) {
		chain = append(chain, c.Command(t, size())...)
	}
	return chain, ends
}

// TestFeedProperty feeds any commands in any order: what is taken always is what comes next, in order and
// whole, and what is kept is within the bounds, and accounted for.
func TestFeedProperty(t *testing.T) {
	t.Parallel()
	const most = 3 * topic.MaxTransaction
	chain, ends := commands(t, most, func() int { return 1 + rand.IntN(4) })
	whole := func(seq int64) bool {
		_, found := slices.BinarySearch(ends, seq)
		return found
	}
	last := len(ends) - 1
	rapid.Check(t, func(t *rapid.T) {
		s := heldShard()
		at := position{}
		t.Repeat(map[string]func(*rapid.T){
			"feed": func(t *rapid.T) {
				from := rapid.IntRange(0, last-1).Draw(t, "from")
				s.feed(chain[ends[from]:ends[rapid.IntRange(from+1, last).Draw(t, "to")]])
			},
			"feed a mess": func(t *rapid.T) {
				var mess []domain.Recorded
				for _, n := range rapid.SliceOfN(rapid.IntRange(1, last), 1, 5).Draw(t, "commands") {
					mess = append(mess, chain[ends[n-1]:ends[n]]...)
				}
				s.feed(mess)
			},
			"take": func(t *rapid.T) {
				events := s.take(at.seq)
				for i, e := range events {
					if e.Event.Seq != at.seq+int64(i)+1 {
						t.Fatalf("behind %d came %d", at.seq+int64(i), e.Event.Seq)
					}
				}
				if at.seq += int64(len(events)); !whole(at.seq) || len(events) > topic.MaxTransaction {
					t.Fatalf("%d events were taken, to seq %d", len(events), at.seq)
				}
			},
			"read the ledger": func(t *rapid.T) {
				at.seq = rapid.SampledFrom(ends[slices.Index(ends, at.seq):]).Draw(t, "seq")
			},
			"begin again": func(t *rapid.T) {
				at.seq = rapid.SampledFrom(ends[:slices.Index(ends, at.seq)+1]).Draw(t, "seq")
			},
			"lose the lease": func(t *rapid.T) {
				s.tenure = nil
				s.end()
				if len(s.fed) > 0 {
					t.Fatal("events are kept without the lease")
				}
			},
			"get the lease": func(*rapid.T) { s.tenure = context.Background() },
			"forget":        func(*rapid.T) { s.forget() },
			"": func(t *rapid.T) {
				sum := int64(0)
				for i, e := range s.fed {
					sum += int64(len(e.Payload))
					if i > 0 && e.Event.Seq != s.fed[i-1].Event.Seq+1 {
						t.Fatal("what is kept has a gap")
					}
				}
				if got := s.relay.fedBytes.Load(); got != sum || len(s.fed) > feedEvents {
					t.Fatalf("%d events of %d bytes are kept as %d", len(s.fed), sum, got)
				}
			},
		})
	})
}

// TestFeedOverflow fills the room there is, by number and by bytes: what is beyond is only told of, and
// of no command is one part kept and the other not.
func TestFeedOverflow(t *testing.T) {
	t.Parallel()
	const size = 3 // of a command; no bound is a multiple of it
	few := func(n, bytes int) []domain.Recorded {
		events, _ := commands(t, n, func() int { return size })
		for i := range events {
			events[i].Payload = make([]byte, bytes)
		}
		return events
	}
	for name, test := range map[string]struct{ events, bytes, kept int }{
		"many":  {feedEvents + 10, 1, feedEvents},
		"large": {feedBytes/domain.MaxPayload + 10, domain.MaxPayload, feedBytes / domain.MaxPayload},
	} {
		s := heldShard()
		events := few(test.events, test.bytes)
		s.feed(events)
		kept := test.kept / size * size
		if len(s.fed) != kept || s.pending() != int64(len(events)) {
			t.Errorf("%s: %d are kept, %d are known to wait", name, len(s.fed), s.pending())
		}
		seq := int64(0)
		for {
			events := s.take(seq)
			if len(events) == 0 {
				break
			}
			if len(events) > topic.MaxTransaction || len(events)%size != 0 {
				t.Errorf("%s: %d at once", name, len(events))
			}
			seq += int64(len(events))
		}
		if seq != int64(kept) || s.relay.fedBytes.Load() != 0 {
			t.Errorf("%s: %d were taken, %d bytes are left", name, seq, s.relay.fedBytes.Load())
		}
	}
}

// TestFeedNonsense feeds a running relay what never was: only the ledger's events are published.
func TestFeedNonsense(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	w.append(20)
	w.settle()
	all, err := w.ledger.Events(t.Context(), 1, 0, 100)
	w.must(err)
	head := all[len(all)-1].Event.Seq
	forged := func(seq int64) domain.Recorded {
		e := all[len(all)-1]
		e.Event.Seq = seq
		return e
	}
	p.Feed(nil)
	p.Feed([]domain.Recorded{forged(head + 1)})              // its hash does not follow
	p.Feed([]domain.Recorded{forged(head + 7), forged(1e9)}) // far beyond the end
	p.Feed(all)                                              // old
	slices.Reverse(all)
	p.Feed(all)
	outside := forged(1)
	outside.Event.Shard = testShards
	p.Feed([]domain.Recorded{outside})
	outside.Event.Shard = -1
	p.Feed([]domain.Recorded{outside})
	w.append(20)
	w.settle()
	if errs := p.restarted(); len(errs) > 0 {
		t.Errorf("it began again because of %v", errs)
	}
}
