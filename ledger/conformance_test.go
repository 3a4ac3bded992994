package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/migrations/pgtest"
)

// subject is what both stores must be.
type subject interface {
	Append(ctx context.Context, c domain.Command) (domain.Outcome, error)
	Account(ctx context.Context, name string) (*domain.Account, error)
	Request(ctx context.Context, account string, id uuid.UUID) ([]domain.Recorded, error)
	Response(ctx context.Context, account string, id uuid.UUID) (*domain.Response, error)
	Transactions(ctx context.Context, account string, limit, offset int) ([]domain.Recorded, error)
	Events(ctx context.Context, shard int32, after int64, limit int) ([]domain.Recorded, error)
	Heads(ctx context.Context) ([]Head, error)
	Statement(ctx context.Context, account string, m domain.Month) (*domain.Statement, error)
	Meta() Meta
	Close()
}

const testShards = 4

// testRole is the role of the service: the suite runs with its rights, not the owner's.
const testRole = ServiceRole

func memorySubject(t testing.TB) subject {
	m := NewMemory(uuid.New(), testShards, "USD", time.Now)
	t.Cleanup(m.Close)
	return m
}

// postgresSubject is verified when its case is over.
func postgresSubject(t testing.TB) subject {
	p, _ := openPostgres(t)
	t.Cleanup(func() { wantClean(t, p.Reader) })
	return p
}

// pooledSubject works as behind a transaction pooler.
func pooledSubject(t testing.TB) subject {
	url := pgtest.URL(t)
	openAt(t, url).Close() // initialises it
	p := open(t, Config{URL: url, Pooled: true})
	t.Cleanup(func() { wantClean(t, p.Reader) })
	return p
}

// openPostgres makes a ledger in a schema of its own and returns it with the owner's URL.
func openPostgres(t testing.TB) (*Postgres, string) {
	t.Helper()
	url := pgtest.URL(t)
	return openAt(t, url), url
}

func openAt(t testing.TB, url string) *Postgres {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), config, uuid.New(), testShards, "USD"); err != nil {
		t.Fatal(err)
	}
	return open(t, Config{URL: url})
}

// open opens an initialised ledger as the service would.
func open(t testing.TB, c Config) *Postgres {
	t.Helper()
	c.Role, c.Shards, c.Currency = testRole, testShards, "USD"
	p, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestConformance holds both stores to the same contract.
func TestConformance(t *testing.T) {
	stores := map[string]func(testing.TB) subject{
		"memory": memorySubject, "postgres": postgresSubject, "behind a pooler": pooledSubject}
	cases := map[string]func(*testing.T, subject){
		"life of a request":                testLife,
		"repeats are answered as at first": testRepeats,
		"rejections write nothing":         testRejections,
		"a reference happens once":         testReferences,
		"one settlement per reservation":   testOneSettlement,
		"no overspend at once":             testNoOverspend,
		"accounts open once":               testOpensOnce,
		"a guilty command stands alone":    testGuilty,
		"seq is gapless and time rises":    testGapless,
		"transactions, newest first":       testTransactions,
		"a key makes a request once":       testKeys,
		"a key at once":                    testKeysAtOnce,
		"a key of an empty answer":         testEmptyAnswer,
		"late in both orders":              testLate,
		"spooled requests":                 testSpooled,
		"followers read it in pages":       testFollowed,
	}
	for store, open := range stores {
		for name, run := range cases {
			t.Run(store+"/"+name, func(t *testing.T) {
				t.Parallel()
				run(t, open(t))
			})
		}
	}
}

func command(account string, op domain.Op) domain.Command {
	return domain.Command{ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: account, Op: op}
}

func must(t testing.TB, s subject, c domain.Command) domain.Outcome {
	t.Helper()
	out, err := s.Append(context.Background(), c)
	if err != nil {
		t.Fatalf("%T on %s: %v", c.Op, c.Account, err)
	}
	return out
}

func mustReject(t testing.TB, s subject, c domain.Command, want domain.Reject) *domain.Rejection {
	t.Helper()
	_, err := s.Append(context.Background(), c)
	r := new(domain.Rejection)
	if !errors.As(err, &r) || r.Reason != want {
		t.Fatalf("%T on %s: %v, not %s", c.Op, c.Account, err, want)
	}
	return r
}

func mustOpen(t testing.TB, s subject, account, grant string) {
	t.Helper()
	must(t, s, command(account, domain.Open{Grant: domain.MustAmount(grant), Actor: "test"}))
}

func reserve(request uuid.UUID, amount string) domain.Reserve {
	return domain.Reserve{RequestID: request, Amount: domain.MustAmount(amount),
		Data: domain.ReserveData{Surface: "test", Model: "m", Owner: uuid.New()}}
}

func credit(amount, reference string) domain.Credit {
	return domain.Credit{Amount: domain.MustAmount(amount), Data: domain.MovementData{Reference: reference, Actor: "test"}}
}

func wantAccount(t testing.TB, s subject, name, available, reserved string) {
	t.Helper()
	a, err := s.Account(context.Background(), name)
	if err != nil || a == nil {
		t.Fatalf("account %s: %v, %v", name, a, err)
	}
	if a.Available.String() != available || a.Reserved.String() != reserved {
		t.Fatalf("%s has %s available and %s reserved, not %s and %s", name, a.Available, a.Reserved, available, reserved)
	}
}

func kinds(events []domain.Recorded) (out string) {
	for _, e := range events {
		out += string(e.Event.Kind) + ":" + e.Event.Amount.String() + " "
	}
	return out
}

func testLife(t *testing.T, s subject) {
	mustOpen(t, s, "alice", "10")
	id := uuid.New()
	out := must(t, s, command("alice", reserve(id, "4")))
	if kinds(out.Events) != "reserve:4 " || out.Account.Available.String() != "6" || out.Repeated {
		t.Fatalf("reserve: %s %+v", kinds(out.Events), out.Account)
	}
	wantAccount(t, s, "alice", "6", "4")
	out = must(t, s, command("alice", settle(id, "1.000000000001")))
	if kinds(out.Events) != "commit:1.000000000001 refund:2.999999999999 " {
		t.Fatalf("settle: %s", kinds(out.Events))
	}
	wantAccount(t, s, "alice", "8.999999999999", "0")
	beyond := uuid.New()
	must(t, s, command("alice", reserve(beyond, "1")))
	if out = must(t, s, command("alice", settle(beyond, "1.5"))); kinds(out.Events) != "commit:1 overage:0.5 " {
		t.Fatalf("settle beyond the bound: %s", kinds(out.Events))
	}
	released := uuid.New()
	must(t, s, command("alice", reserve(released, "0")))
	out = must(t, s, command("alice", domain.Release{RequestID: released, Reason: domain.RefundProviderError}))
	if kinds(out.Events) != "refund:0 " {
		t.Fatalf("release: %s", kinds(out.Events))
	}
	wantAccount(t, s, "alice", "7.499999999999", "0")
	events, err := s.Request(context.Background(), "alice", id)
	if err != nil || kinds(events) != "reserve:4 commit:1.000000000001 refund:2.999999999999 " {
		t.Fatalf("the request's events: %s, %v", kinds(events), err)
	}
	if events, err := s.Request(context.Background(), "mallory", id); err != nil || len(events) != 0 {
		t.Fatalf("another account sees %s, %v", kinds(events), err)
	}
}

func testRepeats(t *testing.T, s subject) {
	open := command("bob", domain.Open{Grant: domain.MustAmount("5"), Actor: "test"})
	id := uuid.New()
	steps := []domain.Command{open, command("bob", reserve(id, "2")), command("bob", settle(id, "1")),
		command("bob", credit("3", "r1"))}
	var first []domain.Outcome
	for _, c := range steps {
		first = append(first, must(t, s, c))
	}
	for i, c := range steps {
		again := must(t, s, c)
		if !again.Repeated || kinds(again.Events) != kinds(first[i].Events) || again.Position() != first[i].Position() ||
			again.Events[0].Hash != first[i].Events[0].Hash {
			t.Errorf("step %d again: %v %s at %s, at first %s at %s", i, again.Repeated, kinds(again.Events),
				again.Position(), kinds(first[i].Events), first[i].Position())
		}
	}
	wantAccount(t, s, "bob", "7", "0")
}

func testRejections(t *testing.T, s subject) {
	mustReject(t, s, command("nobody", reserve(uuid.New(), "1")), domain.RejectAccountUnknown)
	mustOpen(t, s, "carol", "1")
	r := mustReject(t, s, command("carol", reserve(uuid.New(), "1.000000000001")), domain.RejectInsufficientFunds)
	if r.Needed.String() != "1.000000000001" || r.Available.String() != "1" {
		t.Errorf("needed %s, had %s", r.Needed, r.Available)
	}
	mustReject(t, s, command("carol", reserve(uuid.New(), "-1")), domain.RejectInvalid)
	mustReject(t, s, command("carol", settle(uuid.New(), "1")), domain.RejectReservationUnknown)
	frozen, thawed := true, false
	must(t, s, command("carol", domain.Configure{Data: domain.AccountData{Frozen: &frozen, Actor: "test"}}))
	mustReject(t, s, command("carol", reserve(uuid.New(), "0")), domain.RejectAccountFrozen)
	must(t, s, command("carol", domain.Configure{Data: domain.AccountData{Frozen: &thawed, Actor: "test"}}))
	limit := domain.MustAmount("0.5")
	must(t, s, command("carol", domain.Configure{Data: domain.AccountData{CreditLimit: &limit, Actor: "test"}}))
	must(t, s, command("carol", reserve(uuid.New(), "1.5")))
	mustReject(t, s, command("carol", reserve(uuid.New(), "0.000000000001")), domain.RejectInsufficientFunds)
	must(t, s, command("carol", reserve(uuid.New(), "0")))
	wantAccount(t, s, "carol", "-0.5", "1.5")
}

func testReferences(t *testing.T, s subject) {
	mustOpen(t, s, "dave", "0")
	first := must(t, s, command("dave", credit("3", "invoice 7")))
	again := must(t, s, command("dave", credit("3", "invoice 7")))
	if !again.Repeated || again.Position() != first.Position() || first.Repeated {
		t.Fatalf("the second credit: %+v", again)
	}
	mustReject(t, s, command("dave", credit("4", "invoice 7")), domain.RejectReferenceReused)
	mustReject(t, s, command("dave", credit("4", "")), domain.RejectInvalid)
	mustReject(t, s, command("dave", credit("4", "a\x00b")), domain.RejectInvalid)
	mustReject(t, s, command("dave", credit("4", domain.OpeningReference)), domain.RejectReferenceReused)
	debit := domain.Debit{Amount: domain.MustAmount("5"), Data: domain.MovementData{Reference: "payout", Actor: "test"}}
	mustReject(t, s, command("dave", debit), domain.RejectInsufficientFunds)
	debit.Force = true
	must(t, s, command("dave", debit))
	wantAccount(t, s, "dave", "-2", "0")
	together(t, 16, func(i int) error {
		_, err := s.Append(context.Background(), command("dave", credit("1", "at once")))
		return err
	})
	wantAccount(t, s, "dave", "-1", "0")
}

func testOneSettlement(t *testing.T, s subject) {
	mustOpen(t, s, "erin", "10")
	id := uuid.New()
	must(t, s, command("erin", reserve(id, "10")))
	var won, lost int
	var mu sync.Mutex
	together(t, 8, func(i int) error {
		op := domain.Op(settle(id, "1"))
		if i%2 == 1 {
			op = domain.Release{RequestID: id, Reason: domain.RefundClientAbort}
		}
		_, err := s.Append(context.Background(), command("erin", op))
		mu.Lock()
		defer mu.Unlock()
		if r := new(domain.Rejection); errors.As(err, &r) && r.Reason == domain.RejectAlreadySettled {
			lost++
			return nil
		}
		won++
		return err
	})
	if won != 1 || lost != 7 {
		t.Fatalf("%d settlements won and %d lost", won, lost)
	}
	if a, _ := s.Account(context.Background(), "erin"); !a.Reserved.IsZero() {
		t.Fatalf("%s is still reserved", a.Reserved)
	}
}

func testNoOverspend(t *testing.T, s subject) {
	const affords, tries = 37, 256
	mustOpen(t, s, "frank", fmt.Sprintf("%d.99", affords))
	var got, refused int
	var mu sync.Mutex
	together(t, tries, func(int) error {
		_, err := s.Append(context.Background(), command("frank", reserve(uuid.New(), "1")))
		mu.Lock()
		defer mu.Unlock()
		if r := new(domain.Rejection); errors.As(err, &r) && r.Reason == domain.RejectInsufficientFunds {
			refused++
			return nil
		}
		got++
		return err
	})
	if got != affords || refused != tries-affords {
		t.Fatalf("%d reserved and %d refused, not %d and %d", got, refused, affords, tries-affords)
	}
	wantAccount(t, s, "frank", "0.99", fmt.Sprint(affords))
}

func testOpensOnce(t *testing.T, s subject) {
	together(t, 32, func(int) error {
		_, err := s.Append(context.Background(), command("grace", domain.Open{Grant: domain.MustAmount("100"), Actor: "test"}))
		return err
	})
	wantAccount(t, s, "grace", "100", "0")
	if events, err := s.Transactions(context.Background(), "grace", 10, 0); err != nil || kinds(events) != "credit:100 " {
		t.Fatalf("%s, %v", kinds(events), err)
	}
}

// testGuilty sends, in one burst, commands that no store can hold beside good ones.
func testGuilty(t *testing.T, s subject) {
	mustOpen(t, s, "heidi", "100")
	huge := make(map[string]string)
	for i := range 3000 {
		huge[fmt.Sprintf("tag-%d", i)] = "a long enough value to pass the bound of a payload"
	}
	together(t, 64, func(i int) error {
		op := reserve(uuid.New(), "1")
		if i%8 == 3 {
			op.Data.Tags = huge
		}
		_, err := s.Append(context.Background(), command("heidi", op))
		if (err != nil) != (i%8 == 3) {
			return fmt.Errorf("command %d: %w", i, err)
		}
		return nil
	})
	wantAccount(t, s, "heidi", "44", "56")
}

func testGapless(t *testing.T, s subject) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range names {
		mustOpen(t, s, name, "10")
	}
	var mu sync.Mutex
	last := map[int32]domain.Event{}
	seen := map[domain.Position]bool{}
	top := map[int32]int64{}
	together(t, 64, func(i int) error {
		out, err := s.Append(context.Background(), command(names[i%len(names)], credit("0.000000000001", fmt.Sprint("r", i))))
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		e := out.Events[0].Event
		if seen[e.Position()] {
			return fmt.Errorf("position %s is taken twice", e.Position())
		}
		seen[e.Position()] = true
		top[e.Shard] = max(top[e.Shard], e.Seq)
		if l, ok := last[e.Shard]; ok && (l.Seq < e.Seq) != !l.OccurredAt.After(e.OccurredAt) && !l.OccurredAt.Equal(e.OccurredAt) {
			return fmt.Errorf("time ran backwards between %d and %d", l.Seq, e.Seq)
		}
		last[e.Shard] = e
		return nil
	})
	total := int64(0)
	for _, n := range top {
		total += n
	}
	if total != int64(2*len(names)+64) {
		t.Fatalf("the heads sum to %d, not %d events", total, 2*len(names)+64)
	}
}

func testTransactions(t *testing.T, s subject) {
	mustOpen(t, s, "ivan", "1")
	must(t, s, command("ivan", credit("2", "two")))
	id, gone := uuid.New(), uuid.New()
	must(t, s, command("ivan", reserve(id, "2")))
	must(t, s, command("ivan", settle(id, "0.5")))
	must(t, s, command("ivan", reserve(gone, "1")))
	must(t, s, command("ivan", domain.Release{RequestID: gone, Reason: domain.RefundShutdown}))
	for _, page := range []struct {
		limit, offset int
		want          string
	}{{10, 0, "commit:0.5 credit:2 credit:1 "}, {1, 1, "credit:2 "}, {5, 3, ""}} {
		events, err := s.Transactions(context.Background(), "ivan", page.limit, page.offset)
		if err != nil || kinds(events) != page.want {
			t.Errorf("limit %d offset %d: %q, %v", page.limit, page.offset, kinds(events), err)
		}
	}
}

// together runs n calls at once and fails on any error.
func together(t *testing.T, n int, call func(i int) error) {
	t.Helper()
	var wait sync.WaitGroup
	begin := make(chan struct{})
	errs := make(chan error, n)
	for i := range n {
		wait.Go(func() {
			<-begin
			if err := call(i); err != nil {
				errs <- err
			}
		})
	}
	close(begin)
	wait.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}
