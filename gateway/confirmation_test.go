package gateway

import (
	"fmt"
	"testing"
	"time"

	"llm-gateway/domain"
)

// TestConfirmations: what was read is found for a second, whoever else is read for meanwhile, and so
// many accounts are read for in a second and no more.
func TestConfirmations(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g := newGate(nil, nil, func() time.Time { return now })
	begins := func(account string) bool {
		_, mine := g.confirmation(account)
		return mine
	}
	at := func(d time.Duration, account string, want bool) {
		t.Helper()
		if now = now.Add(d); begins(account) != want {
			t.Errorf("%s: a reading begins: %t", account, !want)
		}
	}
	at(0, "a", true)
	at(900*time.Millisecond, "b", true)
	at(0, "a", false)
	at(100*time.Millisecond, "a", true)
	at(100*time.Millisecond, "b", false)
	at(799*time.Millisecond, "b", false)
	at(time.Millisecond, "b", true)
	at(99*time.Millisecond, "a", false)
	at(time.Millisecond, "a", true)
	at(time.Hour, "b", true)
	for i := range confirmationsKept - 1 {
		at(0, fmt.Sprint(i), true)
	}
	if c, mine := g.confirmation("one more"); c != nil || mine {
		t.Error("there is no bound")
	}
	at(0, "b", false)
	at(time.Second, "one more", true)
	at(0, "b", true)
	if n := len(g.recent) + len(g.older); n > 2*confirmationsKept {
		t.Errorf("%d are kept", n)
	}
}

// TestHeadsLearned: the newest head counts, in whatever order heads come, and an empty one never.
func TestHeadsLearned(t *testing.T) {
	t.Parallel()
	g := newGate(nil, nil, time.Now)
	c, _ := g.confirmation("a")
	for i, seen := range []struct{ seq, want int64 }{{0, -1}, {5, 5}, {0, 5}, {4, 5}, {5, 5}, {7, 7}, {6, 7}} {
		g.saw("a", &domain.Account{LastSeq: seen.seq})
		g.saw("b", &domain.Account{LastSeq: 99})
		seq := int64(-1) // not known
		if c.head != nil {
			seq = c.head.LastSeq
		}
		if seq != seen.want {
			t.Errorf("%d: %d is known, want %d", i, seq, seen.want)
		}
	}
}

// TestPositions: the highest position counts, and the set is bounded.
func TestPositions(t *testing.T) {
	t.Parallel()
	p := newPositions()
	for _, seq := range []int64{3, 5, 4} {
		p.note("a", domain.Position{Shard: 2, Seq: seq})
	}
	if got := p.of("a"); got != (domain.Position{Shard: 2, Seq: 5}) || p.of("b") != (domain.Position{}) {
		t.Errorf("%s, %s", got, p.of("b"))
	}
	for i := range positionsKept + 10 {
		p.note(fmt.Sprint(i), domain.Position{Seq: 1})
		if len(p.last) > positionsKept {
			t.Fatalf("%d are kept", len(p.last))
		}
	}
	if p.of(fmt.Sprint(positionsKept+9)).Seq != 1 {
		t.Error("the newest is not kept")
	}
}
