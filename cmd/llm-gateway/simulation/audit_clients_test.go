package simulation

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// checkClients holds what clients saw against the ledger.
func (a *auditor) checkClients() {
	answers := map[string]*sighting{}
	for _, s := range a.attempts {
		if s.status >= 500 && s.status != 503 && s.status != s.failsWith {
			a.failf(invAnswer, "%s got %d: %s", s.name, s.status, s.got)
		}
		if s.reads {
			a.checkReading(s)
			continue
		}
		a.checkRefusal(s)
		if !s.acknowledged() {
			continue
		}
		r := a.requests[s.header["x-billing-request-id"]]
		if r == nil || r.reserve == nil || r.attempt == nil {
			a.failf(invAcknowledged, "%s: nothing is known of request %q", s.name, s.header["x-billing-request-id"])
			continue
		}
		a.checkAcknowledged(s, r)
		first := answers[r.id]
		if first == nil {
			answers[r.id] = s
		} else if plainAnswer(first) != plainAnswer(s) {
			a.failf(invSameAnswer, "%s got %q, %s got %q", first.name, first.got, s.name, s.got)
		}
	}
}

// acknowledged says whether the client was told that its request is done: a whole answer, or [DONE].
func (s *sighting) acknowledged() bool {
	return s.status == 200 && s.whole && !s.reads && (!s.stream || strings.HasSuffix(string(s.got), "data: [DONE]\n\n"))
}

// cost is what a client was told, in a header or in the comment of a stream.
func (s *sighting) cost() string {
	if !s.stream {
		return s.header["x-billing-cost"]
	}
	_, after, _ := strings.Cut(string(s.got), `"cost":"`)
	cost, _, _ := strings.Cut(after, `"`)
	return cost
}

func (a *auditor) checkAcknowledged(s *sighting, r *request) {
	end := r.commit
	if end == nil {
		end = r.overage
	}
	switch {
	case end == nil || a.number(s.cost()).Cmp(r.charged(a)) != 0:
		a.failf(invAcknowledged, "%s was told %q: %s", s.name, s.cost(), r)
	case a.durable(r, end).After(s.ended):
		a.failf(invAcknowledged, "%s was told at %s: %s, durable at %s", s.name, s.ended, r, a.durable(r, end))
	}
	switch replayed := s.header["idempotent-replayed"] != ""; {
	case replayed && (r.attempt.asks != s.asks || r.attempt.key != s.key || s.key == ""):
		a.failf(invSameAnswer, "%s got the answer of another question: %s", s.name, r)
	case !replayed && r.attempt != s:
		a.failf(invAcknowledged, "%s was told of the request of %s", s.name, r)
	}
}

// durable is when a settlement became so: on a disk, or in the ledger.
func (a *auditor) durable(r *request, end *fact) time.Time {
	if kept, ok := a.kept[r.id]; ok && kept.Before(end.At) {
		return kept
	}
	return end.At
}

// plainAnswer is an answer without the position, which one that waited in the journal did not have yet.
func plainAnswer(s *sighting) string {
	text := string(s.got)
	before, after, ok := strings.Cut(text, `,"position":`)
	if !ok || !s.stream {
		return text
	}
	_, after, _ = strings.Cut(after, "}")
	return fmt.Sprint(before, after)
}

// believed is how long a gateway may believe an account's head that it has read.
const believed = time.Second

// checkRefusal: the money, or the key, was as the refusal says at some moment of the request.
func (a *auditor) checkRefusal(s *sighting) {
	if !s.whole {
		return
	}
	switch s.status {
	case 402:
		_, after, _ := strings.Cut(string(s.got), "your balance affords ")
		if text, _, ok := strings.Cut(after, ". "); !ok || !a.couldSpend(s, a.number(text).RatString()) {
			a.failf(invRefusal, "%s got %s", s.name, s.got)
		}
	case 409, 422:
		for _, r := range a.order {
			if r.reserve != nil && r.attempt != s && r.reserve.Account == s.account && r.reserve.Data.Key == s.key && r.reserve.At.Before(s.ended) {
				return
			}
		}
		a.failf(invRefusal, "%s got %s, and nobody has its key", s.name, s.got)
	}
}

// couldSpend says whether an account could spend just so much at a moment that a request can have seen.
func (a *auditor) couldSpend(s *sighting, spendable string) bool {
	history := a.bookOf(s.account).history
	for i, m := range history {
		over := i+1 < len(history) && history[i+1].at.Before(s.began.Add(-believed))
		if m.spendable == spendable && !over && !m.at.After(s.ended) {
			return true
		}
	}
	return false
}

// checkReading holds a balance against the events up to its position.
func (a *auditor) checkReading(s *sighting) {
	if s.status != 200 || !s.whole {
		return
	}
	var got struct {
		Balance  json.Number `json:"balance"`
		Reserved json.Number `json:"reserved"`
		Position *string     `json:"position"`
		Behind   int64       `json:"behind"`
		Stale    bool        `json:"stale"` // read while Postgres was away: it may be before what was asked for
	}
	if err := json.Unmarshal(s.got, &got); err != nil || got.Position == nil {
		a.failf(invReading, "%s got %s", s.name, s.got)
		return
	}
	shard, seq := splitPosition(*got.Position)
	m := a.bookOf(s.account).asOf(seq)
	if a.number(got.Balance.String()).RatString() != m.available || a.number(got.Reserved.String()).RatString() != m.reserved {
		a.failf(invReading, "%s got %s; the events say %s and %s", s.name, s.got, m.available, m.reserved)
	}
	if asked, least := splitPosition(s.atLeast); s.atLeast != "" && asked == shard && seq < least && got.Behind == 0 && !got.Stale {
		a.failf(invReading, "%s asked for %s and got %s", s.name, s.atLeast, s.got)
	}
}

func splitPosition(text string) (shard string, seq int64) {
	shard, after, _ := strings.Cut(text, ":")
	seq, _ = strconv.ParseInt(after, 10, 64) //nolint:errcheck // one that is none is none
	return shard, seq
}
