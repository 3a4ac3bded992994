package main

// Processes that freeze and come back, and a topic that goes away: whoever took over and whoever
// thawed must not have published or applied anything twice.

import (
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// takeOverLimit is for another process to have taken over what a frozen one held.
const takeOverLimit = 30 * time.Second

// background sends load until it is told to stop, and returns what came of it.
func background(t *testing.T, bases []string) (stop func() []reply, sent *atomic.Int64) {
	t.Helper()
	var enough atomic.Bool
	var replies []reply
	var wait sync.WaitGroup
	sent = new(atomic.Int64)
	wait.Go(func() {
		replies = sendWhile(t, bases, func() bool { sent.Add(1); return !enough.Load() })
	})
	return func() []reply {
		enough.Store(true)
		wait.Wait()
		return replies
	}, sent
}

// goneOn waits until so many more requests have been sent.
func goneOn(t *testing.T, sent *atomic.Int64, more int64) {
	t.Helper()
	target := sent.Load() + more
	eventually(t, takeOverLimit, "the load goes on", func() bool { return sent.Load() >= target })
}

// checkReplies: what a client saw finished is charged once, for what it was told; what was refused was
// refused for a moment.
func checkReplies(t *testing.T, a *audit, replies []reply) {
	t.Helper()
	good := 0
	for i := range replies {
		r := &replies[i]
		switch {
		case r.status == http.StatusOK && r.complete && r.err == nil:
			good++
			if l := a.lives[r.request]; l == nil || l.commits != 1 || l.commit.Cmp(a.rat(r.cost)) != 0 {
				t.Errorf("request %s was told %s; the ledger has %+v", r.request, r.cost, l)
			}
		case r.status != http.StatusServiceUnavailable && r.complete:
			t.Errorf("%v", r)
		}
	}
	t.Logf("%d requests, %d finished", len(replies), good)
	if good == 0 {
		t.Error("nothing finished")
	}
}

// leaseholder is who holds all of the leases now; "" where that is not one.
func leaseholder(t *testing.T, databaseURL string) string {
	t.Helper()
	var names, owners int
	var owner string
	ask(t, databaseURL, `SELECT count(*), count(DISTINCT owner), COALESCE(min(owner::text), '') FROM ledger_leases
		WHERE (name LIKE 'relay:%' OR name = 'projector') AND until > now()`, &names, &owners, &owner)
	if owners != 1 || names < 2 {
		return ""
	}
	return owner
}

// TestFrozen: the gateway that relays and projects is frozen under load, another takes over, and the
// first one thaws; then the other way round.
func TestFrozen(t *testing.T) {
	t.Parallel()
	env := append(newWitness(t).settings(), "BILLING_DEFAULT_BALANCE="+loadBalance)
	all, url := gateways(t, 1, env...)
	p := publishedAt(t, url)
	first := all[0]
	var owner string
	eventually(t, takeOverLimit, "the first gateway has the leases", func() bool { owner = leaseholder(t, url); return owner != "" })
	second := launch(t, append(env, "DATABASE_URL="+url)...).ready()
	stop, sent := background(t, []string{first.url, second.url})
	goneOn(t, sent, 300)
	for round, s := range []*served{first, second, first}[:sized(2, 3)] {
		s.signal(syscall.SIGSTOP)
		begin := time.Now()
		next := ""
		eventually(t, takeOverLimit, "another has taken over", func() bool { next = leaseholder(t, url); return next != "" && next != owner })
		t.Logf("round %d: taken over %s after the freeze", round, time.Since(begin).Round(time.Millisecond))
		owner = next
		s.signal(syscall.SIGCONT)
		goneOn(t, sent, 300)
	}
	replies := stop()
	checkReplies(t, auditLedger(t, url), replies)
	p.audit(t)
	auditProjections(t, url)
	verified(t, "DATABASE_URL="+url)
}

func (s *served) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// TestTopicDeleted: the topic is deleted under load, and is filled again from the ledger.
func TestTopicDeleted(t *testing.T) {
	t.Parallel()
	all, url := gateways(t, 2, append(newWitness(t).settings(), "BILLING_DEFAULT_BALANCE="+loadBalance)...)
	p := publishedAt(t, url)
	_, admin := p.client(t)
	stop, sent := background(t, []string{all[0].url, all[1].url})
	for range sized(2, 4) {
		goneOn(t, sent, 400)
		eventually(t, topicLimit, "the topic is there, and is deleted", func() bool {
			deleted, err := admin.DeleteTopics(t.Context(), p.topic)
			return err == nil && deleted.Error() == nil
		})
	}
	goneOn(t, sent, 400)
	replies := stop()
	checkReplies(t, auditLedger(t, url), replies)
	p.audit(t)
	auditProjections(t, url)
	verified(t, "DATABASE_URL="+url)
}
