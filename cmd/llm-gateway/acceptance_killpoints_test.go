package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	killLimit   = 20 * time.Second // for a gateway to come to its point; then it is killed where it is
	auditRounds = 50               // between two audits of all
)

// killPoints are the points of killpoints.go, and how often each may be passed before it kills. "" is a
// kill from outside, at a random time. Only one gateway projects: the other has to die first.
var killPoints = []struct {
	point string
	most  int64
	alone bool
}{{"reserved", 60, false}, {"called", 60, false}, {"settled", 60, false}, {"", 0, false}, {"appended", 60, false},
	{"batch", 60, false}, {"committed", 60, false}, {"projected", 10, true}, {"moved", 10, true}}

// faulty builds the binary that knows the points.
var faulty = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, program+"-faults")
	out, err := exec.Command("go", "build", "-tags", "faults", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// kills is how gateways were killed, and how fast they served again.
type kills struct {
	*siege
	binary  string
	again   []time.Duration // from each death until it was ready again
	reached map[string]int
}

// round kills one gateway where it is, and then at a point.
func (k *kills) round(n int) {
	k.t.Helper()
	slot, point := n%besieged, killPoints[n%len(killPoints)]
	at, patience := "", time.Duration(rand.Int64N(int64(time.Second)))
	if point.point != "" {
		at, patience = fmt.Sprint(point.point, ":", 1+rand.Int64N(point.most)), killLimit
	}
	k.kill(slot, at)
	if point.alone {
		k.kill((slot+1)%besieged, "")
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-k.running[slot].ended:
		k.reached[point.point]++
	case <-timer.C:
		k.reached["a random time"]++
	}
	k.kill(slot, "")
}

// kill sees to it that a gateway is dead, and starts it again.
func (k *kills) kill(slot int, at string) {
	k.t.Helper()
	s := k.running[slot]
	s.cmd.Process.Kill() //nolint:errcheck // it may have done so itself
	s.await(endLimit)
	died := time.Now()
	k.start(slot, k.binary, "KILL_AT="+at)
	k.again = append(k.again, time.Since(died))
}

// TestKillPoints kills gateways at named points and at random times, under load. What was under way at
// a kill is given back, or charged for what was served; nothing else is lost, and nothing happens
// twice.
func TestKillPoints(t *testing.T) {
	rounds := sized(9, 250) // of two kills each
	binary, err := faulty()
	if err != nil {
		t.Fatalf("building the binary with faults: %v", err)
	}
	k := &kills{siege: besiege(t), binary: binary, reached: map[string]int{}}
	for slot := range besieged {
		k.start(slot, binary)
	}
	k.begin()
	for n := 0; n < rounds && !t.Failed(); n++ {
		k.round(n)
		if n%auditRounds == auditRounds-1 {
			auditLedger(t, k.p.databaseURL)
		}
	}
	o := k.finish()
	slices.Sort(k.again)
	t.Logf("%d kills, %v; ready again after %s, at most %s", len(k.again), k.reached,
		k.again[len(k.again)/2].Round(time.Millisecond), k.again[len(k.again)-1].Round(time.Millisecond))
	if o.finished == 0 || o.expired == 0 || len(k.reached) < len(killPoints)-2 {
		t.Errorf("%+v, %v: not all was tried", o, k.reached)
	}
}
