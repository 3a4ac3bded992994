package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"llm-gateway/gateway"
)

// TestAllowedHosts is the table of who is answered for which host.
func TestAllowedHosts(t *testing.T) {
	t.Parallel()
	e := start(t, options{edge: gateway.Edge{Hosts: []string{"api.example.com", "*.Internal.example", "10.1.2.3", "::1"}}})
	for _, c := range []struct {
		host string
		ok   bool
	}{
		{"api.example.com", true}, {"API.example.com", true}, {"api.example.com:8443", true}, {"api.example.com.", true},
		{"a.internal.example", true}, {"a.b.internal.example:1", true}, {"10.1.2.3", true}, {"10.1.2.3:80", true}, {"[::1]:80", true}, {"[::1]", true},
		{"internal.example", false}, {".internal.example", false}, {"xinternal.example", false}, {"example.com", false},
		{"api.example.com.evil.example", false}, {"evil-api.example.com", false}, {"api.example.com:80:80", false}, {"api.example.com:evil", false}, {"api.example.com:99999", false}, {"api.example.com:", true}, {"*.internal.example", true}, {"10.1.2.30", false},
		{"127.0.0.1", false}, {"localhost", false},
	} {
		r := e.request(http.MethodGet, "hosea", "/billing/balance", "")
		r.Host = c.host
		a := e.do(r)
		if c.ok != (a.status == 200) || !c.ok && (a.status != 400 || a.code() != "invalid_host" || a.header.Get("x-request-id") == "") {
			t.Errorf("%s: %d %s", c.host, a.status, a.body)
		}
		r = e.request(http.MethodGet, "", "/ready", "")
		r.Host = c.host
		if a := e.do(r); a.status != 200 {
			t.Errorf("a probe of %s: %d", c.host, a.status)
		}
	}
	anywhere := start(t, options{edge: gateway.Edge{Hosts: []string{"*"}}})
	r := anywhere.request(http.MethodGet, "hosea", "/billing/balance", "")
	r.Host = "whatever.example"
	if a := anywhere.do(r); a.status != 200 {
		t.Errorf("any host: %d", a.status)
	}
}

// TestCORS: a page of a named origin may call, and read the headers that tell the bill; another may not, and
// without any named nothing is said. Preflights need no credential, and cookies play no part.
func TestCORS(t *testing.T) {
	t.Parallel()
	ask := func(e *env, method, path, origin string) answer {
		r := e.request(method, "", path, "")
		r.Header.Set("Origin", origin)
		if method == http.MethodOptions {
			r.Header.Set("Access-Control-Request-Method", "POST")
			r.Header.Set("Access-Control-Request-Headers", "authorization,content-type,x-stainless-lang")
		}
		return e.do(r)
	}
	const page = "https://app.example.com"
	one, all, none := start(t, options{edge: gateway.Edge{Origins: []string{page}}}), start(t, options{edge: gateway.Edge{Origins: []string{"*"}}}), start(t, options{})
	for _, c := range []struct {
		name   string
		e      *env
		origin string
		want   string // Access-Control-Allow-Origin
	}{
		{"named", one, page, page}, {"another", one, "https://evil.example", ""}, {"the same by http", one, "http://app.example.com", ""},
		{"another port", one, page + ":8443", ""}, {"longer", one, page + ".evil.example", ""}, {"null", one, "null", ""},
		{"any", all, "https://evil.example", "*"}, {"none", none, page, ""},
	} {
		before := ask(c.e, http.MethodOptions, chatPath, c.origin)
		if before.header.Get("Access-Control-Allow-Origin") != c.want || c.e != none && before.status != 204 {
			t.Errorf("%s: the preflight: %d %v", c.name, before.status, before.header)
		}
		if c.want != "" && (!strings.Contains(before.header.Get("Access-Control-Allow-Headers"), "authorization") || before.header.Get("Access-Control-Allow-Methods") != "POST") {
			t.Errorf("%s: the preflight allows %v", c.name, before.header)
		}
		a := ask(c.e, http.MethodGet, "/v1/models", c.origin) // without a credential, and readable all the same
		if a.status != 401 || a.header.Get("Access-Control-Allow-Origin") != c.want || a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", c.name, a.status, a.header)
		}
		if exposed := strings.Split(strings.ToLower(a.header.Get("Access-Control-Expose-Headers")), ", "); c.want != "" {
			for name := range strings.FieldsSeq("x-billing x-billing-request-id x-billing-cost x-billing-position x-billing-behind x-billing-output-cap idempotent-replayed x-request-id request-id retry-after x-should-retry x-cache x-ratelimit-remaining-requests") {
				if !slices.Contains(exposed, name) {
					t.Errorf("%s: %s is not exposed: %s", c.name, name, exposed)
				}
			}
		}
		if c.e != none && !strings.Contains(a.header.Get("Vary"), "Origin") {
			t.Errorf("%s: it varies by %q", c.name, a.header.Get("Vary"))
		}
	}
	if a := one.chat("cora", chatBody("sim-flat", "x", "")); a.status != 200 {
		t.Errorf("no page at all: %d %s", a.status, a.body)
	}
}

// TestSecurityHeaders are on every answer: errors, streams, unknown paths.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for name, a := range map[string]answer{
		"health": e.get("", "/health"), "balance": e.get("sec", "/billing/balance"), "unknown": e.get("", "/nothing"), "refused": e.get("", "/admin/accounts/x"),
		"whole": e.chat("sec", chatBody("sim-flat", "x", "")), "stream": e.post("sec", streamPath, chatBody("sim-flat", "x", "")), "metrics": e.get("", "/metrics"),
	} {
		for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Strict-Transport-Security": ""} {
			if got := a.header.Get(header); got != want {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		if private := name == "balance" || name == "refused"; private != (a.header.Get("Cache-Control") == "no-store") {
			t.Errorf("%s: Cache-Control %q", name, a.header.Get("Cache-Control"))
		}
	}
}

// TestForwarded: what stands in X-Forwarded-* counts only where a proxy that is trusted says it.
func TestForwarded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		proxies []string
		from    string
		proto   string
		secure  bool
		client  string
	}{
		{"nobody is trusted", nil, "203.0.113.9", "https", false, "127.0.0.1"},
		{"another is trusted", []string{"10.0.0.0/8", "::1"}, "203.0.113.9", "https", false, "127.0.0.1"},
		{"this one is", []string{"127.0.0.0/8"}, "203.0.113.9", "https", true, "203.0.113.9"},
		{"this one, by its address", []string{"127.0.0.1"}, "203.0.113.9", "HTTPS", true, "203.0.113.9"},
		{"it came by http", []string{"127.0.0.1"}, "203.0.113.9", "http", false, "203.0.113.9"},
		{"a list", []string{"127.0.0.1"}, "203.0.113.9", "https, http", false, "203.0.113.9"},
		{"with a port, which is not read", []string{"127.0.0.1"}, "203.0.113.9:4711", "https", true, "127.0.0.1"},
	} {
		e := start(t, options{edge: gateway.Edge{Proxies: c.proxies}})
		r := e.request(http.MethodGet, "", "/billing/balance", "")
		r.Header.Set("X-Forwarded-For", c.from)
		r.Header.Set("X-Forwarded-Proto", c.proto)
		r.Header.Set("X-Real-Ip", "198.51.100.7") // nobody's word for it
		a := e.do(r)
		if secure := a.header.Get("Strict-Transport-Security") != ""; a.status != 401 || secure != c.secure || !strings.Contains(e.logs.String(), `"client_ip":"`+c.client+`"`) {
			t.Errorf("%s: %d %v %s", c.name, a.status, a.header, e.logs)
		}
	}
	e := start(t, options{listen: httptest.NewTLSServer})
	if a := e.get("", "/health"); a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("by TLS: %v", a.header)
	}
}

// TestBigHeads: a head may not have more than so many headers, nor a URL be longer than so.
func TestBigHeads(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	many := e.request(http.MethodGet, "", "/health", "")
	for i := range 120 {
		many.Header.Set("X-Many-"+strings.Repeat("a", i+1), "1")
	}
	checkError(t, "many headers", e.do(many), 431, "invalid_request_error", "too_many_headers")
	checkError(t, "a long URL", e.get("", "/health?"+strings.Repeat("a", 9000)), 414, "invalid_request_error", "url_too_long")
}

// BenchmarkEdge is what hosts, headers and CORS cost one request; -count and a profile say more.
func BenchmarkEdge(b *testing.B) {
	for name, edge := range map[string]gateway.Edge{"default": {}, "all": {Hosts: []string{"*.example.com", "example.com"}, Origins: []string{"https://app.example.com"}, Proxies: []string{"10.0.0.0/8"}}} {
		b.Run(name, func(b *testing.B) {
			h := gateway.EdgeOf(edge)
			r := httptest.NewRequest(http.MethodPost, "http://api.example.com"+chatPath, http.NoBody)
			r.Header.Set("Origin", "https://app.example.com")
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(discard{http.Header{}}, r)
			}
		})
	}
}

// discard is a writer of answers that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return io.Discard.Write(b) }
func (d discard) WriteHeader(int)             {}
