package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/tidwall/gjson"

	"llm-gateway/gateway"
	"llm-gateway/gateway/provider"
	"llm-gateway/migrations/pgtest"
)

// hersOnly is in all that is alice's: her account's name, her references, prompts, keys and ids.
const hersOnly = "alice-5e11"

// triesAtOnce is fewer than may ask for the metrics at once.
const triesAtOnce = 3

// keeping is a provider that keeps every response and tells it to whoever names its id. Other calls are simulated.
type keeping struct {
	*httptest.Server
	calls atomic.Int64
	mu    sync.Mutex
	kept  map[string]string
}

func newKeeping(t *testing.T) *keeping {
	p, simulated := &keeping{kept: map[string]string{}}, provider.Handler(provider.NewSimulated())
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := p.calls.Add(1)
		if !strings.HasSuffix(r.URL.Path, "/responses") {
			simulated.ServeHTTP(w, r)
			return
		}
		raw, _ := io.ReadAll(r.Body) //nolint:errcheck // what is cut is no JSON
		body := gjson.ParseBytes(raw)
		id := fmt.Sprintf("resp_%032d", n)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.kept[id] = body.Get("input").String()
		text, _ := json.Marshal("you said: " + p.kept[body.Get("previous_response_id").Str]) //nolint:errcheck // a string always encodes
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":%q,"object":"response","status":"completed","model":%q,"output":[{"type":"message","id":"msg_%d","role":"assistant",`+
			`"content":[{"type":"output_text","text":%s}]}],"usage":{"input_tokens":9,"output_tokens":9}}`, id, body.Get("model").Str, n, text)
	}))
	t.Cleanup(p.Close)
	return p
}

// victim is alice, who has used the gateway, and what there is of her that others could ask for.
type victim struct {
	*served
	t                  *testing.T
	client             *http.Client
	dbURL              string
	token, key, keyID  string
	revoked            string
	request, response  string // ids
	position, idemBody string
	canaries           []string
}

// knock is one request and what came back.
type knock struct {
	status int
	header http.Header
	body   string
}

func (v *victim) knock(method, path, body string, header http.Header) (k knock) {
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.url+path, strings.NewReader(body))
	if err != nil {
		v.t.Error(err)
		return k
	}
	req.Header = header.Clone()
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Errorf("%s %s: %v", method, path, err)
		return k
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Errorf("%s %s: %v", method, path, err)
	}
	return knock{resp.StatusCode, resp.Header, string(text)}
}

func bearer(credential string) http.Header {
	return http.Header{"Authorization": {"Bearer " + credential}}
}

// newVictim lets alice use all that leaves something behind.
func newVictim(t *testing.T) (*victim, *keeping) {
	t.Helper()
	p := newKeeping(t)
	v := &victim{t: t, client: newClient(t), dbURL: pgtest.URL(t), token: tokenFor(t, hersOnly)}
	env := []string{"DATABASE_URL=" + v.dbURL}
	succeeds(t, env, "account", "credit", hersOnly, "7.654321", "--reference", "invoice-"+hersOnly, "--open")
	mine := parsed[keyOut](t, env, "key", "create", "--account", hersOnly, "--name", "laptop-"+hersOnly)
	gone := parsed[keyOut](t, env, "key", "create", "--account", hersOnly)
	succeeds(t, env, "key", "revoke", gone.ID.String())
	v.key, v.keyID, v.revoked = mine.Key, mine.ID.String(), gone.Key
	v.served = startServe(t, "DATABASE_URL="+v.dbURL, "OPENAI_BASE_URL="+p.URL, "OPENAI_API_KEY="+canaryKey, "RESPONSE_CACHE=memory", "RATE_LIMIT_STORAGE=memory",
		"SIMULATED_PROVIDER=on", "LOG_LEVEL=INFO", "HEALTH_CHECK_INTERVAL=200ms")
	v.idemBody = chatBody(flatModel, "what "+hersOnly+" asked", false, `,"user":"end-user-`+hersOnly+`"`)
	header := bearer(v.key)
	header.Set("Idempotency-Key", "once-"+hersOnly)
	first := v.knock("POST", "/v1/chat/completions", v.idemBody, header)
	header.Set("Idempotency-Key", "twice-"+hersOnly)
	v.knock("POST", "/v1/chat/completions", v.idemBody, header)
	kept := v.knock("POST", "/v1/responses", said(hersOnly, ""), bearer(v.token))
	v.request, v.response, v.position = first.header.Get("x-billing-request-id"), gjson.Get(kept.body, "id").Str, kept.header.Get("x-billing-position")
	if first.status != http.StatusOK || kept.status != http.StatusOK || v.request == "" || v.response == "" || v.position == "" {
		t.Fatalf("alice: %+v %+v", first, kept)
	}
	balance := v.knock("GET", "/billing/balance", "", bearer(v.token)).body
	v.canaries = []string{hersOnly, v.request, v.response, v.keyID, mine.Hint, "7.654321", kept.header.Get("x-billing-request-id"), gjson.Get(balance, "balance").Raw}
	if slices.Contains(v.canaries, "") {
		t.Fatalf("there is nothing to look for: %q", v.canaries)
	}
	return v, p
}

// said is a request for a response.
func said(text, more string) string {
	return `{"model":"gpt-4.1","max_output_tokens":20,"input":"` + text + `"` + more + `}`
}

// reach is something that somebody else asks for, which is alice's, and the same of something that is not there.
type reach struct {
	path, body     string
	noPath, noBody string // "" = as the first
	header         http.Header
	want           int  // for whoever has an account; 0 = what they would get anyway
	others         bool // it names something of hers: the two answers must be alike
}

// Who may use a route, and what others get.
const (
	forUsers    = "users"
	forAdmins   = "admins"
	forEveryone = "everybody"
)

// guarded is how a route is tried.
type guarded struct {
	who    string
	probes func(v *victim) []reach
}

const (
	noRequest  = "01890000-0000-7000-8000-000000000000"
	noResponse = "resp_99999999999999999999999999999999"
)

// unnamed is a route where nothing is named.
func unnamed(body string) func(*victim) []reach {
	return func(v *victim) []reach { return []reach{{body: body}} }
}

// ofAccount is a route of administrators, for alice's account and for one that is not there.
func ofAccount(rest, body string) func(*victim) []reach {
	return func(*victim) []reach {
		return []reach{
			{path: "/admin/accounts/" + hersOnly + rest, noPath: "/admin/accounts/nobody-5e1" + rest, body: body, others: true},
			{path: "/admin/accounts/%61" + hersOnly[1:] + rest, noPath: "/admin/accounts/nobody-5e1" + rest, body: body, others: true},
		}
	}
}

// isolated says how every route is tried. A route that is not here fails the test.
var isolated = map[string]guarded{
	"POST /v1/chat/completions": {forUsers, func(v *victim) []reach {
		same, other := http.Header{"Idempotency-Key": {"once-" + hersOnly}}, http.Header{"Idempotency-Key": {"twice-" + hersOnly}}
		return []reach{{body: chatBody(flatModel, "x", false, "")}, {body: v.idemBody, header: same, want: 200}, {body: chatBody(flatModel, "x", false, ""), header: other, want: 200},
			{body: chatBody(flatModel, "x", true, ""), want: 200}}
	}},
	"POST /v1/chat/completions/stream": {forUsers, unnamed(chatBody(flatModel, "x", false, ""))},
	"POST /v1/completions":             {forUsers, unnamed(`{"model":"sim-flat","prompt":"x"}`)},
	"POST /v1/embeddings":              {forUsers, unnamed(`{"model":"text-embedding-3-small","input":"x"}`)},
	"POST /v1/responses": {forUsers, func(v *victim) []reach {
		named := func(form, id string) string { return said("x", fmt.Sprintf(form, id)) }
		item := `{"model":"gpt-4.1","max_output_tokens":20,"input":[{"type":"item_reference","id":%q}]}`
		var all []reach
		for _, form := range []string{`,"previous_response_id":%q`, `,"previous_response_id":%q,"stream":true`} {
			all = append(all, reach{body: named(form, v.response), noBody: named(form, noResponse), want: 404, others: true})
		}
		return append(all, reach{body: fmt.Sprintf(item, v.response), noBody: fmt.Sprintf(item, noResponse), want: 404, others: true})
	}},
	"POST /v1/messages": {forUsers, func(v *victim) []reach {
		body := `{"model":"claude-sonnet-4-5-20250929","max_tokens":20,"messages":[{"role":"user","content":"x"}],"container":%q}`
		return []reach{{body: fmt.Sprintf(body, v.response), noBody: fmt.Sprintf(body, noResponse), others: true}, {body: `{"model":"sim-flat","max_tokens":20,"messages":[{"role":"user","content":"x"}]}`}}
	}},
	"POST /v1/messages/count_tokens": {forUsers, unnamed(`{"model":"sim-flat","messages":[{"role":"user","content":"x"}]}`)},
	"POST /v1beta/models/{model}:{method}": {forUsers, func(*victim) []reach {
		return []reach{{path: "/v1beta/models/sim-flat:generateContent", body: `{"contents":[{"role":"user","parts":[{"text":"x"}]}]}`}}
	}},
	"POST /v1/models/{model}:{method}": {forUsers, func(*victim) []reach {
		return []reach{{path: "/v1/models/sim-flat:streamGenerateContent?alt=sse", body: `{"contents":[{"role":"user","parts":[{"text":"x"}]}]}`}}
	}},
	"GET /v1beta/models":      {forUsers, unnamed("")},
	"GET /v1beta/models/{id}": {forUsers, func(*victim) []reach { return []reach{{path: "/v1beta/models/sim-flat", want: 200}} }},
	"GET /v1/models":          {forUsers, unnamed("")},
	"GET /v1/models/{id}":     {forUsers, func(*victim) []reach { return []reach{{path: "/v1/models/sim-flat", want: 200}} }},
	"GET /billing/balance": {forUsers, func(v *victim) []reach {
		return []reach{{want: 200}, {want: 200, header: http.Header{"X-Billing-Position": {v.position}}}, {path: "/billing/balance?at=" + v.position},
			{path: "/billing/balance?user_id=" + hersOnly + "&account=" + hersOnly, want: 200}}
	}},
	"GET /billing/transactions": {forUsers, func(v *victim) []reach {
		return []reach{{path: "/billing/transactions?limit=1000&user_id=" + hersOnly, want: 200}, {want: 200, header: http.Header{"X-Billing-Position": {v.position}}}}
	}},
	"GET /billing/stats": {forUsers, func(*victim) []reach {
		return []reach{{want: 200}, {path: "/billing/stats?user_id=" + hersOnly + "&key_id=x&group_by=end_user"}}
	}},
	"POST /billing/estimate": {forUsers, func(v *victim) []reach {
		return []reach{{body: chatBody(flatModel, "x", false, ""), want: 200}, {path: "/billing/estimate?surface=responses", body: said("x", `,"previous_response_id":"`+v.response+`"`),
			noBody: said("x", `,"previous_response_id":"`+noResponse+`"`), others: true}}
	}},
	"GET /billing/requests/{id}": {forUsers, func(v *victim) []reach {
		const at = "/billing/requests/"
		all := []reach{{path: at + v.request, noPath: at + noRequest, want: 404, others: true}, {path: at + neighbour(v.request), noPath: at + noRequest, want: 404, others: true}}
		for _, form := range []string{strings.ToUpper(v.request), strings.ReplaceAll(v.request, "-", ""), "urn:uuid:" + v.request, "%7B" + v.request + "%7D"} {
			all = append(all, reach{path: at + form, noPath: at + noRequest, want: 404, others: true})
		}
		return all
	}},
	"GET /billing/statements/{month}": {forUsers, func(*victim) []reach {
		at := "/billing/statements/" + time.Now().UTC().Format("2006-01")
		return []reach{{path: at, want: 200}, {path: at + "?format=csv&account=" + hersOnly, want: 200}, {path: at + "?format=html", want: 200}}
	}},
	"GET /admin/accounts/{id}":              {forAdmins, ofAccount("", "")},
	"POST /admin/accounts/{id}/credits":     {forAdmins, ofAccount("/credits", `{"amount":"1.00","reference":"a gift"}`)},
	"PUT /admin/accounts/{id}/credit-limit": {forAdmins, ofAccount("/credit-limit", `{"credit_limit":"9"}`)},
	"PUT /admin/accounts/{id}/frozen":       {forAdmins, ofAccount("/frozen", `{"frozen":true}`)},
	"GET /admin/accounts/{id}/limits":       {forAdmins, ofAccount("/limits", "")},
	"PUT /admin/accounts/{id}/limits":       {forAdmins, ofAccount("/limits", `{"requests_per_minute":1}`)},
	"GET /admin/accounts/{id}/statements/{month}": {forAdmins, func(v *victim) []reach {
		return ofAccount("/statements/"+time.Now().UTC().Format("2006-01"), "")(v)
	}},
	"GET /admin/stats":             {forAdmins, unnamed("")},
	"GET /health":                  {forEveryone, unnamed("")},
	"GET /health/circuit-breakers": {forEveryone, unnamed("")},
	"GET /health/detailed":         {forAdmins, unnamed("")},
	"GET /health/system":           {forAdmins, unnamed("")},
	"GET /health/history":          {forAdmins, unnamed("")},
	"GET /ready":                   {forEveryone, unnamed("")},
	"GET /live":                    {forEveryone, unnamed("")},
	"GET /metrics":                 {forEveryone, unnamed("")},
}

// neighbour is the id of a request of the same moment.
func neighbour(id string) string {
	u := uuid.MustParse(id)
	u[15] ^= 4
	return u.String()
}

// TestIsolation tries every route with every wrong identity. Nobody sees, spends or changes what is alice's, and
// what is hers answers as what is not there.
func TestIsolation(t *testing.T) {
	t.Parallel()
	v, p := newVictim(t)
	before := v.events()
	ids := v.wrongIdentities()
	var tries atomic.Int64
	for _, route := range gateway.Routes() {
		name := route.Method + " " + route.Path
		g, ok := isolated[name]
		if !ok {
			t.Errorf("%s is not in the table of isolated routes: say who may use it and what could be asked of another's there", name)
			continue
		}
		for _, pr := range g.probes(v) {
			if pr.path == "" {
				pr.path = route.Path
			}
			atOnce(triesAtOnce, func(first int) {
				for i := first; i < len(ids); i += triesAtOnce {
					tries.Add(1)
					v.try(&ids[i], route.Method, g.who, &pr)
				}
			})
		}
	}
	if len(isolated) != len(gateway.Routes()) {
		t.Errorf("%d routes in the table, %d in the gateway", len(isolated), len(gateway.Routes()))
	}
	if after := v.events(); after != before {
		t.Errorf("alice's events before:\n%s\nafter:\n%s", before, after)
	}
	t.Logf("%d routes, %d wrong identities, %d tries", len(isolated), len(ids), tries.Load())
	v.hersStays(p)
	v.noOracle()
	v.stop()
	verified(t, "DATABASE_URL="+v.dbURL)
}

// try asks as somebody else.
func (v *victim) try(who *identity, method, allowed string, pr *reach) {
	header := who.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	maps.Copy(header, pr.header)
	got := v.knock(method, pr.path, pr.body, header)
	what := fmt.Sprintf("%s: %s %s %.120s", who.name, method, pr.path, pr.body)
	want := pr.want
	switch {
	case allowed == forEveryone:
		want = http.StatusOK
	case who.refused:
		want = http.StatusUnauthorized
	case allowed == forAdmins:
		want = http.StatusForbidden
	}
	if want == 0 && (got.status >= 500 && got.status != http.StatusServiceUnavailable || got.status == 401 || got.status == 403) || want != 0 && got.status != want {
		v.t.Errorf("%s: %d, want %d: %.300s", what, got.status, want, got.body)
	}
	v.tellsNothing(what, who, &got)
	if got.header.Get("idempotent-replayed") != "" {
		v.t.Errorf("%s: another's answer was repeated", what)
	}
	if !pr.others {
		return
	}
	none := *pr
	if none.noPath != "" {
		none.path = none.noPath
	}
	if none.noBody != "" {
		none.body = none.noBody
	}
	if absent := v.knock(method, none.path, none.body, header); shape(&got) != shape(&absent) {
		v.t.Errorf("%s: what is alice's answers\n%s\nwhat is not there\n%s", what, shape(&got), shape(&absent))
	}
}

// tellsNothing looks for all that is alice's.
func (v *victim) tellsNothing(what string, who *identity, k *knock) {
	var head strings.Builder
	k.header.Write(&head) //nolint:errcheck // a Builder takes all
	for _, canary := range v.canaries {
		if canary == hersOnly && who.named {
			continue // it is told what it said
		}
		if strings.Contains(head.String()+k.body, canary) {
			v.t.Errorf("%s tells %q: %s%.600s", what, canary, head.String(), k.body)
		}
	}
}

// shape is an answer without what differs between any two.
func shape(k *knock) string {
	h := k.header.Clone()
	body := k.body
	for _, own := range []string{"Date", "X-Request-Id", "Request-Id"} {
		if value := h.Get(own); value != "" && own != "Date" {
			body = strings.ReplaceAll(body, value, "ID")
		}
		h.Del(own)
	}
	var head strings.Builder
	h.Write(&head) //nolint:errcheck // a Builder takes all
	return fmt.Sprintf("%d\n%s\n%s", k.status, head.String(), body)
}

// events is all that the ledger has of alice.
func (v *victim) events() (all string) {
	v.t.Helper()
	conn, err := pgx.Connect(v.t.Context(), v.dbURL)
	if err != nil {
		v.t.Fatal(err)
	}
	defer conn.Close(v.t.Context()) //nolint:errcheck // it was only read from
	err = conn.QueryRow(v.t.Context(), `SELECT string_agg(shard || ':' || seq || ' ' || kind || ' ' || encode(hash, 'hex'), E'\n' ORDER BY seq)
		FROM ledger_events WHERE account = $1`, hersOnly).Scan(&all)
	if err != nil {
		v.t.Fatal(err)
	}
	return all
}
