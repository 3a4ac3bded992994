package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"llm-gateway/domain"
)

// The bounds of draining.
const (
	inFlight   = 64               // commands with the ledger at once, of as many accounts
	tryTime    = 30 * time.Second // one try of one command
	firstPause = 50 * time.Millisecond
	longPause  = 15 * time.Second // the longest pause of an account, after any number of failures
	tellEvery  = 30 * time.Second // between two lines in the log about failures
)

// ErrRunning says that the journal drains already.
var ErrRunning = errors.New("the journal drains already")

// Append books a command, as ledger.Ledger's Append does. It must end when its context does.
type Append func(ctx context.Context, c domain.Command) (domain.Outcome, error)

// Run hands what waits, and what comes, to the ledger, until ctx ends or the journal is closed. It
// returns when the last command that it handed over has come back.
func (j *Journal) Run(ctx context.Context, book Append) error {
	ended, err := j.start()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(j.ending, cancel)()
	defer cancel()
	d := &drain{Journal: j, book: book, results: make(chan result, inFlight)}
	d.clear()
	for ctx.Err() == nil {
		d.handOver(ctx)
		d.await(ctx)
	}
	for d.flying > 0 {
		d.finish(ctx, <-d.results)
	}
	d.clear()
	j.mu.Lock()
	j.running = nil
	j.mu.Unlock()
	close(ended)
	return nil
}

func (j *Journal) start() (ended chan struct{}, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return nil, ErrClosed
	case j.running != nil:
		return nil, ErrRunning
	}
	j.running = make(chan struct{})
	return j.running, nil
}

// drain is one Run. Its fields belong to the goroutine of Run; each command that is with the ledger has
// one of its own, which ends with its result.
type drain struct {
	*Journal

	book     Append
	results  chan result // has room for all
	flying   int
	unsynced bool // a deletion is not durable yet

	away, unreadable, undeleted throttle // of what is logged
}

// throttle lets something be logged once every tellEvery: when Postgres is away, all tries fail.
type throttle struct {
	last time.Time
	n    int // how often it has happened since
}

func (t *throttle) log(log func(string, ...any), text string, args ...any) {
	t.n++
	if now := time.Now(); now.Sub(t.last) >= tellEvery {
		log(text, append(args, "times", t.n)...)
		t.last, t.n = now, 0
	}
}

// result is what became of the first command of a line: booked, refused, or neither, and then why.
type result struct {
	line    *line
	refused bool
	err     error
}

// handOver starts as much as may be in flight.
func (d *drain) handOver(ctx context.Context) {
	for d.flying < inFlight {
		d.mu.Lock()
		q := d.lines.take(time.Now())
		d.mu.Unlock()
		if q == nil {
			return
		}
		d.flying++
		go func() { d.results <- d.try(ctx, q) }()
	}
}

// try reads and hands over the first command of a line. Nobody else has the line meanwhile, but Put may
// add to it.
func (d *drain) try(ctx context.Context, q *line) result {
	d.mu.Lock()
	e := q.entries[0]
	d.mu.Unlock()
	c, err := d.read(e)
	if err != nil {
		return result{line: q, err: fmt.Errorf("%w: %w", errUnreadable, err)}
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	_, err = d.book(ctx, c)
	if moot(c, err) {
		d.log.Info("a release from the journal had nothing to give back", "account", c.Account, "request", c.Op.Request(), "error", err)
		return result{line: q}
	}
	if reason := refusal(err); reason != "" {
		return result{line: q, refused: true, err: d.refuse(c, reason, err)}
	}
	return result{line: q, err: err}
}

// Unstorable is the reason of a refusal by domain.ErrUnstorable.
const Unstorable domain.Reject = "unstorable"

// refusal is why the ledger will never take a command, or "" if it has taken it or may yet.
func refusal(err error) domain.Reject {
	var rejection *domain.Rejection
	switch {
	case errors.As(err, &rejection):
		return rejection.Reason
	case errors.Is(err, domain.ErrUnstorable):
		return Unstorable
	}
	return ""
}

// moot says whether a refusal costs nothing: a release found nothing to give back, because the reserve
// never happened (it was released because that was not known), or because somebody was faster.
func moot(c domain.Command, err error) bool {
	_, release := c.Op.(domain.Release)
	reason := refusal(err)
	return release && (reason == domain.RejectReservationUnknown || reason == domain.RejectAlreadySettled)
}

// errUnreadable says that a record could not be had from the disk.
var errUnreadable = errors.New("a command in the journal cannot be read")

// read gets a command from the disk, where it was intact when it was written or opened.
func (j *Journal) read(e entry) (domain.Command, error) {
	b, err := j.dir.ReadAt(e.segment.name, e.at, int(e.size))
	if err != nil {
		return domain.Command{}, err
	}
	f, ok := readFrame(b, e.segment.number, e.at)
	if !ok {
		return domain.Command{}, damaged(e.segment.name, e.at, "the record is not as it was written")
	}
	w, err := understood(e.segment.name, &f)
	return w.command, err
}

// refuse keeps a command that the ledger has refused for good. It leaves the journal only after that.
func (j *Journal) refuse(c domain.Command, reason domain.Reject, why error) error {
	first, err := j.refused.keep(c, reason, why, j.options.Now())
	if err != nil {
		return fmt.Errorf("keeping a refused command: %w", err)
	}
	if !first {
		return nil // it was told when it was kept
	}
	j.log.Error("money that was to be booked from the journal was refused", "account", c.Account,
		"command", c.ID, "request", c.Op.Request(), "error", why)
	if j.options.Hooks.Refused != nil {
		j.options.Hooks.Refused(c, why)
	}
	return nil
}

// await waits until there is something to do.
func (d *drain) await(ctx context.Context) {
	d.mu.Lock()
	pause, paused := d.lines.wait(time.Now())
	d.mu.Unlock()
	var over <-chan time.Time
	if paused && d.flying < inFlight {
		t := time.NewTimer(pause)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-d.arrived:
		d.clear()
	case r := <-d.results:
		d.finish(ctx, r)
		d.clear()
	}
}

// finish moves a line on.
func (d *drain) finish(ctx context.Context, r result) {
	d.flying--
	d.mu.Lock()
	switch {
	case r.err == nil:
		d.lines.booked(r.line).segment.left--
		d.waiting--
	case ctx.Err() != nil:
		d.lines.returned(r.line)
	default:
		d.lines.failed(r.line, time.Now())
	}
	d.mu.Unlock()
	if r.err != nil && ctx.Err() == nil {
		d.complain(r)
	}
	if r.err != nil {
		return
	}
	if !r.refused && d.options.Hooks.Drained != nil {
		d.options.Hooks.Drained(1)
	}
	d.tell()
}

// complain logs that something was not booked.
func (d *drain) complain(r result) {
	if errors.Is(r.err, errUnreadable) {
		d.unreadable.log(d.log.Error, "an account waits in the journal", "account", r.line.account, "error", r.err)
		return
	}
	d.away.log(d.log.Warn, "the ledger does not take what waits in the journal", "account", r.line.account, "error", r.err)
}

// clear deletes the segments of which nothing waits, the oldest first, so that what is left is always the
// end of the journal. What cannot be deleted now is tried when something else has moved.
func (d *drain) clear() {
	for {
		if d.unsynced {
			if err := d.dir.Sync(); err != nil {
				d.undeleted.log(d.log.Warn, "the journal's directory cannot be synced", "error", err)
				return
			}
			d.unsynced = false
		}
		s := d.drained()
		if s == nil {
			return
		}
		if err := d.dir.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.undeleted.log(d.log.Warn, "a drained segment of the journal cannot be deleted", "segment", s.name, "error", err)
			return
		}
		d.unsynced = true
		d.mu.Lock()
		if len(d.segments) > 0 && d.segments[0] == s { // else it was discarded meanwhile
			d.segments = d.segments[1:]
			d.used -= s.size
		}
		d.mu.Unlock()
		d.tell()
	}
}

// drained is the first segment, if nothing in it waits and nobody writes to it. One that is not full gets
// no more records: the next Put begins another.
func (d *drain) drained() *segment {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.segments) == 0 {
		return nil
	}
	s := d.segments[0]
	if s.left > 0 || s == d.active && d.writing {
		return nil
	}
	if s.file != nil {
		if err := s.file.Close(); err != nil { // all of it has left: nothing can be lost by that
			d.log.Warn("a segment of the journal could not be closed", "segment", s.name, "error", err)
		}
		s.file, d.active = nil, nil
	}
	return s
}
