package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	bigendian "encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/ledger"
)

// audit is an independent reading of a ledger: the stored bytes, decoded and added up here, with
// rational numbers and nothing of package domain. It knows the design, not the program.
type audit struct {
	t        testing.TB
	events   int
	lives    map[string]*life          // by request id
	balances map[string]*big.Rat       // by ledger account: user:alice:available, platform:revenue
	grants   map[string]map[string]int // by account and reference
	rows     map[string][2]*big.Rat    // ledger_accounts: available, reserved
}

// life is what the events say of one request.
type life struct {
	account                              string
	reserves, commits, refunds, overages int
	reserve, commit, refund              *big.Rat
	reason                               string // of the refund
	charged                              string // the commit's amount, as the ledger writes it
	source                               string // usage_source
	stream                               bool
	bodyHash                             string // of what the client sent
	meters                               map[string]int64
	provider, priceVersion               string                      // of the commit
	tier                                 string                      // of the answer
	parts                                map[string]map[string]int64 // the commit's quantities by price version and meter
	reservedBy                           string                      // the price version of the reserve
	reservedAt                           time.Time
	attempts                             []string // provider and status of each, in order
}

// settled says that the request's money is neither held nor lost: one commit, or all of it back.
func (l *life) settled() bool { return l.commits+l.overages > 0 || l.refunds > 0 }

// late says that it was charged after it had been given back, because its owner passed for dead.
func (l *life) late() bool {
	return l.commits == 0 && l.overages == 1 && l.refunds == 1 && l.reason == "expired"
}

// stored is an event as its bytes tell it.
type stored struct {
	Schema                                   int
	Shard                                    int32
	Seq                                      int64
	ID, Kind, Account, Debit, Credit, Amount string
	RequestID                                string    `json:"request_id"`
	OccurredAt                               time.Time `json:"occurred_at"`
	Data                                     struct {
		Reason, Reference string
		Stream            bool
		UsageSource       string `json:"usage_source"`
		BodyHash          string `json:"body_hash"`
		Meters            map[string]int64
		Provider          string
		PriceVersion      string `json:"price_version"`
		Attempts          []struct {
			Provider string
			Status   int
		}
		Lines []struct {
			Meter     string
			Quantity  int64
			UnitPrice string `json:"unit_price"`
			Amount    string
			Version   string `json:"price_version"` // where it is not the commit's
		}
		ServiceTier string `json:"service_tier"`
	}
}

// rat reads an exact decimal.
func (a *audit) rat(text string) *big.Rat {
	a.t.Helper()
	r, ok := new(big.Rat).SetString(text)
	if !ok || strings.ContainsAny(text, "eE/") {
		a.t.Fatalf("%q is no decimal", text)
	}
	return r
}

// auditLedger reads the whole ledger at a URL, in one state of it, and checks what holds of every
// ledger at every time: chains, heads, postings, charges, balances.
func auditLedger(t testing.TB, url string) *audit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // it was only read from
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	a := &audit{t: t, lives: map[string]*life{}, balances: map[string]*big.Rat{}, grants: map[string]map[string]int{},
		rows: map[string][2]*big.Rat{}}
	a.readEvents(ctx, tx)
	a.readAccounts(ctx, tx)
	a.checkLives()
	a.checkBalances()
	a.checkPrices()
	return a
}

// chainEnd is the end of a shard's chain as the events make it.
type chainEnd struct {
	seq  int64
	hash []byte
}

func (a *audit) readEvents(ctx context.Context, tx pgx.Tx) {
	a.t.Helper()
	var ledgerID uuid.UUID
	if err := tx.QueryRow(ctx, `SELECT id FROM ledger_meta`).Scan(&ledgerID); err != nil {
		a.t.Fatal(err)
	}
	ends := map[int32]*chainEnd{}
	rows, err := tx.Query(ctx, `SELECT shard, seq, payload, hash FROM ledger_events ORDER BY shard, seq`)
	if err != nil {
		a.t.Fatal(err)
	}
	var shard int32
	var seq int64
	var payload, hash []byte
	_, err = pgx.ForEachRow(rows, []any{&shard, &seq, &payload, &hash}, func() error {
		end := ends[shard]
		if end == nil {
			genesis := sha256.Sum256(bigendian.BigEndian.AppendUint32(ledgerID[:len(ledgerID):len(ledgerID)], uint32(shard)))
			end = &chainEnd{hash: genesis[:]}
			ends[shard] = end
		}
		var e stored
		if err := json.Unmarshal(payload, &e); err != nil {
			return err
		}
		link := append(append([]byte{1}, end.hash...), bigendian.BigEndian.AppendUint64(nil, uint64(len(payload)))...)
		sum := sha256.Sum256(append(link, payload...))
		end.seq++
		end.hash = sum[:]
		if e.Shard != shard || e.Seq != seq || seq != end.seq || !bytes.Equal(hash, end.hash) || e.Schema != 1 {
			return fmt.Errorf("the chain breaks at %d:%d", shard, seq)
		}
		a.add(&e)
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.checkHeads(ctx, tx, ends)
}

func (a *audit) checkHeads(ctx context.Context, tx pgx.Tx, ends map[int32]*chainEnd) {
	a.t.Helper()
	rows, err := tx.Query(ctx, `SELECT shard, last_seq, last_hash FROM ledger_shards WHERE last_seq > 0`)
	if err != nil {
		a.t.Fatal(err)
	}
	var shard int32
	var seq int64
	var hash []byte
	tag, err := pgx.ForEachRow(rows, []any{&shard, &seq, &hash}, func() error {
		if end := ends[shard]; end == nil || end.seq != seq || !bytes.Equal(end.hash, hash) {
			return fmt.Errorf("the head of shard %d is not the end of its events", shard)
		}
		return nil
	})
	if err != nil || int(tag.RowsAffected()) != len(ends) {
		a.t.Fatalf("%d heads, %d chains: %v", tag.RowsAffected(), len(ends), err)
	}
}

// add books one event: its movement, and what it says of its request.
func (a *audit) add(e *stored) {
	a.t.Helper()
	a.events++
	amount := a.rat(e.Amount)
	a.balance(e.Debit).Sub(a.balance(e.Debit), amount)
	a.balance(e.Credit).Add(a.balance(e.Credit), amount)
	if e.Kind == "credit" || e.Kind == "debit" {
		if a.grants[e.Account] == nil {
			a.grants[e.Account] = map[string]int{}
		}
		a.grants[e.Account][e.Data.Reference]++
	}
	if e.RequestID == "" {
		return
	}
	l := a.lives[e.RequestID]
	if l == nil {
		l = &life{account: e.Account, reserve: new(big.Rat), commit: new(big.Rat), refund: new(big.Rat)}
		a.lives[e.RequestID] = l
	}
	switch e.Kind {
	case "reserve":
		l.reserves++
		l.bodyHash, l.reservedBy, l.reservedAt = e.Data.BodyHash, e.Data.PriceVersion, e.OccurredAt
		l.reserve.Add(l.reserve, amount)
	case "commit", "overage":
		if e.Kind == "overage" {
			l.overages++
		} else {
			l.commits++
		}
		l.commit.Add(l.commit, amount)
		l.charged = e.Amount
		l.source, l.stream, l.meters = e.Data.UsageSource, e.Data.Stream, e.Data.Meters
		l.provider, l.priceVersion = e.Data.Provider, e.Data.PriceVersion
		for _, tried := range e.Data.Attempts {
			l.attempts = append(l.attempts, fmt.Sprint(tried.Provider, " ", tried.Status))
		}
		l.tier, l.parts = e.Data.ServiceTier, e.parts()
		a.checkLines(e, amount)
	case "refund":
		l.refunds++
		l.refund.Add(l.refund, amount)
		l.reason = e.Data.Reason
	}
	if l.account != e.Account {
		a.t.Errorf("request %s is of %s and of %s", e.RequestID, l.account, e.Account)
	}
}

// parts are the quantities of the lines by the version that priced them.
func (e *stored) parts() map[string]map[string]int64 {
	out := map[string]map[string]int64{}
	for _, line := range e.Data.Lines {
		version := line.Version
		if version == "" {
			version = e.Data.PriceVersion
		}
		if out[version] == nil {
			out[version] = map[string]int64{}
		}
		out[version][line.Meter] += line.Quantity
	}
	return out
}

// checkLines: meter x unit price = amount, exactly, and the lines add up to the charge.
func (a *audit) checkLines(e *stored, amount *big.Rat) {
	a.t.Helper()
	sum, used := new(big.Rat), map[string]int64{}
	for _, line := range e.Data.Lines {
		product := new(big.Rat).Mul(new(big.Rat).SetInt64(line.Quantity), a.rat(line.UnitPrice))
		if product.Cmp(a.rat(line.Amount)) != 0 {
			a.t.Errorf("%s: %d x %s is not %s", e.RequestID, line.Quantity, line.UnitPrice, line.Amount)
		}
		sum.Add(sum, product)
		used[line.Meter] += line.Quantity
	}
	for meter, n := range e.Data.Meters {
		if n != used[meter] {
			a.t.Errorf("%s: meter %s is %d, its lines have %d", e.RequestID, meter, n, used[meter])
		}
	}
	if sum.Cmp(amount) != 0 {
		a.t.Errorf("%s: the lines of the %s add up to %s, the amount is %s", e.RequestID, e.Kind, sum.RatString(), e.Amount)
	}
}

func (a *audit) balance(account string) *big.Rat {
	if a.balances[account] == nil {
		a.balances[account] = new(big.Rat)
	}
	return a.balances[account]
}

func (a *audit) readAccounts(ctx context.Context, tx pgx.Tx) {
	a.t.Helper()
	rows, err := tx.Query(ctx, `SELECT account, available::text, reserved::text FROM ledger_accounts`)
	if err != nil {
		a.t.Fatal(err)
	}
	var name, available, reserved string
	_, err = pgx.ForEachRow(rows, []any{&name, &available, &reserved}, func() error {
		a.rows[name] = [2]*big.Rat{a.rat(available), a.rat(reserved)}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// checkLives: each request was reserved once, settled at most once, never beyond its reserve, and
// what was reserved is charged, given back or, while it is open, held.
func (a *audit) checkLives() {
	a.t.Helper()
	for id, l := range a.lives {
		if l.late() {
			if l.reserves != 1 || l.refund.Cmp(l.reserve) != 0 {
				a.t.Errorf("request %s: %+v", id, *l)
			}
			continue
		}
		spent := new(big.Rat).Add(l.commit, l.refund)
		settledOnce := l.commits <= 1 && l.refunds <= 1 && (!l.settled() || l.reserve.Cmp(spent) == 0)
		if l.reserves != 1 || l.overages != 0 || l.commit.Cmp(l.reserve) > 0 || !settledOnce {
			a.t.Errorf("request %s: %+v", id, *l)
		}
		if remainder := l.refunds == 1 && l.reason == "remainder"; l.commits == 1 && remainder != (l.commit.Cmp(l.reserve) < 0) {
			a.t.Errorf("request %s: commit %s of %s, refund %s %s", id, l.commit, l.reserve, l.refund, l.reason)
		}
	}
}

// checkBalances: the rows of the accounts are what the movements add up to, and held is what the open
// requests reserve.
func (a *audit) checkBalances() {
	a.t.Helper()
	held := map[string]*big.Rat{}
	for _, l := range a.lives {
		if held[l.account] == nil {
			held[l.account] = new(big.Rat)
		}
		if !l.settled() {
			held[l.account].Add(held[l.account], l.reserve)
		}
	}
	users := 0
	for name, row := range a.rows {
		available, reserved := a.balance("user:"+name+":available"), a.balance("user:"+name+":reserved")
		if available.Cmp(row[0]) != 0 || reserved.Cmp(row[1]) != 0 || row[0].Sign() < 0 {
			a.t.Errorf("account %s has %s and %s, its events say %s and %s", name, row[0], row[1], available, reserved)
		}
		if open := held[name]; open != nil && open.Cmp(reserved) != 0 {
			a.t.Errorf("account %s has %s reserved, its open requests %s", name, reserved, open)
		}
	}
	sum := new(big.Rat)
	for name, balance := range a.balances {
		sum.Add(sum, balance)
		if strings.HasSuffix(name, ":available") {
			users++
		}
	}
	if sum.Sign() != 0 || users != len(a.rows) {
		a.t.Errorf("all balances add up to %s; %d accounts, %d rows", sum, users, len(a.rows))
	}
}

// checkPrices: where prices are recorded there is no money, and it is no account of those that tests count.
func (a *audit) checkPrices() {
	a.t.Helper()
	const recorded = "platform.prices"
	if row, ok := a.rows[recorded]; ok && (row[0].Sign() != 0 || row[1].Sign() != 0 || a.grants[recorded] != nil) {
		a.t.Errorf("%s has %s and %s, and was granted %v", recorded, row[0], row[1], a.grants[recorded])
	}
	delete(a.rows, recorded)
}

// charged counts the requests that were charged.
func (a *audit) charged() (n int) {
	for _, l := range a.lives {
		if l.commits+l.overages > 0 {
			n++
		}
	}
	return n
}

// auditedAll runs `audit --all`: so many charges, each as calculated again by a version of the book in use.
func auditedAll(t testing.TB, charges int64, env ...string) {
	t.Helper()
	r := parsed[ledger.AuditReport](t, env, "audit", "--all")
	if !r.Clean || r.Differ != 0 || len(r.Unlisted) != 0 || r.Charges != charges || charges == 0 {
		t.Errorf("audit --all of %d charges: %+v", charges, r)
	}
}

// open lists the requests that are not settled.
func (a *audit) open() (ids []string) {
	for id, l := range a.lives {
		if !l.settled() {
			ids = append(ids, id)
		}
	}
	return ids
}

// has checks that an account has exactly so much available and nothing reserved.
func (a *audit) has(account, available string) {
	a.t.Helper()
	row, ok := a.rows[account]
	if !ok || row[0].Cmp(a.rat(available)) != 0 || row[1].Sign() != 0 {
		a.t.Errorf("account %s has %v, want %s and 0", account, row, available)
	}
}
