package domain

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Data is what an event says beyond its movement; one type per kind.
type Data interface{ kind() Kind }

// ReserveData is the data of a `reserve`: what was asked for, and why it may cost that much.
type ReserveData struct {
	Surface        string            `json:"surface"` // the door: chat_completions, ...
	Model          string            `json:"model"`   // as the client named it
	Stream         bool              `json:"stream"`
	Bound          Bound             `json:"bound"`
	PriceVersion   string            `json:"price_version"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	BodyHash       string            `json:"body_hash"`  // hex SHA-256 of what the client sent
	MaxOutput      int64             `json:"max_output"` // the bound on output tokens, all choices
	KeyID          string            `json:"key_id,omitempty"`
	EndUser        string            `json:"end_user,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"`
	Owner          uuid.UUID         `json:"owner"` // the process start that must settle this
	SpooledAt      string            `json:"spooled_at,omitempty"`
}

// Attempt is one call of a provider within a request.
type Attempt struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
	Status   int    `json:"status"` // HTTP status; 0 where there was none
	Error    string `json:"error,omitempty"`
	Millis   int64  `json:"ms"`
}

// UsageSource says who counted: the provider, or the gateway itself.
type UsageSource string

// The sources of a commit's meters.
const (
	UsageProvider UsageSource = "provider"
	UsageCounted  UsageSource = "counted"
)

// CacheHit says that a request was answered by the response cache.
const CacheHit = "hit"

// CommitData is the data of a `commit`: everything that the charge is made of. The lines sum to
// the event's amount, or, where the charge exceeded the reserve, to the commit and the overage of
// reason beyond_bound that follows it together.
type CommitData struct {
	Surface        string            `json:"surface"`
	ModelRequested string            `json:"model_requested"`
	ModelServed    string            `json:"model_served"`
	Provider       string            `json:"provider"`
	Attempts       []Attempt         `json:"attempts"`
	Meters         Meters            `json:"meters"`
	Lines          []Line            `json:"lines"`
	PriceVersion   string            `json:"price_version"`
	CostLines      []Line            `json:"cost_lines"`
	CostVersion    string            `json:"cost_version,omitempty"` // of the cost lines, where it is not PriceVersion
	UsageSource    UsageSource       `json:"usage_source"`
	CountedBy      string            `json:"counted_by,omitempty"` // of counted: the vocabulary, and by what its count was raised
	Usage          json.RawMessage   `json:"usage,omitempty"`      // as the provider reported it: an object of numbers, at most MaxUsage
	FinishReason   string            `json:"finish_reason"`
	Stream         bool              `json:"stream"`
	ServiceTier    string            `json:"service_tier,omitempty"`
	Region         string            `json:"region,omitempty"` // place or speed whose factor was charged
	TTFTMillis     int64             `json:"ttft_ms"`
	LatencyMillis  int64             `json:"latency_ms"`
	KeyID          string            `json:"key_id,omitempty"`
	EndUser        string            `json:"end_user,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"`
	Cache          string            `json:"cache,omitempty"`      // CacheHit: the answer was made before, and no provider was called
	SpooledAt      string            `json:"spooled_at,omitempty"` // when it was written to a journal, as occurred_at
}

// RefundReason says why reserved money went back.
type RefundReason string

// The reasons of a refund. Remainder follows a commit; the others release the whole reservation.
const (
	RefundRemainder     RefundReason = "remainder"
	RefundProviderError RefundReason = "provider_error"
	RefundClientAbort   RefundReason = "client_abort"
	RefundExpired       RefundReason = "expired"
	RefundShutdown      RefundReason = "shutdown"
	RefundInternalError RefundReason = "internal_error"
)

func (r RefundReason) valid() bool {
	switch r {
	case RefundRemainder, RefundProviderError, RefundClientAbort, RefundExpired, RefundShutdown,
		RefundInternalError:
		return true
	}
	return false
}

// RefundData is the data of a `refund`.
type RefundData struct {
	Reason    RefundReason `json:"reason"`
	SpooledAt string       `json:"spooled_at,omitempty"`
}

// OverageReason says why money was taken beyond a reservation.
type OverageReason string

// The reasons of an overage.
const (
	OverageBeyondBound OverageReason = "beyond_bound"
	OverageLate        OverageReason = "late"
	OverageSpooled     OverageReason = "spooled"
)

// OverageData is the data of an `overage`: why, then as a commit.
type OverageData struct {
	Reason OverageReason `json:"reason"`
	CommitData
}

// MovementData is the data of a `credit` or a `debit`.
type MovementData struct {
	Reference string `json:"reference"` // makes it happen once per account
	Reason    string `json:"reason,omitempty"`
	Actor     string `json:"actor"`              // who did it: system, cli, admin:<sub>
	Corrects  string `json:"corrects,omitempty"` // the position of what this corrects
	debit     bool
}

// AccountData is the data of an `account` event: what is set by it. Nil leaves a thing as it was.
type AccountData struct {
	Opened      bool        `json:"opened,omitempty"`
	CreditLimit *Amount     `json:"credit_limit,omitempty"`
	Frozen      *bool       `json:"frozen,omitempty"`
	Prices      *PricesData `json:"prices,omitempty"` // of PricesAccount alone: it sets nothing of an account
	Reason      string      `json:"reason,omitempty"`
	Actor       string      `json:"actor"`
}

func (*ReserveData) kind() Kind { return KindReserve }
func (*CommitData) kind() Kind  { return KindCommit }
func (*RefundData) kind() Kind  { return KindRefund }
func (*OverageData) kind() Kind { return KindOverage }
func (*AccountData) kind() Kind { return KindAccount }
func (d *MovementData) kind() Kind {
	if d.debit {
		return KindDebit
	}
	return KindCredit
}

// spooled is data with the time when its command was written to a journal; as it is, where that was not.
func spooled(data Data, at time.Time) Data {
	if at.IsZero() {
		return data
	}
	text := EventTime(at).Format(timeForm)
	switch d := data.(type) {
	case *ReserveData:
		marked := *d
		marked.SpooledAt = text
		return &marked
	case *CommitData:
		marked := *d
		marked.SpooledAt = text
		return &marked
	case *OverageData:
		marked := *d
		marked.SpooledAt = text
		return &marked
	case *RefundData:
		marked := *d
		marked.SpooledAt = text
		return &marked
	}
	return data
}

// Bounds of foreign strings inside an event's data, in bytes.
const (
	MaxForeignText = 128
	MaxReference   = 200
)

// MaxUsage bounds a provider's own usage inside an event, in bytes; a longer one is left out.
const MaxUsage = 2 << 10

// CleanText makes a foreign string fit for an event: control characters (U+0000 among them, which
// Postgres's text refuses) and invalid UTF-8 are dropped, and it is cut at max bytes on a rune's
// boundary.
func CleanText(s string, max int) string {
	clean := strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if len(clean) <= max {
		return clean
	}
	clean = clean[:max]
	for clean != "" && !utf8.ValidString(clean) {
		clean = clean[:len(clean)-1]
	}
	return clean
}

// EventTime brings a clock's reading to what an event can hold: UTC, whole microseconds.
func EventTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
