package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"llm-gateway/gateway"
)

// written is a token of exactly this header and payload, signed with testSecret.
func written(header, payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

// TestClaims is the table of payloads, rightly signed: names count as they are written and once, times are
// numbers of seconds, and no claim but role makes an administrator.
func TestClaims(t *testing.T) {
	t.Parallel()
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	hour := fmt.Sprint(now + 3600)
	for _, c := range []struct{ payload, want string }{ // account and role, or what is wrong
		{`{"sub":"a","exp":` + hour + `}`, "a user"},
		{`{"sub":"a","exp":` + hour + `,"role":"admin"}`, "a admin"},
		{`{"sub":"a","exp":` + hour + `,"role":"authenticated"}`, "a user"},
		{`{"sub":"a","exp":` + hour + `,"role":"service_role"}`, "a user"},
		{`{"sub":"a","exp":` + hour + `,"Role":"admin"}`, "a user"},
		{`{"sub":"a","exp":` + hour + `,"ROLE":"admin","app_metadata":{"role":"admin"}}`, "a user"},
		{`{"sub":"a","exp":` + hour + `,"role":"user","Role":"admin"}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"role":"user","role":"admin"}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"role":"user","\u0072ole":"admin"}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"role":["admin"]}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"role":null}`, "a user"},
		{`{"sub":"a","sub":"b","exp":` + hour + `}`, "invalid_api_key"},
		{`{"Sub":"a","exp":` + hour + `}`, "invalid_api_key"},
		{`{"sub":"a","exp":1,"exp":` + hour + `}`, "invalid_api_key"},
		{`{"sub":"a","EXP":` + hour + `}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `.5}`, "a user"},
		{`{"sub":"a","exp":"` + hour + `"}`, "invalid_api_key"},
		{`{"sub":"a","exp":1e300}`, "invalid_api_key"},
		{`{"sub":"a","exp":1.5e10}`, "invalid_api_key"},
		{`{"sub":"a","exp":9223372036854775807}`, "invalid_api_key"},
		{`{"sub":"a","exp":99999999999999999999999999}`, "invalid_api_key"},
		{`{"sub":"a","exp":-9223372036854775808}`, "invalid_api_key"},
		{`{"sub":"a","exp":0}`, "token_expired"},
		{`{"sub":"a","exp":null}`, "invalid_api_key"},
		{`{"sub":"a","exp":true}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"nbf":` + hour + `}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"nbf":"0"}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"iat":` + hour + `}`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"iat":` + fmt.Sprint(now+2) + `,"nbf":` + fmt.Sprint(now+2) + `}`, "a user"},
		{`{"sub":"a","exp":` + fmt.Sprint(now-1) + `}`, "token_expired"},
		{`["sub","a"]`, "invalid_api_key"},
		{`null`, "invalid_api_key"},
		{`{"sub":"a","exp":` + hour + `,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "invalid_api_key"},
	} {
		who, err := tokens.Check(written(`{"alg":"HS256","typ":"JWT"}`, c.payload))
		got := ""
		if e := new(gateway.Error); errors.As(err, &e) {
			got = e.Code
		} else if err == nil {
			got = who.Account + " " + who.Role
		}
		if got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.payload, got, err, c.want)
		}
	}
}

// TestDemands: where an issuer and audiences are set, a token must have them; what is signed here has.
func TestDemands(t *testing.T) {
	t.Parallel()
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	tokens.Demand("https://issuer.example", "llm", "other")
	hour := fmt.Sprint(time.Now().Unix() + 3600)
	for claims, want := range map[string]bool{
		`"iss":"https://issuer.example","aud":"llm"`:         true,
		`"iss":"https://issuer.example","aud":["x","other"]`: true,
		`"iss":"https://issuer.example","aud":"llm2"`:        false,
		`"iss":"https://issuer.example","aud":[]`:            false,
		`"iss":"https://issuer.example","aud":""`:            false,
		`"iss":"https://issuer.example","aud":{"a":"llm"}`:   false,
		`"iss":"https://issuer.example"`:                     false,
		`"iss":"https://issuer.example/","aud":"llm"`:        false,
		`"iss":"","aud":"llm"`:                               false,
		`"aud":"llm"`:                                        false,
		`"Iss":"https://issuer.example","aud":"llm"`:         false,
	} {
		if _, err := tokens.Check(written(`{"alg":"HS256"}`, `{"sub":"a","exp":`+hour+`,`+claims+`}`)); (err == nil) != want {
			t.Errorf("%s: %v", claims, err)
		}
	}
	signed, err := tokens.Sign("a", gateway.RoleUser, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := tokens.Check(signed); err != nil || who.Account != "a" {
		t.Errorf("our own: %+v, %v", who, err)
	}
}

// TestIssuerTricks: with an issuer's keys, nothing that a token says of itself finds another key or algorithm.
func TestIssuerTricks(t *testing.T) {
	t.Parallel()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	evil, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&own.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := gateway.NewIssuerTokens("ES256", func(*jwt.Token) (any, error) { return &own.PublicKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, options{tokens: func(*testing.T) *gateway.Tokens { return tokens }})
	claims := jwt.MapClaims{"sub": "victim", "exp": time.Now().Add(time.Hour).Unix()}
	with := func(method jwt.SigningMethod, key any, header map[string]any) string {
		token := jwt.NewWithClaims(method, claims)
		maps.Copy(token.Header, header)
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	for name, c := range map[string]struct {
		token string
		want  int
	}{
		"the issuer's":              {with(jwt.SigningMethodES256, own, nil), 200},
		"another key":               {with(jwt.SigningMethodES256, evil, nil), 401},
		"HS256 by the public key":   {with(jwt.SigningMethodHS256, public, nil), 401},
		"none":                      {with(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), 401},
		"its own key in the header": {with(jwt.SigningMethodES256, evil, map[string]any{"jwk": map[string]any{"kty": "EC", "crv": "P-256"}}), 401},
		"keys elsewhere":            {with(jwt.SigningMethodES256, evil, map[string]any{"jku": "https://evil.example/keys", "x5u": "https://evil.example/c"}), 401},
		"a kid that is a path":      {with(jwt.SigningMethodES256, evil, map[string]any{"kid": "../../../../dev/null"}), 401},
		"a kid that is SQL":         {with(jwt.SigningMethodES256, evil, map[string]any{"kid": "x' UNION SELECT 'secret"}), 401},
		"a kid that is a number":    {with(jwt.SigningMethodES256, evil, map[string]any{"kid": 7}), 401},
		"alg in two spellings":      {with(jwt.SigningMethodES256, evil, map[string]any{"ALG": "none"}), 401},
	} {
		r := e.request(http.MethodGet, "", "/v1/models", "")
		r.Header.Set("Authorization", "Bearer "+c.token)
		if a := e.do(r); a.status != c.want || c.want == 401 && a.code() != "invalid_api_key" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// TestAdminRoutesRefuse asks every route of administration as everybody who is none: users, keys without the
// role, and those whom another system calls by a great name.
func TestAdminRoutesRefuse(t *testing.T) {
	t.Parallel()
	key := "sk-of-a-user"
	e := start(t, options{keys: keyring{key: {Account: "ina", Role: gateway.RoleUser, KeyID: "k1"}}})
	asked := 0
	for _, route := range gateway.Routes() {
		if !strings.HasPrefix(route.Path, "/admin") {
			continue
		}
		asked++
		path := strings.NewReplacer("{id}", "victim", "{month}", "2026-01").Replace(route.Path)
		for _, role := range []string{"", "user", "authenticated", "service_role", "Admin", "ADMIN", "admin ", "administrator", "owner", "root", "admin,user"} {
			checkError(t, route.Method+" "+path+" as "+role, e.as(role, "ina", route.Method, path, "{}"), 403, "permission_error", "forbidden")
		}
		r := e.request(route.Method, "", path, "{}")
		r.Header.Set("x-api-key", key)
		checkError(t, route.Method+" "+path+" by a key", e.do(r), 403, "permission_error", "forbidden")
		checkError(t, route.Method+" "+path+" by nobody", e.do(e.request(route.Method, "", path, "{}")), 401, "invalid_request_error", "invalid_api_key")
	}
	if asked < 5 || e.account("victim") != nil {
		t.Errorf("%d routes were asked", asked)
	}
}
