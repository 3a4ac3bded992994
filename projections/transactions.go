package projections

import (
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// transactions is the projection of every account's statement.
type transactions struct{}

func (transactions) name() string { return "transactions" }

func (transactions) columns() (key, others []string) {
	return []string{"shard", "account", "seq"},
		[]string{"id", "kind", "amount", "reference", "reason", "surface", "model", "request_id", "occurred_at"}
}

func (transactions) fold(b *pgx.Batch, table string, shard int32, events []domain.Recorded) {
	var accounts, kinds, amounts, references, reasons, surfaces, models []string
	var seqs []int64
	var ids, requests []pgtype.UUID
	var times []time.Time
	for i := range events {
		t, ok := domain.TransactionOf(&events[i].Event)
		if !ok {
			continue
		}
		accounts, seqs, ids = append(accounts, events[i].Event.Account), append(seqs, t.Seq), append(ids, pgUUID(t.ID))
		kinds, amounts = append(kinds, string(t.Kind)), append(amounts, t.Amount.String())
		references, reasons = append(references, clean(t.Reference)), append(reasons, clean(t.Reason))
		surfaces, models = append(surfaces, clean(t.Surface)), append(models, clean(t.Model))
		requests, times = append(requests, pgUUID(t.RequestID)), append(times, t.OccurredAt)
	}
	if len(seqs) == 0 {
		return
	}
	b.Queue(`INSERT INTO `+quoted(table)+` (shard, account, seq, id, kind, amount, reference, reason, surface, model, request_id, occurred_at)
		SELECT $1::int, account, seq, id, kind, amount::numeric, reference, reason, surface, model, request_id, occurred_at
		FROM unnest($2::text[], $3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
			$10::text[], $11::uuid[], $12::timestamptz[])
		AS n(account, seq, id, kind, amount, reference, reason, surface, model, request_id, occurred_at)`,
		shard, accounts, seqs, ids, kinds, amounts, references, reasons, surfaces, models, requests, times).Exec(wantRows(len(seqs), table))
}

// clean makes a text of an event fit for a column and an index. What the gateway writes is; an event
// from elsewhere must not stop a projection for good.
func clean(s string) string { return domain.CleanText(s, domain.MaxReference) }

// pgUUID is an id as a parameter, uuid.Nil as NULL: behind a pooler its Go type tells the server what
// it is, which an array of bytes does not.
func pgUUID(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: id != uuid.Nil} }
