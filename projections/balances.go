package projections

import (
	"maps"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// balances is the projection of every account's balances, limit and freeze.
type balances struct{}

func (balances) name() string { return "balances" }

func (balances) columns() (key, others []string) {
	return []string{"shard", "account"}, []string{"available", "reserved", "credit_limit", "frozen", "last_seq"}
}

// delta is what some events do to one account.
type delta struct {
	available, reserved domain.Amount
	limit               *domain.Amount // nil: as it was
	frozen              *bool          // nil: as it was
	last                int64
}

func (balances) fold(b *pgx.Batch, table string, shard int32, events []domain.Recorded) {
	deltas, first := map[string]*delta{}, 0
	for i := range events {
		e := &events[i].Event
		d := deltas[e.Account]
		if d == nil {
			d = &delta{}
			deltas[e.Account] = d
		}
		if !d.add(e) {
			addBalances(b, table, shard, events[first].Event.Seq, deltas)
			deltas, first = map[string]*delta{}, i
			d = &delta{}
			deltas[e.Account] = d
			d.add(e) // one event's amount is in range
		}
	}
	addBalances(b, table, shard, events[first].Event.Seq, deltas)
}

// add adds an event, unless the sum would leave the range of amounts. Balances never do, but what
// lies between two of them may.
func (d *delta) add(e *domain.Event) bool {
	available, reserved := e.Change()
	available, reserved = d.available.Add(available), d.reserved.Add(reserved)
	if !available.InRange() || !reserved.InRange() {
		return false
	}
	d.available, d.reserved, d.last = available, reserved, e.Seq
	if a, ok := e.Data.(*domain.AccountData); ok {
		if a.CreditLimit != nil {
			d.limit = a.CreditLimit
		}
		if a.Frozen != nil {
			d.frozen = a.Frozen
		}
	}
	return true
}

// addBalances queues the deltas of events that begin at seq first. A row that has seen one of them
// already is not touched, and so found out: one row is missing in the count.
func addBalances(b *pgx.Batch, table string, shard int32, first int64, deltas map[string]*delta) {
	accounts := slices.Sorted(maps.Keys(deltas)) // the order of locking
	var available, reserved []string
	var last []int64
	for _, account := range accounts {
		d := deltas[account]
		available, reserved = append(available, d.available.String()), append(reserved, d.reserved.String())
		last = append(last, d.last)
	}
	b.Queue(`INSERT INTO `+quoted(table)+` AS b (shard, account, available, reserved, credit_limit, frozen, last_seq)
		SELECT $1::int, account, available::numeric, reserved::numeric, 0, false, last_seq
		FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[]) AS n(account, available, reserved, last_seq)
		ON CONFLICT (shard, account) DO UPDATE SET available = b.available + excluded.available,
			reserved = b.reserved + excluded.reserved, last_seq = excluded.last_seq
		WHERE b.last_seq < $2`, shard, first, accounts, available, reserved, last).Exec(wantRows(len(accounts), table))
	setBalances(b, table, shard, deltas)
}

// setBalances queues what is set rather than added: rare, and in a statement of its own, because an
// upsert cannot tell a value that is not set.
func setBalances(b *pgx.Batch, table string, shard int32, deltas map[string]*delta) {
	var accounts, limits, frozen []string // "": as it was
	for account, d := range deltas {
		if d.limit == nil && d.frozen == nil {
			continue
		}
		limit, freeze := "", ""
		if d.limit != nil {
			limit = d.limit.String()
		}
		if d.frozen != nil {
			freeze = strconv.FormatBool(*d.frozen)
		}
		accounts, limits, frozen = append(accounts, account), append(limits, limit), append(frozen, freeze)
	}
	if len(accounts) == 0 {
		return
	}
	b.Queue(`UPDATE `+quoted(table)+` b SET credit_limit = coalesce(nullif(n.credit_limit, '')::numeric, b.credit_limit),
			frozen = coalesce(nullif(n.frozen, '')::boolean, b.frozen)
		FROM unnest($2::text[], $3::text[], $4::text[]) AS n(account, credit_limit, frozen)
		WHERE b.shard = $1 AND b.account = n.account`, shard, accounts, limits, frozen).Exec(wantRows(len(accounts), table))
}
