package relay

import (
	"context"
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

// TestFeedProperty feeds anything in any order: what is taken always is what comes next, in order, and
// what is kept is within the bounds, and accounted for.
func TestFeedProperty(t *testing.T) {
	t.Parallel()
	const most = 60
	chain := topictest.ChainOf(t, uuid.New(), 0, 1).Next(t, most)
	rapid.Check(t, func(t *rapid.T) {
		s := heldShard()
		at := position{}
		t.Repeat(map[string]func(*rapid.T){
			"feed": func(t *rapid.T) {
				from := rapid.IntRange(0, most-1).Draw(t, "from")
				s.feed(chain[from:rapid.IntRange(from+1, most).Draw(t, "to")])
			},
			"feed a mess": func(t *rapid.T) {
				s.feed(rapid.SliceOfN(rapid.SampledFrom(chain), 1, 5).Draw(t, "events"))
			},
			"take": func(t *rapid.T) {
				events := s.take(at.seq)
				for i, e := range events {
					if e.Event.Seq != at.seq+int64(i)+1 {
						t.Fatalf("behind %d came %d", at.seq+int64(i), e.Event.Seq)
					}
				}
				at.seq += int64(len(events))
			},
			"read the ledger": func(t *rapid.T) { at.seq = rapid.Int64Range(at.seq, most).Draw(t, "seq") },
			"begin again":     func(t *rapid.T) { at.seq = rapid.Int64Range(0, at.seq).Draw(t, "seq") },
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

// TestFeedOverflow fills the room there is, by number and by bytes: what is beyond is only told of.
func TestFeedOverflow(t *testing.T) {
	t.Parallel()
	few := func(n, size int) (events []domain.Recorded) {
		for i := range n {
			e := domain.Recorded{Payload: make([]byte, size)}
			e.Event.Seq = int64(i + 1)
			events = append(events, e)
		}
		return events
	}
	for name, test := range map[string]struct{ events, size, kept int }{
		"many":  {feedEvents + 10, 1, feedEvents},
		"large": {feedBytes/domain.MaxPayload + 10, domain.MaxPayload, feedBytes / domain.MaxPayload},
	} {
		s := heldShard()
		s.feed(few(test.events, test.size))
		if len(s.fed) != test.kept || s.pending() != int64(test.events) {
			t.Errorf("%s: %d are kept, %d are known to wait", name, len(s.fed), s.pending())
		}
		seq := int64(0)
		for {
			events := s.take(seq)
			if len(events) == 0 {
				break
			}
			if len(events) > topic.MaxTransaction {
				t.Errorf("%s: %d at once", name, len(events))
			}
			seq += int64(len(events))
		}
		if seq != int64(test.kept) || s.relay.fedBytes.Load() != 0 {
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
