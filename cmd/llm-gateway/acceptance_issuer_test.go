package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"llm-gateway/migrations/pgtest"
)

const issuerKeyBits = 2048

// issuerToken is a token as an identity provider signs it, by a key of this id.
func issuerToken(t testing.TB, key *rsa.PrivateKey, kid string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"sub": "federated", "exp": time.Now().Add(time.Hour).Unix()})
	token.Header["kid"] = kid
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestIssuer: with JWT_JWKS_URL the issuer's tokens are good, forged ones and those of unknown keys
// are not, and whoever sends many of those neither waits for long nor makes the gateway ask for keys
// again and again.
func TestIssuer(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, issuerKeyBits)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, issuerKeyBits)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1000)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		b64 := base64.RawURLEncoding
		fmt.Fprintf(w, `{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"one","n":%q,"e":%q}]}`,
			b64.EncodeToString(key.N.Bytes()), b64.EncodeToString(big.NewInt(int64(key.E)).Bytes()))
	}))
	t.Cleanup(issuer.Close)
	s := startServe(t, "DATABASE_URL="+pgtest.URL(t), "JWT_ALGORITHM=RS256", "JWT_JWKS_URL="+issuer.URL, "JWT_SECRET_KEY=")
	client := newClient(t)
	if status, body := fetch(t, client, s.url+"/billing/balance", issuerToken(t, key, "one")); status != http.StatusOK {
		t.Errorf("the issuer's token: %d %s", status, body)
	}
	bad := []string{issuerToken(t, other, "one"), tokenFor(t, "federated")}
	for i := range 8 {
		bad = append(bad, issuerToken(t, other, fmt.Sprint("unknown-", i)))
	}
	begin := time.Now()
	for i, token := range bad {
		if status, body := fetch(t, client, s.url+"/billing/balance", token); status != http.StatusUnauthorized {
			t.Errorf("bad token %d: %d %s", i, status, body)
		}
	}
	took := time.Since(begin)
	t.Logf("%d bad tokens refused in %s; the issuer was asked %d times", len(bad), took.Round(time.Millisecond), len(asked))
	if took > denyLimit || len(asked) > 2 {
		t.Errorf("%d bad tokens took %s, and the issuer was asked %d times", len(bad), took, len(asked))
	}
	if status, _ := fetch(t, client, s.url+"/billing/balance", issuerToken(t, key, "one")); status != http.StatusOK {
		t.Errorf("after those the issuer's token: %d", status)
	}
}

// noIssuer is the address of something that has no keys to give.
func noIssuer(t testing.TB) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<html>hunter2") //nolint:errcheck // nobody needs it
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// rotating is an issuer whose key can change.
type rotating struct {
	mu    sync.Mutex
	kid   string
	key   *ecdsa.PrivateKey
	asked int
}

func (r *rotating) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	point, err := r.key.PublicKey.Bytes()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	b64 := base64.RawURLEncoding.EncodeToString
	fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":%q,"x":%q,"y":%q}]}`, r.kid, b64(point[1:33]), b64(point[33:]))
}

// rotate makes a new key and returns a token that it signed, as Supabase's are.
func (r *rotating) rotate(t *testing.T, kid, issuer string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.key, r.kid = key, kid
	r.mu.Unlock()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "9d3c-rotated", "exp": time.Now().Add(time.Hour).Unix(), "iss": issuer,
		"aud": "authenticated", "role": "service_role"})
	token.Header["kid"] = kid
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func (r *rotating) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// TestIssuerRotation: with SUPABASE_URL alone the project's tokens are good, and make no administrators. A new key
// is taken at once, or while somebody sends tokens of unknown keys within issuerPause; the issuer is asked no
// more often, and the old key is good no longer.
func TestIssuerRotation(t *testing.T) {
	t.Parallel()
	issuer := &rotating{}
	mux := http.NewServeMux()
	mux.Handle("/auth/v1/.well-known/jwks.json", issuer)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	first := issuer.rotate(t, "one", server.URL+"/auth/v1")
	s := startServe(t, "DATABASE_URL="+pgtest.URL(t), "JWT_SECRET_KEY=", "SUPABASE_URL="+server.URL, "SUPABASE_KEY=anon-of-the-project", "SUPABASE_SERVICE_ROLE_KEY=service-of-the-project")
	client := newClient(t)
	asks := func(path, token string) int {
		status, _ := fetch(t, client, s.url+path, token)
		return status
	}
	if status := asks("/billing/balance", first); status != http.StatusOK {
		t.Errorf("the first key: %d", status)
	}
	if status := asks("/admin/accounts/x", first); status != http.StatusForbidden {
		t.Errorf("the service role as administrator: %d", status)
	}
	second := issuer.rotate(t, "two", server.URL+"/auth/v1")
	if status := asks("/billing/balance", second); status != http.StatusOK {
		t.Errorf("the second key: %d", status)
	}
	third, begun, before := issuer.rotate(t, "three", server.URL+"/auth/v1"), time.Now(), issuer.count()
	stranger := (&rotating{}).rotate(t, "unknown", server.URL+"/auth/v1")
	sent := 0
	for ; asks("/billing/balance", third) != http.StatusOK; sent++ {
		if status := asks("/billing/balance", stranger); status != http.StatusUnauthorized {
			t.Fatalf("a stranger's: %d", status)
		}
		if time.Since(begun) > 3*issuerPause {
			t.Fatal("the third key is not taken")
		}
	}
	took := time.Since(begun)
	t.Logf("the third key was taken after %s, amid %d tokens of a stranger's; the issuer was asked %d times", took.Round(time.Millisecond), sent, issuer.count()-before)
	if asked := issuer.count() - before; asked > 1+int(took/issuerPause) {
		t.Errorf("the issuer was asked %d times in %s", asked, took)
	}
	for name, old := range map[string]string{"first": first, "second": second} {
		if status := asks("/billing/balance", old); status != http.StatusUnauthorized {
			t.Errorf("the %s key, after its end: %d", name, status)
		}
	}
}
