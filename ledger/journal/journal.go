package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"llm-gateway/domain"
)

// The bounds of a journal, where Options do not say otherwise, and of what it does at once.
const (
	DefaultMaxBytes     = 256 << 20 // of all segments
	DefaultSegmentBytes = 8 << 20   // after which another segment begins
	maxQueue            = 8192      // Puts that wait for an fsync; one more is domain.ErrOverloaded
	maxWrite            = 512       // records of one write
	maxWriteBytes       = 4 << 20   // of one write, unless a single record has more
	maxSegments         = 4096      // segments that could not be deleted, too; one more is ErrFull
)

var (
	// ErrFull says that the journal has its MaxBytes: nothing happened.
	ErrFull = errors.New("the journal is full")
	// ErrClosed says that the journal has been closed: nothing happened.
	ErrClosed = errors.New("the journal is closed")
)

// Options say how a journal is. The zero value is usable.
type Options struct {
	MaxBytes     int64            // 0 = DefaultMaxBytes
	SegmentBytes int64            // 0 = DefaultSegmentBytes
	Log          *slog.Logger     // nil = slog.Default()
	Now          func() time.Time // nil = time.Now
	Hooks        Hooks
}

// Hooks let the wiring watch a journal; nil functions are not called. They are called while others wait
// and, by Put and Run, at the same time: they must not block.
type Hooks struct {
	Waiting func(records int, bytes int64) // after each change, as Waiting has them
	Drained func(n int)                    // so many commands were booked, and left
	Refused func(c domain.Command, err error)
}

// Journal keeps commands until the ledger takes them. It is safe for concurrent use; Close ends it.
type Journal struct {
	// TornBytes is how much of an unfinished write Open has cut off.
	TornBytes int64

	dir     files
	lock    *os.File
	options Options
	log     *slog.Logger
	refused *refusals
	wake    chan struct{} // has room for one: something is queued, or it closes
	arrived chan struct{} // has room for one: something waits that Run may not have seen
	wrote   chan struct{} // closed when the writer has ended
	ending  context.Context
	end     context.CancelFunc // ends Run
	number  uint64             // of the newest segment; the writer's
	last    link               // the last segment that has records, as a new one's header names it; the writer's
	telling sync.Mutex         // held while figures are told, so that the last ones told are the newest

	mu       sync.Mutex // guards all below
	closed   bool
	queue    []*pending
	queued   int64 // bytes that queue, or are being written
	writing  bool
	segments []*segment // in order; those that are drained stand here until they are deleted
	active   *segment   // the last one, where it may be written to; else nil
	used     int64      // bytes of all segments
	waiting  int        // records
	lines    lines
	running  chan struct{} // closed when Run has returned; nil: it does not run
}

// segment is one file of records. Its fields are guarded by the journal's mu, but file belongs to the
// writer while it writes.
type segment struct {
	name   string
	number uint64
	file   file  // nil where it is not written to any more
	size   int64 // what of it counts
	left   int   // records that wait
	void   bool  // it never got a record: no header names it
}

// pending is a command that queues for its fsync. done has room for the one answer.
type pending struct {
	payload []byte
	command domain.Command
	done    chan error
}

func (p *pending) size() int64 { return frameSize + int64(len(p.payload)) }

// Open makes or opens the journal of a directory and takes it for this process (ErrLocked). What waits in
// it waits for Run. Whatever was durable and is not as it was written is ErrDamaged.
func Open(dir string, o Options) (*Journal, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	held, err := lock(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j, err := open(directory(dir), o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", dir, err), held.Close())
	}
	j.lock = held
	return j, nil
}

// open is Open on files that are this process's already.
func open(dir files, o Options) (*Journal, error) {
	o.MaxBytes = cmp.Or(o.MaxBytes, DefaultMaxBytes)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, DefaultSegmentBytes)
	if o.Now == nil {
		o.Now = time.Now
	}
	j := &Journal{
		dir: dir, options: o, log: cmp.Or(o.Log, slog.Default()), refused: &refusals{dir: dir, max: refusedBytes},
		wake: make(chan struct{}, 1), arrived: make(chan struct{}, 1), wrote: make(chan struct{}),
		lines: newLines(),
	}
	if err := j.restore(); err != nil {
		return nil, err
	}
	j.ending, j.end = context.WithCancel(context.Background())
	go j.write()
	j.tell()
	return j, nil
}

// restore brings back what waited when the journal was last open.
func (j *Journal) restore() error {
	all, err := findChain(j.dir)
	if err != nil {
		return err
	}
	for i := range all {
		if err := j.take(&all[i]); err != nil {
			return err
		}
	}
	if j.waiting > 0 {
		j.log.Info("the journal was not empty", "commands", j.waiting, "bytes", j.used)
	}
	return j.refused.load()
}

// take adds a segment that was found. Nothing is changed before all has been read.
func (j *Journal) take(f *found) error {
	s := &segment{name: f.name, number: f.number, size: f.size}
	j.number = f.number
	if !f.begun {
		l, err := load(j.dir, f)
		if err != nil {
			return err
		}
		s.size = int64(len(l.bytes))
		for i := range l.records {
			w, err := understood(f.name, &l.records[i])
			if err != nil {
				return err
			}
			j.add(s, w)
		}
		if err := j.trust(f, l); err != nil {
			return err
		}
	}
	if s.left > 0 {
		j.last = link{s.number, s.size}
	}
	s.void = s.left == 0
	j.segments = append(j.segments, s)
	j.used += s.size
	return nil
}

// trust makes the last segment what it is taken for: another one's header will say that so much of it
// counts, which must then be true of the disk. The rest of an unfinished write is cut off.
func (j *Journal) trust(f *found, l loaded) error {
	if f.limit > 0 {
		return nil // such a header was written
	}
	if err := rewrite(j.dir, f.name, l.bytes); err != nil {
		return err
	}
	if l.torn > 0 {
		j.TornBytes += l.torn
		j.log.Warn("the journal ended within a write that was never acknowledged: it was cut off",
			"segment", f.name, "byte", len(l.bytes), "bytes", l.torn)
	}
	return nil
}

// Waiting says how many commands wait, how many bytes all segments have (that is what MaxBytes bounds,
// with commands that have left in segments that have not), and when the oldest came.
func (j *Journal) Waiting() (records int, bytes int64, oldest time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.waiting, j.used, j.lines.oldest()
}

// tell hands the figures to the hook.
func (j *Journal) tell() {
	j.telling.Lock()
	defer j.telling.Unlock()
	if j.options.Hooks.Waiting != nil {
		j.mu.Lock()
		records, bytes := j.waiting, j.used
		j.mu.Unlock()
		j.options.Hooks.Waiting(records, bytes)
	}
}

// Close refuses new Puts, lets those under way become durable, ends Run, and gives the directory up. What
// still waits does so until the journal is opened again.
func (j *Journal) Close() error {
	j.mu.Lock()
	first := !j.closed
	j.closed = true
	running := j.running
	j.mu.Unlock()
	signal(j.wake)
	<-j.wrote
	j.end()
	if running != nil {
		<-running
	}
	if !first {
		return nil
	}
	err := errors.Join(j.seal(), j.refused.close())
	if j.lock != nil {
		err = errors.Join(err, j.lock.Close())
	}
	return err
}

// signal wakes whoever waits for a channel with room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
