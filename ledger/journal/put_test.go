package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// gate is a disk whose fsyncs of files wait until they are let through.
type gate struct {
	*disk

	pass  chan struct{}
	syncs atomic.Int64
}

type gatedFile struct {
	file

	gate *gate
}

func (g *gate) Create(name string) (file, error) {
	f, err := g.disk.Create(name)
	return &gatedFile{f, g}, err
}

func (f *gatedFile) Sync() error {
	f.gate.syncs.Add(1)
	<-f.gate.pass
	return f.file.Sync()
}

// TestGroupCommit wants one fsync for all that queued while another one ran, no answer before it, and Close
// to wait for it.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{disk: newDisk(1), pass: make(chan struct{})}
		j := mustOpen(t, g, quiet())
		var answered atomic.Int64
		put := func(n int) {
			for i := range n {
				go func() {
					if err := j.Put(context.Background(), release(fmt.Sprint(i))); err != nil {
						t.Error(err)
					}
					answered.Add(1)
				}()
			}
			synctest.Wait()
		}
		put(1)
		g.pass <- struct{}{} // the header
		synctest.Wait()
		put(100)
		if answered.Load() != 0 {
			t.Fatal("answered before it was durable")
		}
		if n, _, _ := j.Waiting(); n != 0 {
			t.Fatal("it could drain before it was durable")
		}
		g.pass <- struct{}{}
		synctest.Wait()
		if answered.Load() != 1 {
			t.Fatalf("%d were answered", answered.Load())
		}
		closed := make(chan error)
		go func() { closed <- j.Close() }()
		synctest.Wait()
		if err := j.Put(context.Background(), release("late")); !errors.Is(err, ErrClosed) {
			t.Errorf("while it closes: %v", err)
		}
		g.pass <- struct{}{}
		synctest.Wait()
		if answered.Load() != 101 || g.syncs.Load() != 4 { // the header, two writes, and the mark at the end
			t.Errorf("%d were answered after %d fsyncs", answered.Load(), g.syncs.Load())
		}
		g.pass <- struct{}{}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if got := waits(t, g.powerLoss()); len(got) != 101 {
			t.Errorf("%d are there", len(got))
		}
	})
}

// TestQueueIsBounded wants Puts beyond maxQueue to be refused at once, and a Put whose context ends to return.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{disk: newDisk(1), pass: make(chan struct{})}
		j := mustOpen(t, g, quiet())
		ctx, cancel := context.WithCancel(t.Context())
		var gone atomic.Int64
		var wait sync.WaitGroup
		c := release("alice")
		for i := range maxQueue + 1 {
			wait.Go(func() {
				if err := j.Put(ctx, c); errors.Is(err, context.Canceled) {
					gone.Add(1)
				}
			})
			if i == 0 {
				synctest.Wait() // this one is being written
			}
		}
		synctest.Wait()
		if err := j.Put(ctx, c); !errors.Is(err, domain.ErrOverloaded) {
			t.Errorf("%v", err)
		}
		cancel()
		wait.Wait()
		if gone.Load() != maxQueue+1 {
			t.Errorf("%d Puts returned with their context's error", gone.Load())
		}
		if err := j.Put(ctx, c); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
		close(g.pass)
		mustClose(t, j)
	})
}

// TestPutRefuses wants what could never be booked to be refused at once, and to leave no trace.
func TestPutRefuses(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	j := mustOpen(t, d, quiet())
	defer j.Close()
	c := release("alice")
	c.ID = domain.EventID(c.ID, 1)
	var rejection *domain.Rejection
	if err := j.Put(t.Context(), c); !errors.As(err, &rejection) || rejection.Reason != domain.RejectInvalid {
		t.Errorf("%v", err)
	}
	c = domain.Command{ID: newID(), Account: "alice", Op: domain.Reserve{RequestID: uuid.New()}}
	if err := j.Put(t.Context(), c); !errors.Is(err, ErrUnfit) {
		t.Errorf("%v", err)
	}
	if names, _ := d.List(); len(names) != 0 {
		t.Errorf("%v", names)
	}
}

// TestSpooledAt wants a command to say when it was put first, and whoever put it elsewhere before, then.
func TestSpooledAt(t *testing.T) {
	t.Parallel()
	o := quiet()
	g := watch(&o)
	now := time.Date(2026, 2, 3, 4, 5, 6, 7890, time.FixedZone("", 3600))
	o.Now = func() time.Time { return now }
	j := mustOpen(t, newDisk(1), o)
	earlier := release("bob")
	earlier.SpooledAt = now.Add(-time.Hour)
	mustPut(t, j, release("alice"))
	mustPut(t, j, earlier)
	if _, _, oldest := j.Waiting(); !oldest.Equal(domain.EventTime(earlier.SpooledAt)) {
		t.Errorf("the oldest is of %s", oldest)
	}
	b := &booker{}
	drainAll(t, j, g, b.append)
	for _, c := range b.booked {
		want := now
		if c.Account == "bob" {
			want = earlier.SpooledAt
		}
		if !c.SpooledAt.Equal(domain.EventTime(want)) {
			t.Errorf("%s: %s", c.Account, c.SpooledAt)
		}
	}
	mustClose(t, j)
}

// TestLongRecords wants records longer than a segment, and than a write, to pass.
func TestLongRecords(t *testing.T) {
	t.Parallel()
	d := directory(t.TempDir())
	o := smallSegments()
	g := watch(&o)
	j := mustOpen(t, d, o)
	var wait sync.WaitGroup
	for i := range 2 {
		wait.Go(func() {
			c := settle(fmt.Sprint(i), uuid.New(), "1")
			s := c.Op.(domain.Settle)
			s.Response = &domain.Response{Body: make([]byte, maxWriteBytes/2)}
			c.Op = s
			mustPut(t, j, c)
			mustPut(t, j, release(fmt.Sprint(i)))
		})
	}
	wait.Wait()
	mustClose(t, j)
	if got := waits(t, d); len(got) != 4 {
		t.Fatalf("%d wait", len(got))
	}
	j = mustOpen(t, d, o)
	b := &booker{}
	drainAll(t, j, g, b.append)
	mustClose(t, j)
}
