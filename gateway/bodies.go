package gateway

import (
	"errors"
	"io"
	"sync"

	"llm-gateway/gateway/observe"
)

// Bodies that are being read are bounded by the memory that they take, in all and for each account. A call has
// no slot (inflight.go) before its body is here: else whoever sends slowly would take the slots of all others.
// What it does take is this room, until it has a slot or is refused. An account gets at most half of what the
// others leave, so that one of them never takes all of it, however slowly and from however many connections it
// sends: a second one still has half of the rest. Small bodies take no room at all, because their connections
// cost as much anyway; so the usual call meets neither a lock nor a bound here.

const (
	// maxBodies bounds what the bodies that are being read take together, in bytes, the small ones apart. The
	// buffer of one may be twice as long as what has come of it.
	maxBodies = 1 << 30
	// smallBody is how much of a body takes no room, in bytes.
	smallBody = 64 << 10
	// roomStep is by how much room is taken at once, in bytes: seldom enough to cost nothing.
	roomStep = 256 << 10
)

// errNoRoom says that too much is being read already.
var errNoRoom = errors.New("no room for another body")

// bodies counts the room that bodies take. It is safe for concurrent use.
type bodies struct {
	most    int64
	metrics *observe.Metrics

	mu    sync.Mutex
	taken int64
	of    map[string]int64 // by account, none of them 0
}

func newBodies(most int64, m *observe.Metrics) *bodies {
	return &bodies{most: most, metrics: m, of: map[string]int64{}}
}

// affords says whether an account that has own of what is taken may take more.
func (b *bodies) affords(own, more int64) bool {
	others := b.taken - own
	return own+more <= (b.most-others)/2
}

// take takes room for an account, or says that there is none.
func (b *bodies) take(account string, more int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.of[account]
	if !b.affords(own, more) {
		b.metrics.RateLimited("bodies", "refused")
		return false
	}
	b.taken += more
	b.of[account] = own + more
	return true
}

func (b *bodies) give(account string, room int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken -= room
	if b.of[account] -= room; b.of[account] == 0 {
		delete(b.of, account)
	}
}

// bodyRoom is the room of one request's body, and reads it.
type bodyRoom struct {
	bodies  *bodies
	account string
	from    io.Reader
	read    int64 // that have come
	taken   int64
}

// Read implements io.Reader. It fails with errNoRoom where what it has read is too much now.
func (r *bodyRoom) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if r.read += int64(n); !r.reach(r.read) {
		return n, errNoRoom
	}
	return n, err
}

// reach takes the room for so many bytes, or says that there is none.
func (r *bodyRoom) reach(size int64) bool {
	if size <= max(smallBody, r.taken) {
		return true
	}
	more := (size - r.taken + roomStep - 1) / roomStep * roomStep
	if !r.bodies.take(r.account, more) {
		return false
	}
	r.taken += more
	return true
}

// leave gives the room back. It may be called again.
func (r *bodyRoom) leave() {
	if r.taken > 0 {
		r.bodies.give(r.account, r.taken)
		r.taken = 0
	}
}
