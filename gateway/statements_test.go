package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// calendar is a time that a test sets, for a gateway and its ledger.
type calendar struct{ unix atomic.Int64 }

func (c *calendar) now() time.Time { return time.Unix(c.unix.Load(), 0).UTC() }

func (c *calendar) set(year int, month time.Month, day, hour int) {
	c.unix.Store(time.Date(year, month, day, hour, 0, 0, 0, time.UTC).Unix())
}

// TestStatement: an account's own months meet, and say what it was charged.
func TestStatement(t *testing.T) {
	t.Parallel()
	clock := &calendar{}
	clock.set(2026, time.October, 31, 22)
	e := start(t, options{ledgerNow: clock.now, balance: "10"})
	e.get("anna", "/billing/balance")
	e.append("anna", domain.Credit{Amount: domain.MustAmount("5"), Data: domain.MovementData{Reference: "inv-1", Actor: "test"}})
	clock.set(2026, time.October, 31, 23) // in Berlin it is November
	e.append("anna", domain.Credit{Amount: domain.MustAmount("0.000000000001"), Data: domain.MovementData{Reference: "inv-2", Actor: "test"}})
	e.chat("anna", chatBody("sim-flat", "x", ""))
	clock.set(2026, time.November, 2, 1)
	e.chat("anna", chatBody("sim-flat", "x", ""))
	e.chat("anna", chatBody("sim-flat", "sim:status=500", "")) // refunded
	for _, c := range []struct{ query, opening, closing, charges, days string }{
		{"2026-10", "0", "14.990000000001", "-0.01", "2026-10-31"},
		{"2026-10?tz=Europe/Berlin", "0", "15", "0", ""},
		{"2026-11", "14.990000000001", "14.980000000001", "-0.01", "2026-11-02"},
		{"2026-11?tz=Europe%2FBerlin&format=json", "15", "14.980000000001", "-0.02", "2026-11-01 2026-11-02"},
		{"2026-09", "0", "0", "0", ""},
	} {
		a := e.get("anna", "/billing/statements/"+c.query)
		var days []string
		a.json("charges.#.date").ForEach(func(_, day gjson.Result) bool { days = append(days, day.Str); return true })
		if a.status != 200 || a.json("opening.balance").Str != c.opening || a.json("closing.balance").Str != c.closing ||
			a.json("sums.charges").Str != c.charges || strings.Join(days, " ") != c.days || a.json("account").Str != "anna" {
			t.Errorf("%s: %d %s", c.query, a.status, a.body)
		}
		b := e.admin(http.MethodGet, accountPath("anna")+"/statements/"+c.query, "")
		if b.status != 200 || b.body != a.body {
			t.Errorf("%s: an administrator gets %d %s", c.query, b.status, b.body)
		}
	}
	if a := e.get("anna", "/billing/statements/2026-11"); a.json("refunds.#.reason").Raw != `["provider_error"]` || a.json("credits.#").Int() != 0 {
		t.Error(a.body)
	}
	if a := e.get("bert", "/billing/statements/2026-11"); a.json("account").Str != "bert" || strings.Contains(a.body, "inv-") {
		t.Errorf("somebody else gets %s", a.body)
	}
}

// TestStatementFormats: each is what it says it is, and may not be kept by a cache on the way.
func TestStatementFormats(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	month := time.Now().UTC().Format("2006-01")
	for format, c := range map[string]struct{ kind, has string }{
		"": {"application/json", `"month": "` + month}, "json": {"application/json", `"month": "` + month},
		"csv": {"text/csv", "opening," + month + "-01,"}, "html": {"text/html", "<h1>Statement</h1>"},
	} {
		a := e.get("anna", "/billing/statements/"+month+"?format="+format)
		if a.status != 200 || a.header.Get("Content-Type") != c.kind+"; charset=utf-8" || !strings.Contains(a.body, c.has) ||
			a.header.Get("Cache-Control") != "private, no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q: %d %v %s", format, a.status, a.header, a.body)
		}
		if policy := a.header.Get("Content-Security-Policy"); (format == "html") != strings.Contains(policy, "style-src 'unsafe-inline'") || !strings.HasPrefix(policy, "default-src 'none'") {
			t.Errorf("%q: the page's policy is %q", format, policy)
		}
		if name := a.header.Get("Content-Disposition"); (format == "csv") != strings.Contains(name, "statement-"+month+".csv") {
			t.Errorf("%q is disposed as %q", format, name)
		}
	}
}

// stating are Facts whose statements fail.
type stating struct {
	gateway.Facts
	err error
}

func (s *stating) Statement(context.Context, string, domain.Month) (*domain.Statement, error) {
	return nil, s.err
}

// TestStatementRefused: what cannot be meant, who is not there, and a ledger that is away.
func TestStatementRefused(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	this := time.Now().UTC().Format("2006-01")
	next := time.Now().UTC().AddDate(0, 2, 0).Format("2006-01")
	for path, param := range map[string]string{
		"2026": "month", "2026-13": "month", "november": "month", "2026-11-01": "month", next: "month", "%00": "month",
		this + "?tz=Local": "tz", this + "?tz=Mars/Olympus": "tz", this + "?tz=..%2F..%2Fetc%2Fpasswd": "tz", this + "?tz=" + strings.Repeat("x", 7000): "tz",
		this + "?format=pdf": "format", this + "?format=" + url.QueryEscape("html\r\nx: y"): "format",
	} {
		a := e.get("anna", "/billing/statements/"+path)
		checkError(t, path, a, http.StatusBadRequest, "invalid_request_error", "invalid_value")
		if a.json("error.param").Str != param {
			t.Errorf("%.40s: %s", path, a.body)
		}
	}
	checkError(t, "nobody", e.admin(http.MethodGet, accountPath("nobody")+"/statements/"+this, ""), http.StatusNotFound, "invalid_request_error", "account_not_found")
	checkError(t, "a user", e.as(gateway.RoleUser, "anna", http.MethodGet, accountPath("anna")+"/statements/"+this, ""), http.StatusForbidden, "permission_error", "forbidden")
	for _, c := range []struct {
		err        error
		status     int
		kind, code string
	}{
		{fmt.Errorf("a month: %w", domain.ErrStatementLong), 422, "invalid_request_error", "statement_too_long"},
		{domain.ErrStatement, 500, "server_error", "internal_error"},
		{errors.New("no connection"), 503, "service_unavailable", "ledger_unavailable"},
	} {
		broken := start(t, options{facts: func(f gateway.Facts) gateway.Facts { return &stating{f, c.err} }})
		checkError(t, c.err.Error(), broken.get("anna", "/billing/statements/"+this), c.status, c.kind, c.code)
	}
}
