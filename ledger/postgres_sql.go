package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// The statements of an append. lockHeads stands alone: whatever is joined to it could be older than
// the lock.
const (
	lockHeads = `SELECT shard, last_seq, last_hash, last_time, epoch FROM ledger_shards
		WHERE shard = ANY($1::int[]) ORDER BY shard FOR UPDATE`

	loadAccounts = `SELECT a.account, a.available::text, a.reserved::text, a.credit_limit::text, a.frozen, a.last_seq
		FROM unnest($1::int[], $2::text[]) w(shard, account)
		JOIN ledger_accounts a ON a.shard = w.shard AND a.account = w.account`

	loadReservations = `SELECT r.request_id, r.account, r.amount::text, r.held::text, r.state, r.reserved_seq, r.settled_seq, r.late_seq, r.owner
		FROM unnest($1::int[], $2::uuid[]) w(shard, request_id)
		JOIN ledger_reservations r ON r.shard = w.shard AND r.request_id = w.request_id`

	loadReferences = `SELECT i.account, i.key, e.payload, e.hash
		FROM unnest($1::int[], $2::text[], $3::text[]) w(shard, account, key)
		JOIN ledger_idempotency i ON i.shard = w.shard AND i.account = w.account AND i.scope = 'reference' AND i.key = w.key
		JOIN ledger_events e ON e.shard = i.shard AND e.seq = i.seq`

	// The request that has a key, and when it was settled.
	loadKeys = `SELECT r.request_id, r.account, r.amount::text, r.held::text, r.state, r.reserved_seq, r.settled_seq, r.late_seq, r.owner,
			e.payload, s.occurred_at
		FROM unnest($1::int[], $2::text[], $3::text[]) w(shard, account, key)
		JOIN ledger_idempotency i ON i.shard = w.shard AND i.account = w.account AND i.scope = 'request' AND i.key = w.key
		JOIN ledger_events e ON e.shard = i.shard AND e.seq = i.seq
		JOIN ledger_reservations r ON r.shard = e.shard AND r.request_id = e.request_id
		LEFT JOIN ledger_events s ON s.shard = r.shard AND s.seq = r.settled_seq`

	// A command's events follow each other, at most four of them; the caller drops its neighbours'.
	loadEarlier = `SELECT e.payload, e.hash FROM unnest($1::int[], $2::uuid[]) w(shard, id)
		JOIN ledger_events f ON f.shard = w.shard AND f.id = w.id
		JOIN ledger_events e ON e.shard = f.shard AND e.seq BETWEEN f.seq AND f.seq + 3
		ORDER BY e.shard, e.seq`

	insertEvents = `INSERT INTO ledger_events
		(shard, seq, schema, id, kind, account, request_id, debit, credit, amount, currency, occurred_at, payload, hash)
		SELECT shard, seq, schema, id, kind, account, request_id, debit, credit, amount::numeric, currency, occurred_at, payload, hash
		FROM unnest($1::int[], $2::bigint[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::uuid[], $8::text[],
			$9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::bytea[], $14::bytea[])
		AS e(shard, seq, schema, id, kind, account, request_id, debit, credit, amount, currency, occurred_at, payload, hash)`

	insertAccounts = `INSERT INTO ledger_accounts (shard, account, available, reserved, credit_limit, frozen, last_seq)
		SELECT shard, account, available::numeric, reserved::numeric, credit_limit::numeric, frozen, last_seq
		FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::bigint[])
		AS n(shard, account, available, reserved, credit_limit, frozen, last_seq)`

	updateAccounts = `UPDATE ledger_accounts a SET available = n.available::numeric, reserved = n.reserved::numeric,
			credit_limit = n.credit_limit::numeric, frozen = n.frozen, last_seq = n.last_seq
		FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::bigint[], $8::bigint[])
		AS n(shard, account, available, reserved, credit_limit, frozen, last_seq, seq_before)
		WHERE a.shard = n.shard AND a.account = n.account AND a.last_seq = n.seq_before`

	insertReservations = `INSERT INTO ledger_reservations
		(shard, request_id, account, amount, held, state, reserved_seq, settled_seq, late_seq, owner)
		SELECT shard, request_id, account, amount::numeric, held::numeric, state, reserved_seq, settled_seq, late_seq, owner
		FROM unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[])
		AS n(shard, request_id, account, amount, held, state, reserved_seq, settled_seq, late_seq, owner)`

	updateReservations = `UPDATE ledger_reservations r SET held = n.held::numeric, state = n.state, settled_seq = n.settled_seq, late_seq = n.late_seq
		FROM unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])
		AS n(shard, request_id, held, state, settled_seq, late_seq, state_before)
		WHERE r.shard = n.shard AND r.request_id = n.request_id AND r.state = n.state_before`

	insertReferences = `INSERT INTO ledger_idempotency (shard, account, scope, key, seq)
		SELECT shard, account, 'reference', key, seq
		FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[]) AS n(shard, account, key, seq)`

	takeKeys = `INSERT INTO ledger_idempotency (shard, account, scope, key, seq)
		SELECT shard, account, 'request', key, seq
		FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[]) AS n(shard, account, key, seq)
		ON CONFLICT (shard, account, scope, key) DO UPDATE SET seq = excluded.seq`

	insertResponses = `INSERT INTO ledger_responses (shard, request_id, body, broken)
		SELECT shard, request_id, body, broken
		FROM unnest($1::int[], $2::uuid[], $3::bytea[], $4::bool[]) AS n(shard, request_id, body, broken)`

	updateHeads = `UPDATE ledger_shards s SET last_seq = n.last_seq, last_hash = n.last_hash, last_time = n.last_time
		FROM unnest($1::int[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::bigint[])
		AS n(shard, last_seq, last_hash, last_time, seq_before)
		WHERE s.shard = n.shard AND s.last_seq = n.seq_before`
)

// lockAndLoad begins the dbtx, locks the heads, and loads, all in one round trip. The statements run
// one after the other on the server: each of the later ones sees what was committed before the lock
// was got.
func (s *postgresStore) lockAndLoad(ctx context.Context, lane *laneConn, w *wanted) (*loaded, error) {
	l := &loaded{heads: map[int32]head{}, books: domain.NewBooks(), earlier: map[uuid.UUID][]domain.Recorded{}}
	b := &pgx.Batch{}
	for _, sql := range s.prelude {
		b.Queue(sql)
	}
	if s.pooled { // each dbtx may get another server
		b.Queue(lane.asks).QueryRow(lane.sameServer)
	}
	b.Queue(lockHeads, w.shards).Query(l.scanHeads)
	b.Queue(loadAccounts, w.accountShards(), w.accounts).Query(l.scanAccounts)
	if len(w.requests) > 0 {
		b.Queue(loadReservations, w.requestShards(), ids(w.requests)).Query(l.scanReservations)
	}
	if len(w.references) > 0 {
		shards, accounts, keys := w.referenceColumns()
		b.Queue(loadReferences, shards, accounts, keys).Query(l.scanReferences)
	}
	if len(w.keys) > 0 { // behind the reservations: what is loaded there lacks the time
		shards, accounts, keys := w.keyColumns()
		b.Queue(loadKeys, shards, accounts, keys).Query(l.scanKeys)
	}
	if err := lane.conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("locking and loading: %w", err)
	}
	if len(l.heads) != len(w.shards) {
		return nil, fmt.Errorf("locking %d shards found %d: the ledger is not whole", len(w.shards), len(l.heads))
	}
	return l, nil
}

// loadRepeats brings the first outcomes of the commands that may have happened before. They are few:
// most batches do without this round trip.
func (s *postgresStore) loadRepeats(ctx context.Context, conn *pgx.Conn, l *loaded, w *wanted, batch []domain.Command) error {
	var shards []int32
	var commands []uuid.UUID
	for _, c := range batch {
		if l.books.MayRepeat(c) {
			shards, commands = append(shards, w.shardOf[c.Account]), append(commands, c.ID)
		}
	}
	if len(commands) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, loadEarlier, shards, ids(commands))
	if err == nil {
		err = l.scanEarlier(rows, commands)
	}
	if err != nil {
		return fmt.Errorf("loading earlier outcomes: %w", err)
	}
	return nil
}

func (w *wanted) accountShards() []int32 {
	out := make([]int32, len(w.accounts))
	for i, name := range w.accounts {
		out[i] = w.shardOf[name]
	}
	return out
}

func (w *wanted) requestShards() []int32 {
	out := make([]int32, len(w.requests))
	for i, id := range w.requests {
		out[i] = w.requestAt[id]
	}
	return out
}

func (w *wanted) referenceColumns() (shards []int32, accounts, keys []string) {
	for _, ref := range w.references {
		shards = append(shards, w.shardOf[ref.Account])
		accounts = append(accounts, ref.Account)
		keys = append(keys, ref.Key)
	}
	return shards, accounts, keys
}

func (w *wanted) keyColumns() (shards []int32, accounts, keys []string) {
	for _, k := range w.keys {
		shards = append(shards, w.shardOf[k.Account])
		accounts = append(accounts, k.Account)
		keys = append(keys, k.Key)
	}
	return shards, accounts, keys
}

func ids(in []uuid.UUID) []pgtype.UUID {
	out := make([]pgtype.UUID, len(in))
	for i, id := range in {
		out[i] = pgUUID(id)
	}
	return out
}

func (l *loaded) scanHeads(rows pgx.Rows) error {
	for rows.Next() {
		var shard int32
		var h head
		var hash []byte
		if err := rows.Scan(&shard, &h.Seq, &hash, &h.Time, &h.Epoch); err != nil {
			return err
		}
		h.Hash, h.Time = domain.Hash(hash), h.Time.UTC()
		l.heads[shard] = h
	}
	return rows.Err()
}

func (l *loaded) scanAccounts(rows pgx.Rows) error {
	for rows.Next() {
		a, err := scanAccount(rows)
		if err != nil {
			return err
		}
		l.books.Accounts[a.Name] = a
	}
	return rows.Err()
}

func (l *loaded) scanReservations(rows pgx.Rows) error {
	for rows.Next() {
		r, err := scanReservation(rows)
		if err != nil {
			return err
		}
		l.books.Reservations[r.RequestID] = r
	}
	return rows.Err()
}

// scanAccount reads the columns account, available, reserved, credit_limit, frozen, last_seq.
func scanAccount(row pgx.Row) (*domain.Account, error) {
	var a domain.Account
	var available, reserved, limit string
	err := row.Scan(&a.Name, &available, &reserved, &limit, &a.Frozen, &a.LastSeq)
	if err != nil {
		return nil, err
	}
	return &a, parseAmounts([]string{available, reserved, limit}, &a.Available, &a.Reserved, &a.CreditLimit)
}

// scanReservation reads the columns of loadReservations, and what more is asked for behind them.
func scanReservation(row pgx.Row, more ...any) (*domain.Reservation, error) {
	var r domain.Reservation
	var id, owner [16]byte
	var amount, held string
	columns := []any{&id, &r.Account, &amount, &held, &r.State, &r.ReservedSeq, &r.SettledSeq, &r.LateSeq, &owner}
	err := row.Scan(append(columns, more...)...)
	if err != nil {
		return nil, err
	}
	r.RequestID, r.Owner = id, owner
	return &r, parseAmounts([]string{amount, held}, &r.Amount, &r.Held)
}

func parseAmounts(texts []string, into ...*domain.Amount) (err error) {
	for i, text := range texts {
		if *into[i], err = domain.ParseAmount(text); err != nil {
			return err
		}
	}
	return nil
}

func (l *loaded) scanReferences(rows pgx.Rows) error {
	for rows.Next() {
		var ref domain.Reference
		var payload, hash []byte
		if err := rows.Scan(&ref.Account, &ref.Key, &payload, &hash); err != nil {
			return err
		}
		e, err := domain.Decode(payload)
		if err != nil {
			return err
		}
		l.books.References[ref] = domain.Use{ID: e.ID, Seq: e.Seq, Kind: e.Kind, Amount: e.Amount}
		l.earlier[e.ID] = []domain.Recorded{{Event: *e, Payload: payload, Hash: domain.Hash(hash)}}
	}
	return rows.Err()
}

// scanKeys loads who has a key, with its request.
func (l *loaded) scanKeys(rows pgx.Rows) error {
	for rows.Next() {
		var payload []byte
		var settled *time.Time
		r, err := scanReservation(rows, &payload, &settled)
		if err != nil {
			return err
		}
		if settled != nil {
			r.SettledAt = settled.UTC()
		}
		e, err := domain.Decode(payload)
		if err != nil {
			return err
		}
		key, use, ok := domain.KeyOf(e)
		if !ok {
			return fmt.Errorf("the row of a key names %s, which took none", e.Position())
		}
		l.books.Keys[key], l.books.Reservations[r.RequestID] = use, r
	}
	return rows.Err()
}

// scanEarlier keeps the events of the batch's own commands, each once.
func (l *loaded) scanEarlier(rows pgx.Rows, commands []uuid.UUID) error {
	defer rows.Close()
	seen := map[uuid.UUID]bool{} // a neighbour's query may bring an event, and loadReferences another
	for id := range l.earlier {
		seen[id] = true
	}
	for rows.Next() {
		var payload, hash []byte
		if err := rows.Scan(&payload, &hash); err != nil {
			return err
		}
		e, err := domain.Decode(payload)
		if err != nil {
			return err
		}
		command := domain.CommandID(e.ID)
		if seen[e.ID] || !slices.Contains(commands, command) {
			continue
		}
		seen[e.ID] = true
		l.earlier[command] = append(l.earlier[command], domain.Recorded{Event: *e, Payload: payload, Hash: domain.Hash(hash)})
	}
	return rows.Err()
}

// write sends all statements of a plan in one round trip and holds each to its row count. COMMIT
// is not among them: it is sent only when every count was right.
func (s *postgresStore) write(ctx context.Context, conn *pgx.Conn, p *plan, before map[int32]head) error {
	b := &pgx.Batch{}
	var expected []int64
	queue := func(rows int, sql string, args ...any) {
		if rows > 0 {
			b.Queue(sql, args...)
			expected = append(expected, int64(rows))
		}
	}
	queue(len(p.events), insertEvents, eventColumns(p.events)...)
	opened, moved := p.accountColumns(s.meta.Shards)
	queue(opened.rows, insertAccounts, opened.args[:7]...)
	queue(moved.rows, updateAccounts, moved.args...)
	made, settled := p.reservationColumns(s.meta.Shards)
	queue(made.rows, insertReservations, made.args...)
	queue(settled.rows, updateReservations, settled.args...)
	used := p.referenceColumns()
	queue(used.rows, insertReferences, used.args...)
	taken := p.keyColumns()
	queue(taken.rows, takeKeys, taken.args...)
	kept := p.responseColumns(s.meta.Shards)
	queue(kept.rows, insertResponses, kept.args...)
	heads := headColumns(p.heads, before)
	queue(heads.rows, updateHeads, heads.args...)
	results := conn.SendBatch(ctx, b)
	defer results.Close() //nolint:errcheck // the first error is returned below
	for i, rows := range expected {
		tag, err := results.Exec()
		if err != nil {
			return fmt.Errorf("writing the batch: %w", err)
		}
		if tag.RowsAffected() != rows {
			return fmt.Errorf("%w: statement %d reports %d rows, not %d", errCount, i, tag.RowsAffected(), rows)
		}
	}
	return results.Close()
}
