package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// identity is somebody who is not alice, or not any more.
type identity struct {
	name    string
	header  http.Header
	refused bool // 401 wherever a credential is needed; otherwise an account of its own, and no administrator
	named   bool // it has alice's name in its own, which an error may repeat
}

// signed is a token with any claims.
func signed(t testing.TB, method jwt.SigningMethod, key any, sub, role string, valid time.Duration) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": sub, "exp": time.Now().Add(valid).Unix()}
	if role != "" {
		claims["role"] = role
	}
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// wrongIdentities are all that are tried at every route.
func (v *victim) wrongIdentities() []identity {
	own := func(sub, role string) string {
		return signed(v.t, jwt.SigningMethodHS256, []byte(testSecret), sub, role, time.Hour)
	}
	forged := func(method jwt.SigningMethod, key any) string {
		return signed(v.t, method, key, hersOnly, gateway.RoleAdmin, time.Hour)
	}
	made, _ := gateway.NewKey()
	stranger := []byte("a stranger's secret, as long as ours")
	refused := []identity{
		{"nobody", http.Header{}, true, false},
		{"an empty credential", http.Header{"Authorization": {"Bearer "}}, true, false},
		{"garbage", bearer("garbage-garbage-garbage"), true, false},
		{"alice's token, expired", bearer(signed(v.t, jwt.SigningMethodHS256, []byte(testSecret), hersOnly, "", -time.Minute)), true, false},
		{"alice's token, its end cut off", bearer(v.token[:len(v.token)-2]), true, false},
		{"alice by another secret, as admin", bearer(forged(jwt.SigningMethodHS256, stranger)), true, false},
		{"alice by no algorithm, as admin", bearer(forged(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType)), true, false},
		{"alice by another algorithm, as admin", bearer(forged(jwt.SigningMethodHS512, []byte(testSecret))), true, false},
		{"alice's revoked key", bearer(v.revoked), true, false},
		{"alice's key, cut", bearer(v.key[:len(v.key)-1]), true, false},
		{"a made-up key", http.Header{"X-Api-Key": {made}}, true, false},
		{"the id of alice's key", bearer("sk-" + v.keyID), true, false},
		{"alice's name as a token", bearer(hersOnly), true, false},
		{"her name as user and password", http.Header{"Authorization": {"Basic YWxpY2UtNWUxMTo="}}, true, false},
		{"a proxy that says it is alice", http.Header{"X-Forwarded-User": {hersOnly}, "X-User-Id": {hersOnly}, "X-Account": {hersOnly}, "X-Forwarded-For": {"127.0.0.1"}}, true, false},
	}
	for name, sub := range map[string]string{"the account of prices": domain.PricesAccount, "alice in Cyrillic": "\u0430lice-5e11", "alice with a zero-width space": "alice-5e11\u200b",
		"alice with a blank": hersOnly + " ", "alice percent-encoded": "%61lice-5e11", "alice and a NUL": hersOnly + "\x00", "alice in full width": "ａlice-5e11", "nobody in particular": "",
		"a pattern": "alice%", "any": "*", "SQL": "' OR '1'='1"} {
		refused = append(refused, identity{name, bearer(own(sub, "")), true, strings.Contains(sub, hersOnly)})
	}
	return slices.Concat(refused, v.otherAccounts(own))
}

// otherAccounts are whoever has an account, which is not alice's.
func (v *victim) otherAccounts(own func(sub, role string) string) (all []identity) {
	v.t.Helper()
	env := []string{"DATABASE_URL=" + v.dbURL}
	key := parsed[keyOut](v.t, env, "key", "create", "--account", "bob-by-key").Key
	spoofing := bearer(own("bob-spoof", ""))
	for _, name := range []string{"X-User-Id", "X-Account", "X-Forwarded-User", "Openai-Organization", "Openai-Project", "X-Goog-User-Project"} {
		spoofing.Set(name, "ALICE") // not her name: what bob writes may come back to him
	}
	all = append(all, identity{"bob", bearer(own("bob", "")), false, false}, identity{"bob by key", http.Header{"X-Api-Key": {key}}, false, false}, identity{"who says he is alice", spoofing, false, false},
		identity{"a credential and alice's name", http.Header{"Authorization": {"Bearer " + own("bearer-first", "")}, "X-Api-Key": {hersOnly}}, false, false})
	for i, role := range []string{"service_role", "authenticated", "anon", "administrator", "Admin", "ADMIN", "admin ", "root", "user"} {
		all = append(all, identity{"the role " + role, bearer(own(fmt.Sprint("role-", i), role)), false, false})
	}
	for _, sub := range []string{"ALICE-5E11", "Alice-5e11", "lice-5e11", "alice-5e1", "alice-5e1.", "alice-5e1/../bob", "bob/../alice-5e1", "./alice-5e1", "alice-5e1|", "alice-5e1:available",
		"platform:revenue", "platform:funding", "platform", "gateway", "admin", "operator", "null", "0", "undefined"} {
		all = append(all, identity{"the account " + sub, bearer(own(sub, "")), false, false})
	}
	return all
}

// hersStays: alice has all that she had, and what is shared by accident would show here.
func (v *victim) hersStays(p *keeping) {
	v.t.Helper()
	header := bearer(v.token)
	again := header.Clone()
	again.Set("Idempotency-Key", "once-"+hersOnly)
	if k := v.knock("POST", "/v1/chat/completions", v.idemBody, again); k.header.Get("idempotent-replayed") != "true" || k.header.Get("x-billing-request-id") != v.request {
		v.t.Errorf("her own key: %+v", k)
	}
	if k := v.knock("GET", "/billing/requests/"+v.request, "", header); k.status != http.StatusOK {
		v.t.Errorf("her own request: %+v", k)
	}
	if k := v.knock("POST", "/v1/responses", said("x", `,"previous_response_id":"`+v.response+`"`), header); k.status != http.StatusOK || !containsAll(k.body, "you said", hersOnly) {
		v.t.Errorf("her own response: %+v", k)
	}
	if k := v.knock("GET", "/admin/accounts/"+hersOnly, "", bearer(adminToken(v.t))); k.status != http.StatusOK || !containsAll(k.body, hersOnly) {
		v.t.Errorf("an administrator: %+v", k)
	}
	v.cacheIsHers(p)
	v.limitsAreHers()
}

// cacheIsHers: what was answered to her before is not answered to bob, who asks the same.
func (v *victim) cacheIsHers(p *keeping) {
	v.t.Helper()
	body, calls := chatBody("gpt-4o-mini", "sim:tokens=5 the same words", false, ""), p.calls.Load()
	for i, c := range []struct{ token, cache string }{{v.token, "miss"}, {v.token, "hit"}, {tokenFor(v.t, "bob"), "miss"}, {tokenFor(v.t, "bob"), "hit"}, {v.key, "hit"}} {
		if k := v.knock("POST", "/v1/chat/completions", body, bearer(c.token)); k.status != http.StatusOK || k.header.Get("x-cache") != c.cache {
			v.t.Errorf("the cache, %d: %d %s, want %s", i, k.status, k.header.Get("x-cache"), c.cache)
		}
	}
	if n := p.calls.Load() - calls; n != 2 {
		v.t.Errorf("the provider was called %d times", n)
	}
}

// limitsAreHers: a flood uses up its own account's limit.
func (v *victim) limitsAreHers() {
	v.t.Helper()
	env := []string{"DATABASE_URL=" + v.dbURL}
	for _, name := range []string{"flood", "quiet"} {
		v.knock("GET", "/billing/balance", "", bearer(tokenFor(v.t, name))) // opens it
		succeeds(v.t, env, "account", "limits", name, "--requests-per-hour", "3")
	}
	ask := func(name string) knock {
		return v.knock("POST", "/v1/chat/completions", chatBody(flatModel, "x", false, ""), bearer(tokenFor(v.t, name)))
	}
	got := map[int]int{}
	for range 12 {
		got[ask("flood").status]++
	}
	if got[http.StatusOK] != 3 || got[http.StatusTooManyRequests] != 9 {
		v.t.Errorf("the flood: %v", got)
	}
	for left := range 3 {
		if k := ask("quiet"); k.status != http.StatusOK || k.header.Get("x-ratelimit-remaining-requests") != []string{"2", "1", "0"}[left] {
			v.t.Errorf("the other account: %d %s %s", k.status, k.header.Get("x-ratelimit-remaining-requests"), k.body)
		}
	}
}

// How often times are compared, and how far apart they may be, on a busy machine.
const (
	timings    = 60
	timesApart = 3
	apartNoise = 20 * time.Millisecond
)

// noOracle: what is hers is refused in no other time than what is not there.
func (v *victim) noOracle() {
	v.t.Helper()
	header := bearer(tokenFor(v.t, "bob"))
	var took [2][]time.Duration
	for range timings {
		for i, id := range []string{v.request, noRequest} {
			begin := time.Now()
			v.knock("GET", "/billing/requests/"+id, "", header)
			took[i] = append(took[i], time.Since(begin))
		}
	}
	slices.Sort(took[0])
	slices.Sort(took[1])
	hers, none := took[0][timings/2], took[1][timings/2]
	v.t.Logf("another's request is refused in %s, one that is not there in %s (medians of %d)", hers, none, timings)
	if hers > timesApart*none+apartNoise || none > timesApart*hers+apartNoise {
		v.t.Errorf("hers takes %s, none %s", hers, none)
	}
}
