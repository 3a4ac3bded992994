package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// as makes a request with a token of a role.
func (e *env) as(role, account, method, path, body string) answer {
	e.t.Helper()
	token, err := e.tokens.Sign(account, role, time.Now(), time.Hour)
	if err != nil {
		e.t.Fatal(err)
	}
	r := e.request(method, "", path, body)
	r.Header.Set("Authorization", "Bearer "+token)
	return e.do(r)
}

func (e *env) admin(method, path, body string) answer {
	e.t.Helper()
	return e.as(gateway.RoleAdmin, "root", method, path, body)
}

func accountPath(name string) string {
	return "/admin/accounts/" + strings.NewReplacer("/", "%2F", "|", "%7C").Replace(name)
}

// TestAdminCredit: a credit happens once by its reference, and says what the account then is.
func TestAdminCredit(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "10"})
	e.get("gabi", "/billing/balance")
	path := accountPath("gabi") + "/credits"
	first := e.admin(http.MethodPost, path, `{"amount":"25.00","reference":"inv 1","reason":"top-up"}`)
	const want = `{"account":"gabi","balance":"35","reserved":"0","credit_limit":"0","frozen":false,"currency":"USD","amount":"25","reference":"inv 1","position":"POSITION","event_id":"ID","repeated":%t}`
	if first.status != http.StatusCreated || masked(first.body) != fmt.Sprintf(want, false) {
		t.Errorf("%d %s", first.status, first.body)
	}
	for _, body := range []string{`{"amount":"25","reference":"inv 1"}`, ` {"reference" : "inv 1", "amount":"25.000","reason":null,"open":true,"corrects":null}`} {
		again := e.admin(http.MethodPost, path, body)
		if again.status != http.StatusOK || masked(again.body) != fmt.Sprintf(want, true) || again.json("position").Str != first.json("position").Str ||
			again.json("event_id").Str != first.json("event_id").Str {
			t.Errorf("again: %d %s", again.status, again.body)
		}
	}
	lines := e.get("gabi", "/billing/transactions").json("transactions")
	if lines.Get("#").Int() != 2 || lines.Get("0.description").Str != "Credit: top-up (inv 1)" || lines.Get("0.id").Str != first.json("event_id").Str {
		t.Errorf("%s", lines.Raw)
	}
	events, err := e.memory.Transactions(t.Context(), "gabi", 1, 0)
	if err != nil || events[0].Event.Data.(*domain.MovementData).Actor != "admin:root" || events[0].Event.Position().String() != first.json("position").Str {
		t.Errorf("%v %s", err, events[0].Payload)
	}
	corrected := e.admin(http.MethodPost, path, `{"amount":"0.000000000001","reference":"fix","corrects":"`+first.json("position").Str+`"}`)
	events, _ = e.memory.Transactions(t.Context(), "gabi", 1, 0)
	if corrected.status != http.StatusCreated || corrected.json("balance").Str != "35.000000000001" || events[0].Event.Data.(*domain.MovementData).Corrects != first.json("position").Str {
		t.Errorf("%d %s", corrected.status, corrected.body)
	}
	e.untouched("the administrator's own", "root")
	if e.account("root") != nil {
		t.Error("an account was opened for the administrator")
	}
	if logs := e.logs.String(); strings.Count(logs, "an administrator changed an account") != 2 || !strings.Contains(logs, `"admin":"root"`) {
		t.Errorf("the log says %s", logs)
	}
}

// TestAdminOpens: an account that nobody has used yet is opened where that is asked for, once, with what
// every account is opened with.
func TestAdminOpens(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "10"})
	path := accountPath("newcomer") + "/credits"
	for _, body := range []string{`{"amount":"5","reference":"r"}`, `{"amount":"5","reference":"r","open":false}`} {
		a := e.admin(http.MethodPost, path, body)
		checkError(t, body, a, http.StatusNotFound, "invalid_request_error", "account_not_found")
	}
	if a := e.admin(http.MethodPost, path, `{"amount":"5","reference":"opening","open":true}`); a.code() != "reference_reused" || e.account("newcomer") != nil {
		t.Errorf("%d %s; the account: %v", a.status, a.body, e.account("newcomer"))
	}
	for i, want := range []int{201, 200} {
		if a := e.admin(http.MethodPost, path, `{"amount":"5","reference":"r","open":true}`); a.status != want || a.json("balance").Str != "15" {
			t.Errorf("%d: %d %s", i, a.status, a.body)
		}
	}
	if a := e.get("newcomer", "/billing/balance"); a.json("balance").Raw != "15" {
		t.Errorf("its own first request: %s", a.body)
	}
}

// TestAdminSettings: the credit limit and freezing, which may be asked for twice.
func TestAdminSettings(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "0"})
	e.get("hedi", "/billing/balance")
	path := accountPath("hedi")
	view := func(limit string, frozen bool) string {
		return fmt.Sprintf(`{"account":"hedi","balance":"0","reserved":"0","credit_limit":%q,"frozen":%t,"currency":"USD"}`, limit, frozen)
	}
	chat := func() int { return e.chat("hedi", chatBody("sim-flat", "x", "")).status }
	if a := e.admin(http.MethodGet, path, ""); a.status != 200 || a.body != view("0", false) || chat() != 402 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, c := range []struct {
		address, body, want string
		events              int64 // that it adds
		chat                int
	}{
		{"/credit-limit", `{"credit_limit":"10.50","reason":"a good customer"}`, view("10.5", false), 1, 0},
		{"/credit-limit", `{"credit_limit":"10.5"}`, view("10.5", false), 0, 0},
		{"/frozen", `{"frozen":false}`, view("10.5", false), 0, 0},
		{"/frozen", `{"frozen":true,"reason":"abuse"}`, view("10.5", true), 1, 403},
		{"/frozen", `{"frozen":true,"reason":null}`, view("10.5", true), 0, 403},
		{"/credit-limit", `{"credit_limit":"0"}`, view("0", true), 1, 403},
		{"/frozen", `{"frozen":false}`, view("0", false), 1, 402},
	} {
		before := e.account("hedi").LastSeq
		a := e.admin(http.MethodPut, path+c.address, c.body)
		if added := e.account("hedi").LastSeq - before; a.status != 200 || a.body != c.want || added != c.events {
			t.Errorf("%s: %d %s, %d events", c.body, a.status, a.body, added)
		}
		if b := e.admin(http.MethodGet, path, ""); b.body != c.want {
			t.Errorf("%s: then %s", c.body, b.body)
		}
		if c.chat != 0 && chat() != c.chat {
			t.Errorf("%s: then a call is not %d", c.body, c.chat)
		}
	}
}

// TestAdminsOnly: nobody else may do any of it, and nothing happens.
func TestAdminsOnly(t *testing.T) {
	t.Parallel()
	user, admin := "sk-of-a-user", "sk-of-an-admin"
	e := start(t, options{keys: keyring{user: {Account: "ina", Role: gateway.RoleUser, KeyID: "k1"}, admin: {Account: "ina", Role: gateway.RoleAdmin, KeyID: "k2"}}})
	e.get("victim", "/billing/balance")
	for _, c := range []struct{ method, address, body string }{
		{http.MethodGet, "", ""}, {http.MethodPost, "/credits", `{"amount":"5","reference":"r"}`},
		{http.MethodPut, "/credit-limit", `{"credit_limit":"5"}`}, {http.MethodPut, "/frozen", `{"frozen":true}`},
	} {
		path, before := accountPath("victim")+c.address, e.account("victim").LastSeq
		bearer := func(key string) answer {
			r := e.request(c.method, "", path, c.body)
			r.Header.Set("x-api-key", key)
			return e.do(r)
		}
		for name, a := range map[string]answer{"the account itself": e.as(gateway.RoleUser, "victim", c.method, path, c.body), "a user": e.as(gateway.RoleUser, "ina", c.method, path, c.body),
			"Admin": e.as("Admin", "ina", c.method, path, c.body), "root": e.as("root", "root", c.method, path, c.body), "no role": e.as("", "ina", c.method, path, c.body), "a user's key": bearer(user)} {
			checkError(t, c.address+" by "+name, a, http.StatusForbidden, "permission_error", "forbidden")
		}
		for name, a := range map[string]answer{"nobody": e.do(e.request(c.method, "", path, c.body)), "an unknown key": bearer("sk-x"), "garbage": bearer("x.y.z")} {
			checkError(t, c.address+" by "+name, a, http.StatusUnauthorized, "invalid_request_error", "invalid_api_key")
		}
		if e.account("victim").LastSeq != before || e.account("ina") != nil || e.account("root") != nil {
			t.Errorf("%s: something happened", c.address)
		}
		if a := bearer(admin); a.status > 201 {
			t.Errorf("%s by an admin's key: %d %s", c.address, a.status, a.body)
		}
	}
	events, err := e.memory.Transactions(t.Context(), "victim", 1, 0)
	if err != nil || events[0].Event.Data.(*domain.MovementData).Actor != "admin:ina" {
		t.Errorf("%v %s", err, events[0].Payload)
	}
}

// TestAdminHostile: what cannot be meant is refused, says what is wrong with it, and changes nothing.
func TestAdminHostile(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "10"})
	e.get("jana", "/billing/balance")
	e.admin(http.MethodPost, accountPath("jana")+"/credits", `{"amount":"1","reference":"used"}`)
	e.append("jana", domain.Debit{Amount: domain.MustAmount("1"), Data: domain.MovementData{Reference: "debited", Actor: "test"}})
	const credits, limit, frozen = "/credits", "/credit-limit", "/frozen"
	for _, c := range []struct {
		address, body string
		status        int
		code, param   string
	}{
		{credits, ``, 400, "invalid_json", ""}, {credits, `{`, 400, "invalid_json", ""}, {credits, `[]`, 400, "invalid_json", ""}, {credits, `"5"`, 400, "invalid_json", ""},
		{credits, `{"amount":"5","reference":"r","amount":"6"}`, 400, "duplicate_key", "amount"},
		{credits, `{"amount":"5","reference":"r","Amount":"6"}`, 400, "duplicate_key", "Amount"},
		{credits, `{"amount":"5","reference":"r","amo\u0075nt":"6"}`, 400, "duplicate_key", "amount"},
		{credits, `{"amount":"5","reference":"r","note":"x"}`, 400, "unsupported_parameter", "note"},
		{credits, `{"Amount":"5","reference":"r"}`, 400, "unsupported_parameter", "Amount"},
		{credits, `{"amount":"5","reference":"r","":1}`, 400, "unsupported_parameter", ""},
		{credits, `{"amount":"5","reference":"r","actor":"cli"}`, 400, "unsupported_parameter", "actor"},
		{credits, `{}`, 400, "invalid_value", "amount"}, {credits, `{"reference":"r"}`, 400, "invalid_value", "amount"}, {credits, `{"amount":null,"reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":5,"reference":"r"}`, 400, "invalid_type", "amount"}, {credits, `{"amount":5.00,"reference":"r"}`, 400, "invalid_type", "amount"},
		{credits, `{"amount":["5"],"reference":"r"}`, 400, "invalid_type", "amount"}, {credits, `{"amount":true,"reference":"r"}`, 400, "invalid_type", "amount"},
		{credits, `{"amount":"0","reference":"r"}`, 400, "invalid_value", "amount"}, {credits, `{"amount":"-5","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"-0","reference":"r"}`, 400, "invalid_value", "amount"}, {credits, `{"amount":"","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"+5","reference":"r"}`, 400, "invalid_value", "amount"}, {credits, `{"amount":" 5","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"1e9","reference":"r"}`, 400, "invalid_value", "amount"}, {credits, `{"amount":"1e999999999","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"NaN","reference":"r"}`, 400, "invalid_value", "amount"}, {credits, `{"amount":"5,00","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"0.0000000000001","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"100000000000000000000000000","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"99999999999999999999999999","reference":"r"}`, 400, "invalid_value", "amount"}, // with what is there
		{credits, `{"amount":"` + strings.Repeat("9", 5000) + `","reference":"r"}`, 400, "invalid_value", "amount"},
		{credits, `{"amount":"5"}`, 400, "invalid_value", "reference"}, {credits, `{"amount":"5","reference":""}`, 400, "invalid_value", "reference"},
		{credits, `{"amount":"5","reference":" r"}`, 400, "invalid_value", "reference"}, {credits, `{"amount":"5","reference":"a\u0000b"}`, 400, "invalid_value", "reference"},
		{credits, `{"amount":"5","reference":"` + strings.Repeat("r", 201) + `"}`, 400, "invalid_value", "reference"}, {credits, `{"amount":"5","reference":7}`, 400, "invalid_type", "reference"},
		{credits, `{"amount":"5","reference":"r","reason":7}`, 400, "invalid_type", "reason"}, {credits, `{"amount":"5","reference":"r","open":"yes"}`, 400, "invalid_type", "open"},
		{credits, `{"amount":"5","reference":"r","corrects":"x"}`, 400, "invalid_value", "corrects"}, {credits, `{"amount":"5","reference":"r","corrects":17}`, 400, "invalid_type", "corrects"},
		{credits, `{"amount":"5","reference":"used"}`, 409, "reference_reused", "reference"}, {credits, `{"amount":"1","reference":"debited"}`, 409, "reference_reused", "reference"},
		{credits, `{"amount":"10","reference":"opening"}`, 409, "reference_reused", "reference"},
		{limit, `{}`, 400, "invalid_value", "credit_limit"}, {limit, `{"credit_limit":10}`, 400, "invalid_type", "credit_limit"}, {limit, `{"credit_limit":"-1"}`, 400, "invalid_value", "credit_limit"},
		{limit, `{"credit_limit":"100000000000000000000000000"}`, 400, "invalid_value", "credit_limit"}, {limit, `{"credit_limit":"1","reason":[]}`, 400, "invalid_type", "reason"},
		{limit, `{"credit_limit":"1","limit":"2"}`, 400, "unsupported_parameter", "limit"},
		{frozen, `{}`, 400, "invalid_value", "frozen"}, {frozen, `{"frozen":null}`, 400, "invalid_value", "frozen"}, {frozen, `{"frozen":"true"}`, 400, "invalid_type", "frozen"},
		{frozen, `{"frozen":1}`, 400, "invalid_type", "frozen"}, {frozen, `{"frozen":true,"frozen":false}`, 400, "duplicate_key", "frozen"}, {frozen, `{"frozen":true,"reason":{}}`, 400, "invalid_type", "reason"},
	} {
		method, before := http.MethodPut, *e.account("jana")
		if c.address == credits {
			method = http.MethodPost
		}
		kind := "invalid_request_error"
		if c.status == http.StatusConflict {
			kind = "conflict_error"
		}
		a := e.admin(method, accountPath("jana")+c.address, c.body)
		checkError(t, c.address+" "+cutTo(c.body, 80), a, c.status, kind, c.code)
		if a.json("error.param").Str != c.param || *e.account("jana") != before {
			t.Errorf("%s %.80s: param %q; the account is %+v, was %+v", c.address, c.body, a.json("error.param").Str, e.account("jana"), before)
		}
	}
	if a := e.admin(http.MethodPost, accountPath("jana")+credits, `{"amount":5,"reference":"r"}`); !strings.Contains(a.json("error.message").Str, `such as "25.00"`) {
		t.Errorf("a number is refused without help: %s", a.body)
	}
}

func cutTo(s string, n int) string { return s[:min(len(s), n)] }

// TestAdminNames: whatever may be an account can be named, and what may not is refused.
func TestAdminNames(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for _, name := range []string{"a/b", "auth0|5f7c8ec7", "a+b=c~d@e.f:g-h_i", "..", "a/credits", "+", "a//b", "/", "a+b/c", strings.Repeat("n", 128), strings.Repeat("/", 128)} {
		a := e.admin(http.MethodPost, accountPath(name)+"/credits", `{"amount":"5","reference":"r","open":true}`)
		if b := e.admin(http.MethodGet, accountPath(name), ""); a.status != 201 || a.json("account").Str != name || b.json("balance").Str != "105" || e.available(name) != "105" {
			t.Errorf("%.40q: %d %s, then %d %s", name, a.status, a.body, b.status, b.body)
		}
	}
	for _, name := range []string{"%00", "a%20b", "%27", "a%0Ab", "%C3%A9", "%ff", strings.Repeat("n", 129), "%2541", "*", "a%25"} {
		for _, c := range []struct{ method, address, body string }{{http.MethodGet, "", ""}, {http.MethodPost, "/credits", `{"amount":"5","reference":"r","open":true}`},
			{http.MethodPut, "/credit-limit", `{"credit_limit":"5"}`}, {http.MethodPut, "/frozen", `{"frozen":true}`}} {
			a := e.admin(c.method, "/admin/accounts/"+name+c.address, c.body)
			checkError(t, name+c.address, a, http.StatusBadRequest, "invalid_request_error", "invalid_value")
			if a.json("error.param").Str != "id" {
				t.Errorf("%.40q: %s", name, a.body)
			}
		}
	}
	for _, c := range []struct{ method, address, body string }{{http.MethodGet, "", ""}, {http.MethodPut, "/credit-limit", `{"credit_limit":"5"}`}, {http.MethodPut, "/frozen", `{"frozen":true}`}} {
		checkError(t, c.address, e.admin(c.method, accountPath("nobody")+c.address, c.body), http.StatusNotFound, "invalid_request_error", "account_not_found")
	}
	// An account's name may be as long as an actor's: the administrator is then named by a digest.
	long := strings.Repeat("l", 128)
	if a := e.as(gateway.RoleAdmin, long, http.MethodPost, accountPath("kim")+"/credits", `{"amount":"5","reference":"r","open":true}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	events, err := e.memory.Transactions(t.Context(), "kim", 1, 0)
	if actor := events[0].Event.Data.(*domain.MovementData).Actor; err != nil || !strings.HasPrefix(actor, "admin:sha256:") || len(actor) != len("admin:sha256:")+32 {
		t.Errorf("%v %q", err, actor)
	}
}

// TestAdminAtOnce: however many ask for one credit at once, on two gateways, it happens once.
func TestAdminAtOnce(t *testing.T) {
	t.Parallel()
	e := start(t, options{balance: "0"})
	gateways := []*env{e, start(t, options{balance: "0", share: e})}
	var mu sync.Mutex
	got, positions := map[int]int{}, map[string]bool{}
	together(64, func(i int) {
		a := gateways[i%2].admin(http.MethodPost, accountPath("lisa")+"/credits", `{"amount":"5","reference":"r","open":true}`)
		mu.Lock()
		defer mu.Unlock()
		got[a.status]++
		positions[a.json("position").Str] = true
	})
	if got[201] != 1 || got[200] != 63 || len(positions) != 1 || e.available("lisa") != "5" {
		t.Errorf("%v, %v, %s", got, positions, e.available("lisa"))
	}
}

// TestAdminLedgerAway: an administrator who is told nothing certain asks again, and it has happened once.
func TestAdminLedgerAway(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for n := 1; n <= 4; n++ {
			f := &failing{n: n, after: after, err: domain.ErrUnavailable}
			e := start(t, options{balance: "0", wrap: func(l gateway.Ledger) gateway.Ledger { f.Ledger = l; return f }})
			failed := 0
			ask := func(method, address, body string) {
				a := e.admin(method, accountPath("max")+address, body)
				if a.status > 201 {
					failed++
					checkError(t, address, a, http.StatusServiceUnavailable, "service_unavailable", "ledger_unavailable")
					if a.header.Get("Retry-After") == "" || strings.Contains(a.body, "nothing was charged") {
						t.Errorf("%s: %v %s", address, a.header, a.body)
					}
					a = e.admin(method, accountPath("max")+address, body)
				}
				if a.status > 201 {
					t.Errorf("%s: again: %d %s", address, a.status, a.body)
				}
			}
			ask(http.MethodPost, "/credits", `{"amount":"5","reference":"r","open":true}`)
			ask(http.MethodPut, "/credit-limit", `{"credit_limit":"7"}`)
			ask(http.MethodPut, "/frozen", `{"frozen":true}`)
			a := e.account("max")
			if failed != 1 || a.Available.String() != "5" || a.CreditLimit.String() != "7" || !a.Frozen || a.LastSeq != 5 {
				t.Errorf("the %d-th fails, after: %t: %d failed, %+v", n, after, failed, a)
			}
		}
	}
	var away bool
	e := start(t, options{facts: func(f gateway.Facts) gateway.Facts { return &switched{Facts: f, away: &away} }})
	e.get("max", "/billing/balance")
	away = true
	for _, c := range []struct{ method, address, body string }{{http.MethodGet, "", ""}, {http.MethodPut, "/credit-limit", `{"credit_limit":"5"}`}, {http.MethodPut, "/frozen", `{"frozen":true}`}} {
		checkError(t, c.address, e.admin(c.method, accountPath("max")+c.address, c.body), http.StatusServiceUnavailable, "service_unavailable", "ledger_unavailable")
	}
}

// TestAdminOverloadedAndLate: an overloaded ledger says so, and one that never answers is waited for within
// a bound.
func TestAdminOverloadedAndLate(t *testing.T) {
	t.Parallel()
	f := &failing{n: 2, err: domain.ErrOverloaded}
	e := start(t, options{wrap: func(l gateway.Ledger) gateway.Ledger { f.Ledger = l; return f }})
	a := e.admin(http.MethodPost, accountPath("nina")+"/credits", `{"amount":"5","reference":"r","open":true}`)
	checkError(t, "overloaded", a, http.StatusServiceUnavailable, "service_unavailable", "overloaded")
	silent := &onlyCredits{}
	bubble(t, options{wrap: func(l gateway.Ledger) gateway.Ledger { silent.Ledger = l; return silent }}, func(t *testing.T, e *env) {
		began := time.Now()
		a := e.admin(http.MethodPost, accountPath("nina")+"/credits", `{"amount":"5","reference":"r","open":true}`)
		checkError(t, "silent", a, http.StatusServiceUnavailable, "service_unavailable", "ledger_unavailable")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// onlyCredits is a ledger that never answers a credit.
type onlyCredits struct{ gateway.Ledger }

// Append implements gateway.Ledger.
func (l *onlyCredits) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	if _, ok := c.Op.(domain.Credit); ok {
		return neverAnswers(ctx, c, l.Ledger)
	}
	return l.Ledger.Append(ctx, c)
}
