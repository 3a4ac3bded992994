package gateway_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// together calls f n times at once, and waits.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-gate
			f(i)
		})
	}
	close(gate)
	all.Wait()
}

func TestCredentialCarriers(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	token := e.token("hans")
	for _, c := range []struct {
		name, header, value, query string
		want                       int
	}{
		{"bearer", "Authorization", "Bearer " + token, "", 200},
		{"bearer in any case", "Authorization", "bEARER " + token, "", 200},
		{"bearer with blanks", "Authorization", "Bearer   " + token + "  ", "", 200},
		{"anthropic's", "x-api-key", token, "", 200},
		{"google's", "x-goog-api-key", token, "", 200},
		{"azure's", "api-key", token, "", 200},
		{"query", "", "", "?key=" + token, 200},
		{"basic", "Authorization", "Basic " + token, "", 401},
		{"no scheme", "Authorization", token, "", 401},
		{"only a scheme", "Authorization", "Bearer ", "", 401},
		{"query of another name", "", "", "?token=" + token, 401},
		{"two in the query", "", "", "?key=" + token + "&key=" + token, 401},
		{"nothing", "", "", "", 401},
	} {
		r := e.request(http.MethodGet, "", "/billing/balance"+c.query, "")
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		a := e.do(r)
		if a.status != c.want || c.want == 200 && a.json("user_id").Str != "hans" || c.want == 401 && a.code() != "invalid_api_key" {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + token, "X-Api-Key": token, "X-Goog-Api-Key": token, "Api-Key": token} {
		r := e.request(http.MethodGet, "", "/billing/balance", "")
		r.Header[name] = []string{value, value}
		if a := e.do(r); a.status != 401 || !strings.Contains(a.body, `"invalid_api_key"`) {
			t.Errorf("two of %s: %d %s", name, a.status, a.body)
		}
	}
	// A failed call is logged; its credential is not (the audit looks).
	e.do(e.request(http.MethodPost, "", chatPath+"?key="+token, "{"))
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	now := &clock{at: time.Now()}
	user, _ := gateway.NewKey()
	admin, _ := gateway.NewKey()
	unknown, _ := gateway.NewKey()
	if user == admin || !strings.HasPrefix(user, "sk-") || len(user) != 3+43 {
		t.Fatalf("keys %q and %q", user, admin)
	}
	ring := &revocable{ring: keyring{user: {Account: "ida", Role: gateway.RoleUser, KeyID: "k-1"},
		admin: {Account: "ida", Role: gateway.RoleAdmin, KeyID: "k-2"}}}
	e := start(t, options{keys: ring, now: now.now})
	call := func(key string) answer {
		r := e.request(http.MethodPost, "", chatPath, chatBody("sim-flat", "x", ""))
		r.Header.Set("Authorization", "Bearer "+key)
		return e.do(r)
	}
	for key, id := range map[string]string{user: "k-1", admin: "k-2"} {
		a := call(key)
		if a.status != 200 {
			t.Fatal(a.body)
		}
		l := e.life("ida", a.id())
		if reserved := l.reserve.Data.(*domain.ReserveData).KeyID; reserved != id || l.commitData().KeyID != id {
			t.Errorf("%s: reserved by %q, committed by %q", id, reserved, l.commitData().KeyID)
		}
	}
	for _, key := range []string{unknown, "sk-", "sk-x", user + "x", strings.ToUpper(user)} {
		if a := call(key); a.status != 401 || a.code() != "invalid_api_key" {
			t.Errorf("%q: %d %s", key, a.status, a.body)
		}
	}
	looked := ring.revoke(user)
	if a := call(user); a.status != 200 || ring.count() != looked {
		t.Errorf("within the cache's time: %d, %d look-ups more", a.status, ring.count()-looked)
	}
	now.pass(5 * time.Second)
	if a := call(user); a.status != 401 {
		t.Errorf("revoked: %d", a.status)
	}
	ring.fail()
	now.pass(5 * time.Second)
	if a := call(admin); a.status != 503 || a.code() != "ledger_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("the look-up fails: %d %s", a.status, a.body)
	}
}

func TestClientsRequestID(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	for id, kept := range map[string]bool{
		"abc-123": true, "A.b:c_d-9": true, strings.Repeat("x", 128): true, "": false, strings.Repeat("x", 129): false,
		"two words": false, "a\tb": false, "<script>": false, "a;b": false, "Größe": false, `"quoted"`: false, "a/b": false, "${jndi}": false,
	} {
		r := e.request(http.MethodGet, "", "/health", "")
		if id != "" {
			r.Header.Set("X-Request-Id", id)
		}
		a := e.do(r)
		got := a.header.Get("x-request-id")
		if (got == id) != kept || got == "" || got != a.header.Get("request-id") {
			t.Errorf("%q comes back as %q and %q", id, got, a.header.Get("request-id"))
		}
	}
	// Raw bytes that Go's client refuses to send.
	if got := e.raw("GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x01b\x7f\r\nConnection: close\r\n\r\n"); strings.Contains(got, "a\x01b") {
		t.Errorf("answered %q", got)
	}
}

// forge signs claims with a method and key, or gives what an attacker would.
func forge(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestBadTokens(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	hour := time.Now().Add(time.Hour).Unix()
	good := jwt.MapClaims{"sub": "victim", "exp": hour}
	secret := []byte(testSecret)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	with := func(name string, value any) string {
		c := jwt.MapClaims{"sub": "victim", "exp": hour, name: value}
		if value == nil {
			delete(c, name)
		}
		return forge(t, jwt.SigningMethodHS256, secret, c)
	}
	critical := jwt.NewWithClaims(jwt.SigningMethodHS256, good)
	critical.Header["crit"] = []string{"https://issuer.example/only-once"}
	bound, err := critical.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	signed := forge(t, jwt.SigningMethodHS256, secret, good)
	part := strings.Split(signed, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	for _, c := range []struct{ name, token, code string }{
		{"garbage", "garbage", "invalid_api_key"},
		{"dots", "..", "invalid_api_key"},
		{"expired", with("exp", time.Now().Add(-time.Second).Unix()), "token_expired"},
		{"expired long ago and forged", forge(t, jwt.SigningMethodHS256, []byte("other"), jwt.MapClaims{"sub": "victim", "exp": 1}), "invalid_api_key"},
		{"another secret", forge(t, jwt.SigningMethodHS256, []byte("other"), good), "invalid_api_key"},
		{"alg none", forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good), "invalid_api_key"},
		{"alg none, with a signature", b64([]byte(`{"alg":"none"}`)) + "." + part[1] + "." + part[2], "invalid_api_key"},
		{"alg NonE", b64([]byte(`{"alg":"NonE"}`)) + "." + part[1] + ".", "invalid_api_key"},
		{"HS512 where HS256 is set", forge(t, jwt.SigningMethodHS512, secret, good), "invalid_api_key"},
		{"RS256", forge(t, jwt.SigningMethodRS256, private, good), "invalid_api_key"},
		{"RS256 in the header, an HMAC below", b64([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part[1] + "." + part[2], "invalid_api_key"},
		{"no signature", part[0] + "." + part[1] + ".", "invalid_api_key"},
		{"a changed payload", part[0] + "." + b64([]byte(`{"sub":"admin","exp":99999999999}`)) + "." + part[2], "invalid_api_key"},
		{"good, but for what its issuer calls critical and nobody here knows", bound, "invalid_api_key"},
		{"no exp", with("exp", nil), "invalid_api_key"},
		{"exp as text", with("exp", "tomorrow"), "invalid_api_key"},
		{"exp negative", with("exp", -1), "token_expired"},
		{"not yet valid", with("nbf", hour), "invalid_api_key"},
		{"no sub", with("sub", nil), "invalid_api_key"},
		{"empty sub", with("sub", ""), "invalid_api_key"},
		{"sub with NUL", with("sub", "a\x00b"), "invalid_api_key"},
		{"the sub that prices are recorded by", with("sub", domain.PricesAccount), "invalid_api_key"},
		{"sub with a blank", with("sub", "a b"), "invalid_api_key"},
		{"sub with a line end", with("sub", "a\nb"), "invalid_api_key"},
		{"sub with a quote", with("sub", "a'--"), "invalid_api_key"},
		{"sub of 1 KB", with("sub", strings.Repeat("a", 1024)), "invalid_api_key"},
		{"sub as a number", with("sub", 7), "invalid_api_key"},
		{"sub as an object", with("sub", map[string]any{"a": 1}), "invalid_api_key"},
		{"a huge token", strings.Repeat("a", 9000), "invalid_api_key"},
		{"two tokens", signed + "," + signed, "invalid_api_key"},
	} {
		r := e.request(http.MethodPost, "", chatPath, chatBody("sim-flat", "x", ""))
		r.Header.Set("Authorization", "Bearer "+c.token)
		a := e.do(r)
		if a.status != 401 || a.code() != c.code || a.json("error.type").Str != "invalid_request_error" || !a.json("error.param").Exists() {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
	}
	if len(e.asked.accounts) != 0 {
		t.Errorf("accounts were opened: %v", e.asked.accounts)
	}
}

func TestTokensCannotBeMisconfigured(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"", "none", "RS256", "hs256", "HS257"} {
		if _, err := gateway.NewTokens(algorithm, []byte(testSecret)); err == nil {
			t.Errorf("%q was accepted with a secret", algorithm)
		}
	}
	if _, err := gateway.NewTokens("HS256", nil); err == nil {
		t.Error("an empty secret was accepted")
	}
	if _, err := gateway.NewIssuerTokens("HS256", nil); err == nil {
		t.Error("HS256 was accepted with public keys")
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := gateway.NewIssuerTokens("RS256", func(*jwt.Token) (any, error) { return &private.PublicKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.Sign("a", "user", time.Now(), time.Hour); err == nil {
		t.Error("an issuer's tokens were signed here")
	}
	claims := jwt.MapClaims{"sub": "jan", "exp": time.Now().Add(time.Hour).Unix(), "role": "admin"}
	who, err := issuer.Check(forge(t, jwt.SigningMethodRS256, private, claims))
	if err != nil || who.Account != "jan" || who.Role != gateway.RoleAdmin {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := issuer.Check(forge(t, jwt.SigningMethodHS256, private.N.Bytes(), claims)); err == nil {
		t.Error("an HMAC with the public key was accepted")
	}
	for role, want := range map[string]string{"": "user", "user": "user", "Admin": "user", "root": "user", "admin": "admin"} {
		claims["role"] = role
		if who, err := issuer.Check(forge(t, jwt.SigningMethodRS256, private, claims)); err != nil || who.Role != want {
			t.Errorf("role %q is %+v, %v", role, who, err)
		}
	}
}
