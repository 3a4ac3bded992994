package gateway_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"llm-gateway/domain"
)

// flat asks for a call of 0.01 and tells its status and how long it took.
func (s *spooling) flat(account string) (status int, took time.Duration) {
	began := time.Now()
	a := s.chat(account, chatBody("sim-flat", "x", ""))
	return a.status, time.Since(began)
}

// TestOutage: a ledger that is away costs one call a wait at a time, not each; it is used again when it is
// there; and both are said once.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startSpooling(t, options{}, newPipes())
		s.holds.Know("spoon", "1", false)
		const reserve = 3 * time.Second // what a reserve waits
		for i, c := range []struct {
			pass  time.Duration
			how   presence
			took  time.Duration
			asked int // whether it comes to the ledger
		}{
			{0, there, 0, 1},
			{0, silent, reserve, 1},
			{0, silent, 0, 0},
			{900 * time.Millisecond, silent, 0, 0},
			{time.Hour, silent, reserve, 1},
			{0, silent, 0, 0},
			{0, there, 0, 0}, // it is back, and nobody knows
			{time.Second, there, 0, 1},
			{0, there, 0, 1},
			{0, silent, reserve, 1},
		} {
			<-time.After(c.pass)
			synctest.Wait() // what went on behind clients' backs is in the journal
			s.ledger.set(c.how)
			before, kept := s.ledger.count(), len(s.journal.spooled())
			status, took := s.flat("spoon")
			reserved := c.how == there && c.asked > 0
			if asked := s.ledger.count() - before; status != 200 || took != c.took || asked != c.asked || (len(s.journal.spooled()) == kept) != reserved {
				t.Errorf("%d: %d after %s, asked %d times, spooled %d", i, status, took, asked, len(s.journal.spooled())-kept)
			}
		}
		s.wantLines("", lineBegins, 2)
		s.wantLines("", lineEnds, 1)
		if !strings.Contains(s.logs.String(), lineEnds+`; those that went on without it are booked from the journal","spooled":6}`) {
			t.Errorf("how many were spooled is not said: %s", s.logs)
		}
		if refused := s.recovers(); len(refused) > 0 || s.available("spoon") != "99.9" {
			t.Errorf("%v, %s is left", refused, s.available("spoon"))
		}
		s.wantLines("booked", lineEnds, 2)
	})
}

// TestOutageProbe: of all that come when the ledger has been left alone, one goes to see.
func TestOutageProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startSpooling(t, options{}, newPipes())
		s.holds.Know("spoon", "100", false)
		s.ledger.set(silent)
		s.flat("spoon")
		<-time.After(2 * time.Second)
		var mu sync.Mutex
		var waits []time.Duration
		together(32, func(i int) {
			<-time.After(time.Duration(i) * 100 * time.Millisecond) // for as long as the first one waits, and a little more
			status, took := s.flat("spoon")
			mu.Lock()
			defer mu.Unlock()
			if waits = append(waits, took); status != 200 {
				t.Error(status)
			}
		})
		slices.Sort(waits)
		if waits[30] != 0 || waits[31] != 3*time.Second {
			t.Errorf("they waited %v", waits)
		}
		s.recovers()
	})
}

// TestOutageOfOne: what one shard does not take is no reason to leave the ledger alone, nor is a failure
// that comes at once, nor one that is older than the last answer.
func TestOutageOfOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startSpooling(t, options{}, newPipes())
		s.append("fork", domain.Open{Grant: domain.MustAmount("1"), Actor: "test"})
		s.ledger.only = func(c domain.Command) bool { return c.Account == "spoon" }
		s.get("fork", "/v1/models")
		s.holds.Know("spoon", "1", false)
		s.ledger.set(refusing)
		for range 3 {
			if status, _ := s.flat("spoon"); status != 200 {
				t.Error(status)
			}
			before := s.ledger.count()
			if a := s.chat("fork", chatBody("sim-flat", "x", "")); a.header.Get("x-billing-position") == "" || s.ledger.count() != before+1 {
				t.Errorf("another account's: %d %v", a.status, a.header)
			}
		}
		s.wantLines("flapping", lineBegins, 1)
		s.wantLines("flapping", lineEnds, 0)
		<-time.After(time.Second)
		s.chat("fork", chatBody("sim-flat", "x", ""))
		s.wantLines("calm", lineEnds, 1)
		s.ledger.set(silent)
		slow := make(chan time.Duration)
		go func() { _, took := s.flat("spoon"); slow <- took }()
		<-time.After(2 * time.Second)
		s.flat("fork") // the ledger answers another while it does not answer this one
		if took := <-slow; took != 3*time.Second {
			t.Errorf("it waited %s", took)
		}
		before := s.ledger.count()
		if s.flat("fork"); s.ledger.count() != before+1 {
			t.Error("the ledger is left alone by accounts that it serves")
		}
		s.recovers()
	})
}

// TestOutageOfTheAccount: with the ledger away an account is open that the cache knows, at once where the
// absence is known; any other is not.
func TestOutageOfTheAccount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cache{}
		s := startSpooling(t, options{balances: c}, newPipes())
		s.holds.Know("knife", "1", false)
		s.ledger.set(silent)
		const open = 3 * time.Second // what the question whether it is open waits
		ask := func(name string, status int, want time.Duration) {
			t.Helper()
			if got, took := s.flat(name); got != status || took != want {
				t.Errorf("%s: %d after %s, want %d after %s", name, got, took, status, want)
			}
		}
		ask("knife", 503, open)
		c.says("1", false)
		ask("knife", 200, 0)
		<-time.After(time.Hour)
		ask("knife", 200, open) // then it is known that the ledger is away
		ask("knife", 200, 0)
		c.fails()
		ask("knife", 503, open)
		c.says("1", false)
		ask("spoon", 503, 0) // it is open, and Redis holds nothing for it
		s.ledger.set(there)
		<-time.After(2 * time.Second)
		if got, _ := s.flat("knife"); got != 200 || s.available("knife") != "99.99" {
			t.Errorf("when it is back: %d, %s is left", got, s.available("knife"))
		}
		s.recovers()
	})
}

// TestOutageSparesTheGate: while the ledger is known to be away nobody waits for it to confirm a no.
func TestOutageSparesTheGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cache{}
		s := startSpooling(t, options{balances: c}, newPipes())
		s.holds.Know("spoon", "0.01", false)
		c.says("0.01", false)
		s.ledger.set(silent)
		var got []string
		for range 3 {
			status, took := s.flat("spoon")
			got = append(got, fmt.Sprint(status, " ", took))
			c.says("0", false)
		}
		if want := "[200 3s 402 0s 402 0s]"; fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
		if v := s.verdicts(); v != "yes=1" {
			t.Errorf("the gate was asked: %s", v)
		}
		s.recovers()
	})
}

// TestOutageDenied: without spooling each call asks the ledger itself, as ever.
func TestOutageDenied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &absent{}
		e := startAbsent(t, a, options{journal: &spoolJournal{}}, newPipes())
		a.set(silent)
		for range 2 {
			began := time.Now()
			if got := e.chat("spoon", chatBody("sim-flat", "x", "")); got.status != 503 || time.Since(began) != 3*time.Second {
				t.Errorf("%d after %s", got.status, time.Since(began))
			}
		}
		a.set(there)
		if got := e.chat("spoon", chatBody("sim-flat", "x", "")); got.status != 200 || got.header.Get("x-billing-position") == "" {
			t.Errorf("when it is back: %d %s", got.status, got.body)
		}
		e.gw.Close()
	})
}
