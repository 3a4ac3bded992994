package simulation

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger/journal"
)

// disk is a machine's journal while a process has it open: package journal's, on real files, or one that
// takes no time.
type disk interface {
	Put(ctx context.Context, c domain.Command) error
	Run(ctx context.Context, book journal.Append) error
	Waiting() (records int, bytes int64, oldest time.Time)
	Close() error
}

// open opens a machine's journal. The real one has files and fsyncs, and so is used in some runs only.
func (m *machine) open() (disk, error) {
	if m.w.bug == bugLostJournal {
		m.paper = newPaper(m.w)
	}
	if !m.w.plan.realDisk || m.w.bug == bugLostJournal {
		return m.paper, nil
	}
	return journal.Open(filepath.Join(m.w.dir(), m.name), journal.Options{Log: m.w.log, Hooks: journal.Hooks{Refused: m.w.refused}})
}

// refused notes what a journal says that could not be booked.
func (w *world) refused(c domain.Command, err error) {
	rejection := new(domain.Rejection)
	errors.As(err, &rejection)
	what := fmt.Sprintf("%s is said to be lost: %s", w.describe("", c), rejection.Reason)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alarms = append(w.alarms, alarm{request: c.Op.Request().String(), what: what})
}

// paper is a journal as it is promised to be: in order, and what was acknowledged outlives every process.
type paper struct {
	w *world

	mu      sync.Mutex
	entries []domain.Command
	added   chan struct{} // has room for one
}

func newPaper(w *world) *paper { return &paper{w: w, added: make(chan struct{}, 1)} }

// Put implements disk.
func (j *paper) Put(_ context.Context, c domain.Command) error {
	j.mu.Lock()
	c.SpooledAt = domain.EventTime(time.Now())
	j.entries = append(j.entries, c)
	j.mu.Unlock()
	select {
	case j.added <- struct{}{}:
	default:
	}
	return nil
}

// Waiting implements disk.
func (j *paper) Waiting() (records int, bytes int64, oldest time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries), 0, time.Time{}
}

// Close implements disk.
func (j *paper) Close() error { return nil }

// first is the oldest command, false where there is none.
func (j *paper) first() (domain.Command, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.entries) == 0 {
		return domain.Command{}, false
	}
	return j.entries[0], true
}

func (j *paper) remove(c domain.Command) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = slices.DeleteFunc(j.entries, func(e domain.Command) bool { return e.ID == c.ID })
}

const (
	bookTime  = 30 * time.Second // one try of one command
	bookPause = 500 * time.Millisecond
)

// Run implements disk: what waits is handed to the ledger, the oldest first, until ctx ends.
func (j *paper) Run(ctx context.Context, book journal.Append) error {
	for ctx.Err() == nil {
		c, ok := j.first()
		if !ok {
			select {
			case <-j.added:
			case <-ctx.Done():
			}
			continue
		}
		trying, cancel := context.WithTimeout(ctx, bookTime)
		_, err := book(trying, c)
		cancel()
		if rejection := new(domain.Rejection); err == nil || errors.As(err, &rejection) {
			j.remove(c)
			continue
		}
		timer := time.NewTimer(bookPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// drain runs a process's journal.
func (p *process) drain(ctx context.Context) {
	defer close(p.drained)
	p.disk.Run(withCaller(ctx, "journal"), p.book) //nolint:errcheck // it ends with the process
}

// book hands a command to the ledger. Between its answer and the forgetting of the command there is a
// moment, too: who dies there hands it over again.
func (p *process) book(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	renamed := c
	if p.w.bug == bugSettledTwice {
		renamed.ID = newID()
	}
	out, err := p.writer.Append(ctx, renamed)
	if rejection := new(domain.Rejection); err != nil && !errors.As(err, &rejection) {
		return out, err
	}
	if _, failed := p.enter(ctx, kindJournal, "journal forgets "+p.w.describe("", c)); failed != nil {
		return domain.Outcome{}, unavailable(failed)
	}
	return out, err
}

// journalClient is a process's journal, as the gateway knows it.
type journalClient struct{ p *process }

// Put implements gateway.Journal.
func (j *journalClient) Put(ctx context.Context, c domain.Command) error {
	what := j.p.w.describe("", c)
	f, err := j.p.enter(ctx, kindJournal, "keeps "+what)
	if err != nil {
		return err
	}
	if err := j.p.disk.Put(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	j.p.w.keptOnDisk(c)
	if f == failAfter {
		return errBroken
	}
	j.p.w.ended(c, nil)
	return nil
}

// keptOnDisk notes when a request's command was first written, for the auditor.
func (w *world) keptOnDisk(c domain.Command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := c.Op.Request().String(); w.kept[id].IsZero() {
		w.kept[id] = time.Now()
	}
}
