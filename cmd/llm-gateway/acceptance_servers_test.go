package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	longOutage  = 14 * time.Second // longer than an owner's lease
	shortOutage = 3 * time.Second  // at most
	backLimit   = 60 * time.Second // for a client to be served again, at most
	ownerFrozen = 40 * time.Second // for all that a frozen gateway had reserved to be given back, at most
)

// control tells the real servers' runner what to do with one of them.
func control(t testing.TB, what, name string) {
	t.Helper()
	pipe, err := os.OpenFile(os.Getenv("TEST_REAL_CONTROL"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close() //nolint:errcheck // nothing is read from it
	if _, err := fmt.Fprintln(pipe, what, name); err != nil {
		t.Fatal(err)
	}
}

// TestServersKilled kills each of the real servers under load, as kill -9 does, and starts it again: for
// a moment, and Postgres for longer than a lease too. Redis comes back empty. No money is lost, none is
// taken twice, and nobody has to restart a gateway.
func TestServersKilled(t *testing.T) {
	if os.Getenv("KILL_SERVERS") == "" || os.Getenv("TEST_REAL_CONTROL") == "" {
		t.Skip("the servers here are others' too, or cannot be killed: make faults-real")
	}
	k := besiege(t)
	for slot := range besieged {
		k.start(slot, binary(t))
	}
	k.begin()
	rounds := sized(4, 40)
	for n := 0; n < rounds && !t.Failed(); n++ {
		name, outage := []string{"postgres", "redis", "kafka", "postgres"}[n%4], time.Duration(rand.Int64N(int64(shortOutage)))
		if n%8 == 3 {
			outage = longOutage
		}
		control(t, "kill", name)
		<-time.After(outage)
		began, before := time.Now(), k.served()
		control(t, "start", name)
		eventually(t, backLimit, "requests are served again", func() bool { return k.served() > before+besieged })
		t.Logf("%s was away for %s; served again %s after its start", name, outage.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	if o := k.finish(); o.finished == 0 || o.expired != 0 {
		t.Errorf("%+v: owners that live have nothing that expires", o)
	}
}

// TestFrozenOwner freezes a gateway for longer than its lease, with requests under way: another gives
// back what it had reserved. When it thaws, what it delivers all the same is charged late, once.
func TestFrozenOwner(t *testing.T) {
	t.Parallel()
	k := besiege(t)
	for slot := range besieged {
		k.start(slot, binary(t))
	}
	k.begin()
	const long, seconds = "900000", 4
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		body := chatBody(loadModel, fmt.Sprintf("nonce %s sim:tokens=%d sim:pace=100ms", long, 10*seconds), true, "")
		k.sendBody(newClient(t), 0, long, body, tokenFor(t, loadAccount(0)))
	}()
	eventually(t, settleLimit, "a long request is under way", func() bool { return k.served() > 100 && k.w.called(long) })
	frozen := k.running[0].cmd.Process
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, ownerFrozen, "what it had reserved is given back", func() bool {
		return countRows(t, k.p.databaseURL, `SELECT count(*) FROM ledger_reservations WHERE state = 'expired'`) > 0 &&
			countRows(t, k.p.databaseURL, `SELECT count(*) FROM ledger_reservations r WHERE state = 'open' AND NOT EXISTS
				(SELECT FROM ledger_leases l WHERE l.name = 'owner:' || r.owner AND l.until >= now())`) == 0
	})
	t.Logf("given back %s after it was frozen", time.Since(began).Round(time.Millisecond))
	if err := frozen.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	<-ended
	if o := k.finish(); o.late == 0 {
		t.Errorf("%+v: nothing was late", o)
	}
}

// TestSickNetwork lets everything between the gateways and their servers happen that happens on networks:
// connections break, nothing arrives, everything arrives late, or what was said arrives and the answer
// does not, that of COMMIT among them.
func TestSickNetwork(t *testing.T) {
	t.Parallel()
	k := besiege(t)
	posts := map[string]*gatePost{}
	post, through := newGatePost(t, k.p.databaseURL)
	posts["Postgres"] = post
	more := []string{"DATABASE_URL=" + through}
	if at, err := url.Parse(os.Getenv("REDIS_URL")); err == nil && at.Host != "" {
		posts["Redis"] = postAt(t, "127.0.0.1:0", "tcp", at.Host)
		more = append(more, "REDIS_URL="+strings.Replace(at.String(), at.Host, posts["Redis"].listener.Addr().String(), 1))
	}
	if front, behind, ok := strings.Cut(os.Getenv("TEST_REAL_KAFKA_PROXY"), " "); ok { // the embedded one tells clients where it is itself
		posts["Kafka"] = postAt(t, front, "tcp", behind)
		more = append(more, "KAFKA_BROKERS="+front)
	}
	for slot := range besieged {
		k.start(slot, binary(t), more...)
	}
	k.begin()
	faults := map[string]int{}
	for range sized(16, 200) {
		for name, p := range posts {
			if r := road(rand.IntN(8)); r <= deaf {
				faults[fmt.Sprint(name, " ", []string{"healed", "cut", "frozen", "slow", "deaf"}[r])]++
				p.set(r)
			}
		}
		<-time.After(time.Duration(rand.Int64N(int64(time.Second))))
	}
	for _, p := range posts {
		p.set(open)
	}
	before := k.served()
	eventually(t, backLimit, "requests are served again", func() bool { return k.served() > before+besieged })
	t.Logf("%v", faults)
	if o := k.finish(); o.finished == 0 {
		t.Errorf("%+v: nothing was tried", o)
	}
}
