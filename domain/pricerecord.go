package domain

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The record of prices. Which price versions a ledger's gateways charge by is itself in the ledger: as
// `account` events of one account that nobody can own. Each says which versions came and went, so all of
// them together say what was in force when, and a book that is read again can be held against it.

// PricesAccount is the account that the record of prices belongs to. No money is ever on it: it is refused
// as the account of a token, a key, or any command but RecordPrices.
const PricesAccount = "platform.prices"

// The books that are recorded.
const (
	BookCost = "cost" // what the providers charge
	BookSell = "sell" // what customers pay, where that is not the cost
)

// recordRoom bounds the changes of one event, in bytes; what is more goes on in the next event. It leaves
// an event far below MaxPayload.
const recordRoom = 48 << 10

// maxVersionText bounds a version's ID, or a model's name, within a record.
const maxVersionText = 512

// PricesData is a change of prices: which versions of a book are others from here on.
type PricesData struct {
	Book    string          `json:"book"`           // cost or sell
	From    string          `json:"from,omitempty"` // the digest of all versions that were recorded before; none: "none were"
	To      string          `json:"to,omitempty"`   // the digest of all that are now; none: no longer any
	More    bool            `json:"more,omitempty"` // the change was too big for one event, and goes on in the next
	Changes []VersionChange `json:"changes"`
}

// VersionChange is one version that came, went, or took another's place.
type VersionChange struct {
	Model         string `json:"model"`          // provider/model
	From          string `json:"from,omitempty"` // a version's ID
	To            string `json:"to,omitempty"`
	EffectiveFrom string `json:"effective_from,omitempty"` // as StartText; none: since launch
}

func (c *VersionChange) room() int {
	return len(c.Model) + len(c.From) + len(c.To) + len(c.EffectiveFrom) + len(`{"model":"","from":"","to":"","effective_from":""},`)
}

// RecordPrices puts a change of prices into the ledger, where nothing was recorded behind After: whoever
// decided on less is refused (prices_moved), and looks again. So many gateways that find the same change at
// once record it once.
type RecordPrices struct {
	After int64 // the seq of the record's last event when the change was found; 0: there was none
	Data  AccountData
}

func (b *Books) decidePrices(c Command, o RecordPrices) ([]Draft, error) {
	last := int64(0)
	if a := b.Accounts[c.Account]; a != nil {
		last = a.LastSeq
	}
	if last != o.After {
		return nil, reject(c, RejectPricesMoved, fmt.Sprintf("recorded up to %d, not %d", last, o.After))
	}
	o.Data.Opened = last == 0
	o.Data.Reason = CleanText(o.Data.Reason, MaxReference)
	return []Draft{{Kind: KindAccount, Data: &o.Data}}, nil
}

// invalidRecord says what is wrong with a record of prices, or "".
func invalidRecord(d *AccountData) string {
	p := d.Prices
	switch {
	case invalidActor(d.Actor):
		return "who does it (actor) is mandatory"
	case d.Opened || d.CreditLimit != nil || d.Frozen != nil:
		return "a record of prices sets nothing else"
	case p == nil || p.Book != BookCost && p.Book != BookSell || len(p.Changes) == 0 || p.From == p.To:
		return "no change of prices"
	}
	for _, c := range p.Changes {
		for _, text := range []string{c.Model, c.From, c.To, c.EffectiveFrom} {
			if text != CleanText(text, maxVersionText) {
				return "a version of a price has a name that cannot be recorded"
			}
		}
		if c.Model == "" || c.From == c.To {
			return "no change of a version"
		}
	}
	return ""
}

// Dated is where a version stands in a book.
type Dated struct {
	Model  string // provider/model
	From   time.Time
	Region string // whose factor is in it; "" = none's
}

// place is where a version of an ID stands.
func place(id, model string, from time.Time) Dated {
	_, region := cutRegion(id)
	return Dated{model, from, region}
}

// Versions are price versions by ID.
type Versions map[string]Dated

// CostVersions are all versions of a price book.
func CostVersions(b *PriceBook) Versions {
	out := Versions{}
	for id, v := range VersionsOf(b, nil) {
		out[id] = place(id, v.Provider+"/"+v.Model, v.From)
	}
	return out
}

// SellVersions are all versions that anybody pays by and that are not the cost itself.
func SellVersions(b *SellBook) Versions {
	out := Versions{}
	for _, v := range b.Versions() {
		for _, at := range v.everywhere() {
			if at.Cost() != at {
				out[at.ID] = place(at.ID, at.Provider+"/"+at.Model, at.From)
			}
		}
	}
	return out
}

// digest stands for a whole set of versions; "" for none.
func (v Versions) digest() string {
	if len(v) == 0 {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(maps.Keys(v)), "\n")))
	return hex.EncodeToString(sum[:])
}

// changes lists what makes next of v, by model, date and region. Only where one version went and one came for the
// same of these did the one take the other's place.
func (v Versions) changes(next Versions) (out []VersionChange) {
	gone, come := map[Dated][]string{}, map[Dated][]string{}
	places := map[Dated]bool{}
	missing := func(in, from Versions, list map[Dated][]string) {
		for id, at := range in {
			if _, there := from[id]; !there {
				list[at], places[at] = append(list[at], id), true
			}
		}
	}
	missing(v, next, gone)
	missing(next, v, come)
	for _, at := range slices.SortedFunc(maps.Keys(places), compareDated) {
		c := VersionChange{Model: at.Model, EffectiveFrom: StartText(at.From)}
		if len(gone[at]) == 1 && len(come[at]) == 1 {
			c.From, c.To = gone[at][0], come[at][0]
			out = append(out, c)
			continue
		}
		for _, id := range slices.Sorted(slices.Values(gone[at])) {
			out = append(out, VersionChange{Model: c.Model, From: id, EffectiveFrom: c.EffectiveFrom})
		}
		for _, id := range slices.Sorted(slices.Values(come[at])) {
			out = append(out, VersionChange{Model: c.Model, To: id, EffectiveFrom: c.EffectiveFrom})
		}
	}
	return out
}

func compareDated(a, b Dated) int {
	return cmp.Or(strings.Compare(a.Model, b.Model), a.From.Compare(b.From), strings.Compare(a.Region, b.Region))
}

// apply makes the changes on v.
func (v Versions) apply(changes []VersionChange) error {
	for _, c := range changes {
		from, err := ParseStart(c.EffectiveFrom)
		if err != nil {
			return err
		}
		if _, there := v[c.From]; c.From != "" && !there {
			return fmt.Errorf("%.300q went and was not there", c.From)
		}
		if _, there := v[c.To]; there {
			return fmt.Errorf("%.300q came and was there", c.To)
		}
		delete(v, c.From)
		if c.To != "" {
			v[c.To] = place(c.To, c.Model, from)
		}
	}
	return nil
}

// ErrRecord is wrapped where events of the record of prices do not follow from each other.
var ErrRecord = errors.New("the recorded prices contradict themselves")

// PriceRecord is what the events of PricesAccount add up to. The zero value is that of none.
type PriceRecord struct {
	Last int64 // the seq of the last event
	cost Versions
	sell Versions
}

func (r *PriceRecord) book(name string) *Versions {
	if name == BookSell {
		return &r.sell
	}
	return &r.cost
}

// Begun says whether any price book was ever recorded.
func (r *PriceRecord) Begun() bool { return r.Last > 0 }

// Add takes in the next event of PricesAccount. An error is ErrRecord, and leaves the record as it was.
func (r *PriceRecord) Add(e *Event) error {
	d, ok := e.Data.(*AccountData)
	if !ok || d.Prices == nil { // whoever had that account before it was reserved
		r.Last = e.Seq
		return nil
	}
	next := maps.Clone(*r.book(d.Prices.Book))
	if next == nil {
		next = Versions{}
	}
	was := next.digest()
	err := next.apply(d.Prices.Changes)
	if err == nil && (was != d.Prices.From || next.digest() != d.Prices.To) {
		err = errors.New("the digests are others")
	}
	if err != nil {
		return fmt.Errorf("%w at %s: %w", ErrRecord, e.Position(), err)
	}
	*r.book(d.Prices.Book), r.Last = next, e.Seq
	return nil
}

// Next is the first event's worth of what makes a book's recorded versions others; nil where they are these.
// What is more than that, is found again behind its event.
func (r *PriceRecord) Next(book string, versions Versions) *PricesData {
	was := *r.book(book)
	changes := was.changes(versions)
	if len(changes) == 0 {
		return nil
	}
	n, room := 1, changes[0].room()
	for n < len(changes) && room+changes[n].room() <= recordRoom {
		room += changes[n].room()
		n++
	}
	d := &PricesData{Book: book, From: was.digest(), Changes: changes[:n], More: n < len(changes)}
	is := maps.Clone(was)
	if is == nil {
		is = Versions{}
	}
	is.apply(d.Changes) //nolint:errcheck // they are its own
	d.To = is.digest()
	return d
}

// With is what is recorded of the cost, with what differs between two books: for whoever changes one file of
// the several that a gateway reads.
func (r *PriceRecord) With(old, next Versions) Versions {
	out := maps.Clone(r.cost)
	for id := range old {
		if _, stays := next[id]; !stays {
			delete(out, id)
		}
	}
	for id, at := range next {
		if _, was := old[id]; !was {
			out[id] = at
		}
	}
	return out
}

// RecordOf is the record of a book that was never recorded.
func RecordOf(b *PriceBook) *PriceRecord { return &PriceRecord{cost: CostVersions(b)} }
