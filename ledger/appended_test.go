package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// handed is what Hooks.Appended was given, by shard.
type handed struct {
	mu     sync.Mutex
	events map[int32][]domain.Recorded
	ids    map[uuid.UUID]int
}

func (h *handed) hooks() Hooks {
	h.events, h.ids = map[int32][]domain.Recorded{}, map[uuid.UUID]int{}
	return Hooks{Appended: func(events []domain.Recorded) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, e := range events {
			h.events[e.Event.Shard] = append(h.events[e.Event.Shard], e)
			h.ids[e.Event.ID]++
		}
	}}
}

// TestAppended holds both stores to handing over every new event once, in order, before its caller knows.
func TestAppended(t *testing.T) {
	for name, open := range map[string]func(*testing.T, Hooks) subject{
		"memory": func(t *testing.T, hooks Hooks) subject {
			m := NewMemory(uuid.New(), testShards, "USD", time.Now, hooks)
			t.Cleanup(m.Close)
			return m
		},
		"postgres": func(t *testing.T, hooks Hooks) subject {
			url := pgtest.URL(t)
			openAt(t, url).Close()
			return open(t, Config{URL: url, Hooks: hooks})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h handed
			s := open(t, h.hooks())
			together(t, 32, func(i int) error { return h.request(s, fmt.Sprint("account-", i%7)) })
			total := 0
			for shard, events := range h.events {
				total += len(events)
				for i, e := range events {
					if e.Event.Seq != int64(i+1) || e.Event.Shard != shard {
						t.Fatalf("event %d of shard %d is %s", i, shard, e.Event.Position())
					}
					history, err := s.Request(t.Context(), e.Event.Account, e.Event.RequestID)
					if err != nil || e.Event.RequestID != uuid.Nil && !contains(history, e) {
						t.Fatalf("%s was handed over otherwise than it is: %v", e.Event.Position(), err)
					}
				}
			}
			if want := 7*2 + 32*3; total != want {
				t.Errorf("%d events were handed over, not %d", total, want)
			}
		})
	}
}

func contains(history []domain.Recorded, e domain.Recorded) bool {
	for _, have := range history {
		if have.Event.ID == e.Event.ID {
			return have.Hash == e.Hash && bytes.Equal(have.Payload, e.Payload)
		}
	}
	return false
}

// request runs a request, everything twice, and wants each new event to have been handed over once.
func (h *handed) request(s subject, account string) error {
	id := uuid.New()
	for _, op := range []domain.Op{domain.Open{Grant: domain.MustAmount("100"), Actor: "test"}, reserve(id, "2"), settle(id, "0.5"),
		reserve(uuid.New(), "1000000")} {
		c := command(account, op)
		for again := range 2 {
			out, err := s.Append(context.Background(), c)
			if r := new(domain.Rejection); err != nil && !errors.As(err, &r) {
				return err
			}
			h.mu.Lock()
			for _, e := range out.Events {
				if h.ids[e.Event.ID] != 1 {
					err = fmt.Errorf("%s was handed over %d times after try %d", e.Event.Position(), h.ids[e.Event.ID], again)
				}
			}
			h.mu.Unlock()
			if r := new(domain.Rejection); err != nil && !errors.As(err, &r) {
				return err
			}
		}
	}
	return nil
}

// TestAppendedWithoutAnswer loses COMMIT's answer: what happened is found as a repeat, and not handed over.
// The ledger has it.
func TestAppendedWithoutAnswer(t *testing.T) {
	t.Parallel()
	var h handed
	p, between, _ := openProxied(t, h.hooks())
	mustOpen(t, p, "alice", "1")
	between.once(cutAfter, is("commit"))
	lost := must(t, p, command("alice", credit("1", "unknown")))
	after := must(t, p, command("alice", credit("1", "after")))
	if h.ids[lost.Events[0].Event.ID] != 0 || h.ids[after.Events[0].Event.ID] != 1 {
		t.Fatal(h.ids)
	}
	shard := domain.ShardOf("alice", testShards)
	events, err := p.Events(t.Context(), shard, h.events[shard][1].Event.Seq, 10)
	if err != nil || len(events) != 2 || events[0].Event.ID != lost.Events[0].Event.ID || events[1].Event.ID != after.Events[0].Event.ID {
		t.Fatalf("%v, %v", events, err)
	}
}
