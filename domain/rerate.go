package domain

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Re-rating: what charges of the past would have come to by another price book, from the meters that their
// events have. Each part of a charge is priced by the version in force, in that book, when its request was
// reserved, and as the account would have been sold it then. The tier and the region are those of the event.
// Nothing is guessed: what the book cannot price is named and left out.

// Charged is one charge as the ledger has it, whole: a commit with the overage that exceeded its reserve, or
// an overage that stands alone.
type Charged struct {
	Position  Position // of the commit, or of the overage that stands alone
	Account   string
	RequestID uuid.UUID
	At        time.Time // when it occurred
	Amount    Amount    // all that was taken
	Data      *CommitData
	Corrected Amount   // what corrections took since, less what they gave back
	Uses      []string // the references of those corrections
}

// Net is what has been paid for it by now.
func (c *Charged) Net() Amount { return c.Amount.Add(c.Corrected) }

// began is when the request was reserved, as nearly as its event tells: the gateway's latency before it was
// settled, or, of one that waited in a journal, before it was written there.
func (c *Charged) began() time.Time {
	at := c.At
	if spooled, err := time.Parse(timeForm, c.Data.SpooledAt); err == nil {
		at = spooled
	}
	latency := min(max(0, c.Data.LatencyMillis), maxRequest.Milliseconds())
	return at.Add(-time.Duration(latency) * time.Millisecond)
}

const (
	// maxRequest is the longest latency that is believed.
	maxRequest = 7 * 24 * time.Hour
	// beganWithin is how much earlier than began says a request may have been reserved: latencies are whole
	// milliseconds, and an append takes its time.
	beganWithin = 2 * time.Second
)

// Past is the charge, to be calculated again.
func (c *Charged) Past() PastCharge { return NewPastCharge(c.Data, c.Amount) }

// NewPastCharge is a charge of so much as its event has it.
func NewPastCharge(d *CommitData, amount Amount) PastCharge {
	return PastCharge{Amount: amount, Meters: d.Meters, Lines: d.Lines, CostLines: d.CostLines,
		PriceVersion: d.PriceVersion, CostVersion: d.CostVersion, ServiceTier: d.ServiceTier, Region: d.Region}
}

// Tariff is what charges are priced by again. A nil Sell sells at cost.
type Tariff struct {
	Prices *PriceBook
	Sell   *SellBook
}

// Rerated is what a charge would have come to.
type Rerated struct {
	Amount   Amount
	Versions []string // that it was priced by, one for each that the charge has
}

// Unrated says why a charge could not be priced again.
type Unrated struct {
	Model   string `json:"model"` // provider/model; "" where the event does not tell
	Problem string `json:"problem"`
}

func (u *Unrated) Error() string { return strings.TrimPrefix(u.Model+": "+u.Problem, ": ") }

// Rerate prices a charge again. It fails with *Unrated.
func (t *Tariff) Rerate(c *Charged) (Rerated, error) {
	past, out := c.Past(), Rerated{}
	for _, part := range past.parts() {
		paid, unrated := t.versionFor(c, &part)
		if unrated != nil {
			return Rerated{}, unrated
		}
		paid, known, err := paid.like(c, &part)
		if err != nil {
			return Rerated{}, &Unrated{paid.Provider + "/" + paid.Model, err.Error()}
		}
		if !known && part.PriceVersion == past.PriceVersion { // else the region is another model's
			return Rerated{}, &Unrated{paid.Provider + "/" + paid.Model, "the book has no factor for " + part.Region}
		}
		charge, err := paid.Charge(part.Meters, part.ServiceTier)
		if err != nil {
			return Rerated{}, &Unrated{paid.Provider + "/" + paid.Model, err.Error()}
		}
		out.Amount, out.Versions = out.Amount.Add(charge.Amount), append(out.Versions, paid.ID)
	}
	if !out.Amount.InRange() {
		return Rerated{}, &Unrated{past.model(), fmt.Sprintf("%s is out of range", out.Amount)}
	}
	return out, nil
}

// like is a version where the part was served, and as a part of the price where it was answered from the cache. An
// answer from the cache whose price does not tell that part is an error.
func (v *PriceVersion) like(c *Charged, part *PastCharge) (at *PriceVersion, known bool, err error) {
	if c.Data.Cache == CacheHit {
		_, percent, ok := cachedRule(part.PriceVersion)
		if !ok {
			return v, false, fmt.Errorf("%.128q does not tell what an answer from the cache costs", part.PriceVersion)
		}
		cached, err := v.Cached(percent)
		if err != nil {
			return v, false, err
		}
		v = cached
	}
	at, known = v.In(part.Region)
	return at, known, nil
}

// versionFor is what the account pays, by this tariff, for what a part of a charge was charged by.
func (t *Tariff) versionFor(c *Charged, part *PastCharge) (*PriceVersion, *Unrated) {
	name := modelOf(part.PriceVersion)
	if name == "" {
		return nil, &Unrated{"", fmt.Sprintf("its price version %.128q names no model", part.PriceVersion)}
	}
	m := t.Prices.exactly(name)
	if m == nil {
		return nil, &Unrated{name, "the book has no such model"}
	}
	began := c.began()
	if v := m.at(began.Add(-beganWithin)); v != nil {
		paid := t.Sell.Price(c.Account, v, began.Add(-beganWithin))
		if at, _, err := paid.like(c, part); err == nil && at.ID == part.PriceVersion { // reserved just before it changed
			return paid, nil
		}
	}
	v := m.at(began)
	if v == nil {
		return nil, &Unrated{name, "the book has no price of it on " + began.UTC().Format(time.DateOnly)}
	}
	return t.Sell.Price(c.Account, v, began), nil
}

// versionForm is how price versions' IDs begin: provider/model@start#hash.
var versionForm = regexp.MustCompile(`^([^/]+/.+)@(?:launch|\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\dZ)?)#[0-9a-f]{8}`)

// modelOf is the model that a price version is of, as provider/model; "" where its ID is none.
func modelOf(version string) string {
	if parts := versionForm.FindStringSubmatch(version); parts != nil {
		return parts[1]
	}
	return ""
}

// model is the model that most of the charge is of.
func (c *PastCharge) model() string { return modelOf(c.PriceVersion) }

// ReratePrefix begins the references of corrections that re-rating makes.
const ReratePrefix = "rerate:"

// Correction is the movement that makes what was paid for a charge what it would have come to, and false
// where it is that already. Its reference is of the request and of the versions it was priced by, so that
// the same correction happens once, however often it is asked for; where the charge was corrected to the same
// versions before, and since then to others, it is numbered.
func (c *Charged) Correction(r Rerated, reason, actor string, force bool) (Op, bool) {
	more := r.Amount.Sub(c.Net())
	if more.IsZero() {
		return nil, false
	}
	d := MovementData{Reference: c.reference(r), Reason: reason, Actor: actor, Corrects: c.Position.String()}
	if more.Sign() < 0 {
		return Credit{Amount: more.Neg(), Data: d}, true
	}
	return Debit{Amount: more, Data: d, Force: force}, true
}

func (c *Charged) reference(r Rerated) string {
	base := ReratePrefix + c.RequestID.String() + ":" + r.hash()
	used := 0
	for _, reference := range c.Uses {
		if reference == base || strings.HasPrefix(reference, base+":") {
			used++
		}
	}
	if used == 0 {
		return base
	}
	return fmt.Sprintf("%s:%d", base, used+1)
}

// hash is the hash of the price version; of several, all of theirs.
func (r *Rerated) hash() string {
	var hashes []string
	for _, id := range r.Versions {
		hashes = append(hashes, id[strings.LastIndexByte(id, '#')+1:])
	}
	if len(hashes) > maxRerateHashes { // a reference has a bound
		hashes = hashes[:maxRerateHashes]
	}
	return strings.Join(hashes, "+")
}

// maxRerateHashes is how many versions' hashes a reference names: of one request there are seldom two.
const maxRerateHashes = 8

// Bounds of a re-rating's report. Totals are of everything.
const (
	maxRerateRows    = 100_000
	maxRerateUnrated = 1000
)

// RerateSums is what some charges came to, and would have come to.
type RerateSums struct {
	Charges    int64  `json:"charges"`
	Charged    Amount `json:"charged"`
	Corrected  Amount `json:"corrected"` // what earlier corrections took, less what they gave back
	Rerated    Amount `json:"rerated"`
	Difference Amount `json:"difference"` // rerated less what was charged and corrected
}

func (s *RerateSums) add(c *Charged, r Rerated) {
	s.Charges++
	s.Charged, s.Corrected, s.Rerated = s.Charged.Add(c.Amount), s.Corrected.Add(c.Corrected), s.Rerated.Add(r.Amount)
	s.Difference = s.Difference.Add(r.Amount.Sub(c.Net()))
}

// RerateRow is the charges of an account, a model and a UTC day.
type RerateRow struct {
	Account string `json:"account"`
	Model   string `json:"model"` // provider/model
	Day     string `json:"day"`
	RerateSums
}

// UnratedRow is charges that could not be priced again, by why.
type UnratedRow struct {
	Unrated
	Charges int64  `json:"charges"`
	Charged Amount `json:"charged"` // less what was corrected
	First   string `json:"first"`   // the position of one of them
}

// ReratePlan is the corrections that would make it so.
type ReratePlan struct {
	Credits  int64  `json:"credits"`
	Credited Amount `json:"credited"`
	Debits   int64  `json:"debits"`
	Debited  Amount `json:"debited"`
}

// RerateReport is what re-rating a period came to. Rows are by account, model and day.
type RerateReport struct {
	Rows        []RerateRow  `json:"rows"`
	RowsLeftOut int64        `json:"rows_left_out"` // charges that are in the total alone: there are too many rows
	Total       RerateSums   `json:"total"`
	Unrated     []UnratedRow `json:"unrated"`
	UnratedLeft int64        `json:"unrated_left_out"` // charges that could not be priced, of further kinds
	Plan        ReratePlan   `json:"plan"`
}

// Rerater adds up a report. It is not safe for concurrent use.
type Rerater struct {
	tariff  Tariff
	rows    map[[3]string]*RerateSums
	unrated map[Unrated]*UnratedRow
	report  RerateReport
}

// NewRerater begins a report.
func NewRerater(t Tariff) *Rerater {
	return &Rerater{tariff: t, rows: map[[3]string]*RerateSums{}, unrated: map[Unrated]*UnratedRow{}}
}

// Add takes in a charge, and returns what it would have come to; false where it cannot be priced.
func (r *Rerater) Add(c *Charged) (Rerated, bool) {
	again, err := r.tariff.Rerate(c)
	if err != nil {
		r.addUnrated(c, err)
		return again, false
	}
	r.report.Total.add(c, again)
	past := c.Past()
	key := [3]string{c.Account, past.model(), c.At.UTC().Format(time.DateOnly)}
	row := r.rows[key]
	switch {
	case row != nil:
		row.add(c, again)
	case len(r.rows) < maxRerateRows:
		row = &RerateSums{}
		row.add(c, again)
		r.rows[key] = row
	default:
		r.report.RowsLeftOut++
	}
	r.plan(again.Amount.Sub(c.Net()))
	return again, true
}

func (r *Rerater) plan(more Amount) {
	p := &r.report.Plan
	switch more.Sign() {
	case 1:
		p.Debits, p.Debited = p.Debits+1, p.Debited.Add(more)
	case -1:
		p.Credits, p.Credited = p.Credits+1, p.Credited.Add(more.Neg())
	}
}

func (r *Rerater) addUnrated(c *Charged, err error) {
	why, ok := err.(*Unrated) //nolint:errorlint // Rerate's contract
	if !ok {
		why = &Unrated{Problem: err.Error()}
	}
	row := r.unrated[*why]
	if row == nil && len(r.unrated) >= maxRerateUnrated {
		r.report.UnratedLeft++
		return
	}
	if row == nil {
		row = &UnratedRow{Unrated: *why, First: c.Position.String()}
		r.unrated[*why] = row
	}
	row.Charges, row.Charged = row.Charges+1, row.Charged.Add(c.Net())
}

// Report is what was added so far.
func (r *Rerater) Report() *RerateReport {
	out := r.report
	out.Rows, out.Unrated = []RerateRow{}, []UnratedRow{}
	for key, sums := range r.rows {
		out.Rows = append(out.Rows, RerateRow{key[0], key[1], key[2], *sums})
	}
	for _, row := range r.unrated {
		out.Unrated = append(out.Unrated, *row)
	}
	slices.SortFunc(out.Rows, func(a, b RerateRow) int {
		return strings.Compare(a.Account+"\x00"+a.Model+"\x00"+a.Day, b.Account+"\x00"+b.Model+"\x00"+b.Day)
	})
	slices.SortFunc(out.Unrated, func(a, b UnratedRow) int {
		return strings.Compare(a.Model+"\x00"+a.Problem, b.Model+"\x00"+b.Problem)
	})
	return &out
}
