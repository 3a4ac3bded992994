package gateway

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/rs/cors"
)

// Edge says who may ask, from where. The zero value lets everybody ask for any host, trusts no proxy, and
// names no web page.
type Edge struct {
	Hosts   []string // host names that requests may be for: exact, *.below, or *; none = any
	Origins []string // web pages that may call from a browser; none = none
	Proxies []string // addresses and networks of proxies whose X-Forwarded-* is believed
}

// Bounds of a request's head, beside the server's own of its size in bytes.
const (
	maxURL     = 8 << 10 // bytes of the path and the query
	maxHeaders = 100     // names of headers
	// preflightAge is how long browsers keep the answer of a preflight, in seconds; most keep it no longer.
	preflightAge = 600
)

// edge is an Edge made ready. It is only read.
type edge struct {
	anyHost bool
	hosts   map[string]bool // exact, in lower case
	below   []string        // .example.com
	proxies []netip.Prefix
	cors    *cors.Cors // nil = none
}

func newEdge(e Edge) (*edge, error) {
	out := &edge{anyHost: len(e.Hosts) == 0, hosts: map[string]bool{}}
	for _, host := range e.Hosts {
		host = strings.ToLower(host)
		if below, wild := strings.CutPrefix(host, "*."); wild {
			out.below = append(out.below, "."+below)
			continue
		}
		out.anyHost = out.anyHost || host == "*"
		out.hosts[host] = true
	}
	for _, proxy := range e.Proxies {
		prefix, err := netip.ParsePrefix(proxy)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(proxy); err != nil {
				return nil, fmt.Errorf("gateway: %q is no proxy's address", proxy)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		out.proxies = append(out.proxies, prefix.Masked())
	}
	if len(e.Origins) > 0 {
		out.cors = cors.New(cors.Options{AllowedOrigins: e.Origins, AllowedMethods: []string{"GET", "POST", "PUT"}, AllowedHeaders: []string{"*"},
			ExposedHeaders: exposedHeaders, MaxAge: preflightAge})
	}
	return out, nil
}

// exposedHeaders are the answers' headers that web pages may read.
var exposedHeaders = []string{headerUnbilled, "x-billing-request-id", "x-billing-cost", "x-billing-position", "x-billing-behind", "x-billing-output-cap", headerReplayed,
	"x-request-id", "request-id", "retry-after", "x-should-retry", "x-cache",
	"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
	"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"}

// guarded answers what may not even ask, and gives every answer the headers that bind browsers.
func (g *Gateway) guarded(c *gin.Context) {
	g.harden(c)
	if err := g.edge.refuse(c.Request); err != nil {
		c.Set(keyDoor, spoken(c))
		g.fail(c, err)
		return
	}
	if g.edge.cors == nil {
		return
	}
	g.edge.cors.HandlerFunc(c.Writer, c.Request)
	if c.Request.Method == http.MethodOptions && c.GetHeader("Access-Control-Request-Method") != "" {
		c.Writer.WriteHeaderNow()
		c.Abort()
	}
}

// The values of headers that all answers have, ready to be put into a map: they are never appended to.
var (
	noSniff      = []string{"nosniff"}
	denyFrames   = []string{"DENY"}
	noReferrer   = []string{"no-referrer"}
	nothingLoads = []string{"default-src 'none'; frame-ancestors 'none'"}
	noStore      = []string{"no-store"}
	// onlyTLS binds a browser for a year.
	onlyTLS = []string{"max-age=31536000"}
)

// harden sets the headers that bind browsers.
func (g *Gateway) harden(c *gin.Context) {
	h := c.Writer.Header()
	h["X-Content-Type-Options"], h["X-Frame-Options"], h["Referrer-Policy"] = noSniff, denyFrames, noReferrer
	h["Content-Security-Policy"] = nothingLoads
	if path := c.Request.URL.Path; strings.HasPrefix(path, "/billing/") || strings.HasPrefix(path, "/admin/") {
		h["Cache-Control"] = noStore
	}
	if g.edge.encrypted(c.Request) {
		h["Strict-Transport-Security"] = onlyTLS
	}
}

// encrypted says whether a request came by TLS: to us, or to a proxy that we believe.
func (e *edge) encrypted(r *http.Request) bool {
	if r.TLS != nil || len(e.proxies) == 0 {
		return r.TLS != nil
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	for _, proxy := range e.proxies {
		if proxy.Contains(from.Addr().Unmap()) {
			return strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
		}
	}
	return false
}

// probes answer whatever host they are asked for: those who probe ask by address, and learn nothing of anybody.
var probes = map[string]bool{"/health": true, "/live": true, "/ready": true}

// refuse says why a request is not looked at.
func (e *edge) refuse(r *http.Request) error {
	if len(r.RequestURI) > maxURL {
		return &Error{Status: http.StatusRequestURITooLong, Type: typeInvalid, Code: "url_too_long", Message: fmt.Sprintf("The URL is longer than %d bytes.", maxURL)}
	}
	if len(r.Header) > maxHeaders {
		return &Error{Status: http.StatusRequestHeaderFieldsTooLarge, Type: typeInvalid, Code: "too_many_headers", Message: fmt.Sprintf("The request has more than %d headers.", maxHeaders)}
	}
	if e.anyHost || e.allows(r.Host) || probes[r.URL.Path] {
		return nil
	}
	return invalid("invalid_host", "", "This gateway does not answer for the host that the request names.")
}

// allows says whether requests may be for a host, whatever its port.
func (e *edge) allows(host string) bool {
	if name, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil && port != "" {
			return false
		}
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if e.hosts[host] {
		return true
	}
	for _, below := range e.below {
		if strings.HasSuffix(host, below) && len(host) > len(below) {
			return true
		}
	}
	return false
}
