package main

// Requests that mean harm: testdata/hostile.txt says what each is and what it gets. They are sent to the real
// binary in rounds, while many connections send slowly or not at all. After all of it nothing is charged or
// held, nothing was fetched or passed on, the process is as small as before, and its log is clean.
// `make hostile` is the full size.

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
	"llm-gateway/migrations/pgtest"
)

const (
	hostileHost      = "gateway.example"
	hostileIssuer    = "https://issuer.example"
	hostileAudience  = "gateway"
	hostileAccount   = "mallory"
	hostilePayer     = "curious" // whose odd requests are served, and charged
	hostileSloth     = "sloth"   // who sends bodies slowly
	hostileBalance   = "5"
	hostileLeast     = 200                             // requests in the table
	hostileAtOnce    = 8                               // on the way at once
	hostileRounds    = 3                               // of the table; the first is what fills pools and caches
	hostileSlow      = 200                             // connections that send their head slowly, and twice as many their body
	hostilePatience  = 5 * time.Second                 // for an honest request among all that
	hostileHeadLimit = readHeaderTime + 15*time.Second // for slow heads to be cut off, on a loaded machine
	hostileBodyLimit = 2*time.Minute + 30*time.Second  // for slow bodies, in full
	hostileGoroutine = 16                              // by which a gateway at rest changes
	hostileFiles     = 16                              // the same
	hostileMemory    = 48 << 20                        // the same, in bytes: bodies of 20 MiB come eight at once, and the heap is collected late
)

// assault is what the table's requests are sent to, and with.
type assault struct {
	t                      testing.TB
	main, federated        *served // the one checks tokens by a secret, the other by an issuer's keys
	url                    string  // of the database
	canary                 *httptest.Server
	fetched                atomic.Int64 // requests that the canary got
	upstream               *counted
	token, payer           string
	issuerKey, strangerKey *rsa.PrivateKey
	publicPEM              []byte
}

func startHostile(t *testing.T) *assault {
	h := &assault{t: t, url: pgtest.URL(t), upstream: newCounted(t)}
	h.canary = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { h.fetched.Add(1) }))
	t.Cleanup(h.canary.Close)
	h.issuerKey, h.strangerKey = rsaKey(t), rsaKey(t)
	public, err := x509.MarshalPKIXPublicKey(&h.issuerKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	h.publicPEM = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	issuer := httptest.NewServer(http.HandlerFunc(h.keys))
	t.Cleanup(issuer.Close)
	settings := []string{"OPENAI_BASE_URL=" + h.upstream.URL, "OPENAI_API_KEY=upstream-key", "DATABASE_URL=" + h.url, `ALLOWED_HOSTS=["` + hostileHost + `"]`, `CORS_ORIGINS=["https://app.example"]`, "LOG_LEVEL=INFO", "ENVIRONMENT=staging",
		"JWT_ISSUER=" + hostileIssuer, "JWT_AUDIENCE=" + hostileAudience, "BILLING_DEFAULT_BALANCE=" + hostileBalance, "GOMEMLIMIT=96MiB"}
	h.main = launch(t, settings...)
	h.federated = launch(t, append(settings, "JWT_ALGORITHM=RS256", "JWT_JWKS_URL="+issuer.URL, "JWT_SECRET_KEY=")...)
	h.main.ready()
	h.federated.ready()
	h.token, h.payer = hostileToken(t, hostileAccount, gateway.RoleUser), hostileToken(t, hostilePayer, gateway.RoleUser)
	return h
}

// counted is the simulated provider as if it were OpenAI, and how often it is asked for an answer.
type counted struct {
	*httptest.Server
	calls atomic.Int64
}

func newCounted(t testing.TB) *counted {
	c, upstream := &counted{}, provider.Handler(provider.NewSimulated())
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // it is asked which models it has
			io.WriteString(w, `{"object":"list","data":[]}`) //nolint:errcheck // nobody needs it
			return
		}
		c.calls.Add(1)
		upstream.ServeHTTP(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, issuerKeyBits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keys serves the issuer's one key.
func (h *assault) keys(w http.ResponseWriter, _ *http.Request) {
	b64 := base64.RawURLEncoding
	fmt.Fprintf(w, `{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"one","n":%q,"e":%q}]}`,
		b64.EncodeToString(h.issuerKey.N.Bytes()), b64.EncodeToString(big.NewInt(int64(h.issuerKey.E)).Bytes()))
}

// hostileToken is a good token of the main gateway.
func hostileToken(t testing.TB, account, role string) string {
	t.Helper()
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Demand(hostileIssuer, hostileAudience).Sign(account, role, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestHostile is the table, in rounds.
func TestHostile(t *testing.T) {
	needFiles(t, 4*hostileSlow)
	lines, requests := readHostile(t)
	if len(requests) < hostileLeast {
		t.Fatalf("%d requests", len(requests))
	}
	h := startHostile(t)
	client := h.client()
	h.honest(client)
	heads, bodies, strangers := h.sendSlowly()
	begun := time.Now()
	h.round(lines, requests)
	h.honest(client)
	t.Logf("%d requests in %s, while %d connections sent their head slowly, and twice as many their body", len(requests), time.Since(begun).Round(time.Millisecond), hostileSlow)
	h.cutOff(heads, hostileHeadLimit, "slow heads are cut off")
	h.cutOff(strangers, hostileHeadLimit, "slow bodies of strangers are cut off")
	if full() {
		h.cutOff(bodies, hostileBodyLimit, "slow bodies are cut off")
	}
	hangUp(bodies)
	rounds := sized(hostileRounds, 10*hostileRounds)
	var second hostileSize
	for n := 2; n <= rounds; n++ {
		h.round(nil, requests)
		size := h.atRest(client, second)
		t.Logf("after round %d: %v", n, size)
		if n == 2 {
			second = size
		}
	}
	h.grew(second, h.atRest(client, second))
	h.honest(client)
	h.audit(requests, rounds)
	h.main.stop()
	h.federated.stop()
	verified(t, "DATABASE_URL="+h.url)
	checkHostileLog(t, h.main)
	checkHostileLog(t, h.federated)
}

// forHost is a pool of connections that asks for the host that the gateway answers for.
type forHost struct{ http.RoundTripper }

func (n forHost) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = hostileHost
	return n.RoundTripper.RoundTrip(r)
}

func (h *assault) client() *http.Client {
	c := newClient(h.t)
	c.Transport = forHost{c.Transport}
	return c
}

// honest: somebody else is served at once, whatever goes on.
func (h *assault) honest(client *http.Client) {
	h.t.Helper()
	r := chat(h.t.Context(), client, h.main.url, hostileToken(h.t, "honest", gateway.RoleUser), chatBody(flatModel, "hello", false, ""))
	if r.status != http.StatusOK || !r.complete || r.took > hostilePatience && !underRace() {
		h.t.Errorf("an honest request, after %s: %v", r.took, &r)
	}
}

// round sends the whole table once. With lines it keeps what each got, and with -update writes it there.
func (h *assault) round(lines []string, requests []*hostileRequest) {
	h.t.Helper()
	all := make([]got, len(requests))
	begun := make(chan struct{}, hostileAtOnce)
	atOnce(len(requests), func(i int) {
		begun <- struct{}{}
		all[i] = h.send(h.t, requests[i])
		<-begun
	})
	for i, r := range requests {
		if lines != nil {
			h.t.Logf("%-60s %s", r, all[i].words)
		}
		if lines != nil && *update {
			cells := strings.SplitN(lines[r.line], " | ", 3)
			lines[r.line] = fmt.Sprintf("%-26s | %s | %s", all[i].words, cells[1], cells[2])
		} else if all[i].words != r.want {
			h.t.Errorf("%s:%d: %s: got %s, want %s", hostileFile, r.line+1, r, all[i].words, r.want)
		}
		for _, wrong := range all[i].wrong {
			h.t.Errorf("%s:%d: %s: %s", hostileFile, r.line+1, r, wrong)
		}
	}
	if lines != nil && *update {
		writeFile(h.t, hostileFile, strings.Join(lines, "\n")+"\n")
	}
}

// sendSlowly opens connections that send a part of their head, and others a part of their body, and then no
// more: some with a credential, some as strangers.
func (h *assault) sendSlowly() (heads, bodies, strangers []net.Conn) {
	h.t.Helper()
	const begin, body = "POST /v1/chat/completions HTTP/1.1\r\nHost: " + hostileHost + "\r\n", "Content-Length: 1000\r\n\r\n{\"model\":"
	sloth := hostileToken(h.t, hostileSloth, gateway.RoleUser)
	for range hostileSlow {
		for _, c := range []struct {
			part string
			into *[]net.Conn
		}{{begin + "X-Slow: ", &heads}, {begin + "Authorization: Bearer " + sloth + "\r\n" + body, &bodies}, {begin + body, &strangers}} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(h.main.url, "http://"))
			if err != nil {
				h.t.Fatal(err)
			}
			h.t.Cleanup(func() { conn.Close() })
			if _, err := io.WriteString(conn, c.part); err != nil {
				h.t.Fatal(err)
			}
			*c.into = append(*c.into, conn)
		}
	}
	return heads, bodies, strangers
}

// cutOff waits until the gateway has ended all of these connections.
func (h *assault) cutOff(all []net.Conn, limit time.Duration, what string) {
	h.t.Helper()
	deadline := time.Now().Add(limit)
	for i, conn := range all {
		conn.SetReadDeadline(deadline) //nolint:errcheck // the read fails then
		_, err := io.Copy(io.Discard, conn)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			h.t.Fatalf("not within %s: %s: %d of %d are open", limit, what, len(all)-i, len(all))
		}
	}
	hangUp(all)
}

func hangUp(all []net.Conn) {
	for _, conn := range all {
		conn.Close() //nolint:errcheck // the other side may have
	}
}

// hostileSize is what a gateway has in use.
type hostileSize struct {
	footprint
	files int64
}

func (s hostileSize) String() string { return fmt.Sprintf("%v, %d files", s.footprint, s.files) }

func (h *assault) size(client *http.Client) hostileSize {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(h.main.cmd.Process.Pid), "fd"))
	if err != nil {
		h.t.Skip("there is no /proc to count files in: ", err)
	}
	return hostileSize{h.main.footprint(client), int64(len(entries))}
}

// atRest is the size once all requests have ended: that of a reference, where it comes down to that.
func (h *assault) atRest(client *http.Client, reference hostileSize) (size hostileSize) {
	h.t.Helper()
	if reference.files == 0 {
		reference = hostileSize{footprint{goroutines: 1 << 20}, 1 << 20}
	}
	eventually(h.t, settleLimit, "the requests' goroutines and connections have ended", func() bool {
		size = h.size(client)
		return size.goroutines <= reference.goroutines+hostileGoroutine && size.files <= reference.files+hostileFiles
	})
	return size
}

// grew: the last round has left what the second had.
func (h *assault) grew(second, last hostileSize) {
	h.t.Helper()
	if last.rss > second.rss+hostileMemory && !underRace() {
		h.t.Errorf("it grows: after round 2 %v, at the end %v", second, last)
	}
}

// audit: the hostile account has never paid or held anything, and what was served to another was charged once.
func (h *assault) audit(requests []*hostileRequest, rounds int) {
	h.t.Helper()
	a := auditLedger(h.t, h.url)
	a.has(hostileAccount, hostileBalance)
	a.has(hostileSloth, hostileBalance)
	served, called := 0, 0
	for _, r := range requests {
		if r.way == "served" && r.want == "200" {
			served += rounds
		}
		if r.way == "served" && r.want == "200" && !strings.Contains(r.content, `"sim-`) || strings.HasSuffix(r.want, "upstream_error") {
			called += rounds
		}
	}
	charged := map[string]int{}
	for id, l := range a.lives {
		if !l.settled() || l.commits+l.overages > 0 && (l.account == hostileAccount || l.account == hostileSloth) {
			h.t.Errorf("request %s of %s: %+v", id, l.account, *l)
		}
		charged[l.account] += l.commits
	}
	accounts := slices.Sorted(func(yield func(string) bool) {
		for name := range a.rows {
			if !yield(name) {
				return
			}
		}
	})
	if charged[hostilePayer] != served || !slices.Equal(accounts, []string{hostilePayer, "honest", hostileAccount, hostileSloth}) {
		h.t.Errorf("%d requests were served, charged are %v; the accounts are %q", served, charged, accounts)
	}
	if h.fetched.Load() != 0 || int(h.upstream.calls.Load()) != called {
		h.t.Errorf("%d addresses out of requests were fetched; the provider was called %d times for %d requests", h.fetched.Load(), h.upstream.calls.Load(), called)
	}
}

// checkHostileLog: every line is one JSON object of printable text, and none tells of a panic, a failure of
// ours, a prompt or a credential.
func checkHostileLog(t testing.TB, s *served) {
	t.Helper()
	for line := range strings.Lines(s.stdout.String() + s.stderr.String()) {
		line = strings.TrimSuffix(line, "\n")
		raw := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) })
		var entry struct {
			Level  string
			Status int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || raw >= 0 {
			t.Errorf("no clean line of the log: %v: %.300q", err, line)
		}
		if entry.Level == "ERROR" || entry.Status >= 500 || strings.Contains(line, hostileMarker) || strings.Contains(line, "eyJ") || strings.Contains(line, testSecret) {
			t.Errorf("the log tells: %.500s", line)
		}
	}
}
