package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
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
