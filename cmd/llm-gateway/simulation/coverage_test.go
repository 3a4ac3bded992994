package simulation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// tally counts what happened in runs. A simulation in which nothing happens finds nothing.
type tally map[string]int

func (t tally) add(other tally) {
	for what, n := range other {
		t[what] += n
	}
}

func (t tally) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&b, "%9d  %s\n", t[what], what)
	}
	return b.String()
}

// seen counts what the evidence of a run shows.
func (a *auditor) seen() tally {
	t := tally{"runs": 1, "events": 0}
	for _, shard := range a.facts {
		t["events"] += len(shard)
	}
	for _, r := range a.order {
		t["a request: "+r.shape()]++
		if _, kept := a.kept[r.id]; kept {
			t["a settlement was in a journal"]++
		}
	}
	for _, s := range a.attempts {
		t[fmt.Sprintf("an answer with status %d", s.status)]++
		if s.header["idempotent-replayed"] != "" {
			t["a repeat got the first answer"]++
		}
		if s.acknowledged() {
			t["an answer was acknowledged"]++
		}
		if s.left {
			t["a client left"]++
		}
		if s.reads && s.status == 200 {
			t["a balance was read"]++
		}
	}
	for _, l := range a.lives {
		t["a process started"]++
		if len(l.leases) > 1 {
			t["an owner's lease lapsed, and was taken again"]++
		}
	}
	return t
}

// shape is a request's life without amounts.
func (r *request) shape() string {
	var words []string
	for _, f := range []*fact{r.reserve, r.commit, r.refund, r.overage} {
		if f != nil {
			words = append(words, strings.TrimSpace(f.Kind+" "+f.Data.Reason))
		}
	}
	return strings.Join(words, ", ")
}

// mustOccur are situations that usualSeeds seeds have to meet.
var mustOccur = []string{
	"a request: reserve, commit, refund remainder",
	"a request: reserve, commit, overage beyond_bound",
	"a request: reserve, refund client_abort",
	"a request: reserve, refund provider_error",
	"a request: reserve, refund internal_error",
	"a request: reserve, refund shutdown",
	"a request: reserve, refund expired",
	"a request: reserve, refund expired, overage late",
	"a settlement was in a journal",
	"a repeat got the first answer",
	"a client left",
	"a balance was read",
	"an owner's lease lapsed, and was taken again",
	"a process was told to end",
	"an answer with status 402",
	"an answer with status 403",
	"an answer with status 409",
	"an answer with status 422",
	"a process died at an append",
	"a process died at producing",
	"a process died at a part of an answer",
	"a process froze at producing",
	"a process froze at a step of a projection",
	"an append happens, but its answer is lost",
	"an append happens twice",
	"an append is answered late",
	"an append is refused",
	"producing happens, but its answer is lost",
	"a step of a projection happens, but its answer is lost",
	"fetching happens twice",
	"writing the cache happens twice",
	"a part of an answer happens, but its answer is lost",
	"the journal happens, but its answer is lost",
	"the topic was deleted",
	"Postgres was away", "Kafka was away", "Redis was away",
}

func checkTally(t *testing.T, seen tally) {
	t.Helper()
	for _, what := range mustOccur {
		if seen[what] == 0 {
			t.Errorf("in no run: %s", what)
		}
	}
}
