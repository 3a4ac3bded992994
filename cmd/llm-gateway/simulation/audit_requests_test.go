package simulation

import (
	"math/big"
	"strings"
	"time"
)

// request is what the ledger has of one billing request.
type request struct {
	id                               string
	reserve, commit, refund, overage *fact
	attempt                          *sighting // that made it; nil: none is known
}

func (a *auditor) request(f *fact) *request {
	r := a.requests[f.RequestID]
	if r == nil {
		r = &request{id: f.RequestID}
		a.requests[f.RequestID] = r
		a.order = append(a.order, r)
	}
	return r
}

// String is the request's name and life in words.
func (r *request) String() string {
	words := []string{"?"}
	if r.attempt != nil {
		words[0] = r.attempt.name
	}
	for _, f := range []*fact{r.reserve, r.commit, r.refund, r.overage} {
		if f != nil {
			words = append(words, strings.TrimSpace(f.Kind+" "+f.Data.Reason)+" "+f.Amount)
		}
	}
	return strings.Join(words, ", ")
}

// take adds one event to a request's life. Each kind is there once.
func (r *request) take(a *auditor, f *fact) {
	slot := map[string]**fact{"reserve": &r.reserve, "commit": &r.commit, "refund": &r.refund, "overage": &r.overage}[f.Kind]
	if *slot != nil {
		a.failf(invOneEnding, "%s: a second %s of %s", f.place(), f.Kind, r)
		return
	}
	if *slot = f; f.Kind == "reserve" {
		for _, s := range a.attempts {
			if s.name == f.Data.KeyID {
				r.attempt = s
			}
		}
	}
}

// charged is commit + overage.
func (r *request) charged(a *auditor) *big.Rat {
	sum := new(big.Rat)
	for _, f := range []*fact{r.commit, r.overage} {
		if f != nil {
			sum.Add(sum, a.number(f.Amount))
		}
	}
	return sum
}

// released says whether everything went back.
func (r *request) released() bool { return r.commit == nil && r.refund != nil }

func (a *auditor) checkRequests() {
	for _, r := range a.order {
		if r.reserve == nil || r.attempt == nil {
			a.failf(invOneEnding, "%s of request %s: no reserve of a known attempt", r, r.id)
			continue
		}
		a.checkEnding(r)
		a.checkExplained(r)
		a.checkCharge(r)
		a.checkOwner(r)
		if w := &r.attempt.witness; w.Calls > 0 && r.reserve.At.After(w.AskedAt) {
			a.failf(invOrder, "%s: asked at %s, reserved at %s", r, w.AskedAt, r.reserve.At)
		}
	}
	for _, s := range a.attempts {
		if s.witness.Calls > 1 || s.witness.Calls == 1 && a.requestOf(s) == nil {
			a.failf(invOrder, "%s: the model was asked %d times, and there is no reserve, or one", s.name, s.witness.Calls)
		}
	}
}

// requestOf is the one that an attempt made, nil where it made none.
func (a *auditor) requestOf(s *sighting) *request {
	for _, r := range a.order {
		if r.attempt == s {
			return r
		}
	}
	return nil
}

// checkEnding wants one of the lives that a request may have.
func (a *auditor) checkEnding(r *request) {
	sum, held := new(big.Rat), a.number(r.reserve.Amount)
	for _, f := range []*fact{r.commit, r.refund} {
		if f != nil {
			sum.Add(sum, a.number(f.Amount))
		}
	}
	if sum.Cmp(held) != 0 {
		a.failf(invConservation, "%s: %s was reserved, %s committed and refunded", r, r.reserve.Amount, sum.FloatString(12))
	}
	refund, over := "", ""
	if r.refund != nil {
		refund = r.refund.Data.Reason
	}
	if r.overage != nil {
		over = r.overage.Data.Reason
	}
	good := false
	switch {
	case r.commit != nil:
		good = (refund == "" || refund == "remainder") && (over == "" || over == "beyond_bound" && refund == "")
	case refund == "expired":
		good = over == "" || over == "late"
	default:
		good = refund != "" && refund != "remainder" && over == ""
	}
	if !good {
		a.failf(invOneEnding, "%s", r)
	}
}

// The auditor's price list: what the built-in book says of the simulated models, per unit.
var priceList = map[string]map[string]string{
	"sim-small": {"input": "0.00000015", "cached_input": "0.000000075", "output": "0.0000006"},
	"sim-flat":  {"requests": "0.01"},
	"sim-free":  {},
}

// checkExplained multiplies the lines of a charge out.
func (a *auditor) checkExplained(r *request) {
	for _, f := range []*fact{r.commit, r.overage} {
		if f == nil {
			continue
		}
		sum := new(big.Rat)
		for _, l := range f.Data.Lines {
			product := new(big.Rat).Mul(a.number(l.UnitPrice), new(big.Rat).SetInt64(l.Quantity))
			price := a.price(r.attempt.model, l.Meter)
			if product.Cmp(a.number(l.Amount)) != 0 || a.number(l.UnitPrice).Cmp(price) != 0 || f.Data.Meters[l.Meter] != l.Quantity {
				a.failf(invExplained, "%s: %s: %d at %s is %s", r, l.Meter, l.Quantity, l.UnitPrice, l.Amount)
			}
			sum.Add(sum, product)
		}
		if total := r.charged(a); sum.Cmp(total) != 0 {
			a.failf(invExplained, "%s: the lines sum to %s", r, sum.FloatString(12))
		}
	}
}

func (a *auditor) price(model, meter string) *big.Rat {
	if text, ok := priceList[model][meter]; ok {
		return a.number(text)
	}
	return new(big.Rat)
}

// promptTokens is what a prompt of so many one-token words costs by OpenAI's formula: 3 a message, its
// role, and 3 to prime the reply.
func promptTokens(words int) int { return words + 7 }

// due is what an attempt is to be charged, by its witness; nil: everything goes back.
func (a *auditor) due(s *sighting) *big.Rat {
	w := &s.witness
	words := w.Handed
	if s.stream && s.key == "" { // who repeats a request with a key gets all of it
		words = deliveredWords(s.acked)
	}
	switch {
	case w.Usage != nil:
		return a.bill(s.model, w.Usage.Input-w.Usage.Cached, w.Usage.Cached, w.Usage.Output)
	case w.Whole || s.stream && words > 0:
		return a.bill(s.model, promptTokens(s.words), 0, words)
	}
	return nil
}

func (a *auditor) bill(model string, input, cached, output int) *big.Rat {
	sum := a.price(model, "requests")
	sum = new(big.Rat).Set(sum)
	for meter, n := range map[string]int{"input": input, "cached_input": cached, "output": output} {
		sum.Add(sum, new(big.Rat).Mul(a.price(model, meter), new(big.Rat).SetInt64(int64(n))))
	}
	return sum
}

// deliveredWords counts the words in the frames that left for a client.
func deliveredWords(stream []byte) (n int) {
	for frame := range strings.SplitSeq(string(stream), "\n\n") {
		if _, content, ok := strings.Cut(frame, `"delta":{"content":"`); ok {
			content, _, _ = strings.Cut(content, `"`)
			n += len(strings.Fields(content))
		}
	}
	return n
}

// checkCharge holds a request's end against what its witness saw.
func (a *auditor) checkCharge(r *request) {
	due, charged := a.due(r.attempt), r.charged(a)
	says := "nothing"
	if due != nil {
		says = due.FloatString(12)
	}
	switch {
	case r.refund != nil && r.refund.Data.Reason == "expired":
		a.checkExpired(r, due)
	case r.commit == nil && r.overage == nil && due != nil:
		a.failf(invCharge, "%s: due was %s", r, says)
	case r.commit != nil && (due == nil || charged.Cmp(due) != 0):
		a.failf(invCharge, "%s: due was %s", r, says)
	}
}

// checkExpired: the owner's lease had run out, and what it charges when it comes back is what is due.
// Only an owner that is dead, or could make it durable nowhere, charges nothing for what it delivered.
func (a *auditor) checkExpired(r *request, due *big.Rat) {
	owner := a.lifeOf(r.reserve.Data.Owner)
	if owner == nil || !owner.lapsed(r.reserve.At, r.refund.At) {
		a.failf(invExpired, "%s: its owner had its lease from %s to %s", r, r.reserve.At, r.refund.At)
		return
	}
	if r.overage != nil {
		if due == nil || r.charged(a).Cmp(due) != 0 {
			a.failf(invCharge, "%s: late, and due was %v", r, due)
		}
		return
	}
	if due != nil && !owner.ended {
		a.failf(invCharge, "%s: its owner lives, and due was %s", r, due.FloatString(12))
	}
}

// The sweeper's promise: it has seen Postgres for a whole lease, with no longer a gap than this.
const (
	wholeLease = 10 * time.Second
	unseen     = 6 * time.Second
)

// checkOwner: a request begins under a lease. It is not swept soon after an outage, in which nobody could
// renew. And one with a key ends as its model, or its gateway's end, says.
func (a *auditor) checkOwner(r *request) {
	owner := a.lifeOf(r.reserve.Data.Owner)
	if owner == nil || !owner.heldIn(r.attempt.began, r.reserve.At) {
		a.failf(invLeased, "%s, at %s", r, r.reserve.At)
		return
	}
	if asked, swept := a.swept[r.id]; swept && r.refund != nil && r.refund.Data.Reason == "expired" {
		for _, o := range a.outages {
			if o.to.Sub(o.from) > unseen && o.from.Before(asked) && o.to.After(asked.Add(-wholeLease)) {
				a.failf(invPatience, "%s: swept at %s, and Postgres was away from %s to %s", r, asked, o.from, o.to)
			}
		}
	}
	if r.attempt.key == "" || owner.ended {
		return
	}
	cancelled := r.refund != nil && r.refund.Data.Reason == "client_abort"
	for _, f := range []*fact{r.commit, r.overage} {
		cancelled = cancelled || f != nil && len(f.Data.Attempts) > 0 && f.Data.Attempts[0].Error == "canceled"
	}
	if cancelled {
		a.failf(invKeyStays, "%s", r)
	}
}

// heldIn says whether the lease was held at some instant between two.
func (l *life) heldIn(from, to time.Time) bool {
	for _, s := range l.leases {
		if !s.from.After(to) && !s.to.Before(from) {
			return true
		}
	}
	return false
}

func (a *auditor) lifeOf(owner string) *life {
	for _, l := range a.lives {
		if l.owner == owner {
			return l
		}
	}
	return nil
}

// lapsed says whether the lease was not held at some instant between two.
func (l *life) lapsed(from, to time.Time) bool {
	for _, s := range l.leases {
		if !s.from.After(from) && !s.to.Before(to) {
			return false
		}
	}
	return true
}

// checkKeys: whoever takes a key finds that all that had it before gave everything back.
func (a *auditor) checkKeys() {
	holders := map[string]*request{}
	for _, r := range a.order {
		if r.reserve == nil || r.reserve.Data.Key == "" {
			continue
		}
		key := r.reserve.Account + " " + r.reserve.Data.Key
		if before := holders[key]; before != nil && (!before.released() || before.refund.Seq > r.reserve.Seq) {
			a.failf(invKeyOnce, "%q: %s; and then %s", r.reserve.Data.Key, before, r)
		}
		holders[key] = r
	}
}
