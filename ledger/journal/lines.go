package journal

import (
	"container/heap"
	"time"
)

// entry is where a record stands that waits. There may be hundreds of thousands: the command itself stays
// on the disk until its turn.
type entry struct {
	segment  *segment
	at, size int64
	spooled  int64 // when it came, in microseconds
	turn     int64 // its place among all that came
}

// line is what waits of one account, in order. It stands in one of two heaps, or in none while its first
// command is with the ledger.
type line struct {
	account string
	entries []entry
	key     int64         // its place in the heap
	pause   time.Duration // the one after the last try; 0 if that did not fail
}

// lines are all accounts of which something waits.
type lines struct {
	start  time.Time // pauses are counted from here: a clock that is set does not make them longer
	all    map[string]*line
	turn   int64    // the last one given
	ready  lineHeap // by turn: whoever came first is first
	paused lineHeap // by when they may be tried again
}

func newLines() lines { return lines{start: time.Now(), all: map[string]*line{}} }

func (l *lines) since(t time.Time) int64 { return int64(t.Sub(l.start)) }

func (l *lines) nextTurn() int64 {
	l.turn++
	return l.turn
}

// add puts a record behind those of its account.
func (l *lines) add(account string, e entry) {
	e.turn = l.nextTurn()
	q := l.all[account]
	if q == nil {
		q = &line{account: account}
		l.all[account] = q
		l.ready.add(q, e.turn)
	}
	q.entries = append(q.entries, e)
}

// take is the line whose first command is to be handed over now, or nil. The caller has it until it says
// what became of that command, by booked or failed.
func (l *lines) take(now time.Time) *line {
	for len(l.paused) > 0 && l.paused[0].key <= l.since(now) {
		l.ready.add(heap.Pop(&l.paused).(*line), l.nextTurn())
	}
	if len(l.ready) == 0 {
		return nil
	}
	return heap.Pop(&l.ready).(*line)
}

// wait is how long it is until the next paused line may be tried again; ok says that there is one.
func (l *lines) wait(now time.Time) (d time.Duration, ok bool) {
	if len(l.paused) == 0 {
		return 0, false
	}
	return time.Duration(max(0, l.paused[0].key-l.since(now))), true
}

// booked takes the first entry out of a line. If the try before had failed, then what kept the ledger from
// it is over, perhaps for all: nobody pauses any longer.
func (l *lines) booked(q *line) entry {
	first := q.entries[0]
	q.entries = q.entries[1:]
	if q.pause > 0 {
		l.resume()
	}
	q.pause = 0
	if len(q.entries) > 0 {
		l.ready.add(q, q.entries[0].turn)
	} else {
		delete(l.all, q.account)
	}
	return first
}

// resume ends all pauses. The lines queue behind whatever is ready: those that fail for ever must not hold
// up the others.
func (l *lines) resume() {
	for len(l.paused) > 0 {
		l.ready.add(heap.Pop(&l.paused).(*line), l.nextTurn())
	}
}

// failed makes a line pause, longer than after the try before.
func (l *lines) failed(q *line, now time.Time) {
	q.pause = min(max(firstPause, 2*q.pause), longPause)
	l.paused.add(q, l.since(now.Add(q.pause)))
}

// returned puts a line back whose command was not decided on because Run ends.
func (l *lines) returned(q *line) { l.ready.add(q, q.entries[0].turn) }

// oldest is when the oldest command that waits came.
func (l *lines) oldest() time.Time {
	oldest := int64(0)
	for _, q := range l.all {
		if at := q.entries[0].spooled; oldest == 0 || at < oldest {
			oldest = at
		}
	}
	if oldest == 0 {
		return time.Time{}
	}
	return time.UnixMicro(oldest).UTC()
}

// lineHeap has the line with the lowest key first.
type lineHeap []*line

func (h *lineHeap) add(q *line, key int64) {
	q.key = key
	heap.Push(h, q)
}

// Len implements heap.Interface.
func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, k int) bool { return h[i].key < h[k].key } // Less implements heap.Interface.
func (h lineHeap) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }    // Swap implements heap.Interface.
func (h *lineHeap) Push(x any)        { *h = append(*h, x.(*line)) } // Push implements heap.Interface.
func (h *lineHeap) Pop() any { // Pop implements heap.Interface.
	last := len(*h) - 1
	q := (*h)[last]
	*h = (*h)[:last]
	return q
}
