package projections

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/domain"
)

// projection makes one table out of events. Live and rebuild use the same one, on different tables.
type projection interface {
	// name is the projection's, and that of its live table.
	name() string
	// fold queues the statements that add consecutive events of one shard to a table of this
	// projection. They run in the database transaction that moves the position over those events.
	fold(b *pgx.Batch, table string, shard int32, events []domain.Recorded)
	// columns are the table's, the key's first: what a comparison looks at.
	columns() (key, others []string)
}

// all are the projections there are.
var all = []projection{balances{}, transactions{}, stats{}}

// find returns the projection of a name.
func find(name string) (projection, error) {
	for _, p := range all {
		if p.name() == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("there is no projection %q: there are %s", name, strings.Join(Names(), ", "))
}

// Names are the names of the projections, which their live tables bear.
func Names() []string {
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.name()
	}
	return names
}

// CheckName says what is wrong with a name that is no projection's.
func CheckName(name string) error {
	_, err := find(name)
	return err
}

// position is how far a table has come in one shard.
type position struct {
	seq    int64 // of the last event applied; 0: none
	hash   domain.Hash
	at     time.Time // when that event occurred
	offset int64     // where in the partition reading goes on: a hint
}

// step is one table's way over consecutive events of one shard.
type step struct {
	projection projection
	table      string // where to: the live table, or another one beside it
	shard      int32
	from       position
	events     []domain.Recorded
	offset     int64 // the position's hint afterwards
}

// to is where the step ends.
func (s *step) to() position {
	last := &s.events[len(s.events)-1]
	return position{seq: last.Event.Seq, hash: last.Hash, at: last.Event.OccurredAt, offset: s.offset}
}

// errMoved says that a table's position was not where the step begins: another process has applied
// the events, or the table was exchanged. Nothing was written.
var errMoved = errors.New("the position has moved")

// errBroken says that events do not follow from a table's position, or that the table is not what its
// position says: a gap, a hash that does not extend the last one, rows that are missing or too many.
// Waiting does not mend it.
var errBroken = errors.New("the events do not follow")

// quoted makes a table's name fit for a statement.
func quoted(table string) string { return pgx.Identifier{table}.Sanitize() }

// wantRows returns a check that a statement wrote exactly n rows.
func wantRows(n int, table string) func(pgconn.CommandTag) error {
	return func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(n) {
			return fmt.Errorf("%w: the events change %d rows of %s, and %d were there to change", errBroken, n, table, tag.RowsAffected())
		}
		return nil
	}
}
