package ledger

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// crime is a small history with one of everything, and the hands of the tables' owner. Shard 1
// has the accounts alice and ivan:
//
//	1 account alice   5 reserve A 10   9 reserve B 5      13 refund C 3 (release)
//	2 credit 100      6 reserve I 1   10 commit B 5       14 credit 20 "top-up"
//	3 account ivan    7 commit A 4    11 overage B 2      15 reserve D 2 (stays open)
//	4 credit 5        8 refund A 6    12 reserve C 3      16 credit ivan 0.000000000001 "gift"
//
// Shard 2 has bob: 1 account, 2 credit 50, 3 credit limit 10, 4 reserve 55 (stays open),
// 5 frozen, 6 debit 1 "fee", forced. Shard 3 has trent: 1 account, 2 credit 0. Shard 0 is empty.
type crime struct {
	*testing.T
	ledger *Postgres
	conn   *pgx.Conn
}

func commitCrime(t *testing.T) *crime {
	t.Helper()
	p, url := openPostgres(t)
	a, b, c, d := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	yes, limit := true, domain.MustAmount("10")
	fee := domain.Debit{Amount: domain.MustAmount("1"), Force: true, Data: domain.MovementData{Reference: "fee", Actor: "test"}}
	mustOpen(t, p, "alice", "100")
	mustOpen(t, p, "ivan", "5")
	for _, c := range []domain.Command{
		command("alice", reserve(a, "10")), command("ivan", reserve(uuid.New(), "1")), command("alice", settle(a, "4")),
		command("alice", reserve(b, "5")), command("alice", settle(b, "7")),
		command("alice", reserve(c, "3")), command("alice", domain.Release{RequestID: c, Reason: domain.RefundClientAbort}),
		command("alice", credit("20", "top-up")), command("alice", reserve(d, "2")),
		command("ivan", credit("0.000000000001", "gift")),
		command("bob", domain.Open{Grant: domain.MustAmount("50"), Actor: "test"}),
		command("bob", domain.Configure{Data: domain.AccountData{CreditLimit: &limit, Actor: "test"}}),
		command("bob", reserve(uuid.New(), "55")),
		command("bob", domain.Configure{Data: domain.AccountData{Frozen: &yes, Actor: "test"}}),
		command("bob", fee), command("trent", domain.Open{Actor: "test"}),
	} {
		must(t, p, c)
	}
	return &crime{T: t, ledger: p, conn: owner(t, url)}
}

// do changes what must not be changed: as the owner, with the triggers off for the moment.
func (c *crime) do(sql string, args ...any) {
	c.Helper()
	mustExec(c, c.conn, `ALTER TABLE ledger_events DISABLE TRIGGER USER`)
	mustExec(c, c.conn, sql, args...)
	mustExec(c, c.conn, `ALTER TABLE ledger_events ENABLE TRIGGER USER`)
}

func (c *crime) payload(seq int64) (payload []byte) {
	c.Helper()
	err := c.conn.QueryRow(c.Context(), `SELECT payload FROM ledger_events WHERE shard = 1 AND seq = $1`, seq).Scan(&payload)
	if err != nil {
		c.Fatal(err)
	}
	return payload
}

// edit replaces text in the payload of an event of shard 1, once.
func (c *crime) edit(seq int64, old, new string) {
	c.Helper()
	was := c.payload(seq)
	if !bytes.Contains(was, []byte(old)) {
		c.Fatalf("%s has no %s", was, old)
	}
	c.do(`UPDATE ledger_events SET payload = $1 WHERE shard = 1 AND seq = $2`, bytes.Replace(was, []byte(old), []byte(new), 1), seq)
}

// rehash makes the hashes of events from to to of shard 1 follow from their payloads.
func (c *crime) rehash(from, to int64) {
	c.Helper()
	for seq := from; seq <= to; seq++ {
		c.do(`UPDATE ledger_events SET hash = $1 WHERE shard = 1 AND seq = $2`, c.hashOf(seq, c.payload(seq)), seq)
	}
}

// fit edits a payload and makes its columns, all later hashes and the head fit.
func (c *crime) fit(seq int64, old, new string) {
	c.Helper()
	c.edit(seq, old, new)
	c.do(`UPDATE ledger_events SET amount = (p->>'amount')::numeric, currency = p->>'currency', occurred_at = (p->>'occurred_at')::timestamptz
		FROM (SELECT convert_from(payload, 'UTF8')::jsonb AS p FROM ledger_events WHERE shard = 1 AND seq = $1) e
		WHERE shard = 1 AND seq = $1`, seq)
	c.rehash(seq, 16)
	c.moveHead()
}

// hashOf is the right hash of payload as event seq of shard 1.
func (c *crime) hashOf(seq int64, payload []byte) []byte {
	c.Helper()
	prev := domain.GenesisHash(c.ledger.Meta().ID, 1)
	if seq > 1 {
		var hash []byte
		if err := c.conn.QueryRow(c.Context(), `SELECT hash FROM ledger_events WHERE shard = 1 AND seq = $1`, seq-1).Scan(&hash); err != nil {
			c.Fatal(err)
		}
		prev = domain.Hash(hash)
	}
	hash := domain.ChainHash(prev, payload)
	return hash[:]
}

// forge inserts a credit of 1000 for ivan as event seq of shard 1, with the right hash.
func (c *crime) forge(seq int64) {
	c.Helper()
	e := &domain.Event{Schema: 1, Shard: 1, Seq: seq, ID: uuid.New(), Kind: domain.KindCredit, Account: "ivan",
		Debit: domain.PlatformFunding, Credit: domain.AvailableOf("ivan"), Amount: domain.MustAmount("1000"),
		Currency: "USD", OccurredAt: c.lastTime(), Data: &domain.MovementData{Reference: "forged", Actor: "nobody"}}
	payload, err := domain.Encode(e)
	if err != nil {
		c.Fatal(err)
	}
	c.do(insertEvents, eventColumns([]written{{*e, payload, domain.Hash(c.hashOf(seq, payload))}})...)
}

// lastTime is when the last event of shard 1 occurred, as its head has it.
func (c *crime) lastTime() (at time.Time) {
	c.Helper()
	if err := c.conn.QueryRow(c.Context(), `SELECT last_time FROM ledger_shards WHERE shard = 1`).Scan(&at); err != nil {
		c.Fatal(err)
	}
	return domain.EventTime(at)
}

// moveHead makes the head of shard 1 that of its last event.
func (c *crime) moveHead() {
	c.Helper()
	c.do(`UPDATE ledger_shards s SET last_seq = e.seq, last_hash = e.hash, last_time = e.occurred_at
		FROM ledger_events e WHERE s.shard = 1 AND e.shard = 1 AND e.seq = (SELECT max(seq) FROM ledger_events WHERE shard = 1)`)
}

const (
	cutLast   = `DELETE FROM ledger_events WHERE shard = 1 AND seq > 15`
	cutThree  = `DELETE FROM ledger_events WHERE shard = 1 AND seq > 13`
	shiftTail = `UPDATE ledger_events SET seq = seq + 1000 WHERE shard = 1 AND seq >= 5`
	unshift   = `UPDATE ledger_events SET seq = seq - 999 WHERE shard = 1 AND seq >= 1000`
)

// swap gives two events of shard 1 each other's place.
func (c *crime) swap(a, b int64) {
	c.Helper()
	for _, move := range [][2]int64{{a, 1000}, {b, a}, {1000, b}} {
		c.do(`UPDATE ledger_events SET seq = $2 WHERE shard = 1 AND seq = $1`, move[0], move[1])
	}
}

// commitLater is a ledger whose shard 1 has alice with, beside 1 account and 2 credit 100:
//
//	3 reserve A 10 "k1"     5 reserve B 5 "k2"    7 reserve C 3 "k1"    9 reserve D 1
//	4 refund A 10 expired   6 commit B 5          8 overage A 4 late    10 refund D 1 expired
func commitLater(t *testing.T) *crime {
	t.Helper()
	p, url := openPostgres(t)
	a, b, c, d := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	mustOpen(t, p, "alice", "100")
	for _, c := range []domain.Command{
		command("alice", keyed(a, "10", "k1", "b")), command("alice", release(a, domain.RefundExpired)),
		command("alice", keyed(b, "5", "k2", "b")), command("alice", settle(b, "5")),
		command("alice", keyed(c, "3", "k1", "b")), command("alice", settle(a, "4")),
		command("alice", reserve(d, "1")), command("alice", release(d, domain.RefundExpired)),
	} {
		must(t, p, c)
	}
	return &crime{T: t, ledger: p, conn: owner(t, url)}
}
