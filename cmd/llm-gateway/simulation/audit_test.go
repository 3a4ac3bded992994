package simulation

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// The auditor. It holds what a run left behind against the promises, from the stored bytes alone: it has
// its own reading of events, its own arithmetic and its own prices, and imports nothing of the gateway.

// The invariants, by the names that violations bear.
const (
	invRest         = "everything comes to rest"
	invChain        = "seq has no gaps, and every hash extends the one before"
	invForm         = "an event is one movement between the accounts of its kind"
	invOverspend    = "no reserve takes an account below its credit limit"
	invFrozen       = "a frozen account reserves nothing"
	invConservation = "what is reserved is committed or refunded, exactly"
	invOneEnding    = "a request is reserved once and ends once"
	invOrder        = "the reserve is durable before the model is asked"
	invExplained    = "meters x unit price = amount"
	invCharge       = "what was delivered or reported is charged, and nothing else"
	invExpired      = "only what an owner left behind expires"
	invPatience     = "nobody is taken for dead who had no whole lease's time to show that he lives"
	invLeased       = "who has no lease reserves nothing"
	invKeyStays     = "a request with a key does not end with its client"
	invAcknowledged = "what a client was told is in the ledger"
	invKeyOnce      = "a key makes a request happen once"
	invSameAnswer   = "a repeat gets the first answer"
	invCreditOnce   = "a reference moves money once"
	invTopic        = "a partition is its shard: the same bytes, once, in order"
	invWhole        = "the events of one command are published together"
	invProjection   = "projections are what the events say"
	invCache        = "the cache never goes back"
	invAnswer       = "no request fails for the gateway's own faults"
	invRefusal      = "who is refused for want of money, or for a key, is so by the ledger"
	invAlarm        = "who is alarmed is alarmed for a reason"
	invReading      = "a balance that is read is that of its position"
)

// violation is a promise that was not kept.
type violation struct{ invariant, what string }

func (v violation) String() string { return "VIOLATED: " + v.invariant + ": " + v.what }

// fact is an event as the auditor reads it.
type fact struct {
	Shard     int       `json:"shard"`
	Seq       int64     `json:"seq"`
	ID        string    `json:"id"`
	Kind      string    `json:"kind"`
	Account   string    `json:"account"`
	RequestID string    `json:"request_id"`
	Debit     string    `json:"debit"`
	Credit    string    `json:"credit"`
	Amount    string    `json:"amount"`
	At        time.Time `json:"occurred_at"`
	Data      factData  `json:"data"`
}

// factData has the fields of all kinds.
type factData struct {
	Owner       string           `json:"owner"`
	Key         string           `json:"idempotency_key"`
	KeyID       string           `json:"key_id"`
	Reason      string           `json:"reason"`
	Reference   string           `json:"reference"`
	CreditLimit *string          `json:"credit_limit"`
	Frozen      *bool            `json:"frozen"`
	Meters      map[string]int64 `json:"meters"`
	Attempts    []struct {
		Error string `json:"error"`
	} `json:"attempts"`
	Lines []struct {
		Meter     string `json:"meter"`
		Quantity  int64  `json:"quantity"`
		UnitPrice string `json:"unit_price"`
		Amount    string `json:"amount"`
	} `json:"lines"`
}

func (f *fact) place() string { return fmt.Sprintf("%d:%d", f.Shard, f.Seq) }

// auditor is one audit.
type auditor struct {
	*evidence

	facts    [][]*fact // by shard
	books    map[string]*book
	requests map[string]*request
	order    []*request
	found    []violation
}

// book is an account as the events before have left it.
type book struct {
	available, reserved, limit *big.Rat
	frozen                     bool
	references                 map[string]*fact
	history                    []moment
}

// moment is an account after one of its events.
type moment struct {
	seq                            int64
	at                             time.Time
	available, reserved, spendable string
}

// asOf is the moment of the last event up to a seq.
func (b *book) asOf(seq int64) (m moment) {
	for _, next := range b.history {
		if next.seq <= seq {
			m = next
		}
	}
	return m
}

// audit holds a run's evidence against everything that is promised, and counts what it shows.
func audit(e *evidence) ([]violation, tally) {
	a := &auditor{evidence: e, books: map[string]*book{}, requests: map[string]*request{}}
	for _, what := range e.unfinished {
		a.failf(invRest, "%s", what)
	}
	for shard, seals := range e.ledgerSeals {
		a.facts = append(a.facts, a.read(shard, seals))
		for _, f := range a.facts[shard] {
			a.checkForm(f)
			a.enter(f)
		}
	}
	a.checkRequests()
	a.checkKeys()
	a.checkClients()
	a.checkCredits()
	a.checkAlarms()
	a.checkFollowers()
	return a.found, a.seen()
}

func (a *auditor) failf(invariant, format string, args ...any) {
	a.found = append(a.found, violation{invariant, fmt.Sprintf(format, args...)})
}

// number reads an amount.
func (a *auditor) number(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok || strings.ContainsAny(text, "eE/") {
		a.failf(invForm, "%q is no amount", text)
		return new(big.Rat)
	}
	return r
}

// read follows a shard's chain and decodes its events.
func (a *auditor) read(shard int, seals []seal) (out []*fact) {
	genesis := binary.BigEndian.AppendUint32(append([]byte(nil), a.ledger[:]...), uint32(shard))
	hash, last := sha256.Sum256(genesis), time.Time{}
	for i, s := range seals {
		link := append([]byte{1}, hash[:]...)
		link = binary.BigEndian.AppendUint64(link, uint64(len(s.payload)))
		hash = sha256.Sum256(append(link, s.payload...))
		f := new(fact)
		if err := json.Unmarshal(s.payload, f); err != nil {
			a.failf(invForm, "%d:%d cannot be read: %v", shard, i+1, err)
			continue
		}
		if f.Shard != shard || f.Seq != int64(i+1) || hash != s.hash || f.At.Before(last) {
			a.failf(invChain, "%s stands where %d:%d must, or breaks the chain, or is earlier than the one before", f.place(), shard, i+1)
			hash = s.hash
		}
		last = f.At
		out = append(out, f)
	}
	return out
}

// postings are the two ends of each kind, without the account.
var postings = map[string][2]string{
	"credit": {"platform:funding", "available"}, "debit": {"available", "platform:funding"},
	"reserve": {"available", "reserved"}, "commit": {"reserved", "platform:revenue"},
	"refund": {"reserved", "available"}, "overage": {"available", "platform:revenue"}, "account": {"available", "available"},
}

func (a *auditor) checkForm(f *fact) {
	end := func(name string) string {
		if strings.HasPrefix(name, "platform:") {
			return name
		}
		return "user:" + f.Account + ":" + name
	}
	ends, known := postings[f.Kind]
	if !known || f.Debit != end(ends[0]) || f.Credit != end(ends[1]) || a.number(f.Amount).Sign() < 0 {
		a.failf(invForm, "%s: %s of %s from %s to %s", f.place(), f.Kind, f.Amount, f.Debit, f.Credit)
	}
}

func (a *auditor) bookOf(account string) *book {
	b := a.books[account]
	if b == nil {
		b = &book{available: new(big.Rat), reserved: new(big.Rat), limit: new(big.Rat), references: map[string]*fact{}}
		a.books[account] = b
	}
	return b
}

// enter takes one event into the books.
func (a *auditor) enter(f *fact) {
	b, amount := a.bookOf(f.Account), a.number(f.Amount)
	ends := postings[f.Kind]
	for i, end := range ends {
		sum := new(big.Rat).Set(amount)
		if i == 0 {
			sum.Neg(sum)
		}
		switch end {
		case "available":
			b.available.Add(b.available, sum)
		case "reserved":
			b.reserved.Add(b.reserved, sum)
		}
	}
	switch f.Kind {
	case "account":
		a.configure(b, f)
	case "credit", "debit":
		if first := b.references[f.Data.Reference]; first != nil {
			a.failf(invCreditOnce, "%s and %s of %s both refer to %q", first.place(), f.place(), f.Account, f.Data.Reference)
		}
		b.references[f.Data.Reference] = f
	default:
		a.request(f).take(a, f)
	}
	a.checkBook(b, f, amount)
	b.history = append(b.history, moment{f.Seq, f.At, b.available.RatString(), b.reserved.RatString(),
		new(big.Rat).Add(b.available, b.limit).RatString()})
}

func (a *auditor) configure(b *book, f *fact) {
	if f.Data.CreditLimit != nil {
		b.limit = a.number(*f.Data.CreditLimit)
	}
	if f.Data.Frozen != nil {
		b.frozen = *f.Data.Frozen
	}
}

func (a *auditor) checkBook(b *book, f *fact, amount *big.Rat) {
	if b.reserved.Sign() < 0 {
		a.failf(invConservation, "%s: %s has %s reserved", f.place(), f.Account, b.reserved.FloatString(12))
	}
	if f.Kind != "reserve" {
		return
	}
	if spendable := new(big.Rat).Add(b.available, b.limit); amount.Sign() > 0 && spendable.Sign() < 0 {
		a.failf(invOverspend, "%s: the reserve of %s leaves %s with %s", f.place(), f.Amount, f.Account, spendable.FloatString(12))
	}
	if b.frozen {
		a.failf(invFrozen, "%s: %s reserves %s", f.place(), f.Account, f.Amount)
	}
}

// checkCredits looks for every movement that an administrator was told of.
func (a *auditor) checkCredits() {
	for _, c := range a.credits {
		if !c.acknowledged {
			continue
		}
		if f := a.bookOf(c.account).references[c.reference]; f == nil || f.Amount != c.amount {
			a.failf(invAcknowledged, "the credit of %s to %s, %q, is not there", c.amount, c.account, c.reference)
		}
	}
}

// checkAlarms: money that is said to be lost is lost.
func (a *auditor) checkAlarms() {
	for _, alarm := range a.alarms {
		r := a.requests[alarm.request]
		if r == nil || r.reserve == nil || r.attempt == nil {
			a.failf(invAlarm, "%s, and nothing was ever reserved", alarm.what)
			continue
		}
		if due := a.due(r.attempt); due == nil || r.charged(a).Cmp(due) == 0 {
			a.failf(invAlarm, "%s, and nothing is missing: %s", alarm.what, r)
		}
	}
}

// checkFollowers holds the topic, the projections and the cache against the ledger.
func (a *auditor) checkFollowers() {
	for shard, seals := range a.ledgerSeals {
		for i, record := range a.topic[shard] {
			if i >= len(seals) || !bytes.Equal(record.payload, seals[i].payload) || record.hash != seals[i].hash {
				a.failf(invTopic, "record %d of partition %d is not event %d:%d", i, shard, shard, i+1)
				break
			}
		}
		if len(a.topic[shard]) < len(seals) {
			a.failf(invTopic, "partition %d ends after %d of %d events", shard, len(a.topic[shard]), len(seals))
		}
		a.checkWhole(shard)
		if at := a.projection.positions[shard]; at != int64(len(seals)) {
			a.failf(invProjection, "they end at %d:%d of %d", shard, at, len(seals))
		}
	}
	a.checkBalances()
	a.checkLines()
}

// checkWhole: whoever reads a part of a command reads all of it. The ids of a command's events differ in
// their last two bits only.
func (a *auditor) checkWhole(shard int) {
	facts, parts := a.facts[shard], a.transactions[shard]
	for i := 1; i < min(len(facts), len(parts)); i++ {
		if commandOf(facts[i]) == commandOf(facts[i-1]) && parts[i] != parts[i-1] {
			a.failf(invWhole, "%s and %s are in two transactions", facts[i-1].place(), facts[i].place())
		}
	}
}

// commandOf is the part of an event's id that it shares with its command.
func commandOf(f *fact) string {
	last := len(f.ID) - 1
	digit, err := strconv.ParseUint(f.ID[last:], 16, 8)
	if err != nil {
		return f.ID
	}
	return f.ID[:last] + strconv.FormatUint(digit&^3, 16)
}

func (a *auditor) checkBalances() {
	for name, b := range a.books {
		row, ok := a.projection.balances[name]
		if !ok {
			a.failf(invProjection, "%s has no balance", name)
			continue
		}
		if a.number(row.available).Cmp(b.available) != 0 || a.number(row.reserved).Cmp(b.reserved) != 0 || a.number(row.limit).Cmp(b.limit) != 0 {
			a.failf(invProjection, "%s has %s, %s reserved; the events say %s, %s", name, row.available, row.reserved,
				b.available.FloatString(12), b.reserved.FloatString(12))
		}
	}
	for name, row := range a.cached {
		if row.seq < row.newest {
			a.failf(invCache, "%s is as of %d, and was as of %d before", name, row.seq, row.newest)
		}
		if m := a.bookOf(name).asOf(row.seq); a.number(row.spendable).RatString() != m.spendable || m.seq != row.seq {
			a.failf(invCache, "%s can spend %s as of %d; the events say %s", name, row.spendable, row.seq, m.spendable)
		}
	}
}

// checkLines adds up statements and statistics.
func (a *auditor) checkLines() {
	sums, charged, requests := map[string]*big.Rat{}, map[string]*big.Rat{}, map[string]int64{}
	add := func(to map[string]*big.Rat, key string, amount *big.Rat) {
		if to[key] == nil {
			to[key] = new(big.Rat)
		}
		to[key].Add(to[key], amount)
	}
	for _, l := range a.projection.lines {
		add(sums, l.account, a.number(l.amount))
	}
	for key, row := range a.projection.charged {
		account, _, _ := strings.Cut(key, " ")
		add(charged, account, a.number(row.amount))
		requests[account] += row.requests
	}
	for name, b := range a.books {
		add(sums, name, new(big.Rat))
		add(charged, name, new(big.Rat))
		if total := new(big.Rat).Add(b.available, b.reserved); total.Cmp(sums[name]) != 0 {
			a.failf(invProjection, "the statement of %s sums to %s, and it has %s", name, sums[name].FloatString(12), total.FloatString(12))
		}
		want, n := a.chargedTo(name)
		if want.Cmp(charged[name]) != 0 || n != requests[name] {
			a.failf(invProjection, "the statistics of %s have %d requests for %s, the events %d for %s", name, requests[name],
				charged[name].FloatString(12), n, want.FloatString(12))
		}
	}
}

// chargedTo is what an account was charged, and for how many requests.
func (a *auditor) chargedTo(account string) (sum *big.Rat, requests int64) {
	sum = new(big.Rat)
	for _, r := range a.order {
		if r.reserve == nil || r.reserve.Account != account {
			continue
		}
		sum.Add(sum, r.charged(a))
		if r.commit != nil || r.overage != nil {
			requests++
		}
	}
	return sum, requests
}
