package relay

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// position is where a shard's partition ends.
type position struct {
	seq    int64 // of the last event; 0: there is none
	hash   domain.Hash
	offset int64 // of the last record; -1: there is none
}

// after is the position behind events that follow this one. It refuses all others.
func (p position) after(events []domain.Recorded) (position, error) {
	for i := range events {
		e := &events[i]
		if e.Event.Seq != p.seq+1 {
			return p, fmt.Errorf("%w: behind seq %d comes %d", ErrGap, p.seq, e.Event.Seq)
		}
		if e.Hash != domain.ChainHash(p.hash, e.Payload) {
			return p, fmt.Errorf("%w: the hash of seq %d does not extend the one before", ErrDiverged, e.Event.Seq)
		}
		p.seq, p.hash = e.Event.Seq, e.Hash
	}
	return p, nil
}

// shard is one shard on its way to the topic.
type shard struct {
	relay  *Relay
	number int32
	wake   chan struct{} // has room for one: there may be something to do

	mu     sync.Mutex
	tenure context.Context // that of the lease; nil before the first
	placed bool            // at has been read from the topic, in this life or an earlier one
	at     position
	life   life
	lives  int
	lost   loss

	head  int64             // the ledger's, when it was last looked at
	fedTo int64             // the last event that Feed told of
	fed   []domain.Recorded // what Feed brought: in order, no gaps
}

// life is the time from a takeover to the first error.
type life struct {
	number  int    // 0: there is none now
	extent  extent // of the partition, when it was last looked at
	verdict error  // why this life has to end
	useful  bool   // something was published in it
}

// extent is what a partition was like.
type extent struct {
	id         [16]byte // of the topic
	start, end int64
	offset     int64 // of our last record then; -1: there was none
}

// loss says which records do not count any more, because what was before them is gone.
type loss struct {
	id    [16]byte // of the topic
	below int64    // records at lower offsets
}

func newShard(r *Relay, number int32) *shard {
	return &shard{relay: r, number: number, wake: make(chan struct{}, 1), at: position{offset: -1}}
}

func (s *shard) awake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// held says whether this process holds the lease. The caller has the lock, as for all below that say so.
func (s *shard) held() bool { return s.tenure != nil && s.tenure.Err() == nil }

// feed keeps events that follow what is kept already, as far as there is room. They are whole commands,
// and so is what it keeps.
func (s *shard) feed(events []domain.Recorded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held() {
		s.drop(0, len(s.fed))
		return
	}
	s.fedTo = max(s.fedTo, events[len(events)-1].Event.Seq)
	for i := range events {
		if !s.keep(&events[i]) {
			s.part(&events[i])
			break
		}
	}
	s.awake()
}

// keep keeps one event where it follows and there is room. The caller has the lock.
func (s *shard) keep(e *domain.Recorded) bool {
	n := len(s.fed)
	if n >= feedEvents || n > 0 && e.Event.Seq != s.fed[n-1].Event.Seq+1 {
		return false
	}
	size := int64(len(e.Payload))
	if s.relay.fedBytes.Add(size) > feedBytes {
		s.relay.fedBytes.Add(-size)
		return false
	}
	s.fed = append(s.fed, *e)
	return true
}

// part forgets what was kept last of the command of an event that was not kept. The caller has the lock.
func (s *shard) part(e *domain.Recorded) {
	n := len(s.fed)
	for n > 0 && sameCommand(&s.fed[n-1], e) {
		n--
	}
	s.drop(n, len(s.fed))
}

// drop forgets fed events: those from one place on, before another. The caller has the lock.
func (s *shard) drop(from, to int) {
	for i := from; i < to; i++ {
		s.relay.fedBytes.Add(-int64(len(s.fed[i].Payload)))
	}
	s.fed = slices.Delete(s.fed, from, to)
}

// sameCommand says whether two events are of one command.
func sameCommand(a, b *domain.Recorded) bool {
	return domain.CommandID(a.Event.ID) == domain.CommandID(b.Event.ID)
}

// whole is how much of events one transaction takes: topic.MaxTransaction at most, and no part of a
// command, so that the topic never ends within one. The last event of more than that is only looked at:
// it tells whether the command before it has ended. Fewer must be whole commands.
func whole(events []domain.Recorded) []domain.Recorded {
	if len(events) <= topic.MaxTransaction {
		return events
	}
	n := topic.MaxTransaction
	for n > 0 && sameCommand(&events[n-1], &events[n]) {
		n--
	}
	if n == 0 { // no ledger has such a command, and it would be waited for in vain
		n = topic.MaxTransaction
	}
	return events[:n]
}

// take returns the fed events that come right behind seq, as many as one transaction takes.
func (s *shard) take(seq int64) []domain.Recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := 0
	for old < len(s.fed) && s.fed[old].Event.Seq <= seq {
		old++
	}
	s.drop(0, old)
	if len(s.fed) == 0 || s.fed[0].Event.Seq != seq+1 {
		return nil
	}
	events := slices.Clone(whole(s.fed))
	s.drop(0, len(events))
	return events
}

// forget drops all that was fed, and that more was told of than the ledger has.
func (s *shard) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(0, len(s.fed))
	s.fedTo = 0
}

// pending is how many events are known to wait.
func (s *shard) pending() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.head, s.fedTo) - s.at.seq
}

// judged is why this life has to end, or nil. Where the partition was emptied, what was published
// behind that does not count: it lacks all that was before it.
func (s *shard) judged() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.verdict == errEmptied {
		s.lost = loss{s.life.extent.id, s.at.offset + 1}
	}
	return s.life.verdict
}

// begin begins a life at a position.
func (s *shard) begin(at position, seen extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lives++
	s.at, s.placed = at, true
	s.life = life{number: s.lives, extent: seen}
}

// moved tells what has been published.
func (s *shard) moved(at position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.life.useful = at, true
}

// end ends a life, and says whether anything was published in it. Without the lease nothing is kept in
// memory.
func (s *shard) end() (useful bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	useful, s.life = s.life.useful, life{}
	if !s.held() {
		s.drop(0, len(s.fed))
	}
	return useful
}

// reached says whether the topic has all up to seq, or that is not this process's business.
func (s *shard) reached(seq int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.held() || s.life.number != 0 && s.at.seq >= seq
}

// known tells of an event that the ledger has.
func (s *shard) known(seq int64) {
	s.mu.Lock()
	s.head = max(s.head, seq)
	s.mu.Unlock()
	s.awake()
}
