package ledger

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// keyed is a reserve with an idempotency key.
func keyed(request uuid.UUID, amount, key, body string) domain.Reserve {
	o := reserve(request, amount)
	o.Data.IdempotencyKey, o.Data.BodyHash = key, body
	return o
}

func release(request uuid.UUID, reason domain.RefundReason) domain.Release {
	return domain.Release{RequestID: request, Reason: reason}
}

// wantResponse holds what is kept of a request against what should be; "-" is nothing.
func wantResponse(t *testing.T, s subject, account string, request uuid.UUID, want string) {
	t.Helper()
	got, err := s.Response(context.Background(), account, request)
	switch {
	case err != nil:
		t.Fatal(err)
	case got == nil && want != "-", got != nil && string(got.Body) != want:
		t.Fatalf("kept is %+v, not %q", got, want)
	}
}

// testKeys is the life of a key. The answer is kept with the settlement, and only with the first.
func testKeys(t *testing.T, s subject) {
	mustOpen(t, s, "kim", "10")
	mustOpen(t, s, "lee", "10")
	first, second, third := uuid.New(), uuid.New(), uuid.New()
	took := must(t, s, command("kim", keyed(first, "4", "k", "b1")))
	for _, c := range []struct {
		body string
		want domain.Reject
	}{{"b1", domain.RejectKeyInProgress}, {"b2", domain.RejectKeyReused}} {
		r := mustReject(t, s, command("kim", keyed(second, "4", "k", c.body)), c.want)
		if r.RequestID != first {
			t.Fatalf("the key is said to be that of %s, not %s", r.RequestID, first)
		}
	}
	must(t, s, command("lee", keyed(third, "1", "k", "b2")))
	must(t, s, command("kim", reserve(uuid.New(), "1")))
	wantResponse(t, s, "kim", first, "-")
	end := settle(first, "3")
	end.Response = &domain.Response{Body: []byte("answer \x00 1"), Broken: true}
	settled := command("kim", end)
	must(t, s, settled)
	if again := must(t, s, settled); !again.Repeated {
		t.Fatal("a repeated settlement is no repeat")
	}
	wantResponse(t, s, "kim", first, "answer \x00 1")
	wantResponse(t, s, "lee", first, "-")
	if r, _ := s.Response(context.Background(), "kim", first); !r.Broken {
		t.Error("it is not known that the answer broke off")
	}
	r := mustReject(t, s, command("kim", keyed(second, "400", "k", "b1")), domain.RejectKeyAnswered)
	if r.RequestID != first {
		t.Fatalf("the answer is said to be that of %s", r.RequestID)
	}
	mustReject(t, s, command("kim", keyed(second, "4", "k", "b2")), domain.RejectKeyReused)
	wantAccount(t, s, "kim", "6", "1")
	// The reserve of the first, asked for again, is answered with its first outcome.
	c := command("kim", keyed(first, "4", "k", "b1"))
	c.ID = domain.CommandID(took.Events[0].Event.ID)
	if again := must(t, s, c); !again.Repeated || again.Position() != took.Position() {
		t.Fatalf("%+v", again)
	}
	testFreedKey(t, s)
}

// testFreedKey: what was released has no key and keeps no answer, in one batch too.
func testFreedKey(t *testing.T, s subject) {
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	for _, id := range ids[:2] {
		must(t, s, command("kim", keyed(id, "1", "again", "b1")))
		must(t, s, command("kim", release(id, domain.RefundProviderError)))
	}
	late := uuid.New()
	must(t, s, command("kim", keyed(late, "1", "again", "b1")))
	must(t, s, command("kim", release(late, domain.RefundExpired)))
	must(t, s, command("kim", keyed(ids[2], "1", "again", "b3")))
	end := settle(late, "1")
	end.Response = &domain.Response{Body: []byte("too late")}
	must(t, s, command("kim", end))
	wantResponse(t, s, "kim", late, "-")
	r := mustReject(t, s, command("kim", keyed(uuid.New(), "1", "again", "b3")), domain.RejectKeyInProgress)
	if r.RequestID != ids[2] {
		t.Fatalf("the key is said to be that of %s", r.RequestID)
	}
}

// testEmptyAnswer: an answer of nothing is kept like any other, and charged.
func testEmptyAnswer(t *testing.T, s subject) {
	mustOpen(t, s, "kay", "10")
	id := uuid.New()
	must(t, s, command("kay", keyed(id, "4", "k", "b")))
	end := settle(id, "3")
	end.Response = &domain.Response{}
	must(t, s, command("kay", end))
	wantResponse(t, s, "kay", id, "")
	wantAccount(t, s, "kay", "7", "0")
}

// testKeysAtOnce lets many ask with one key: one goes on, and the others hear of it.
func testKeysAtOnce(t *testing.T, s subject) {
	mustOpen(t, s, "mia", "100")
	var mu sync.Mutex
	var won []uuid.UUID
	lost := map[uuid.UUID]int{}
	together(t, 64, func(int) error {
		id := uuid.New()
		_, err := s.Append(context.Background(), command("mia", keyed(id, "1", "k", "b")))
		mu.Lock()
		defer mu.Unlock()
		if r := new(domain.Rejection); errors.As(err, &r) && r.Reason == domain.RejectKeyInProgress {
			lost[r.RequestID]++
			return nil
		}
		won = append(won, id)
		return err
	})
	if len(won) != 1 || lost[won[0]] != 63 {
		t.Fatalf("%d went on, and the others heard of %v", len(won), lost)
	}
	wantAccount(t, s, "mia", "99", "1")
}

func testLate(t *testing.T, s subject) {
	mustOpen(t, s, "nina", "10")
	id := uuid.New()
	must(t, s, command("nina", reserve(id, "4")))
	must(t, s, command("nina", release(id, domain.RefundExpired)))
	late := command("nina", settle(id, "3"))
	if out := must(t, s, late); kinds(out.Events) != "overage:3 " {
		t.Fatalf("late: %s", kinds(out.Events))
	}
	if again := must(t, s, late); !again.Repeated || kinds(again.Events) != "overage:3 " {
		t.Fatalf("late, again: %+v", again)
	}
	mustReject(t, s, command("nina", settle(id, "3")), domain.RejectAlreadySettled)
	mustReject(t, s, command("nina", release(id, domain.RefundExpired)), domain.RejectAlreadySettled)
	events, err := s.Request(context.Background(), "nina", id)
	if err != nil || kinds(events) != "reserve:4 refund:4 overage:3 " {
		t.Fatalf("the request's events: %s, %v", kinds(events), err)
	}
	wantAccount(t, s, "nina", "7", "0")
	id = uuid.New()
	must(t, s, command("nina", reserve(id, "4")))
	must(t, s, command("nina", settle(id, "3")))
	mustReject(t, s, command("nina", release(id, domain.RefundExpired)), domain.RejectAlreadySettled)
	wantAccount(t, s, "nina", "4", "0")
}

func testSpooled(t *testing.T, s subject) {
	mustOpen(t, s, "otto", "5")
	spooled := func(amount, charge string) (uuid.UUID, domain.Command) {
		id := uuid.New()
		o := domain.Spooled{RequestID: id, Amount: domain.MustAmount(amount), Charge: domain.MustAmount(charge)}
		end := settle(id, charge)
		o.Reserve, o.Commit = reserve(id, amount).Data, end.Data
		return id, command("otto", o)
	}
	for _, c := range []struct{ amount, charge, want string }{
		{"4", "3", "reserve:4 commit:3 refund:1 "}, {"1", "1.5", "reserve:1 commit:1 overage:0.5 "}, {"4", "3", "overage:3 "},
	} {
		id, command := spooled(c.amount, c.charge)
		out := must(t, s, command)
		if kinds(out.Events) != c.want {
			t.Fatalf("%s of %s: %s, not %s", c.charge, c.amount, kinds(out.Events), c.want)
		}
		if again := must(t, s, command); !again.Repeated || kinds(again.Events) != c.want {
			t.Fatalf("again: %+v", again)
		}
		again := command
		again.ID = domain.CommandID(uuid.Must(uuid.NewV7()))
		mustReject(t, s, again, domain.RejectReservationExists)
		events, err := s.Request(context.Background(), "otto", id)
		if err != nil || kinds(events) != c.want {
			t.Fatalf("the request's events: %s, %v", kinds(events), err)
		}
	}
	wantAccount(t, s, "otto", "-2.5", "0")
	if events, err := s.Transactions(context.Background(), "otto", 9, 0); err != nil || !slices.ContainsFunc(events,
		func(e domain.Recorded) bool {
			return e.Event.Kind == domain.KindOverage && e.Event.Amount.String() == "3"
		}) {
		t.Fatalf("%s, %v", kinds(events), err)
	}
}

// testFollowed reads every shard as those do that follow the ledger: page by page, to its head, along
// the chain from the genesis hash.
func testFollowed(t *testing.T, s subject) {
	ctx := context.Background()
	for _, account := range []string{"a", "b", "c", "d", "e", "f"} {
		mustOpen(t, s, account, "1")
		must(t, s, command(account, credit("1", "r")))
	}
	heads, err := s.Heads(ctx)
	if err != nil || len(heads) != s.Meta().Shards {
		t.Fatalf("%d heads, %v", len(heads), err)
	}
	total := 0
	for i, h := range heads {
		seq, hash := int64(0), domain.GenesisHash(s.Meta().ID, int32(i))
		for {
			page, err := s.Events(ctx, int32(i), seq, 2)
			if err != nil || len(page) > 2 {
				t.Fatalf("a page of %d, %v", len(page), err)
			}
			if len(page) == 0 {
				break
			}
			for _, e := range page {
				seq, hash = seq+1, domain.ChainHash(hash, e.Payload)
				if e.Event.Shard != int32(i) || e.Event.Seq != seq || e.Hash != hash {
					t.Fatalf("%s stands where %d:%d must, or its hash is wrong", e.Event.Position(), i, seq)
				}
			}
		}
		total += int(seq)
		if h.Shard != int32(i) || h.Seq != seq || h.Hash != hash || h.Epoch != 0 {
			t.Fatalf("the head %+v is not where the events end, %d", h, seq)
		}
	}
	if total != 18 {
		t.Fatalf("%d events, not 18", total)
	}
}
