package ledger

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// maxListed is how many findings of one check a Report lists. All are counted: a table that was
// rewritten as a whole must fill neither the memory nor the screen.
const maxListed = 20

// Check names what a finding contradicts.
type Check string

// The checks of Verify. Their texts are stable: programs read them.
const (
	CheckShards      Check = "shards"      // every shard has its head, and no row is in another shard
	CheckSeq         Check = "seq"         // seq is gapless from 1
	CheckChain       Check = "chain"       // each hash follows from the one before and the stored bytes
	CheckPayload     Check = "payload"     // the stored bytes are an event
	CheckColumns     Check = "columns"     // the columns repeat the payload; account, shard and currency fit
	CheckTime        Check = "time"        // occurred_at never runs backwards
	CheckIDs         Check = "ids"         // an event's id is its alone
	CheckReplay      Check = "replay"      // the event can follow from those before it
	CheckCharge      Check = "charge"      // meters x unit price = amount
	CheckHead        Check = "head"        // the head is the end of the events
	CheckAccount     Check = "account"     // ledger_accounts is what the events add up to
	CheckReserved    Check = "reserved"    // an account's reserved is what its open reservations hold
	CheckReservation Check = "reservation" // ledger_reservations is what the events add up to
	CheckReference   Check = "reference"   // ledger_idempotency is what the events add up to
	CheckKey         Check = "key"         // and for the keys of requests
	CheckSum         Check = "sum"         // credits - debits - commits - overages = all balances
	CheckImmutable   Check = "immutable"   // the database refuses to change events
	CheckTopic       Check = "topic"       // the topic has the same events, once, in order
)

// Witness is something that knows what the events were, apart from the events.
type Witness string

// The witnesses against an edited past. Heads are in the same database as the events: who can
// rewrite the one can rewrite the other. The topic and checkpoints are elsewhere.
const (
	WitnessHeads       Witness = "heads"
	WitnessTopic       Witness = "topic"
	WitnessCheckpoints Witness = "checkpoints"
)

// Finding is one contradiction. Position ("shard:seq") and Account are empty where it has none.
type Finding struct {
	Check    Check  `json:"check"`
	Position string `json:"position,omitempty"`
	Account  string `json:"account,omitempty"`
	Detail   string `json:"detail"`
}

// String is the finding in one line.
func (f Finding) String() string {
	out := string(f.Check)
	if f.Position != "" {
		out += " at " + f.Position
	}
	if f.Account != "" {
		out += " of " + f.Account
	}
	return out + ": " + f.Detail
}

// Report is what Verify found, and what it looked at. Clean says that nothing was found, which is
// worth as much as the witnesses that it had.
type Report struct {
	LedgerID     uuid.UUID `json:"ledger_id"`
	Currency     string    `json:"currency"`
	Shards       int       `json:"shards"`
	Events       int64     `json:"events"`
	Accounts     int64     `json:"accounts"`     // rows of ledger_accounts
	Reservations int64     `json:"reservations"` // rows of ledger_reservations
	// Totals are the sums of the events' amounts by kind.
	Totals map[domain.Kind]domain.Amount `json:"totals"`
	// Funding and Revenue are the balances of the two platform accounts; all balances add up to 0.
	Funding  domain.Amount `json:"platform_funding"`
	Revenue  domain.Amount `json:"platform_revenue"`
	Balances domain.Amount `json:"balances"` // available + reserved of all rows of ledger_accounts
	// TopicRecords are the topic's records that were read, Unpublished the events behind the last of
	// them, which the relay has yet to publish. Both are 0 where the topic was not asked (Witnesses).
	TopicRecords int64 `json:"topic_records"`
	Unpublished  int64 `json:"unpublished"`

	Clean            bool          `json:"clean"`
	Findings         []Finding     `json:"findings"` // at most maxListed of each check
	Counts           map[Check]int `json:"counts"`   // all findings, listed or not
	Witnesses        []Witness     `json:"witnesses"`
	MissingWitnesses []Witness     `json:"missing_witnesses"`
	Seconds          float64       `json:"seconds"`
}

func newReport(m Meta, topicAsked bool) *Report {
	r := &Report{
		LedgerID: m.ID, Currency: m.Currency, Shards: m.Shards,
		Totals:   map[domain.Kind]domain.Amount{},
		Findings: []Finding{}, Counts: map[Check]int{},
		Witnesses:        []Witness{WitnessHeads},
		MissingWitnesses: []Witness{WitnessCheckpoints},
	}
	if topicAsked {
		r.Witnesses = append(r.Witnesses, WitnessTopic)
	} else {
		r.MissingWitnesses = append([]Witness{WitnessTopic}, r.MissingWitnesses...)
	}
	return r
}

// findf counts a finding, and lists it while there is room.
func (r *Report) findf(check Check, position domain.Position, account, format string, args ...any) {
	r.Counts[check]++
	if r.Counts[check] > maxListed {
		return
	}
	f := Finding{Check: check, Account: domain.CleanText(account, domain.MaxForeignText)}
	f.Detail = domain.CleanText(fmt.Sprintf(format, args...), maxDetail)
	if position != (domain.Position{}) {
		f.Position = position.String()
	}
	r.Findings = append(r.Findings, f)
}

// maxDetail bounds what a finding quotes, in bytes: what is quoted was perhaps written by an enemy.
const maxDetail = 1000

// balance is the double entry: what went in and was not spent is what the accounts have.
func (r *Report) balance() {
	funded := r.Totals[domain.KindCredit].Sub(r.Totals[domain.KindDebit])
	r.Funding = funded.Neg()
	r.Revenue = r.Totals[domain.KindCommit].Add(r.Totals[domain.KindOverage])
	if sum := r.Funding.Add(r.Revenue).Add(r.Balances); !sum.IsZero() {
		r.findf(CheckSum, domain.Position{}, "", "credits - debits - commits - overages is %s, all balances add up to %s",
			funded.Sub(r.Revenue), r.Balances)
	}
}

// WriteText writes the report for a person to read.
func (r *Report) WriteText(w io.Writer) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, "ledger %s: %d shards, %d events, %d accounts, %d reservations, verified in %.1f s\n",
		r.LedgerID, r.Shards, r.Events, r.Accounts, r.Reservations, r.Seconds)
	for _, kind := range slices.Sorted(maps.Keys(r.Totals)) {
		if kind != domain.KindAccount {
			fmt.Fprintf(b, "  %-18s %s %s\n", kind, r.Totals[kind], r.Currency)
		}
	}
	for _, line := range []struct {
		name   string
		amount domain.Amount
	}{{domain.PlatformFunding, r.Funding}, {domain.PlatformRevenue, r.Revenue}, {"all accounts", r.Balances}} {
		fmt.Fprintf(b, "  %-18s %s %s\n", line.name, line.amount, r.Currency)
	}
	if slices.Contains(r.Witnesses, WitnessTopic) {
		fmt.Fprintf(b, "topic: %d records, %d events not yet published\n", r.TopicRecords, r.Unpublished)
	}
	fmt.Fprintf(b, "witnesses: %s; not asked: %s\n", join(r.Witnesses), join(r.MissingWitnesses))
	r.writeFindings(b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) writeFindings(b *strings.Builder) {
	if r.Clean {
		b.WriteString("CLEAN: events, heads, balances, reservations and references agree")
		if slices.Contains(r.Witnesses, WitnessTopic) {
			b.WriteString(", and so does the topic")
		}
		b.WriteString("\n")
		if slices.Contains(r.MissingWitnesses, WitnessTopic) {
			b.WriteString("(a past that was rewritten as a whole, heads and balances included, only a witness outside the database can show)\n")
		}
		return
	}
	total := 0
	for _, f := range r.Findings {
		fmt.Fprintf(b, "  %s\n", f)
	}
	for _, check := range slices.Sorted(maps.Keys(r.Counts)) {
		total += r.Counts[check]
		if more := r.Counts[check] - maxListed; more > 0 {
			fmt.Fprintf(b, "  %s: and %d more\n", check, more)
		}
	}
	fmt.Fprintf(b, "NOT CLEAN: %d findings\n", total)
}

func join(witnesses []Witness) string {
	if len(witnesses) == 0 {
		return "none"
	}
	names := make([]string, len(witnesses))
	for i, w := range witnesses {
		names[i] = string(w)
	}
	return strings.Join(names, ", ")
}
