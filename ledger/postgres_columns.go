package ledger

import (
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// columns are the arrays that a statement unnests: rows many, one array an argument.
type columns struct {
	rows int
	args []any
}

// eventColumns are the arguments of insertEvents.
func eventColumns(events []written) []any {
	n := len(events)
	shards, seqs, schemas := make([]int32, n), make([]int64, n), make([]int32, n)
	eventIDs, requests := make([]pgtype.UUID, n), make([]pgtype.UUID, n)
	kinds, accounts, debits, credits := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	amounts, currencies, times := make([]string, n), make([]string, n), make([]time.Time, n)
	payloads, hashes := make([][]byte, n), make([][]byte, n)
	for i := range events {
		e := &events[i].event
		shards[i], seqs[i], schemas[i] = e.Shard, e.Seq, int32(e.Schema)
		eventIDs[i] = pgUUID(e.ID)
		if e.RequestID != uuid.Nil { // else NULL
			requests[i] = pgUUID(e.RequestID)
		}
		kinds[i], accounts[i], debits[i], credits[i] = string(e.Kind), e.Account, e.Debit, e.Credit
		amounts[i], currencies[i], times[i] = e.Amount.String(), e.Currency, e.OccurredAt
		payloads[i], hashes[i] = events[i].payload, events[i].hash[:]
	}
	return []any{shards, seqs, schemas, eventIDs, kinds, accounts, requests, debits, credits, amounts,
		currencies, times, payloads, hashes}
}

// accountColumns are the arguments of insertAccounts (the first seven) and updateAccounts.
func (p *plan) accountColumns(shardCount int) (opened, moved columns) {
	return p.accountRows(shardCount, true), p.accountRows(shardCount, false)
}

func (p *plan) accountRows(shardCount int, opened bool) columns {
	var shards []int32
	var names, available, reserved, limits []string
	var frozen []bool
	var last, before []int64
	for name, a := range p.accounts {
		if (p.seqs[name] == 0) != opened {
			continue
		}
		shards, names = append(shards, domain.ShardOf(name, shardCount)), append(names, name)
		available, reserved = append(available, a.Available.String()), append(reserved, a.Reserved.String())
		limits, frozen = append(limits, a.CreditLimit.String()), append(frozen, a.Frozen)
		last, before = append(last, a.LastSeq), append(before, p.seqs[name])
	}
	return columns{len(names), []any{shards, names, available, reserved, limits, frozen, last, before}}
}

// reservationColumns are the arguments of insertReservations and updateReservations.
func (p *plan) reservationColumns(shardCount int) (made, settled columns) {
	var shards, shards2 []int32
	var requests, requests2, owners []pgtype.UUID
	var accounts, amounts, held, states, held2, states2, before []string
	var reservedSeqs, settledSeqs, lateSeqs, settledSeqs2, lateSeqs2 []int64
	for id, r := range p.reservations {
		shard := domain.ShardOf(r.Account, shardCount)
		if p.states[id] == "" {
			shards, requests, accounts = append(shards, shard), append(requests, pgUUID(id)), append(accounts, r.Account)
			amounts, held = append(amounts, r.Amount.String()), append(held, r.Held.String())
			states, owners = append(states, string(r.State)), append(owners, pgUUID(r.Owner))
			reservedSeqs, settledSeqs = append(reservedSeqs, r.ReservedSeq), append(settledSeqs, r.SettledSeq)
			lateSeqs = append(lateSeqs, r.LateSeq)
			continue
		}
		shards2, requests2 = append(shards2, shard), append(requests2, pgUUID(id))
		held2, states2 = append(held2, r.Held.String()), append(states2, string(r.State))
		settledSeqs2, lateSeqs2 = append(settledSeqs2, r.SettledSeq), append(lateSeqs2, r.LateSeq)
		before = append(before, string(p.states[id]))
	}
	made = columns{len(requests), []any{shards, requests, accounts, amounts, held, states, reservedSeqs, settledSeqs, lateSeqs, owners}}
	settled = columns{len(requests2), []any{shards2, requests2, held2, states2, settledSeqs2, lateSeqs2, before}}
	return made, settled
}

// referenceColumns are the arguments of insertReferences.
func (p *plan) referenceColumns() columns {
	var shards []int32
	var accounts, keys []string
	var seqs []int64
	for _, w := range p.events {
		if m, ok := w.event.Data.(*domain.MovementData); ok {
			shards = append(shards, w.event.Shard)
			accounts, keys = append(accounts, w.event.Account), append(keys, m.Reference)
			seqs = append(seqs, w.event.Seq)
		}
	}
	return columns{len(keys), []any{shards, accounts, keys, seqs}}
}

// keyColumns are the arguments of takeKeys. A key that is taken twice in a batch is the last one's.
func (p *plan) keyColumns() columns {
	var shards []int32
	var accounts, keys []string
	var seqs []int64
	last := map[domain.Key]*domain.Event{}
	for i := range p.events {
		if key, _, ok := domain.KeyOf(&p.events[i].event); ok {
			last[key] = &p.events[i].event
		}
	}
	for key, e := range last {
		shards, seqs = append(shards, e.Shard), append(seqs, e.Seq)
		accounts, keys = append(accounts, key.Account), append(keys, key.Key)
	}
	return columns{len(keys), []any{shards, accounts, keys, seqs}}
}

// responseColumns are the arguments of insertResponses.
func (p *plan) responseColumns(shardCount int) columns {
	var shards []int32
	var requests []pgtype.UUID
	var bodies [][]byte
	var broken []bool
	for id, r := range p.responses {
		shards = append(shards, domain.ShardOf(p.reservations[id].Account, shardCount))
		requests = append(requests, pgUUID(id))
		body := r.Body
		if body == nil { // an answer of nothing; nil would be SQL's NULL
			body = []byte{}
		}
		bodies, broken = append(bodies, body), append(broken, r.Broken)
	}
	return columns{len(requests), []any{shards, requests, bodies, broken}}
}

// headColumns are the arguments of updateHeads, for the shards that moved.
func headColumns(after, before map[int32]head) columns {
	var shards []int32
	var seqs, seqsBefore []int64
	var hashes [][]byte
	var times []time.Time
	for shard, h := range after {
		if h.Seq == before[shard].Seq {
			continue
		}
		shards, seqs, seqsBefore = append(shards, shard), append(seqs, h.Seq), append(seqsBefore, before[shard].Seq)
		hashes, times = append(hashes, h.Hash[:]), append(times, h.Time)
	}
	return columns{len(shards), []any{shards, seqs, hashes, times, seqsBefore}}
}
