package sweep

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// world is a Postgres as far as owners and sweepers can see it, on the fake clock of testing/synctest,
// beside a ledger in memory. It must be made in a bubble.
type world struct {
	*ledger.Memory

	mu       sync.Mutex
	started  time.Time
	ahead    time.Duration // its clock, of ours
	leases   map[string]row
	books    *domain.Books
	answers  int // kept responses that are too old
	tidied   int // how often it was tidied up
	appended int
	inFlight int
	most     int // appends at once
	append   func(c domain.Command) error
	slow     time.Duration // each append
	untidy   error
	lose     bool // the next append happens, and its answer is lost
}

type row struct {
	owner uuid.UUID
	until time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{leases: map[string]row{}, books: domain.NewBooks(), started: time.Now().Add(-time.Hour)}
	w.Memory = ledger.NewMemory(uuid.New(), 4, "USD", time.Now, ledger.Hooks{Appended: func(events []domain.Recorded) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range events {
			if err := w.books.Apply(&e.Event); err != nil {
				t.Error(err)
			}
		}
	}})
	t.Cleanup(w.Close)
	return w
}

// Append is the ledger's, with the failures that a test wants.
func (w *world) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	w.mu.Lock()
	fails, slow, lose := w.append, w.slow, w.lose
	w.lose = false
	w.appended++
	w.inFlight++
	w.most = max(w.most, w.inFlight)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.inFlight--
		w.mu.Unlock()
	}()
	if !within(ctx, slow) {
		return domain.Outcome{}, ctx.Err()
	}
	if fails != nil {
		if err := fails(c); err != nil {
			return domain.Outcome{}, err
		}
	}
	out, err := w.Memory.Append(ctx, c)
	if lose && err == nil {
		return domain.Outcome{}, domain.ErrUnavailable
	}
	return out, err
}

// within lets a time of the fake clock pass, or ctx end.
func within(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// pass lets a time of the fake clock pass.
func pass(d time.Duration) { within(context.Background(), d) }

// change changes the world.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) now() time.Time { return time.Now().Add(w.ahead) }

// reserve opens n reservations of an owner, of accounts of its own.
func (w *world) reserve(t *testing.T, owner uuid.UUID, n int) (requests []uuid.UUID) {
	t.Helper()
	for i := range n {
		id := uuid.New()
		requests = append(requests, id)
		account := fmt.Sprintf("%s-%d", owner, i%8)
		mustAppend(t, w.Memory, account, domain.Open{Grant: domain.MustAmount("100000"), Actor: "test"})
		mustAppend(t, w.Memory, account, domain.Reserve{RequestID: id, Amount: domain.MustAmount("1"), Data: domain.ReserveData{Surface: "test", Owner: owner}})
	}
	return requests
}

// states counts the reservations of an owner by their state.
func (w *world) states(owner uuid.UUID) map[domain.ReservationState]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[domain.ReservationState]int{}
	for _, r := range w.books.Reservations {
		if r.Owner == owner {
			out[r.State]++
		}
	}
	return out
}

// want fails unless so many of an owner's reservations are open, and so many expired.
func (w *world) want(t *testing.T, owner uuid.UUID, open, expired int) {
	t.Helper()
	if got := w.states(owner); got[domain.ReservationOpen] != open || got[domain.ReservationExpired] != expired {
		t.Fatalf("%v; wanted are %d open and %d expired", got, open, expired)
	}
}

// link is one process's way to the world: a lease.Pool.
type link struct {
	w *world

	mu      sync.Mutex
	state   state
	changed chan struct{}
	freeze  time.Duration // after the next answer has come: the process stands still
	slow    time.Duration // before each answer
}

func (w *world) link() *link { return &link{w: w, changed: make(chan struct{})} }

func (l *link) become(s state) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	close(l.changed)
	l.changed = make(chan struct{})
}

// pass waits as long as the state says.
func (l *link) pass(ctx context.Context) error {
	l.mu.Lock()
	state, changed, slow := l.state, l.changed, l.slow
	l.mu.Unlock()
	switch state {
	case broken:
		return errBroken
	case silent:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	case frozen:
		<-changed
	}
	if !within(ctx, slow) {
		return ctx.Err()
	}
	return nil
}

// thaw stands still where that is wanted.
func (l *link) thaw() {
	l.mu.Lock()
	freeze := l.freeze
	l.freeze = 0
	l.mu.Unlock()
	pass(freeze)
}

func (l *link) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	defer l.thaw()
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	switch {
	case sql == selectLook:
		return l.w.look(args[0].(int)), nil
	case strings.HasPrefix(sql, "INSERT INTO ledger_leases"):
		return l.w.take(args[0].([]string), args[1].(pgtype.UUID).Bytes, time.Duration(args[2].(int64)*int64(time.Microsecond))), nil
	}
	return nil, fmt.Errorf("the world does not know %s", sql)
}

func (l *link) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := l.pass(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	switch sql {
	case deleteResponses:
		l.w.tidied++
		n := min(l.w.answers, args[1].(int))
		l.w.answers -= n
		return pgconn.NewCommandTag(fmt.Sprint("DELETE ", n)), l.w.untidy
	case deleteOwners, deleteBelongings:
		return pgconn.NewCommandTag("DELETE 0"), nil
	}
	for _, name := range args[0].([]string) {
		if l.w.leases[name].owner == uuid.UUID(args[1].(pgtype.UUID).Bytes) {
			delete(l.w.leases, name)
		}
	}
	return pgconn.NewCommandTag("DELETE 1"), nil
}

// look is the look at orphans. The order is that of a map.
func (w *world) look(limit int) pgx.Rows {
	out := &fakeRows{}
	for _, r := range w.books.Reservations {
		lease, ok := w.leases[ownerLease(r.Owner)]
		if r.State == domain.ReservationOpen && (!ok || lease.until.Before(w.now())) && len(out.rows) < limit {
			out.rows = append(out.rows, []any{w.started, w.now(), pgtype.UUID{Bytes: r.RequestID, Valid: true},
				pgtype.Text{String: r.Account, Valid: true}, pgtype.UUID{Bytes: r.Owner, Valid: true}})
		}
	}
	if len(out.rows) == 0 {
		out.rows = append(out.rows, []any{w.started, w.now(), pgtype.UUID{}, pgtype.Text{}, pgtype.UUID{}})
	}
	return out
}

func (w *world) take(names []string, owner uuid.UUID, term time.Duration) pgx.Rows {
	out := &fakeRows{}
	for _, name := range names {
		if held, ok := w.leases[name]; !ok || held.owner == owner || held.until.Before(w.now()) {
			w.leases[name] = row{owner, w.now().Add(term)}
			out.rows = append(out.rows, []any{name})
		}
	}
	return out
}

// fakeRows are rows that a test made.
type fakeRows struct {
	pgx.Rows

	rows [][]any
	row  []any
}

func (r *fakeRows) Close()                        {}
func (r *fakeRows) Err() error                    { return nil }
func (r *fakeRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }

func (r *fakeRows) Next() bool {
	if len(r.rows) == 0 {
		return false
	}
	r.row, r.rows = r.rows[0], r.rows[1:]
	return true
}

func (r *fakeRows) Scan(into ...any) error {
	for i, value := range r.row {
		switch to := into[i].(type) {
		case *string:
			*to = value.(string)
		case *time.Time:
			*to = value.(time.Time)
		case *pgtype.UUID:
			*to = value.(pgtype.UUID)
		case *pgtype.Text:
			*to = value.(pgtype.Text)
		default:
			return errors.New("an unknown type")
		}
	}
	return nil
}
