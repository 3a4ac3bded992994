package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// queueLength bounds what waits for one receiver: a few megabytes of traces.
	queueLength = 2048
	// batchLength bounds what is sent at once.
	batchLength = 256
	// gatherTime is how long a batch waits for more.
	gatherTime = time.Second
	// sendTime bounds one sending, tries and pauses included, where no setting says otherwise.
	sendTime = 10 * time.Second
	// complainEvery bounds how often the log tells that a receiver takes nothing.
	complainEvery = time.Minute
)

// queue sends what it is offered in batches, and never lets who offers it wait.
type queue[T any] struct {
	name    string
	items   chan T
	most    int           // of one sending
	timeout time.Duration // of one sending
	// transmit sends a batch, and says how many of it were taken.
	transmit func(ctx context.Context, batch []T) (taken int, err error)
	counts   Counts
	log      *slog.Logger

	leaving   chan struct{} // closed: no more comes
	left      atomic.Bool
	ctx       context.Context // of sending
	cancel    context.CancelFunc
	ended     chan struct{} // closed when the goroutine has ended
	complains time.Time     // not before
	silent    int           // dropped since the log was told
}

// startQueue starts the goroutine of one receiver. It ends by close.
func startQueue[T any](c *Config, name string, most int, timeout time.Duration, transmit func(context.Context, []T) (int, error)) *queue[T] {
	q := &queue[T]{name: name, items: make(chan T, queueLength), most: most, timeout: timeout, transmit: transmit, counts: c.Counts, log: c.Log,
		leaving: make(chan struct{}), ended: make(chan struct{})}
	q.ctx, q.cancel = context.WithCancel(context.Background()) //nolint:gosec // close calls it
	q.counts.TelemetrySent(name, 0)
	q.counts.TelemetryDropped(name, 0)
	go q.run()
	return q
}

// offer takes an item, or drops it where too many wait.
func (q *queue[T]) offer(item T) {
	if !q.left.Load() {
		select {
		case q.items <- item:
			return
		default:
		}
	}
	q.counts.TelemetryDropped(q.name, 1)
}

// close sends what is left, and returns when that is done or ctx has ended.
func (q *queue[T]) close(ctx context.Context) {
	q.left.Store(true)
	close(q.leaving)
	select {
	case <-q.ended:
	case <-ctx.Done():
	}
	q.cancel()
	<-q.ended // a cancelled sending returns at once
}

func (q *queue[T]) run() {
	defer close(q.ended)
	batch, more := make([]T, 0, q.most), true
	for more {
		batch, more = q.gather(batch[:0])
		if len(batch) > 0 {
			q.send(batch)
		}
		clear(batch) // what was sent is not kept
	}
}

// gather waits for a batch; false with the last one.
func (q *queue[T]) gather(batch []T) ([]T, bool) {
	var full <-chan time.Time // runs from the first item
	for len(batch) < q.most {
		select {
		case item := <-q.items:
			if batch = append(batch, item); full == nil {
				full = time.After(gatherTime)
			}
		case <-full:
			return batch, true
		case <-q.leaving:
			return q.rest(batch)
		}
	}
	return batch, true
}

// rest is what is here already.
func (q *queue[T]) rest(batch []T) ([]T, bool) {
	for len(batch) < q.most {
		select {
		case item := <-q.items:
			batch = append(batch, item)
		default:
			return batch, false
		}
	}
	return batch, true
}

func (q *queue[T]) send(batch []T) {
	taken, err := 0, q.ctx.Err() // when it may not send any more, it only counts
	if err == nil {
		ctx, cancel := context.WithTimeout(q.ctx, q.timeout)
		taken, err = q.transmit(ctx, batch)
		cancel()
	}
	q.counts.TelemetrySent(q.name, taken)
	q.counts.TelemetryDropped(q.name, len(batch)-taken)
	q.complain(len(batch)-taken, err)
}

// complain tells the log that a receiver does not take what it is sent, at most once in complainEvery. err is
// in this package's words.
func (q *queue[T]) complain(dropped int, err error) {
	if q.silent += dropped; err == nil || time.Now().Before(q.complains) {
		return
	}
	q.log.Warn("telemetry was not taken; no request waits for it", "exporter", q.name, "dropped", q.silent, "error", err)
	q.silent, q.complains = 0, time.Now().Add(complainEvery)
}
