package domain

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// kinds are all kinds of schema 1.
var kinds = []Kind{KindCredit, KindDebit, KindReserve, KindCommit, KindRefund, KindOverage, KindAccount}

// nasty are strings that encoders, terminals and databases trip over.
var nasty = []string{"", "<script>&amp;", "\u2028\u2029", `"quoted" \ back`, "🪙💸", "\x00\x01\x1f\x7f", "\r\n\t",
	"\u202egnp", "\ufffd", `\ufffd`, "\U0010ffff", "é\u0301", "null", "{}", strings.Repeat("long ", 60)}

// texts generates valid UTF-8, awkward ones often.
func texts() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom(nasty), rapid.Map(rapid.String(), func(s string) string {
		return strings.ToValidUTF8(s, "?")
	}))
}

// payable generates amounts that an event can move, in the form that reading gives them, so that
// events can be compared deeply.
func payable() *rapid.Generator[Amount] {
	return rapid.Map(amounts(), func(a Amount) Amount {
		if a.Sign() < 0 {
			a = a.Neg()
		}
		return MustAmount(a.String())
	})
}

func uuids() *rapid.Generator[uuid.UUID] {
	return rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) uuid.UUID {
		b[0] |= 1 // never uuid.Nil
		return uuid.UUID(b)
	})
}

// times generates what events can hold: UTC, microseconds, years 0 to 9999.
func times() *rapid.Generator[time.Time] {
	first, last := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	return rapid.Map(rapid.Int64Range(first.UnixMicro(), last.UnixMicro()-1), func(n int64) time.Time {
		return time.UnixMicro(n).UTC()
	})
}

// spooledAt draws the time of an event that waited in a journal, or "".
func spooledAt(t *rapid.T) string {
	if rapid.Bool().Draw(t, "waited") {
		return times().Draw(t, "spooled at").Format(timeForm)
	}
	return ""
}

func accountNames() *rapid.Generator[string] {
	return rapid.StringMatching(`[A-Za-z0-9._:|@/+=~-]{1,128}`)
}

func tags() *rapid.Generator[map[string]string] {
	return rapid.Map(rapid.MapOfN(texts(), texts(), 0, 4), func(m map[string]string) map[string]string {
		if len(m) == 0 {
			return nil // omitted, and so not there when it is read back
		}
		return m
	})
}

func lines() *rapid.Generator[[]Line] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Line {
		return Line{Meter: Meter(rapid.IntRange(0, MeterCount-1).Draw(t, "meter")), Quantity: rapid.Int64Range(0, math.MaxInt64).Draw(t, "quantity"),
			UnitPrice: payable().Draw(t, "unit price"), Amount: payable().Draw(t, "amount")}
	}), 0, 4)
}

func commitDatas() *rapid.Generator[CommitData] {
	attempts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Attempt {
		return Attempt{Provider: texts().Draw(t, "provider"), Model: texts().Draw(t, "model"),
			Status: rapid.IntRange(0, 999).Draw(t, "status"), Error: texts().Draw(t, "error"),
			Millis: rapid.Int64Range(0, math.MaxInt64).Draw(t, "ms")}
	}), 0, 4)
	return rapid.Custom(func(t *rapid.T) CommitData {
		d := CommitData{Surface: texts().Draw(t, "surface"), ModelRequested: texts().Draw(t, "requested"),
			ModelServed: texts().Draw(t, "served"), Provider: texts().Draw(t, "provider"),
			Attempts: attempts.Draw(t, "attempts"), Lines: lines().Draw(t, "lines"),
			PriceVersion: texts().Draw(t, "version"), CostLines: lines().Draw(t, "cost"),
			CountedBy:    rapid.SampledFrom([]string{"", "o200k_base"}).Draw(t, "counted by"),
			UsageSource:  rapid.SampledFrom([]UsageSource{UsageProvider, UsageCounted}).Draw(t, "source"),
			FinishReason: texts().Draw(t, "finish"), Stream: rapid.Bool().Draw(t, "stream"),
			ServiceTier: texts().Draw(t, "tier"), TTFTMillis: rapid.Int64Range(0, math.MaxInt64).Draw(t, "ttft"),
			LatencyMillis: rapid.Int64Range(0, math.MaxInt64).Draw(t, "latency"), KeyID: texts().Draw(t, "key"),
			EndUser: texts().Draw(t, "user"), Tags: tags().Draw(t, "tags"), SpooledAt: spooledAt(t)}
		if rapid.Bool().Draw(t, "reported") {
			d.Usage = fmt.Appendf(nil, `{"input_tokens":%d,"details":[{"tokens":0}]}`, rapid.Int64().Draw(t, "tokens"))
		}
		for i := range d.Meters {
			d.Meters[i] = rapid.Int64Range(0, math.MaxInt64).Draw(t, "count")
		}
		return d
	})
}

func reserveDatas() *rapid.Generator[*ReserveData] {
	return rapid.Custom(func(t *rapid.T) *ReserveData {
		count := rapid.Int64Range(0, math.MaxInt64)
		return &ReserveData{Surface: texts().Draw(t, "surface"), Model: texts().Draw(t, "model"),
			Stream:       rapid.Bool().Draw(t, "stream"),
			Bound:        Bound{Input: count.Draw(t, "input"), Output: count.Draw(t, "output"), Lines: lines().Draw(t, "lines")},
			PriceVersion: texts().Draw(t, "version"), IdempotencyKey: texts().Draw(t, "key"),
			BodyHash:  rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "hash"),
			MaxOutput: count.Draw(t, "max"), KeyID: texts().Draw(t, "key id"),
			EndUser: texts().Draw(t, "user"), Tags: tags().Draw(t, "tags"), Owner: uuids().Draw(t, "owner"),
			SpooledAt: spooledAt(t)}
	})
}

// datas generates what an event of a kind can say.
func datas(k Kind) *rapid.Generator[Data] {
	return rapid.Custom(func(t *rapid.T) Data {
		switch k {
		case KindCredit, KindDebit:
			d := &MovementData{Reference: "r" + texts().Draw(t, "reference"), Reason: texts().Draw(t, "reason"),
				Actor: "a" + texts().Draw(t, "actor"), debit: k == KindDebit}
			if rapid.Bool().Draw(t, "is a correction") {
				d.Corrects = Position{1, rapid.Int64Range(1, math.MaxInt64).Draw(t, "corrects")}.String()
			}
			return d
		case KindReserve:
			return reserveDatas().Draw(t, "reserve")
		case KindCommit:
			d := commitDatas().Draw(t, "commit")
			return &d
		case KindRefund:
			return &RefundData{Reason: rapid.SampledFrom([]RefundReason{RefundRemainder, RefundProviderError, RefundClientAbort,
				RefundExpired, RefundShutdown, RefundInternalError}).Draw(t, "reason"), SpooledAt: spooledAt(t)}
		case KindOverage:
			return &OverageData{rapid.SampledFrom([]OverageReason{OverageBeyondBound, OverageLate, OverageSpooled}).Draw(t, "reason"),
				commitDatas().Draw(t, "overage")}
		}
		d := &AccountData{Opened: rapid.Bool().Draw(t, "opened"), Reason: texts().Draw(t, "reason"), Actor: "a" + texts().Draw(t, "actor")}
		if rapid.Bool().Draw(t, "limits") {
			d.CreditLimit = new(payable().Draw(t, "limit"))
		}
		if rapid.Bool().Draw(t, "freezes") {
			d.Frozen = new(rapid.Bool().Draw(t, "frozen"))
		}
		return d
	})
}

// events generates events of all kinds that Encode accepts.
func events() *rapid.Generator[*Event] {
	return rapid.Custom(func(t *rapid.T) *Event {
		k := rapid.SampledFrom(kinds).Draw(t, "kind")
		e := &Event{Schema: EventSchema, Shard: rapid.Int32Range(0, math.MaxInt32).Draw(t, "shard"),
			Seq: rapid.Int64Range(1, math.MaxInt64).Draw(t, "seq"), ID: uuids().Draw(t, "id"), Kind: k,
			Account: accountNames().Draw(t, "account"), Amount: payable().Draw(t, "amount"),
			Currency:   rapid.StringMatching(`[A-Z]{3}`).Draw(t, "currency"),
			OccurredAt: times().Draw(t, "time"), Data: datas(k).Draw(t, "data")}
		e.Debit, e.Credit, _ = postings(k, e.Account)
		if k == KindAccount {
			e.Amount = MustAmount("0")
		}
		if ofRequest(k) {
			e.RequestID = uuids().Draw(t, "request")
		}
		return e
	})
}
