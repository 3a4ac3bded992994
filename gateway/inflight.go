package gateway

import (
	"container/list"
	"context"
	"sync"
	"time"

	"llm-gateway/gateway/observe"
)

// Requests in flight are bounded, in all and for each account, so that too many of them get a quick 503 and do
// not slow down the others to death. A model call has a slot from when it is read and known to be well formed
// until its answer has ended, a stream's too; what is being read is bounded by its size (bodies.go). The bounds are
// each gateway's own: they protect this process.

// maxQueued bounds the requests that wait for a slot.
const maxQueued = 1000

// InFlight bounds the model calls that are under way in this process.
type InFlight struct {
	Most       int           // 0 = no bound
	PerAccount int           // 0 = no bound
	Wait       time.Duration // for a slot, at most
}

// slots hands out what InFlight allows. It is safe for concurrent use.
type slots struct {
	InFlight
	metrics *observe.Metrics

	mu      sync.Mutex
	taken   int
	of      map[string]int // by account, none of them 0
	waiting *list.List     // of *waiter, the first in front
	queued  map[string]int // how many of them are an account's
}

// waiter is a request that waits for a slot.
type waiter struct {
	account string
	got     chan struct{} // closed when it has one
}

func newSlots(f InFlight, m *observe.Metrics) *slots {
	return &slots{InFlight: f, metrics: m, of: map[string]int{}, waiting: list.New(), queued: map[string]int{}}
}

// enter takes a slot, after a short wait if it must, and returns what gives it back, to be called once. It
// fails with 503 overloaded.
func (s *slots) enter(ctx context.Context, account string) (leave func(), err error) {
	if s.Most == 0 && s.PerAccount == 0 {
		return func() {}, nil
	}
	s.mu.Lock()
	if s.room(account) { // all who wait have none
		s.take(account)
		s.mu.Unlock()
		return func() { s.leave(account) }, nil
	}
	place := s.queue(account)
	s.mu.Unlock()
	if place == nil || !s.await(ctx, place) {
		s.metrics.RateLimited("in_flight", "refused")
		return nil, unavailable("overloaded", "Too many requests are under way. Please retry.", nil)
	}
	return func() { s.leave(account) }, nil
}

// room says whether there is a slot for an account.
func (s *slots) room(account string) bool {
	return (s.Most == 0 || s.taken < s.Most) && (s.PerAccount == 0 || s.of[account] < s.PerAccount)
}

func (s *slots) take(account string) {
	s.taken++
	s.of[account]++
}

// queue lets a request wait; nil where too many do, or too many of its account's: whoever is at its own bound
// must not fill the queue for all.
func (s *slots) queue(account string) *list.Element {
	if s.Wait == 0 || s.waiting.Len() >= maxQueued || s.PerAccount > 0 && s.queued[account] >= s.PerAccount {
		return nil
	}
	s.queued[account]++
	return s.waiting.PushBack(&waiter{account, make(chan struct{})})
}

// await waits for a slot. Where it comes at the last moment, it is taken all the same.
func (s *slots) await(ctx context.Context, place *list.Element) bool {
	w := place.Value.(*waiter)
	timer := time.NewTimer(s.Wait)
	defer timer.Stop()
	select {
	case <-w.got:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.got:
		return true
	default:
		s.drop(place)
		return false
	}
}

// drop takes a request out of the queue.
func (s *slots) drop(place *list.Element) {
	w := s.waiting.Remove(place).(*waiter)
	if s.queued[w.account]--; s.queued[w.account] == 0 {
		delete(s.queued, w.account)
	}
}

// leave gives a slot back, to whoever has waited longest for what is free now.
func (s *slots) leave(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.of[account]--; s.of[account] == 0 {
		delete(s.of, account)
	}
	s.admit()
}

// admit hands free slots to those who wait, in their order, but for accounts that have all of theirs.
func (s *slots) admit() {
	for place := s.waiting.Front(); place != nil && (s.Most == 0 || s.taken < s.Most); {
		next, w := place.Next(), place.Value.(*waiter)
		if s.room(w.account) {
			s.take(w.account)
			s.drop(place)
			close(w.got)
		}
		place = next
	}
}
