package domain

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

const schemaFile = "../docs/events.schema.json"

// readSchema reads the published schema; the compiler holds it against the metaschema.
func readSchema(t *testing.T) (*jsonschema.Schema, map[string]any) {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("events.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("events.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s, doc.(map[string]any)
}

// holds says what the schema has against a payload.
func holds(s *jsonschema.Schema, payload []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// TestSchemaHoldsForEvents: what Encode writes is what the schema says, for golden and any events.
func TestSchemaHoldsForEvents(t *testing.T) {
	t.Parallel()
	s, _ := readSchema(t)
	for name, e := range grown() {
		payload, err := Encode(e)
		if err == nil {
			err = holds(s, payload)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		more := bytes.Replace(payload, []byte(`"data":{`), []byte(`"later":[{}],"data":{"later":{"x":[]},`), 1)
		if err := holds(s, more); err != nil {
			t.Errorf("%s, grown: %v", name, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		payload, err := Encode(events().Draw(t, "event"))
		if err == nil {
			err = holds(s, payload)
		}
		if err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
	})
}

// TestSchemaHoldsForBooks: and for what Decide leads to.
func TestSchemaHoldsForBooks(t *testing.T) {
	t.Parallel()
	s, _ := readSchema(t)
	k := newBookkeeper(t)
	k.do("alice", Open{MustAmount("50"), "system"})
	k.do("alice", Configure{AccountData{Frozen: new(true), Reason: "fraud?", Actor: "cli"}})
	k.do("alice", Configure{AccountData{Frozen: new(false), CreditLimit: new(Zero), Actor: "cli"}})
	for n, charge := range []string{"0", "3", "4", "9"} {
		reserve := *golden()["reserve"].Data.(*ReserveData)
		reserve.IdempotencyKey += charge
		k.do("alice", Reserve{requestNumber(n + 1), MustAmount("4"), reserve})
		k.do("alice", Settle{RequestID: requestNumber(n + 1), Charge: MustAmount(charge), Data: *golden()["commit"].Data.(*CommitData)})
	}
	k.do("alice", Reserve{requestNumber(9), MustAmount("4"), *golden()["reserve_least"].Data.(*ReserveData)})
	k.do("alice", Release{requestNumber(9), RefundShutdown})
	k.do("alice", Debit{MustAmount("90"), MovementData{Reference: "clawback", Actor: "admin:bob", Corrects: "3:2"}, true})
	k.spooled = k.now()
	k.do("alice", Reserve{requestNumber(10), Zero, *golden()["reserve_least"].Data.(*ReserveData)})
	k.do("alice", Release{requestNumber(10), RefundExpired})
	k.do("alice", Settle{RequestID: requestNumber(10), Charge: MustAmount("1"), Data: *golden()["commit"].Data.(*CommitData)})
	k.do("alice", Credit{MustAmount("90"), MovementData{Reference: "topup", Actor: "cli"}})
	k.do("alice", Spooled{RequestID: requestNumber(11), Amount: MustAmount("99"), Charge: MustAmount("1"), Commit: *golden()["commit"].Data.(*CommitData)})
	k.do("alice", Spooled{RequestID: requestNumber(12), Amount: MustAmount("2"), Charge: MustAmount("1"), Commit: *golden()["commit"].Data.(*CommitData)})
	if len(k.payloads) != 26 {
		t.Fatalf("%d events", len(k.payloads))
	}
	for _, p := range k.payloads {
		if err := holds(s, p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestSchemaRefuses: the schema is strict where the contract is.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	s, _ := readSchema(t)
	for _, c := range [][3]string{
		{"credit", `"schema":1`, `"schema":2`}, {"credit", `"seq":2`, `"seq":0`}, {"credit", `"seq":2`, `"seq":"2"`},
		{"credit", `"shard":3`, `"shard":-1`}, {"credit", `"currency":"USD"`, `"currency":"usd"`},
		{"credit", `"kind":"credit"`, `"kind":"gift"`}, {"credit", `"kind":"credit"`, `"kind":"debit"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":10.000000000001`}, {"credit", `"amount":"10.000000000001"`, `"amount":"10.0"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":"1e1"`}, {"credit", `"amount":"10.000000000001"`, `"amount":"-1"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":"+1"`}, {"credit", `"amount":"10.000000000001"`, `"amount":"01"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":".5"`}, {"credit", `"amount":"10.000000000001"`, `"amount":"0.0000000000001"`},
		{"credit", `"amount":"10.000000000001"`, `"amount":"100000000000000000000000000"`},
		{"credit", `"amount":"10.000000000001",`, ``}, {"credit", `"request_id":null,`, ``},
		{"credit", `"request_id":null`, `"request_id":"01890a5d-ac96-7b00-8000-0123456789ab"`},
		{"commit", `"request_id":"01890a5d-ac96-7b00-8000-0123456789ab"`, `"request_id":null`},
		{"commit", `"request_id":"01890a5d-ac96-7b00-8000-0123456789ab"`, `"request_id":"r1"`},
		{"credit", `"occurred_at":"2026-02-03T04:05:06.000007Z"`, `"occurred_at":"2026-02-03T04:05:06Z"`},
		{"credit", `"occurred_at":"2026-02-03T04:05:06.000007Z"`, `"occurred_at":"2026-02-03T04:05:06.000007+00:00"`},
		{"credit", `"occurred_at":"2026-02-03T04:05:06.000007Z"`, `"occurred_at":"2026-13-03T04:05:06.000007Z"`},
		{"credit", `"debit":"platform:funding"`, `"debit":"platform:revenue"`}, {"commit", `:reserved"`, `:available"`},
		{"credit", `"account":"auth0|alice@example.org"`, `"account":"al ice"`}, {"credit", `"reference":"INV/2026-07 é",`, ``},
		{"credit", `"corrects":"3:1"`, `"corrects":"3"`}, {"credit", `"actor":"cli"`, `"actor":""`},
		{"account", `"amount":"0"`, `"amount":"1"`}, {"account", `"credit_limit":"2.5"`, `"credit_limit":2.5`},
		{"account", `"frozen":false`, `"frozen":"no"`}, {"refund", `"reason":"remainder"`, `"reason":"whim"`},
		{"refund", `"data":{"reason":"remainder"}`, `"data":{}`}, {"refund", `"data":{"reason":"remainder"}`, `"data":null`},
		{"overage", `"reason":"beyond_bound"`, `"reason":"remainder"`}, {"overage", `"reason":"beyond_bound",`, ``},
		{"overage", `"usage_source":"provider",`, ``}, {"commit", `"usage_source":"provider"`, `"usage_source":"guessed"`},
		{"commit", `"web_search":0,`, ``}, {"commit", `"web_search":0`, `"web_search":-1`}, {"commit", `"web_search":0`, `"web_search":0,"video":1`},
		{"commit", `"finish_reason":`, `"usage":[1],"finish_reason":`}, {"commit", `"meter":"input"`, `"meter":"video"`}, {"commit", `"quantity":1200`, `"quantity":1200.5`},
		{"commit", `"unit_price":"0.0000025"`, `"unit_price":"2.5e-6"`}, {"commit", `"status":429`, `"status":"429"`},
		{"commit", `"tags":{"a":"<b>"`, `"tags":{"a":1`}, {"reserve", `"bound":{"input":1300,`, `"bound":{`},
		{"reserve", `"body_hash":"0`, `"body_hash":"X`}, {"reserve", `"owner":"01890a5d-`, `"owner":"`},
	} {
		if payload := edited(t, c[0], c[1], c[2]); holds(s, payload) == nil {
			t.Errorf("%s with %s is accepted", c[0], c[2])
		}
	}
}

// TestSchemaVocabulary: the closed lists are the code's.
func TestSchemaVocabulary(t *testing.T) {
	t.Parallel()
	_, doc := readSchema(t)
	at := func(path ...string) any {
		var v any = doc
		for _, name := range path {
			v = v.(map[string]any)[name]
		}
		return v
	}
	for name, c := range map[string][2]any{
		"kinds":           {at("properties", "kind", "enum"), kinds},
		"meters":          {at("$defs", "meter", "enum"), meterNames},
		"counted meters":  {at("$defs", "meters", "required"), meterNames},
		"books of prices": {at("$defs", "prices", "properties", "book", "enum"), []string{BookCost, BookSell}},
		"sources":         {at("$defs", "commit", "properties", "usage_source", "enum"), []UsageSource{UsageProvider, UsageCounted}},
		"overage reasons": {at("$defs", "overage", "properties", "reason", "enum"),
			[]OverageReason{OverageBeyondBound, OverageLate, OverageSpooled}},
		"refund reasons": {at("$defs", "refund", "properties", "reason", "enum"), []RefundReason{RefundRemainder,
			RefundProviderError, RefundClientAbort, RefundExpired, RefundShutdown, RefundInternalError}},
	} {
		if got, want := jsonText(c[0]), jsonText(c[1]); got != want {
			t.Errorf("%s are %s, want %s", name, got, want)
		}
	}
}

// grown are the golden events, and one with the fields that were added to events after those were fixed.
func grown() map[string]*Event {
	all := golden()
	later := *all["commit"]
	data := *later.Data.(*CommitData)
	data.UsageSource, data.CountedBy = UsageCounted, "o200k_base*3/2"
	data.Usage = []byte(`{"prompt_tokens":1200,"prompt_tokens_details":{"cached_tokens":0},"cost":0.0065}`)
	data.CostVersion, data.Region = "openai/gpt-4o-mini@launch#01234567", "us+fast"
	data.Cache = CacheHit
	data.Lines = slices.Clone(data.Lines)
	data.Lines[0].PriceVersion = "gpt-4o-mini@2024-07-18"
	later.Data = &data
	all["later"] = &later
	prices := *all["account"]
	prices.Account = PricesAccount
	prices.Debit, prices.Credit, _ = postings(KindAccount, PricesAccount)
	prices.Data = &AccountData{Opened: true, Actor: "gateway:a", Reason: "start", Prices: &PricesData{Book: BookCost, More: true,
		From: strings.Repeat("0a", 32), To: strings.Repeat("9f", 32),
		Changes: []VersionChange{{Model: "acme/m", From: "acme/m@2026-01-01#01234567", To: "acme/m@2026-01-01#89abcdef", EffectiveFrom: "2026-01-01"},
			{Model: "acme/m", To: "acme/m@2026-01-01T12:00:00Z#89abcdef", EffectiveFrom: "2026-01-01T12:00:00Z"}, {Model: "acme/n", From: "acme/n@launch#01234567"}}}}
	all["prices"] = &prices
	return all
}

// TestSchemaDescribesEveryField: the fields of these events, which leave none out, are the schema's, and each
// says in words what it is.
func TestSchemaDescribesEveryField(t *testing.T) {
	t.Parallel()
	_, doc := readSchema(t)
	written, described := map[string]bool{}, map[string]bool{}
	for name, e := range grown() {
		payload, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		objects(v, func(o map[string]any) {
			for field := range o {
				written[field] = true
			}
			delete(o, "tags")  // whose names are the client's
			delete(o, "usage") // whose names are the provider's
		})
	}
	objects(any(doc), func(o map[string]any) {
		properties, _ := o["properties"].(map[string]any)
		for field, p := range properties {
			described[field] = true
			says := p.(map[string]any)
			if o["description"] != nil && says["description"] == nil && says["$ref"] == nil { // else a condition
				t.Errorf("%s is not described", field)
			}
		}
	})
	if got, want := slices.Sorted(maps.Keys(described)), slices.Sorted(maps.Keys(written)); !slices.Equal(got, want) {
		t.Errorf("the schema has\n%v\nand events have\n%v", got, want)
	}
}

// objects visits every object in a JSON value, outer ones first.
func objects(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(v)
		for _, x := range v {
			objects(x, visit)
		}
	case []any:
		for _, x := range v {
			objects(x, visit)
		}
	}
}
