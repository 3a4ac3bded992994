package simulation

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// What the owners of reservations and the sweeper of package sweep find in Postgres.

const ownerPrefix = "owner:"

// held notes, for the auditor, that an owner's lease is held from now until a time. The caller has the
// lock, as in the next one.
func (d *database) held(name string, now, until time.Time) {
	l := d.lives[strings.TrimPrefix(name, ownerPrefix)]
	if l == nil || !strings.HasPrefix(name, ownerPrefix) {
		return
	}
	if n := len(l.leases); n > 0 && !now.After(l.leases[n-1].to) {
		l.leases[n-1].to = until
		return
	}
	l.leases = append(l.leases, span{now, until})
}

func (d *database) givenUp(name string, now time.Time) {
	l := d.lives[strings.TrimPrefix(name, ownerPrefix)]
	if l != nil && strings.HasPrefix(name, ownerPrefix) && len(l.leases) > 0 {
		l.leases[len(l.leases)-1].to = now
	}
}

// owned says whether an owner's lease has not run out.
func (d *database) owned(owner uuid.UUID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	row, ok := d.leases[ownerPrefix+owner.String()]
	return ok && !row.until.Before(time.Now())
}

// openReservation is a row of ledger_reservations.
type openReservation struct {
	account        string
	request, owner uuid.UUID
}

// openReservations are those that nobody has ended, in order.
func (w *world) openReservations() (open []openReservation) {
	for shard := range int32(w.plan.shards) {
		for _, e := range w.eventsOf(shard) {
			switch d := e.Event.Data.(type) {
			case *domain.ReserveData:
				open = append(open, openReservation{e.Event.Account, e.Event.RequestID, d.Owner})
			case *domain.CommitData, *domain.RefundData:
				open = slices.DeleteFunc(open, func(o openReservation) bool { return o.request == e.Event.RequestID })
			}
		}
	}
	return open
}

// look is the sweeper's statement: when the server began, its time, and the orphans.
func (l *leasePool) look(ctx context.Context, limit int) (pgx.Rows, error) {
	if _, err := l.p.enter(ctx, kindRead, "sweeper looks"); err != nil {
		return nil, err
	}
	w := l.p.w
	orphans := slices.DeleteFunc(w.openReservations(), func(o openReservation) bool {
		return w.database.owned(o.owner) && w.bug != bugHastySweeper
	})
	orphans = orphans[:min(limit, len(orphans))]
	now, started := time.Now(), w.database.startedAt()
	return &rows{n: max(1, len(orphans)), scan: func(i int, into []any) {
		*into[0].(*time.Time), *into[1].(*time.Time) = started, now
		id, account, owner := into[2].(*pgtype.UUID), into[3].(*pgtype.Text), into[4].(*pgtype.UUID)
		if *id, *account, *owner = (pgtype.UUID{}), (pgtype.Text{}), (pgtype.UUID{}); i < len(orphans) {
			o := orphans[i]
			*id, *account, *owner = pgtype.UUID{Bytes: o.request, Valid: true}, pgtype.Text{String: o.account, Valid: true}, pgtype.UUID{Bytes: o.owner, Valid: true}
		}
	}}, nil
}

func newID() uuid.UUID { return domain.CommandID(uuid.Must(uuid.NewV7())) }
