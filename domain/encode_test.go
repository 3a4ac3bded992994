package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata/golden anew: only for a new schema, never to make a test pass")

// golden is one event of every kind, with every field of schema 1 and strings that need care.
func golden() map[string]*Event {
	event := func(seq int64, k Kind, request bool, amount string, d Data) *Event {
		e := &Event{Schema: 1, Shard: 3, Seq: seq, ID: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8050"),
			Kind: k, Account: "auth0|alice@example.org", Amount: MustAmount(amount), Currency: "USD",
			OccurredAt: time.Date(2026, 2, 3, 4, 5, 6, 7_000, time.UTC), Data: d}
		e.ID = EventID(e.ID, int(seq%commandIDs))
		e.Debit, e.Credit, _ = postings(k, e.Account)
		if request {
			e.RequestID = uuid.MustParse("01890a5d-ac96-7b00-8000-0123456789ab")
		}
		return e
	}
	input := Line{Meter: Input, Quantity: 1200, UnitPrice: MustAmount("0.0000025"), Amount: MustAmount("0.003")}
	output := Line{Meter: Output, Quantity: 350, UnitPrice: MustAmount("0.00001"), Amount: MustAmount("0.0035")}
	commit := CommitData{Surface: "chat_completions", ModelRequested: "gpt-4o", ModelServed: "gpt-4o-2024-11-20",
		Provider: "openai",
		Attempts: []Attempt{{"azure", "gpt-4o", 429, "rate limited: \"<slow> & steady\"", 31},
			{"openai", "gpt-4o-2024-11-20", 200, "", 1840}},
		Meters: Meters{Input: 1200, Output: 350, Requests: 1}, Lines: []Line{input, output}, PriceVersion: "gpt-4o@2024-11-20",
		CostLines: []Line{input}, UsageSource: UsageProvider, FinishReason: "stop\u2028\U0001fa99", Stream: true,
		ServiceTier: "default", TTFTMillis: 212, LatencyMillis: 1871, KeyID: "key_1", EndUser: "user-7",
		Tags: map[string]string{"team": "R&D", "a": "<b>"}}
	reserve := &ReserveData{Surface: "chat_completions", Model: "gpt-4o", Stream: true,
		Bound: Bound{Input: 1300, Output: 4096, Lines: []Line{{Meter: Input, Quantity: 1300, UnitPrice: MustAmount("0.0000025"), Amount: MustAmount("0.00325")},
			{Meter: Output, Quantity: 4096, UnitPrice: MustAmount("0.00001"), Amount: MustAmount("0.04096")}}},
		PriceVersion: "gpt-4o@2024-11-20", IdempotencyKey: "once \"and\" only", BodyHash: strings.Repeat("0123456789abcdef", 4),
		MaxOutput: 4096, KeyID: "key_1", EndUser: "user-7", Tags: map[string]string{"team": "R&D"},
		Owner: uuid.MustParse("01890a5d-0000-7000-8000-000000000001")}
	return map[string]*Event{
		"account": event(1, KindAccount, false, "0", &AccountData{Opened: true, CreditLimit: new(MustAmount("2.5")),
			Frozen: new(false), Reason: "new & trusted", Actor: "admin:bob"}),
		"credit": event(2, KindCredit, false, "10.000000000001", &MovementData{Reference: "INV/2026-07 é", Reason: "top-up",
			Actor: "cli", Corrects: "3:1"}),
		"debit":   event(3, KindDebit, false, "0.5", &MovementData{Reference: "payout", Actor: "system", debit: true}),
		"reserve": event(4, KindReserve, true, "0.04421", reserve),
		"commit":  event(5, KindCommit, true, "0.0065", &commit),
		"refund":  event(6, KindRefund, true, "0.03771", &RefundData{Reason: RefundRemainder}),
		"overage": event(7, KindOverage, true, "99999999999999999999999999.999999999999", &OverageData{OverageBeyondBound, commit}),
		// One that waited in a journal.
		"refund_spooled": event(10, KindRefund, true, "0.5", &RefundData{RefundExpired, "2026-02-03T04:05:06.000000Z"}),
		// The least that can be said: what is omitted, and what is not.
		"reserve_least": event(8, KindReserve, true, "0", &ReserveData{}),
		"commit_least":  event(9, KindCommit, true, "0", &CommitData{UsageSource: UsageCounted}),
	}
}

// TestGoldenBytes: the encoding is a contract to the byte, because the bytes are hashed.
func TestGoldenBytes(t *testing.T) {
	t.Parallel()
	for name, e := range golden() {
		file := "testdata/golden/" + name + ".json"
		got, err := Encode(e)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is encoded as\n%s\nwant\n%s", name, got, want)
		}
		back, err := Decode(want)
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Errorf("%s is read back as %+v, %v", name, back, err)
		}
	}
}

// TestEncodeRoundTrip: what is encoded decodes to the same event, and to the same bytes again.
func TestEncodeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := events().Draw(t, "event")
		payload, err := Encode(e)
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		back, err := Decode(payload)
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("%s\nis read back as %+v, %v\nnot %+v", payload, back, err, e)
		}
		again, err := Encode(back)
		if err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("%s\nis encoded again as\n%s, %v", payload, again, err)
		}
		if !json.Valid(payload) || bytes.ContainsAny(payload, "\n\r\x00") {
			t.Fatalf("not one line of JSON: %q", payload)
		}
	})
}

// TestEncodeKeepsForeignText: every string survives, and nothing is escaped that need not be.
func TestEncodeKeepsForeignText(t *testing.T) {
	t.Parallel()
	for _, s := range nasty {
		e := golden()["commit"]
		e.Data.(*CommitData).FinishReason = s
		payload, err := Encode(e)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		back, err := Decode(payload)
		if err != nil || back.Data.(*CommitData).FinishReason != s {
			t.Errorf("%q is read back as %+v, %v", s, back, err)
		}
	}
	payload, err := Encode(golden()["commit"])
	if err != nil || !bytes.Contains(payload, []byte(`<slow> & steady`)) {
		t.Errorf("HTML is escaped in %s, %v", payload, err)
	}
}

func TestEncodeAmounts(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"0": "0", "-0.00": "0", "1.500": "1.5", "100": "100", "0.000000000001": "0.000000000001",
		"10000000000000000000000000": "10000000000000000000000000", "007.10": "7.1"} {
		e := golden()["credit"]
		e.Amount = MustAmount(in)
		if payload, err := Encode(e); err != nil || !bytes.Contains(payload, []byte(`,"amount":"`+want+`",`)) {
			t.Errorf("%s is encoded in %s, %v", in, payload, err)
		}
	}
	e := golden()["credit"]
	e.Amount = MustAmount("0.5").Times(20_000_000)
	if payload, err := Encode(e); err != nil || !bytes.Contains(payload, []byte(`"amount":"10000000"`)) {
		t.Errorf("a product is encoded in %s, %v", payload, err)
	}
}

// refusals are events that Encode must refuse: name of the golden event, and what is done to it.
var refusals = map[string]struct {
	kind  string
	spoil func(e *Event)
}{
	"schema 0":               {"credit", func(e *Event) { e.Schema = 0 }},
	"schema 2":               {"credit", func(e *Event) { e.Schema = 2 }},
	"no shard":               {"credit", func(e *Event) { e.Shard = -1 }},
	"no seq":                 {"credit", func(e *Event) { e.Seq = 0 }},
	"negative seq":           {"credit", func(e *Event) { e.Seq = -1 }},
	"no id":                  {"credit", func(e *Event) { e.ID = uuid.Nil }},
	"no kind":                {"credit", func(e *Event) { e.Kind = "" }},
	"unknown kind":           {"credit", func(e *Event) { e.Kind = "gift" }},
	"another kind":           {"credit", func(e *Event) { e.Kind = KindDebit }},
	"no account":             {"credit", func(e *Event) { e.Account = "" }},
	"account with NUL":       {"credit", func(e *Event) { e.Account = "a\x00"; e.Credit = AvailableOf(e.Account) }},
	"account with a quote":   {"credit", func(e *Event) { e.Account = `a"`; e.Credit = AvailableOf(e.Account) }},
	"long account":           {"credit", func(e *Event) { e.Account = strings.Repeat("a", 129); e.Credit = AvailableOf(e.Account) }},
	"postings swapped":       {"credit", func(e *Event) { e.Debit, e.Credit = e.Credit, e.Debit }},
	"another's posting":      {"credit", func(e *Event) { e.Credit = AvailableOf("mallory") }},
	"to reserved":            {"credit", func(e *Event) { e.Credit = ReservedOf(e.Account) }},
	"no postings":            {"commit", func(e *Event) { e.Debit, e.Credit = "", "" }},
	"refund to revenue":      {"refund", func(e *Event) { e.Credit = PlatformRevenue }},
	"negative amount":        {"credit", func(e *Event) { e.Amount = MustAmount("-0.000000000001") }},
	"amount out of range":    {"credit", func(e *Event) { e.Amount = MustAmount("99999999999999999999999999").Times(2) }},
	"account event moves":    {"account", func(e *Event) { e.Amount = MustAmount("1") }},
	"missing request id":     {"commit", func(e *Event) { e.RequestID = uuid.Nil }},
	"missing request id (r)": {"reserve", func(e *Event) { e.RequestID = uuid.Nil }},
	"missing request id (f)": {"refund", func(e *Event) { e.RequestID = uuid.Nil }},
	"missing request id (o)": {"overage", func(e *Event) { e.RequestID = uuid.Nil }},
	"surplus request id (c)": {"credit", func(e *Event) { e.RequestID = e.ID }},
	"surplus request id (d)": {"debit", func(e *Event) { e.RequestID = e.ID }},
	"surplus request id (a)": {"account", func(e *Event) { e.RequestID = e.ID }},
	"no currency":            {"credit", func(e *Event) { e.Currency = "" }},
	"small currency":         {"credit", func(e *Event) { e.Currency = "usd" }},
	"long currency":          {"credit", func(e *Event) { e.Currency = "USDT" }},
	"currency with a quote":  {"credit", func(e *Event) { e.Currency = `U"D` }},
	"no data":                {"credit", func(e *Event) { e.Data = nil }},
	"a debit's data":         {"credit", func(e *Event) { e.Data.(*MovementData).debit = true }},
	"a credit's data":        {"debit", func(e *Event) { e.Data.(*MovementData).debit = false }},
	"an overage's data":      {"commit", func(e *Event) { e.Data = &OverageData{Reason: OverageLate} }},
	"a commit's data":        {"overage", func(e *Event) { e.Data = &CommitData{} }},
	"nanoseconds":            {"credit", func(e *Event) { e.OccurredAt = e.OccurredAt.Add(1) }},
	"another zone":           {"credit", func(e *Event) { e.OccurredAt = e.OccurredAt.In(time.FixedZone("", 3600)) }},
	"a zone called UTC":      {"credit", func(e *Event) { e.OccurredAt = e.OccurredAt.In(time.FixedZone("UTC", 0)) }},
	"year 10000":             {"credit", func(e *Event) { e.OccurredAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
	"year -1":                {"credit", func(e *Event) { e.OccurredAt = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) }},
	"negative meter":         {"commit", func(e *Event) { e.Data.(*CommitData).Meters[Output] = -1 }},
	"negative meter (o)":     {"overage", func(e *Event) { e.Data.(*OverageData).Meters[Output] = -1 }},
	"unknown meter":          {"commit", func(e *Event) { e.Data.(*CommitData).Lines[0].Meter = Meter(MeterCount) }},
	"unknown meter (cost)":   {"overage", func(e *Event) { e.Data.(*OverageData).CostLines[0].Meter = 255 }},
	"unknown meter (bound)":  {"reserve", func(e *Event) { e.Data.(*ReserveData).Bound.Lines[1].Meter = 255 }},
	"endless line": {"commit", func(e *Event) {
		e.Data.(*CommitData).Lines[0].Amount = MustAmount("1").Times(math.MaxInt64).Times(math.MaxInt64)
	}},
	"endless unit price": {"commit", func(e *Event) {
		e.Data.(*CommitData).Lines[0].UnitPrice = MustAmount("1").Times(math.MaxInt64).Times(math.MaxInt64)
	}},
	"endless limit": {"account", func(e *Event) {
		e.Data.(*AccountData).CreditLimit = new(MustAmount("1").Times(math.MaxInt64).Times(math.MaxInt64))
	}},
	"negative limit":      {"account", func(e *Event) { e.Data.(*AccountData).CreditLimit = new(MustAmount("-1")) }},
	"64 KiB of text":      {"commit", func(e *Event) { e.Data.(*CommitData).FinishReason = strings.Repeat("x", MaxPayload) }},
	"64 KiB when escaped": {"commit", func(e *Event) { e.Data.(*CommitData).FinishReason = strings.Repeat("\x00", MaxPayload/6) }},
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range refusals {
		e := golden()[c.kind]
		c.spoil(e)
		if payload, err := Encode(e); !errors.Is(err, ErrEvent) || payload != nil {
			t.Errorf("%s: %v, %.200s", name, err, payload)
		}
	}
}

// TestPayloadLimit: exactly MaxPayload bytes pass.
func TestPayloadLimit(t *testing.T) {
	t.Parallel()
	e := golden()["commit_least"]
	least, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	e.Data.(*CommitData).FinishReason = strings.Repeat("x", MaxPayload-len(least))
	if payload, err := Encode(e); err != nil || len(payload) != MaxPayload {
		t.Errorf("%d bytes, %v", len(payload), err)
	}
	e.Data.(*CommitData).FinishReason += "x"
	if payload, err := Encode(e); !errors.Is(err, ErrEvent) {
		t.Errorf("%d bytes, %v", len(payload), err)
	}
}

// edited is a golden payload with one text replaced by another.
func edited(t *testing.T, kind, old, replacement string) []byte {
	t.Helper()
	payload, err := Encode(golden()[kind])
	if err != nil || !bytes.Contains(payload, []byte(old)) {
		t.Fatalf("no %s in %s, %v", old, payload, err)
	}
	return bytes.Replace(payload, []byte(old), []byte(replacement), 1)
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"credit", `"schema":1`, `"schema":0`}, {"credit", `"schema":1`, `"schema":"1"`}, {"credit", `"schema":1,`, ``},
		{"credit", `"seq":2`, `"seq":2.5`}, {"credit", `"seq":2`, `"seq":-2`}, {"credit", `"seq":2,`, ``},
		{"credit", `"kind":"credit"`, `"kind":"debit"`}, {"credit", `"kind":"credit"`, `"kind":"Credit"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":10.000000000001`},
		{"credit", `"amount":"10.000000000001"`, `"amount":"-1"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":"1e9999999"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":"10.0000000000001"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":null`},
		{"credit", `"amount":"10.000000000001",`, ``},
		{"credit", `"currency":"USD"`, `"currency":"usd"`}, {"credit", `"currency":"USD",`, ``},
		{"credit", `"request_id":null`, `"request_id":"01890a5d-ac96-7b00-8000-0123456789ab"`},
		{"commit", `"request_id":"01890a5d-ac96-7b00-8000-0123456789ab"`, `"request_id":null`},
		{"commit", `"request_id":"01890a5d-ac96-7b00-8000-0123456789ab"`, `"request_id":"none"`},
		{"credit", `"occurred_at":"2026-02-03T04:05:06.000007Z"`, `"occurred_at":"2026-02-03T04:05:06.0000071Z"`},
		{"credit", `"occurred_at":"2026-02-03T04:05:06.000007Z"`, `"occurred_at":"9999-12-31T23:59:59-23:59"`},
		{"credit", `"occurred_at":"2026-02-03T04:05:06.000007Z"`, `"occurred_at":"yesterday"`},
		{"credit", `"credit":"user:auth0|alice@example.org:available"`, `"credit":"user:mallory:available"`},
		{"refund", `"data":{"reason":"remainder"}`, `"data":null`}, {"refund", `,"data":{"reason":"remainder"}`, ``},
		{"refund", `"data":{"reason":"remainder"}`, `"data":[]`}, {"refund", `"data":{"reason":"remainder"}`, `"data":"remainder"`},
		{"refund", `"data":{"reason":"remainder"}`, `"data":{"reason":7}`},
		{"commit", `"output":350`, `"output":-350`}, {"commit", `"output":350`, `"tokens":350`}, {"commit", `"output":350`, `"output":3.5`},
		{"commit", `"unit_price":"0.0000025"`, `"unit_price":0.0000025`},
		{"account", `"credit_limit":"2.5"`, `"credit_limit":"-2.5"`},
	} {
		payload := edited(t, c[0], c[1], c[2])
		if e, err := Decode(payload); !errors.Is(err, ErrEvent) || errors.Is(err, ErrSchemaTooNew) {
			t.Errorf("%s with %s: %v, %+v", c[0], c[2], err, e)
		}
	}
	for _, text := range []string{"", "null", "{}", "[]", "1", `"x"`, "\x00", "{", strings.Repeat("[", 100_000)} {
		if e, err := Decode([]byte(text)); !errors.Is(err, ErrEvent) {
			t.Errorf("%.20q: %v, %+v", text, err, e)
		}
	}
	whole := edited(t, "refund", "x", "x")
	for n := range whole {
		if e, err := Decode(whole[:n]); !errors.Is(err, ErrEvent) {
			t.Errorf("cut at %d: %v, %+v", n, err, e)
		}
	}
	if e, err := Decode(append(whole, whole...)); !errors.Is(err, ErrEvent) {
		t.Errorf("two at once: %v, %+v", err, e)
	}
}

// TestDecodeNewerSchema: whatever a newer form has changed, it is called newer and not broken, so
// that the reader stops for an upgrade and not for a forensic examination.
func TestDecodeNewerSchema(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"credit", `"schema":1`, `"schema":2`}, {"credit", `"schema":1`, `"schema":99`},
		{"credit", `"schema":1,"shard":3`, `"schema":2,"shard":"three"`},
		{"credit", `"schema":1,"shard":3,"seq":2`, `"schema":2,"shard":3,"seq":{"epoch":1,"n":2}`},
		{"credit", `"schema":1,"shard":3,"seq":2,"id":"`, `"schema":2,"shard":3,"seq":2,"id":"x`},
	} {
		if e, err := Decode(edited(t, c[0], c[1], c[2])); !errors.Is(err, ErrSchemaTooNew) || e != nil {
			t.Errorf("%s: %v, %+v", c[2], err, e)
		}
	}
	newKind := bytes.Replace(edited(t, "credit", `"schema":1`, `"schema":2`), []byte(`"kind":"credit"`), []byte(`"kind":"gift"`), 1)
	newAmount := bytes.Replace(edited(t, "credit", `"schema":1`, `"schema":2`), []byte(`"10.000000000001"`), []byte(`10`), 1)
	for _, payload := range [][]byte{newKind, newAmount} {
		if _, err := Decode(payload); !errors.Is(err, ErrSchemaTooNew) {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

// TestDecodeTakesGrownEvents: schema 1 may grow by fields, in the event and in its data.
func TestDecodeTakesGrownEvents(t *testing.T) {
	t.Parallel()
	for name, e := range golden() {
		payload, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		grown := bytes.Replace(payload, []byte(`"data":{`), []byte(`"spooled_at":"2026-02-03T04:05:06Z","data":{"new":[1,{"x":null}],`), 1)
		back, err := Decode(grown)
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Errorf("%s: %v, %+v", name, err, back)
		}
	}
}

// checkOwnForm: what is read in the short way is what package encoding/json reads.
func checkOwnForm(t interface{ Fatalf(string, ...any) }, payload []byte) bool {
	own := decodeOwn(payload)
	if own == nil {
		return false
	}
	if e, err := decodeAny(payload); err != nil || !reflect.DeepEqual(own, e) {
		t.Fatalf("%s\nis read as %+v, and by encoding/json as %+v, %v", payload, own, e, err)
	}
	return true
}

// TestOwnForm: every event that Encode writes is read in the short way, but for names that need more than
// ASCII; and whatever is done to its bytes, the short way reads what the long way does, or nothing.
func TestOwnForm(t *testing.T) {
	t.Parallel()
	for name, e := range golden() {
		if payload, err := Encode(e); err != nil || !checkOwnForm(t, payload) {
			t.Errorf("%s is not read in the short way: %v", name, err)
		}
	}
	for _, c := range [][3]string{
		{"credit", `"shard":3`, `"shard":03`}, {"credit", `"shard":3`, `"shard":4294967299`}, {"credit", `"shard":3`, `"shard": 3`},
		{"credit", `"seq":2`, `"seq":+2`}, {"credit", `"seq":2`, `"seq":`}, {"credit", `"seq":2`, `"seq":9223372036854775808`},
		{"credit", `"kind":"credit"`, `"kind":"cred\u0069t"`}, {"credit", `"kind":"credit"`, `"Kind":"credit"`}, {"credit", `"kind":"credit"`, `"kind":"gift"`},
		{"credit", `"currency":"USD"`, `"currency":"USD","currency":"EUR"`}, {"credit", `"currency":"USD"`, "\"currency\":\"U\x00D\""},
		{"refund", `"reason":"remainder"}`, `"reason":"remainder"},"seq":7`}, {"refund", `"reason":"remainder"}`, `"reason":"remainder"},"data":{}`},
		{"refund", `"reason":"remainder"}`, `"reason":"remainder"}}`}, {"refund", `"reason":"remainder"}}`, `"reason":"remainder"}`},
		{"refund", `"reason":"remainder"}`, `"reason":"remainder"} `}, {"refund", `{"reason":"remainder"}`, `{}`}, {"refund", `{"reason":"remainder"}`, `{`},
		{"commit", `"output":350`, `"output":350,"output":351`}, {"commit", `"output":350`, `"output":0350`}, {"commit", `"output":350,`, ``},
	} {
		checkOwnForm(t, edited(t, c[0], c[1], c[2]))
	}
	rapid.Check(t, func(t *rapid.T) {
		payload, err := Encode(events().Draw(t, "event"))
		if err != nil {
			t.Fatalf("%v", err)
		}
		checkOwnForm(t, payload)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			at := rapid.IntRange(0, len(payload)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				payload[at] = rapid.SampledFrom([]byte("0159-+.eE\"\\ {}[],:nullZ\x00\xff")).Draw(t, "byte")
			case 1:
				payload = append(payload[:at], payload[min(at+rapid.IntRange(1, 9).Draw(t, "cut"), len(payload)-1):]...)
			default:
				payload = slices.Insert(payload, at, payload[at:min(at+rapid.IntRange(1, 40).Draw(t, "again"), len(payload))]...)
			}
		}
		checkOwnForm(t, payload)
	})
}

// FuzzDecode: no bytes panic, and what is read can be written and read again as the same.
func FuzzDecode(f *testing.F) {
	for _, e := range golden() {
		payload, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Add([]byte(`{"schema":1,"kind":"refund","data":null}`))
	f.Add([]byte(`{"SCHEMA":1,"schema":2,"Amount":"1.500"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		checkOwnForm(t, payload)
		e, err := Decode(payload)
		if err != nil {
			if !errors.Is(err, ErrEvent) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		written, err := Encode(e)
		if err != nil {
			if len(payload) < MaxPayload/6 { // escapes may make it longer
				t.Fatalf("%s was read and cannot be written: %v", payload, err)
			}
			return
		}
		back, err := Decode(written)
		if err != nil {
			t.Fatalf("%s was written and cannot be read: %v", written, err)
		}
		again, err := Encode(back)
		if err != nil || !bytes.Equal(again, written) {
			t.Fatalf("%s\nis written again as\n%s, %v", written, again, err)
		}
	})
}

// BenchmarkEvent writes and reads the events of a billed request: every request is written once and read by
// each of those who follow the ledger.
func BenchmarkEvent(b *testing.B) {
	for _, name := range []string{"reserve", "commit", "refund"} {
		e := golden()[name]
		payload, err := Encode(e)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("encode "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Encode(e); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("decode "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
