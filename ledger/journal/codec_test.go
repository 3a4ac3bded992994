package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"llm-gateway/domain"
)

// nasty are strings that encoders, terminals and databases trip over.
var nasty = []string{"", "<script>&amp;", "\u2028\u2029", `"quoted" \ back`, "🪙💸", "\x00\x01\x1f\x7f", "\r\n\t",
	"\u202egnp", "\ufffd", `\ufffd`, "\U0010ffff", "e\u0301", "null", "{}", strings.Repeat("long ", 60)}

func texts() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom(nasty), rapid.Map(rapid.String(), func(s string) string {
		return strings.ToValidUTF8(s, "?")
	}))
}

// amounts generates what an event can move.
func amounts() *rapid.Generator[domain.Amount] {
	return rapid.Map(rapid.StringMatching(`[0-9]{1,26}(\.[0-9]{1,12})?`), domain.MustAmount)
}

func uuids() *rapid.Generator[uuid.UUID] {
	return rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) uuid.UUID {
		b[0] |= 1 // never uuid.Nil
		return uuid.UUID(b)
	})
}

func times() *rapid.Generator[time.Time] {
	first, last := time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	return rapid.Map(rapid.Int64Range(first.UnixMicro(), last.UnixMicro()), func(n int64) time.Time {
		return time.UnixMicro(n).UTC()
	})
}

func tags() *rapid.Generator[map[string]string] { return rapid.MapOfN(texts(), texts(), 0, 3) }

func lineLists() *rapid.Generator[[]domain.Line] {
	list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) domain.Line {
		return domain.Line{Meter: domain.Meter(rapid.IntRange(0, domain.MeterCount-1).Draw(t, "meter")),
			Quantity:  rapid.Int64Range(0, math.MaxInt64).Draw(t, "quantity"),
			UnitPrice: amounts().Draw(t, "unit price"), Amount: amounts().Draw(t, "amount")}
	}), 0, 3)
	return rapid.OneOf(list, rapid.Just[[]domain.Line](nil)) // events tell nil and empty apart
}

func commits() *rapid.Generator[domain.CommitData] {
	counts := rapid.Int64Range(0, math.MaxInt64)
	attempts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) domain.Attempt {
		return domain.Attempt{Provider: texts().Draw(t, "provider"), Model: texts().Draw(t, "model"),
			Status: rapid.IntRange(0, 999).Draw(t, "status"), Error: texts().Draw(t, "error"), Millis: counts.Draw(t, "ms")}
	}), 0, 3)
	return rapid.Custom(func(t *rapid.T) domain.CommitData {
		d := domain.CommitData{Surface: texts().Draw(t, "surface"), ModelRequested: texts().Draw(t, "requested"),
			ModelServed: texts().Draw(t, "served"), Provider: texts().Draw(t, "provider"),
			Attempts: rapid.OneOf(attempts, rapid.Just[[]domain.Attempt](nil)).Draw(t, "attempts"),
			Lines:    lineLists().Draw(t, "lines"), PriceVersion: texts().Draw(t, "version"), CostLines: lineLists().Draw(t, "cost"),
			UsageSource:  rapid.SampledFrom([]domain.UsageSource{domain.UsageProvider, domain.UsageCounted}).Draw(t, "source"),
			FinishReason: texts().Draw(t, "finish"), Stream: rapid.Bool().Draw(t, "stream"), ServiceTier: texts().Draw(t, "tier"),
			TTFTMillis: counts.Draw(t, "ttft"), LatencyMillis: counts.Draw(t, "latency"), KeyID: texts().Draw(t, "key"),
			EndUser: texts().Draw(t, "user"), Tags: tags().Draw(t, "tags")}
		for i := range d.Meters {
			d.Meters[i] = counts.Draw(t, "count")
		}
		return d
	})
}

func reserves() *rapid.Generator[domain.ReserveData] {
	counts := rapid.Int64Range(0, math.MaxInt64)
	return rapid.Custom(func(t *rapid.T) domain.ReserveData {
		return domain.ReserveData{Surface: texts().Draw(t, "surface"), Model: texts().Draw(t, "model"),
			Stream:       rapid.Bool().Draw(t, "stream"),
			Bound:        domain.Bound{Input: counts.Draw(t, "input"), Output: counts.Draw(t, "output"), Lines: lineLists().Draw(t, "lines")},
			PriceVersion: texts().Draw(t, "version"), BodyHash: texts().Draw(t, "hash"), MaxOutput: counts.Draw(t, "max"),
			KeyID: texts().Draw(t, "key id"), EndUser: texts().Draw(t, "user"), Tags: tags().Draw(t, "tags"),
			Owner: uuids().Draw(t, "owner")}
	})
}

func responses() *rapid.Generator[*domain.Response] {
	return rapid.OneOf(rapid.Just[*domain.Response](nil), rapid.Custom(func(t *rapid.T) *domain.Response {
		body := rapid.OneOf(rapid.SliceOf(rapid.Byte()), rapid.Just[[]byte](nil))
		return &domain.Response{Body: body.Draw(t, "body"), Broken: rapid.Bool().Draw(t, "broken")}
	}))
}

func ops() *rapid.Generator[domain.Op] {
	return rapid.Custom(func(t *rapid.T) domain.Op {
		id := uuids().Draw(t, "request")
		switch rapid.SampledFrom([]string{opSettle, opRelease, opSpooled}).Draw(t, "op") {
		case opSettle:
			return domain.Settle{RequestID: id, Charge: amounts().Draw(t, "charge"), Data: commits().Draw(t, "commit"),
				Response: responses().Draw(t, "response")}
		case opRelease:
			return domain.Release{RequestID: id, Reason: rapid.SampledFrom([]domain.RefundReason{domain.RefundProviderError,
				domain.RefundClientAbort, domain.RefundExpired, domain.RefundShutdown, domain.RefundInternalError}).Draw(t, "reason")}
		}
		return domain.Spooled{RequestID: id, Amount: amounts().Draw(t, "amount"), Reserve: reserves().Draw(t, "reserve"),
			Charge: amounts().Draw(t, "charge"), Commit: commits().Draw(t, "commit")}
	})
}

// commands generates what Put takes, as it writes it.
func commands() *rapid.Generator[domain.Command] {
	return rapid.Custom(func(t *rapid.T) domain.Command {
		return domain.Command{ID: domain.CommandID(uuids().Draw(t, "id")), SpooledAt: times().Draw(t, "spooled"),
			Account: rapid.StringMatching(`[A-Za-z0-9._:|@/+=~-]{1,128}`).Draw(t, "account"), Op: ops().Draw(t, "op")}
	})
}

// books generates a state that a command may meet.
func books(c domain.Command) *rapid.Generator[*domain.Books] {
	return rapid.Custom(func(t *rapid.T) *domain.Books {
		b := domain.NewBooks()
		b.Accounts[c.Account] = &domain.Account{Name: c.Account, Available: amounts().Draw(t, "available"),
			Frozen: rapid.Bool().Draw(t, "frozen")}
		state := rapid.SampledFrom([]domain.ReservationState{"", domain.ReservationOpen, domain.ReservationOpen,
			domain.ReservationExpired, domain.ReservationSettled}).Draw(t, "state")
		if state != "" {
			b.Reservations[c.Op.Request()] = &domain.Reservation{RequestID: c.Op.Request(), Account: c.Account,
				Amount: amounts().Draw(t, "reserved"), State: state}
		}
		return b
	})
}

// decided is what books make of a command: the bytes of its events, or the refusal.
func decided(t tester, b *domain.Books, c domain.Command) (out []string) {
	t.Helper()
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	drafts, err := b.Decide(c, at)
	if err != nil {
		return []string{err.Error()}
	}
	for n, d := range drafts {
		e := d.Stamp(c, n, domain.Event{Shard: 1, Seq: int64(n + 1), Currency: "USD", OccurredAt: at})
		payload, err := domain.Encode(&e)
		if err != nil {
			return []string{err.Error()}
		}
		out = append(out, string(payload))
	}
	return out
}

// TestCodec wants a command that waited to lead to the same events, byte for byte, and to leave the same
// answer for whoever repeats the request.
func TestCodec(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		c := commands().Draw(t, "command")
		payload, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(payload)
		if err != nil {
			t.Fatal(err)
		}
		state := books(c).Draw(t, "books")
		want, got := decided(t, state, c), decided(t, state, back)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\ninstead of\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if back.ID != c.ID || back.Account != c.Account || !back.SpooledAt.Equal(c.SpooledAt) {
			t.Fatalf("%v became %v", c, back)
		}
		if s, ok := c.Op.(domain.Settle); ok && !reflect.DeepEqual(back.Op.(domain.Settle).Response, s.Response) {
			t.Fatalf("the response %v became %v", s.Response, back.Op.(domain.Settle).Response)
		}
		if again, err := encode(back); err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("%s became %s: %v", payload, again, err)
		}
		seen[reflect.TypeOf(c.Op).Name()] += len(want)
	})
	if seen["Settle"] == 0 || seen["Release"] == 0 || seen["Spooled"] == 0 {
		t.Errorf("not all operations were tried: %v", seen)
	}
}

// TestCodecKnowsAllFields fails when an operation gets a field that the codec does not carry.
func TestCodecKnowsAllFields(t *testing.T) {
	t.Parallel()
	for form, fields := range map[reflect.Type]int{
		reflect.TypeFor[domain.Command](): 4, reflect.TypeFor[domain.Settle](): 4, reflect.TypeFor[domain.Response](): 2,
		reflect.TypeFor[domain.Release](): 2, reflect.TypeFor[domain.Spooled](): 5,
	} {
		if n := form.NumField(); n != fields {
			t.Errorf("%s has %d fields, the codec knows %d", form, n, fields)
		}
	}
}

// TestInvalidText wants text that is no UTF-8 to come back as an event would show it.
func TestInvalidText(t *testing.T) {
	t.Parallel()
	c := settle("alice", uuid.New(), "1")
	c.SpooledAt = time.Now()
	o := c.Op.(domain.Settle)
	o.Data.FinishReason = "a\xffb"
	c.Op = o
	payload, err := encode(c)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decode(payload)
	if err != nil || back.Op.(domain.Settle).Data.FinishReason != "a\ufffdb" {
		t.Fatalf("%v: %v", back.Op, err)
	}
}

// TestUnfit wants whatever could not be read back to be refused before it is written.
func TestUnfit(t *testing.T) {
	t.Parallel()
	with := func(change func(*domain.Settle)) domain.Op {
		o := domain.Settle{RequestID: uuid.New(), Data: explained("1")}
		change(&o)
		return o
	}
	for name, c := range map[string]domain.Command{
		"reserve":        {Op: domain.Reserve{RequestID: uuid.New()}},
		"credit":         {Op: domain.Credit{Amount: domain.MustAmount("1"), Data: domain.MovementData{Reference: "r", Actor: "a"}}},
		"no such meter":  {Op: with(func(o *domain.Settle) { o.Data.Lines[0].Meter = 99 })},
		"negative meter": {Op: with(func(o *domain.Settle) { o.Data.Meters[0] = -1 })},
		"fine amount": {Op: with(func(o *domain.Settle) {
			o.Data.Lines[0].Amount = domain.MustAmount("0.000000000001").Times(1e18).Times(1e18).Times(1e18)
		})},
		"too long":   {Op: with(func(o *domain.Settle) { o.Response = &domain.Response{Body: make([]byte, maxRecord)} })},
		"year 10000": {Op: with(func(*domain.Settle) {}), SpooledAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		c.ID, c.Account = newID(), "alice"
		if c.SpooledAt.IsZero() {
			c.SpooledAt = time.Now()
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: the ledger would not take it either: %v", name, err)
		}
		if b, err := encode(c); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: %v, %.80s", name, err, b)
		}
	}
}

// TestDecodeRefuses wants what this release does not understand to be an error, and not to be passed over.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	c := settle("alice", uuid.New(), "1")
	c.SpooledAt = time.Now()
	good, err := encode(c)
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) []byte {
		b := bytes.Replace(good, []byte(old), []byte(new), 1)
		if bytes.Equal(b, good) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"not JSON":        []byte("{"),
		"more behind":     append(bytes.Clone(good), '1'),
		"no version":      change(`"v":1,`, ``),
		"unknown field":   change(`"v":1,`, `"v":1,"x":1,`),
		"unknown in data": change(`"commit":{`, `"commit":{"x":1,`),
		"no amount":       change(`"charge":"1",`, ``),
		"number":          change(`"charge":"1"`, `"charge":1`),
		"negative":        change(`"charge":"1"`, `"charge":"-1"`),
		"unknown op":      change(`"op":"settle"`, `"op":"credit"`),
		"other op":        change(`"op":"settle"`, `"op":"release"`),
		"no account":      change(`"account":"alice"`, `"account":""`),
		"never spooled":   change(`"spooled_at":"2`, `"spooled_at":"0001-01-01T00:00:00Z","spooled_at":"0001-01-01T00:00:00Z","x":"2`),
		"not its id":      change(c.ID.String(), domain.EventID(c.ID, 1).String()),
	} {
		if got, err := decode(b); err == nil || errors.Is(err, ErrTooNew) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, b := range [][]byte{change(`"v":1`, `"v":2`), []byte(`{"v":3,"op":["of another form"]}`)} {
		if _, err := decode(b); !errors.Is(err, ErrTooNew) {
			t.Errorf("%s: %v", b, err)
		}
	}
	if !json.Valid(good) {
		t.Error("a command is not JSON")
	}
}
