package ledger

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
)

// The tables are compared in both directions: what has its row is taken out of the replayed books,
// and what is left in them has none.

// ids looks for an id that two events of the shard have: a repeated command would be answered with
// the wrong one. The index on (shard, id) answers it in order, without a sort.
func (s *shardCheck) ids(ctx context.Context) error {
	return s.each(ctx, func(rows pgx.Rows) error {
		var id [16]byte
		var n, seq int64
		if err := rows.Scan(&id, &n, &seq); err != nil {
			return err
		}
		s.report.findf(CheckIDs, s.at(seq), "", "%d events have the id %s", n, uuid.UUID(id))
		return nil
	}, `SELECT id, count(*), max(seq) FROM ledger_events WHERE shard = $1 GROUP BY id HAVING count(*) > 1`, s.shard)
}

func (s *shardCheck) accounts(ctx context.Context) error {
	missing := s.books.Accounts
	err := s.each(ctx, func(rows pgx.Rows) error {
		s.report.Accounts++
		return s.account(rows, missing)
	}, `SELECT account, available::text, reserved::text, credit_limit::text, frozen, last_seq
		FROM ledger_accounts WHERE shard = $1 ORDER BY account`, s.shard)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		s.report.findf(CheckAccount, s.at(missing[name].LastSeq), name, "it has events and no row in ledger_accounts")
	}
	return nil
}

func (s *shardCheck) account(rows pgx.Rows, missing map[string]*domain.Account) error {
	var name, available, reserved, limit string
	var frozen bool
	var lastSeq int64
	if err := rows.Scan(&name, &available, &reserved, &limit, &frozen, &lastSeq); err != nil {
		return err
	}
	a := missing[name]
	delete(missing, name)
	surplus := a == nil
	if surplus {
		a = &domain.Account{}
	}
	var d differences
	free := d.amount("available", available, a.Available)
	held := d.amount("reserved", reserved, a.Reserved)
	d.amount("credit_limit", limit, a.CreditLimit)
	d.values("frozen", frozen, a.Frozen)
	d.values("last_seq", lastSeq, a.LastSeq)
	s.report.Balances = s.report.Balances.Add(free).Add(held)
	s.reserved[name] = held
	switch wrong := d.text(); {
	case surplus:
		s.report.findf(CheckAccount, domain.Position{}, name, "shard %d has a row in ledger_accounts and no event of it (%s)", s.shard, s.home(name))
	case wrong != "":
		s.report.findf(CheckAccount, s.at(a.LastSeq), name, "%s", wrong)
	}
	return nil
}

func (s *shardCheck) home(account string) string {
	return fmt.Sprintf("its shard is %d", domain.ShardOf(account, s.meta.Shards))
}

func (s *shardCheck) reservations(ctx context.Context) error {
	missing := s.books.Reservations
	holds := map[string]domain.Amount{}
	err := s.each(ctx, func(rows pgx.Rows) error {
		s.report.Reservations++
		return s.reservation(rows, missing, holds)
	}, `SELECT request_id, account, amount::text, held::text, state, reserved_seq, settled_seq, late_seq, owner
		FROM ledger_reservations WHERE shard = $1 ORDER BY request_id`, s.shard)
	if err != nil {
		return err
	}
	for _, r := range slices.SortedFunc(maps.Values(missing), bySeq) {
		s.report.findf(CheckReservation, s.at(r.ReservedSeq), r.Account, "request %s has events and no row in ledger_reservations", r.RequestID)
	}
	for _, name := range slices.Sorted(maps.Keys(s.reserved)) {
		if !s.reserved[name].Equal(holds[name]) {
			s.report.findf(CheckReserved, domain.Position{}, name, "reserved is %s, its reservations hold %s", s.reserved[name], holds[name])
		}
	}
	return nil
}

func bySeq(a, b *domain.Reservation) int {
	return cmp.Or(cmp.Compare(a.ReservedSeq, b.ReservedSeq), bytes.Compare(a.RequestID[:], b.RequestID[:]))
}

func (s *shardCheck) reservation(rows pgx.Rows, missing map[uuid.UUID]*domain.Reservation, holds map[string]domain.Amount) error {
	var id, owner [16]byte
	var account, amount, held, state string
	var reservedSeq, settledSeq, lateSeq int64
	if err := rows.Scan(&id, &account, &amount, &held, &state, &reservedSeq, &settledSeq, &lateSeq, &owner); err != nil {
		return err
	}
	if h, err := domain.ParseAmount(held); err == nil {
		holds[account] = holds[account].Add(h)
	}
	r := missing[id]
	delete(missing, id)
	if r == nil {
		s.report.findf(CheckReservation, s.at(reservedSeq), account, "request %s has a row in ledger_reservations and no reserve", uuid.UUID(id))
		return nil
	}
	var d differences
	d.values("account", account, r.Account)
	d.amount("amount", amount, r.Amount)
	d.amount("held", held, r.Held)
	d.values("state", state, string(r.State))
	d.values("reserved_seq", reservedSeq, r.ReservedSeq)
	d.values("settled_seq", settledSeq, r.SettledSeq)
	d.values("late_seq", lateSeq, r.LateSeq)
	d.values("owner", uuid.UUID(owner), r.Owner)
	if r.State != domain.ReservationOpen && !r.Held.IsZero() {
		d = append(d, fmt.Sprintf("the events never gave back the %s that it still holds", r.Held))
	}
	if wrong := d.text(); wrong != "" {
		s.report.findf(CheckReservation, s.at(r.ReservedSeq), r.Account, "request %s: %s", r.RequestID, wrong)
	}
	return nil
}

// references holds what makes a thing happen once against the events: references of movements, and
// the keys of requests.
func (s *shardCheck) references(ctx context.Context) error {
	used := map[domain.Reference]int64{}
	for ref, use := range s.books.References {
		used[ref] = use.Seq
	}
	if err := s.once(ctx, "reference", CheckReference, used); err != nil {
		return err
	}
	taken := map[domain.Reference]int64{}
	for key, use := range s.books.Keys {
		taken[domain.Reference(key)] = use.Seq
	}
	return s.once(ctx, "request", CheckKey, taken)
}

// once compares the rows of one scope with the events that they must name.
func (s *shardCheck) once(ctx context.Context, scope string, check Check, missing map[domain.Reference]int64) error {
	err := s.each(ctx, func(rows pgx.Rows) error {
		var ref domain.Reference
		var seq int64
		if err := rows.Scan(&ref.Account, &ref.Key, &seq); err != nil {
			return err
		}
		use, ok := missing[ref]
		delete(missing, ref)
		switch {
		case !ok:
			s.report.findf(check, s.at(seq), ref.Account, "the %s %q has a row in ledger_idempotency and no event", check, ref.Key)
		case use != seq:
			s.report.findf(check, s.at(use), ref.Account, "the %s %q is used by seq %d, its row says %d", check, ref.Key, use, seq)
		}
		return nil
	}, `SELECT account, key, seq FROM ledger_idempotency WHERE shard = $1 AND scope = $2 ORDER BY account, key`, s.shard, scope)
	if err != nil {
		return err
	}
	left := slices.SortedFunc(maps.Keys(missing), func(a, b domain.Reference) int { return cmp.Compare(missing[a], missing[b]) })
	for _, ref := range left {
		s.report.findf(check, s.at(missing[ref]), ref.Account, "the %s %q has no row in ledger_idempotency", check, ref.Key)
	}
	return nil
}
