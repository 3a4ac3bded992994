package ledger

import (
	"strings"
	"testing"
)

// misdeed is a crime, and what must be found of it.
type misdeed struct {
	name   string
	commit func(c *crime)
	want   string
}

// crimes are what somebody with the owner's rights may do, and the places of all findings that must
// come of it, as "check position account".
var crimes = []misdeed{
	{"nothing", func(*crime) {}, ""},
	// The events' bytes and hashes.
	{"a byte of a payload", func(c *crime) { c.edit(12, `"model":"m"`, `"model":"n"`) }, "chain 1:12 alice"},
	{"a byte that is no event", func(c *crime) { c.edit(16, `{"schema"`, `["schema"`) }, "account 1:6 ivan, chain 1:16 ivan, payload 1:16 ivan, reference 1:16 ivan, sum"},
	{"a payload of another schema", func(c *crime) { c.edit(16, `{"schema":1`, `{"schema":2`) }, "account 1:6 ivan, chain 1:16 ivan, payload 1:16 ivan, reference 1:16 ivan, sum"},
	{"a payload and its hash", func(c *crime) { c.edit(12, `"model":"m"`, `"model":"n"`); c.rehash(12, 12) }, "chain 1:13 alice"},
	{"the last payload and hash", func(c *crime) { c.edit(16, `"gift"`, `"gilt"`); c.rehash(16, 16) }, "head 1:16, reference 1:16 ivan, reference 1:16 ivan"},
	{"a hash", func(c *crime) { c.do(`UPDATE ledger_events SET hash = sha256(hash) WHERE shard = 1 AND seq = 9`) }, "chain 1:10 alice, chain 1:9 alice"},
	{"all hashes from an edit on", func(c *crime) { c.edit(12, `"model":"m"`, `"model":"n"`); c.rehash(12, 16) }, "head 1:16"},
	// The columns.
	{"the column amount", func(c *crime) { c.do(`UPDATE ledger_events SET amount = 1000 WHERE shard = 1 AND seq = 14`) }, "columns 1:14 alice"},
	{"the column account", func(c *crime) { c.do(`UPDATE ledger_events SET account = 'ivan' WHERE shard = 1 AND seq = 14`) }, "columns 1:14 alice"},
	{"the column kind", func(c *crime) { c.do(`UPDATE ledger_events SET kind = 'debit' WHERE shard = 1 AND seq = 14`) }, "columns 1:14 alice"},
	{"the column occurred_at", func(c *crime) { c.do(`UPDATE ledger_events SET occurred_at = 'infinity' WHERE shard = 1 AND seq = 14`) }, "columns 1:14 alice"},
	{"the column request_id", func(c *crime) {
		c.do(`UPDATE ledger_events SET request_id = gen_random_uuid() WHERE shard = 1 AND seq = 7`)
	}, "columns 1:7 alice"},
	{"the column debit", func(c *crime) { c.do(`UPDATE ledger_events SET debit = credit WHERE shard = 1 AND seq = 7`) }, "columns 1:7 alice"},
	{"the column currency", func(c *crime) { c.do(`UPDATE ledger_events SET currency = 'EUR' WHERE shard = 1 AND seq = 7`) }, "columns 1:7 alice"},
	{"the column schema", func(c *crime) { c.do(`UPDATE ledger_events SET schema = 2 WHERE shard = 1 AND seq = 7`) }, "columns 1:7 alice"},
	{"the column id", func(c *crime) { c.do(`UPDATE ledger_events SET id = gen_random_uuid() WHERE shard = 1 AND seq = 7`) }, "columns 1:7 alice"},
	{"an id twice", func(c *crime) {
		c.do(`DROP INDEX ledger_events_id`)
		c.do(`UPDATE ledger_events SET id = (SELECT id FROM ledger_events WHERE shard = 1 AND seq = 6) WHERE shard = 1 AND seq = 7`)
	}, "columns 1:7 alice, ids 1:7"},
	{"not a number", func(c *crime) { c.do(`UPDATE ledger_events SET amount = 'NaN' WHERE shard = 1 AND seq = 14`) }, "columns 1:14 alice"},
	// The order and number of events.
	{"an event deleted", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 1 AND seq = 6`) }, "account 1:16 ivan, reservation 1:6 ivan, seq 1:6"},
	{"a reserve deleted", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 1 AND seq = 12`) }, "replay 1:13 alice, reservation 1:12 alice, seq 1:12"},
	{"the first event deleted", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 1 AND seq = 1`) }, "account alice, reference 1:14 alice, reference 1:2 alice, replay 1:10 alice, replay 1:11 alice, replay 1:12 alice, replay 1:13 alice, replay 1:14 alice, replay 1:15 alice, replay 1:2 alice, replay 1:5 alice, replay 1:7 alice, replay 1:8 alice, replay 1:9 alice, reservation 1:12 alice, reservation 1:15 alice, reservation 1:5 alice, reservation 1:9 alice, seq 1:1"},
	{"the last event cut off", func(c *crime) { c.do(cutLast) }, "account 1:6 ivan, head 1:16, reference 1:16 ivan, sum"},
	{"the last three cut off", func(c *crime) { c.do(cutThree) }, "account 1:13 alice, account 1:6 ivan, head 1:14, reference 1:14 alice, reference 1:16 ivan, reservation 1:15 alice, sum"},
	{"a shard's events gone", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 3`) }, "account trent, head 3:1, reference 3:2 trent"},
	{"a tail cut off and the head set back", func(c *crime) { c.do(cutThree); c.moveHead() },
		"account 1:13 alice, account 1:6 ivan, reference 1:14 alice, reference 1:16 ivan, reservation 1:15 alice, sum"},
	{"a forged event at the end", func(c *crime) { c.forge(17) }, "account 1:17 ivan, head 1:17, reference 1:17 ivan, sum"},
	{"a forged event, head moved", func(c *crime) { c.forge(17); c.moveHead() }, "account 1:17 ivan, reference 1:17 ivan, sum"},
	{"a forged event in between", func(c *crime) { c.do(shiftTail); c.forge(5); c.do(unshift) }, "account 1:16 ivan, chain 1:6 alice, columns 1:10 alice, columns 1:11 alice, columns 1:12 alice, columns 1:13 alice, columns 1:14 alice, columns 1:15 alice, columns 1:16 alice, columns 1:17 ivan, columns 1:6 alice, columns 1:7 ivan, columns 1:8 alice, columns 1:9 alice, head 1:17, reference 1:5 ivan, sum, time 1:6 alice"},
	{"two events change places", func(c *crime) { c.swap(14, 16) }, "account 1:14 alice, chain 1:14 ivan, chain 1:15 alice, chain 1:16 alice, columns 1:14 ivan, columns 1:16 alice, head 1:16, head 1:16, time 1:15 alice, time 1:16 alice"},
	{"an event moved to another shard", func(c *crime) {
		c.do(`UPDATE ledger_events SET shard = 0, seq = 1 WHERE shard = 3 AND seq = 1`)
	}, "account 0:1 trent, account trent, chain 0:1 trent, columns 0:1 trent, head 0:1, reference 3:2 trent, replay 3:2 trent, seq 3:1"},
	{"an event in no shard", func(c *crime) { c.do(`UPDATE ledger_events SET shard = 4 WHERE shard = 1 AND seq = 16`) },
		"account 1:6 ivan, head 1:16, reference 1:16 ivan, shards, sum"},
	// Charges that no longer explain themselves; chain and head are made to fit.
	{"a quantity", func(c *crime) { c.fit(7, `"quantity":1`, `"quantity":2`) }, "charge 1:7 alice"},
	{"a unit price", func(c *crime) { c.fit(7, `"unit_price":"4"`, `"unit_price":"5"`) }, "charge 1:7 alice"},
	{"a line's amount", func(c *crime) { c.fit(7, `"amount":"4"}`, `"amount":"3"}`) }, "charge 1:7 alice"},
	{"a line's unit price and amount", func(c *crime) { c.fit(7, `"unit_price":"4","amount":"4"`, `"unit_price":"3","amount":"3"`) }, "charge 1:7 alice"},
	{"a line's meter", func(c *crime) { c.fit(7, `"meter":"requests"`, `"meter":"input"`) }, "charge 1:7 alice"},
	{"a line twice", func(c *crime) {
		c.fit(7, `"lines":[`, `"lines":[{"meter":"requests","quantity":1,"unit_price":"0","amount":"0"},`)
	}, "charge 1:7 alice"},
	{"a meter without a line", func(c *crime) { c.fit(7, `"output":0`, `"output":9`) }, "charge 1:7 alice"},
	{"a meter beyond the bound", func(c *crime) { c.fit(11, `"output":0`, `"output":9`) }, "charge 1:11 alice"},
	{"a commit before an overage", func(c *crime) { c.fit(10, `"quantity":1`, `"quantity":2`) }, "charge 1:10 alice"},
	{"an overage's reason", func(c *crime) { c.fit(11, `"beyond_bound"`, `"late"`) }, "account 1:15 alice, charge 1:10 alice, charge 1:11 alice, replay 1:11 alice"},
	{"an overage without its commit", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE shard = 1 AND seq = 10`) },
		"account 1:15 alice, charge 1:11 alice, replay 1:11 alice, reservation 1:9 alice, seq 1:10, sum"},
	// What chain, head and columns agree on, and the rules do not.
	{"a commit above its reservation", func(c *crime) { c.fit(7, `"amount":"4","currency"`, `"amount":"40","currency"`) }, "account 1:15 alice, charge 1:7 alice, replay 1:7 alice, replay 1:8 alice, reservation 1:5 alice, sum"},
	{"time runs backwards", func(c *crime) { c.fit(7, `"occurred_at":"2`, `"occurred_at":"1`) }, "time 1:7 alice"},
	{"another currency", func(c *crime) { c.fit(13, `"currency":"USD"`, `"currency":"EUR"`) }, "columns 1:13 alice"},
	// The heads.
	{"a head's time", func(c *crime) { c.do(`UPDATE ledger_shards SET last_time = 'epoch' WHERE shard = 1`) }, "head 1:16"},
	{"a head's hash", func(c *crime) { c.do(`UPDATE ledger_shards SET last_hash = sha256('') WHERE shard = 0`) }, "head"},
	{"a head's seq", func(c *crime) { c.do(`UPDATE ledger_shards SET last_seq = 20 WHERE shard = 1`) }, "head 1:17"},
	{"a head missing", func(c *crime) { c.do(`DELETE FROM ledger_shards WHERE shard = 0`) }, "shards"},
	{"a head too many", func(c *crime) {
		c.do(`INSERT INTO ledger_shards SELECT 4, 0, last_hash, last_time FROM ledger_shards LIMIT 1`)
	}, "shards"},
	{"another ledger id", func(c *crime) { c.do(`UPDATE ledger_meta SET id = gen_random_uuid()`) }, "chain 1:1 alice, chain 2:1 bob, chain 3:1 trent, head"},
	// The tables beside the events.
	{"a balance", func(c *crime) { c.do(`UPDATE ledger_accounts SET available = available + 1 WHERE account = 'alice'`) }, "account 1:15 alice, sum"},
	{"a balance, no number", func(c *crime) { c.do(`UPDATE ledger_accounts SET available = 'NaN' WHERE account = 'trent'`) }, "account 3:2 trent"},
	{"reserved", func(c *crime) { c.do(`UPDATE ledger_accounts SET reserved = 0 WHERE account = 'alice'`) }, "account 1:15 alice, reserved alice, sum"},
	{"a credit limit", func(c *crime) { c.do(`UPDATE ledger_accounts SET credit_limit = 11 WHERE account = 'bob'`) }, "account 2:6 bob"},
	{"frozen", func(c *crime) { c.do(`UPDATE ledger_accounts SET frozen = false WHERE account = 'bob'`) }, "account 2:6 bob"},
	{"an account's last seq", func(c *crime) { c.do(`UPDATE ledger_accounts SET last_seq = 5 WHERE account = 'bob'`) }, "account 2:6 bob"},
	{"an account's row gone", func(c *crime) { c.do(`DELETE FROM ledger_accounts WHERE account = 'bob'`) }, "account 2:6 bob, sum"},
	{"an account's row added", func(c *crime) { c.do(`INSERT INTO ledger_accounts VALUES (3, 'mallory', 1000, 0, 0, false, 1)`) }, "account mallory, sum"},
	{"an account in another shard", func(c *crime) { c.do(`UPDATE ledger_accounts SET shard = 0 WHERE account = 'trent'`) },
		"account 3:2 trent, account trent"},
	{"an account in no shard", func(c *crime) { c.do(`UPDATE ledger_accounts SET shard = -1 WHERE account = 'trent'`) },
		"account 3:2 trent, shards"},
	{"a reservation open again", func(c *crime) {
		c.do(`UPDATE ledger_reservations SET state = 'open', held = amount, settled_seq = 0 WHERE reserved_seq = 5 AND shard = 1`)
	}, "reservation 1:5 alice, reserved alice"},
	{"a reservation settled", func(c *crime) {
		c.do(`UPDATE ledger_reservations SET state = 'settled', held = 0, settled_seq = 16 WHERE reserved_seq = 15`)
	}, "reservation 1:15 alice, reserved alice"},
	{"a reservation gone", func(c *crime) { c.do(`DELETE FROM ledger_reservations WHERE reserved_seq = 5 AND shard = 1`) }, "reservation 1:5 alice"},
	{"an open reservation gone", func(c *crime) { c.do(`DELETE FROM ledger_reservations WHERE reserved_seq = 15`) }, "reservation 1:15 alice, reserved alice"},
	{"a reservation added", func(c *crime) {
		c.do(`INSERT INTO ledger_reservations SELECT shard, gen_random_uuid(), account, 7, 0, 'settled', 9, 9, owner FROM ledger_reservations WHERE reserved_seq = 15`)
	}, "reservation 1:9 alice"},
	{"a reservation's owner", func(c *crime) {
		c.do(`UPDATE ledger_reservations SET owner = gen_random_uuid() WHERE reserved_seq = 15`)
	}, "reservation 1:15 alice"},
	{"a reservation's account", func(c *crime) { c.do(`UPDATE ledger_reservations SET account = 'ivan' WHERE reserved_seq = 15`) }, "reservation 1:15 alice, reserved alice, reserved ivan"},
	{"a reference gone", func(c *crime) { c.do(`DELETE FROM ledger_idempotency WHERE key = 'top-up'`) }, "reference 1:14 alice"},
	{"a reference added", func(c *crime) { c.do(`INSERT INTO ledger_idempotency VALUES (1, 'alice', 'reference', 'never', 2)`) }, "reference 1:2 alice"},
	{"a reference to another", func(c *crime) { c.do(`UPDATE ledger_idempotency SET seq = 2 WHERE key = 'top-up'`) }, "reference 1:14 alice"},
	// What the database refuses.
	{"a trigger left disabled", func(c *crime) {
		mustExec(c, c.conn, `ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_immutable`)
	}, "immutable"},
	{"a trigger for replicas", func(c *crime) {
		mustExec(c, c.conn, `ALTER TABLE ledger_events ENABLE REPLICA TRIGGER ledger_events_no_truncate`)
	}, "immutable"},
	{"both triggers dropped", func(c *crime) { mustExec(c, c.conn, `DROP FUNCTION ledger_refuse_change CASCADE`) }, "immutable, immutable"},
	{"a function that lets all", func(c *crime) {
		mustExec(c, c.conn, `CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	}, "immutable, immutable"},
	{"a trigger that never fires", func(c *crime) {
		mustExec(c, c.conn, `CREATE OR REPLACE TRIGGER ledger_events_immutable BEFORE UPDATE OR DELETE ON ledger_events
			FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION ledger_refuse_change()`)
	}, "immutable"},
	{"the right to UPDATE", func(c *crime) { mustExec(c, c.conn, `GRANT UPDATE ON ledger_events TO llm_gateway`) }, "immutable"},
	{"the right to UPDATE a part", func(c *crime) { mustExec(c, c.conn, `GRANT UPDATE (amount) ON ledger_events TO llm_gateway`) }, "immutable"},
	{"all rights", func(c *crime) { mustExec(c, c.conn, `GRANT ALL ON ledger_events TO llm_gateway`) }, "immutable, immutable, immutable"},
}

// laterCrimes are the same, on what commitLater makes.
var laterCrimes = []misdeed{
	{"nothing", func(*crime) {}, ""},
	{"a key gone", func(c *crime) { c.do(`DELETE FROM ledger_idempotency WHERE key = 'k1'`) }, "key 1:7 alice"},
	{"a key added", func(c *crime) { c.do(`INSERT INTO ledger_idempotency VALUES (1, 'alice', 'request', 'never', 5)`) }, "key 1:5 alice"},
	{"a key to another", func(c *crime) { c.do(`UPDATE ledger_idempotency SET seq = 3 WHERE key = 'k1'`) }, "key 1:7 alice"},
	{"a key that is a reference", func(c *crime) { c.do(`UPDATE ledger_idempotency SET scope = 'reference' WHERE key = 'k2'`) },
		"key 1:5 alice, reference 1:5 alice"},
	{"a late charge forgotten", func(c *crime) {
		c.do(`UPDATE ledger_reservations SET state = 'expired', late_seq = 0 WHERE reserved_seq = 3`)
	}, "reservation 1:3 alice"},
	{"a late charge made up", func(c *crime) {
		c.do(`UPDATE ledger_reservations SET state = 'late', late_seq = 10 WHERE reserved_seq = 9`)
	}, "reservation 1:9 alice"},
	{"a late charge elsewhere", func(c *crime) { c.do(`UPDATE ledger_reservations SET late_seq = 9 WHERE reserved_seq = 3`) }, "reservation 1:3 alice"},
	{"an expired one released", func(c *crime) { c.do(`UPDATE ledger_reservations SET state = 'released' WHERE reserved_seq = 9`) }, "reservation 1:9 alice"},
	{"a late charge deleted", func(c *crime) { c.do(`DELETE FROM ledger_events WHERE seq = 8 AND shard = 1`) },
		"account 1:10 alice, reservation 1:3 alice, seq 1:8, sum"},
}

// TestVerifyFinds commits each crime in a database transaction, verifies inside it, and takes it
// back. Each must be found and named, and nothing else.
func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	c := commitCrime(t)
	c.each(crimes)
}

// TestVerifyFindsLater is the same for what was done with keys and late charges.
func TestVerifyFindsLater(t *testing.T) {
	t.Parallel()
	c := commitLater(t)
	c.each(laterCrimes)
}

// each commits one crime after the other.
func (c *crime) each(crimes []misdeed) {
	for _, crime := range crimes {
		c.Run(crime.name, func(t *testing.T) {
			mustExec(t, c.conn, "BEGIN")
			defer mustExec(t, c.conn, "ROLLBACK")
			at := *c
			at.T = t
			crime.commit(&at)
			report, err := verify(t.Context(), c.conn, c.conn, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(places(report.Findings), ", "); got != crime.want || report.Clean != (crime.want == "") {
				t.Errorf("found   %s\nwant    %s\n%v", got, crime.want, report.Findings)
			}
		})
	}
}
