package topic_test

import (
	"context"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/ledger/topic"
)

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

// away are the ways in which Kafka is not there.
var away = map[string]dial{
	"refused": func(_ context.Context, network, _ string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	},
	"no answer to connecting": func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	},
	"no answer": func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { // it takes everything, until the near end closes, and says nothing
			defer far.Close()
			for b := make([]byte, 1024); ; {
				if _, err := far.Read(b); err != nil {
					return
				}
			}
		}()
		return near, nil
	},
}

// TestAway: with Kafka away every call fails, within its bound; so does one that is cancelled, at once.
func TestAway(t *testing.T) {
	t.Parallel()
	for name, dial := range away {
		for call, c := range map[string]struct {
			bound time.Duration
			do    func(ctx context.Context, tp *topic.Topic) error
		}{
			"ensure": {topic.CallTime, func(ctx context.Context, tp *topic.Topic) error { return tp.Ensure(ctx) }},
			"cluster": {topic.CallTime, func(ctx context.Context, tp *topic.Topic) error {
				_, err := tp.Cluster(ctx)
				return err
			}},
			"state": {topic.CallTime, func(ctx context.Context, tp *topic.Topic) error {
				_, err := tp.State(ctx)
				return err
			}},
			"tail": {topic.CallTime, func(ctx context.Context, tp *topic.Topic) error {
				_, err := tp.Tail(ctx, 0)
				return err
			}},
			"scan": {topic.CallTime, func(ctx context.Context, tp *topic.Topic) (err error) {
				for _, err = range tp.Scan(ctx, 0) {
				}
				return err
			}},
			"producer": {topic.TakeoverTime, func(ctx context.Context, tp *topic.Topic) error {
				_, err := tp.Producer(ctx, 0)
				return err
			}},
		} {
			t.Run(name+": "+call, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { failsInTime(t, dial, c.bound, c.do) })
			})
		}
	}
}

func failsInTime(t *testing.T, dial dial, bound time.Duration, do func(context.Context, *topic.Topic) error) {
	t.Helper()
	tp, err := topic.Open(topic.Config{Brokers: []string{"127.0.0.1:1"}, Name: "t", Ledger: uuid.New(), Shards: 1, Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := do(t.Context(), tp); err == nil {
		t.Error("it went well")
	}
	if took := time.Since(began); took > bound {
		t.Errorf("it took %s, want %s at most", took, bound)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	began = time.Now()
	if err := do(ctx, tp); err == nil {
		t.Error("it went well, cancelled")
	}
	if took := time.Since(began); took > time.Millisecond {
		t.Errorf("cancelled after a millisecond, it took %s", took)
	}
	began = time.Now()
	tp.Close()
	if took := time.Since(began); took > time.Second {
		t.Errorf("closing took %s", took)
	}
}

// TestPublishAway: Kafka goes away for good in the midst of a Publish.
func TestPublishAway(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 12; n++ {
		synctest.Test(t, func(t *testing.T) {
			s := &saboteur{stay: true, left: -1}
			b := bubbleBench(t, func(c topic.Config) topic.Config {
				s.inner = c.Dial
				c.Dial = s.dial
				return c
			})
			p := b.producer(t)
			s.arm(n, func() {})
			began := time.Now()
			_, err := p.Publish(t.Context(), b.chain.Next(t, 3))
			if took := time.Since(began); took > topic.PublishTime {
				t.Errorf("cut at %d: it took %s, want %s at most", n, took, topic.PublishTime)
			}
			t.Logf("cut off at %d: %s, %v", n, time.Since(began), err)
			began = time.Now()
			p.Close()
			if took := time.Since(began); took > time.Second {
				t.Errorf("closing took %s", took)
			}
			s.calm()
		})
	}
}

// TestConsumeAway: a consumer waits for Kafka to come back, and then goes on where it was.
func TestConsumeAway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.producer(t)
	b.publish(t, p, 3)
	s := &saboteur{stay: true, left: -1}
	c, err := b.sabotaged(t, s).Consume(make([]int64, shards))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.poll(t, c, 1, 3)
	s.arm(1, func() {})
	b.publish(t, p, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	next := int64(4)
	for err = nil; err == nil; {
		var records []*topic.Record
		records, err = c.Poll(ctx, 10) // what was on its way may still come
		next += int64(len(records))
	}
	wantError(t, err, context.DeadlineExceeded)
	s.calm()
	b.publish(t, p, 3)
	b.poll(t, c, next, int(b.chain.Seq-next)+1)
}
