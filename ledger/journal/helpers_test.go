package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// quiet are options of a journal that logs nowhere.
func quiet() Options { return Options{Log: slog.New(slog.DiscardHandler)} }

func newID() uuid.UUID { return domain.CommandID(uuid.Must(uuid.NewV7())) }

// release is a small command.
func release(account string) domain.Command {
	return domain.Command{ID: newID(), Account: account, Op: domain.Release{RequestID: uuid.New(), Reason: domain.RefundClientAbort}}
}

// explained gives a settlement of amount the meters and lines that make it up.
func explained(amount string) domain.CommitData {
	a := domain.MustAmount(amount)
	d := domain.CommitData{Surface: "test", ModelServed: "m", UsageSource: domain.UsageProvider}
	d.Meters[domain.Requests] = 1
	d.Lines = []domain.Line{{Meter: domain.Requests, Quantity: 1, UnitPrice: a, Amount: a}}
	return d
}

func settle(account string, request uuid.UUID, amount string) domain.Command {
	return domain.Command{ID: newID(), Account: account, Op: domain.Settle{RequestID: request,
		Charge: domain.MustAmount(amount), Data: explained(amount)}}
}

// tester is what a *testing.T and a *rapid.T have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func mustOpen(t tester, dir files, o Options) *Journal {
	t.Helper()
	j, err := open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func mustPut(t tester, j *Journal, c domain.Command) {
	t.Helper()
	if err := j.Put(context.Background(), c); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t tester, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// fill makes a journal in a new directory with a command for each account, and closes it.
func fill(t *testing.T, o Options, accounts ...string) (dir string, ids []uuid.UUID) {
	t.Helper()
	dir = t.TempDir()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		c := release(a)
		ids = append(ids, c.ID)
		mustPut(t, j, c)
	}
	mustClose(t, j)
	return dir, ids
}

// waits is what waits in a directory, as Read tells.
func waits(t tester, dir files) (ids []uuid.UUID) {
	t.Helper()
	for e, err := range read(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Refused == nil {
			ids = append(ids, e.Command.ID)
		}
	}
	return ids
}

func wantIDs(t tester, what string, got, want []uuid.UUID) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %d commands instead of %d:\n%v\n%v", what, len(got), len(want), got, want)
	}
}

// booker is a ledger that books everything, remembers in which order, and watches over accounts: no
// two commands of one may be with it at once.
type booker struct {
	mu     sync.Mutex
	booked []domain.Command
	flying map[string]bool
	most   int // commands that were here at once
	errs   []error

	before func(ctx context.Context, c domain.Command) error // an error is the answer
}

func (b *booker) append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	b.enter(c.Account)
	defer b.leave(c.Account)
	if b.before != nil {
		if err := b.before(ctx, c); err != nil {
			return domain.Outcome{}, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.booked = append(b.booked, c)
	return domain.Outcome{}, nil
}

func (b *booker) enter(account string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flying == nil {
		b.flying = map[string]bool{}
	}
	if b.flying[account] {
		b.errs = append(b.errs, fmt.Errorf("two commands of %s at once", account))
	}
	b.flying[account] = true
	b.most = max(b.most, len(b.flying))
}

func (b *booker) leave(account string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flying, account)
}

// ids are what was booked, of one account or, for "", of all.
func (b *booker) ids(account string) (ids []uuid.UUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.booked {
		if account == "" || c.Account == account {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (b *booker) check(t tester) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := errors.Join(b.errs...); err != nil {
		t.Fatal(err)
	}
}

// gauge follows what a journal tells of itself.
type gauge struct {
	mu      sync.Mutex
	records int
	bytes   int64
	changed chan struct{} // closed at the next change
}

// watch adds a gauge to options.
func watch(o *Options) *gauge {
	g := &gauge{changed: make(chan struct{})}
	o.Hooks.Waiting = func(records int, bytes int64) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.records, g.bytes = records, bytes
		close(g.changed)
		g.changed = make(chan struct{})
	}
	return g
}

// until waits until the figures are as asked.
func (g *gauge) until(t tester, what string, ok func(records int, bytes int64) bool) {
	t.Helper()
	late := time.After(patiently)
	for {
		g.mu.Lock()
		yes, changed := ok(g.records, g.bytes), g.changed
		g.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: not within %s", what, patiently)
		}
	}
}

func empty(records int, bytes int64) bool { return records == 0 && bytes == 0 }

// patiently is how long a test waits at most.
const patiently = 5 * time.Minute

// run drains until end is called.
func run(t tester, j *Journal, book Append) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx, book) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// drainAll drains until nothing is left.
func drainAll(t tester, j *Journal, g *gauge, book Append) {
	t.Helper()
	end := run(t, j, book)
	g.until(t, "the journal is empty", empty)
	end()
}

// newerHeader gives a header that was changed its CRC.
func newerHeader(b []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(b[:headerSize-4]), crc32.Checksum(b[:headerSize-4], castagnoli))
}
