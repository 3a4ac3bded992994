package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/gateway"
	"llm-gateway/ledger"
	"llm-gateway/migrations/pgtest"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"nonsense", `there is no verb "nonsense"`},
		{"account", "after account comes one of: show, credit, debit, freeze, unfreeze, limit"},
		{"account spend", "after account comes one of"},
		{"account show", "NAME is missing"},
		{"account show a b", "too many arguments"},
		{"account show a;b", "an account's name is made of"},
		{"account credit a", "AMOUNT is missing"},
		{"account credit a 5", "--reference is mandatory"},
		{"account credit a 0 --reference r", "AMOUNT must be more than 0"},
		{"account credit a 1e5 --reference r", "AMOUNT must be more than 0"},
		{"account credit a -5 --reference r", "-5"},
		{"account credit a 5 --reference opening", "reference_reused"},
		{"account credit a 5 --reference r --corrects here", "not a position"},
		{"account credit a 5 --reference r --force", "flag provided but not defined: -force"},
		{"account debit a 5 --reference r --open", "flag provided but not defined: -open"},
		{"account freeze", "NAME is missing"},
		{"account limit", "NAME is missing"},
		{"account limit alice", "AMOUNT is missing"},
		{"account limit alice -- -1", "AMOUNT must be 0 or more"},
		{"account limit alice 1e3", "AMOUNT must be 0 or more"},
		{"account limit alice! 1", "an account's name is made of"},
		{"key create", "--account is mandatory"},
		{"key create --account a --role root", "--role is user or admin"},
		{"key revoke", "ID is missing"},
		{"key revoke x", "not a key's ID"},
		{"key revoke sk-abc", "not by the key itself"},
		{"token --ttl 1h --days 2", "give one of them"},
		{"token --ttl -1h", "a token is valid for"},
		{"token --days 0", "a token is valid for"},
		{"token --days 99999999", "--days may be"},
		{"token --role root", "--role is user or admin"},
		{"price show", "MODEL is missing"},
		{"price list --group a", "SELL_BOOK is not set"},
		{"price show gpt-4o --account a --group b", "give --group or --account, not both"},
		{"price list x", "too many arguments"},
		{"ledger verify --all", "flag provided but not defined"},
		{"audit", "REQUEST or --all is missing"},
		{"audit x", "REQUEST is the x-billing-request-id of an answer"},
		{"audit 00000000-0000-0000-0000-000000000000", "REQUEST is the x-billing-request-id"},
		{"audit a b", "too many arguments"},
		{"audit --all 0198c2f4-5d1a-7c3b-8a51-3f0a9d7be201", "give REQUEST or --all, not both"},
		{"account show a --at yesterday", "--at is a time such as"},
		{"account show a --at 9999-01-01T00:00:00Z", "--at is in the future"},
		{"embedded", "COMMAND is missing"},
		{"embedded --", "COMMAND is missing"},
		{"help nonsense", "there is no verb"},
	} {
		fails(t, 2, c.want, nil, strings.Fields(c.args)...)
	}
	fails(t, 1, `model unknown: "no-such-model"`, nil, "price", "show", "no-such-model")
	fails(t, 1, "PORT: it must be a whole number", []string{"PORT=x"}, "migrate")
}

func TestHelp(t *testing.T) {
	t.Parallel()
	all := succeeds(t, nil, "help")
	for _, v := range verbs() {
		if !strings.Contains(all, "\n  "+v.name+" ") {
			t.Errorf("help lacks %s", v.name)
		}
		// Settings that are wrong must not stand between an operator and the help.
		one := succeeds(t, []string{"PORT=x"}, append(strings.Fields(v.name), "-h")...)
		if v.name != "help" && !strings.HasPrefix(one, "usage: llm-gateway "+v.name) {
			t.Errorf("%s -h says %q", v.name, one)
		}
	}
	if group := succeeds(t, nil, "account", "-h"); strings.Contains(group, "migrate") || !strings.Contains(group, "account debit") {
		t.Errorf("account -h says %q", group)
	}
	if b := parsed[build](t, nil, "version"); b.Go == "" || b.Version == "" {
		t.Errorf("version %+v", b)
	}
}

func TestTokenVerb(t *testing.T) {
	t.Parallel()
	secret := productionSecret
	tokens, err := gateway.NewTokens("HS256", []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"JWT_SECRET_KEY=" + secret, "ENVIRONMENT=production"}
	who, err := tokens.Check(strings.TrimSpace(succeeds(t, env, "token", "--account", "alice", "--role", "admin")))
	if err != nil || *who != (gateway.Identity{Account: "alice", Role: "admin"}) {
		t.Errorf("the token is %+v's: %v", who, err)
	}
	for args, valid := range map[string]time.Duration{"": 30 * time.Minute, "--ttl 2h": 2 * time.Hour, "--days 30": 30 * day} {
		out := parsed[tokenOut](t, env, append([]string{"token"}, strings.Fields(args)...)...)
		if left := time.Until(out.ExpiresAt); left > valid || left < valid-time.Minute {
			t.Errorf("token %s is valid for %s", args, left)
		}
	}
	fails(t, 1, "JWT_SECRET_KEY (or JWT_SECRET_KEY_FILE) must be set", []string{"ENVIRONMENT=production"}, "token")
	fails(t, 1, "it needs 32 or more", []string{"ENVIRONMENT=production", "JWT_SECRET_KEY=short"}, "token")
	fails(t, 1, "an account's name", env, "token", "--account", "a b")
	kept := []string{"DATA_DIR=" + t.TempDir()}
	first, second := parsed[tokenOut](t, kept, "token"), parsed[tokenOut](t, kept, "token")
	made, err := os.ReadFile(filepath.Join(strings.TrimPrefix(kept[0], "DATA_DIR="), madeSecretFile))
	if err != nil {
		t.Fatal(err)
	}
	if tokens, err = gateway.NewTokens("HS256", made); err != nil {
		t.Fatal(err)
	}
	for _, out := range []tokenOut{first, second} {
		if who, err := tokens.Check(out.Token); err != nil || who.Account != defaultAccount {
			t.Errorf("a token by the made secret: %+v, %v", who, err)
		}
	}
}

func TestMigrateVerb(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=" + pgtest.Empty(t)}
	by := func(more ...string) []string { return append(append([]string{}, env...), more...) }
	fails(t, 1, "the ledger is not initialised: run `llm-gateway migrate`", by("AUTO_MIGRATE=false"), "account", "show", "a")
	first := parsed[migration](t, by("LEDGER_SHARDS=3", "BILLING_CURRENCY=EUR"), "migrate")
	if first.Applied < 1 || first.Shards != 3 || first.Currency != "EUR" {
		t.Errorf("first: %+v", first)
	}
	again := parsed[migration](t, by("BILLING_CURRENCY=EUR"), "migrate")
	if again.Applied != 0 || again.Meta != first.Meta {
		t.Errorf("again: %+v, first %+v", again, first)
	}
	fails(t, 1, "LEDGER_SHARDS is 8, but this ledger was initialised with 3", by("LEDGER_SHARDS=8", "BILLING_CURRENCY=EUR"), "migrate")
	fails(t, 1, "LEDGER_SHARDS is 8, but", by("LEDGER_SHARDS=8", "BILLING_CURRENCY=EUR"), "account", "show", "a")
	fails(t, 1, "BILLING_CURRENCY is USD, but this ledger was initialised in EUR", env, "ledger", "verify")
	if fresh := parsed[migration](t, []string{"DATABASE_URL=" + pgtest.Empty(t)}, "migrate"); fresh.Shards != newLedgerShards {
		t.Errorf("a new ledger has %d shards", fresh.Shards)
	}
	for url, want := range map[string]string{
		"postgres://u:hunter2@127.0.0.1:1/d":         "no Postgres can be reached at 127.0.0.1:1: connect: connection refused",
		"postgres://u:hunter2@nohost.invalid:5432/d": "no Postgres can be reached at nohost.invalid:5432",
	} {
		fails(t, 1, want, []string{"DATABASE_URL=" + url}, "migrate")
		fails(t, 1, want, []string{"DATABASE_URL=" + url}, "key", "list")
		if r := run(t, []string{"DATABASE_URL=" + url}, "ledger", "verify"); strings.Contains(r.stderr, "hunter2") {
			t.Errorf("the password is printed: %s", r.stderr)
		}
	}
}

func TestAccountVerbs(t *testing.T) {
	t.Parallel()
	env := onPostgres(t, "BILLING_DEFAULT_BALANCE=10")
	for _, args := range []string{"show alice", "credit alice 5 --reference r", "debit alice 5 --reference r", "freeze alice", "limit alice 5"} {
		fails(t, 1, "account alice is not open", env, append([]string{"account"}, strings.Fields(args)...)...)
	}
	opened := parsed[movementOut](t, env, "account", "credit", "alice", "2.50", "--reference", "inv 1", "--reason", "top-up", "--open")
	if !opened.Opened || opened.Repeated || opened.Before.Available.String() != "10" || opened.After.Available.String() != "12.5" ||
		opened.Reference != "inv 1" || opened.Kind != "credit" || opened.Currency != "USD" {
		t.Errorf("opened: %+v", opened)
	}
	again := parsed[movementOut](t, env, "account", "credit", "--open", "--reference", "inv 1", "alice", "2.5")
	if !again.Repeated || again.Opened || again.Position != opened.Position || again.After.Available.String() != "12.5" {
		t.Errorf("again: %+v, first %+v", again, opened)
	}
	text := succeeds(t, env, "account", "credit", "alice", "2.5", "--reference", "inv 1")
	if want := "already happened at " + opened.Position + ", nothing charged twice"; !strings.Contains(text, want) {
		t.Errorf("again says %q, not %q", text, want)
	}
	fails(t, 1, "was used on alice for another movement", env, "account", "credit", "alice", "3", "--reference", "inv 1")
	fails(t, 1, "alice has 12.5 available, less than 12.500000000001", env, "account", "debit", "alice", "12.500000000001", "--reference", "d1")
	forced := parsed[movementOut](t, env, "account", "debit", "alice", "20", "--reference", "d1", "--force", "--corrects", opened.Position)
	if forced.Before.Available.String() != "12.5" || forced.After.Available.String() != "-7.5" || forced.Kind != "debit" {
		t.Errorf("forced: %+v", forced)
	}
	frozen := parsed[accountOut](t, env, "account", "freeze", "alice", "--reason", "abuse")
	twice := parsed[accountOut](t, env, "account", "freeze", "alice")
	if !frozen.Frozen || fmt.Sprint(twice) != fmt.Sprint(frozen) {
		t.Errorf("frozen: %+v, twice %+v", frozen, twice)
	}
	if text := succeeds(t, env, "account", "unfreeze", "alice"); !regexp.MustCompile(`frozen +no`).MatchString(text) {
		t.Errorf("unfreeze says %q", text)
	}
	lent := parsed[accountOut](t, env, "account", "limit", "alice", "12.50", "--reason", "a good customer")
	unchanged := parsed[accountOut](t, env, "account", "limit", "alice", "12.5")
	if lent.CreditLimit.String() != "12.5" || fmt.Sprint(unchanged) != fmt.Sprint(lent) {
		t.Errorf("limit: %+v, again %+v", lent, unchanged)
	}
	if text := succeeds(t, env, "account", "limit", "alice", "0"); !regexp.MustCompile(`credit limit +0 USD`).MatchString(text) {
		t.Errorf("limit says %q", text)
	}
	shown := parsed[accountOut](t, env, "account", "show", "alice")
	if shown.Available.String() != "-7.5" || shown.Reserved.String() != "0" || shown.Frozen || shown.Account != "alice" {
		t.Errorf("shown: %+v", shown)
	}
	report := parsed[ledger.Report](t, env, "ledger", "verify")
	if !report.Clean || report.Accounts != 1 || report.Events != 8 {
		t.Errorf("verify: %+v", report)
	}
}

// TestVerifyVerb shows that a ledger that was tampered with ends the verb with status 1.
func TestVerifyVerb(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + url}
	succeeds(t, env, "account", "credit", "bob", "1", "--reference", "r", "--open")
	if text := succeeds(t, env, "ledger", "verify"); !strings.Contains(text, "CLEAN") {
		t.Errorf("verify says %q", text)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `UPDATE ledger_accounts SET available = available + 1`); err != nil {
		t.Fatal(err)
	}
	fails(t, 1, "the ledger is not clean", env, "ledger", "verify")
	r := run(t, env, "ledger", "verify", "--json")
	var report ledger.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.status != 1 || report.Clean || len(report.Findings) == 0 {
		t.Errorf("status %d, %v: %s", r.status, err, r.stdout)
	}
}

func TestKeyVerbs(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	env := []string{"DATABASE_URL=" + url}
	key := parsed[keyOut](t, env, "key", "create", "--account", "alice", "--name", "laptop", "--role", "admin")
	other := run(t, env, "key", "create", "--account", "bob")
	secret := strings.TrimSpace(other.stdout)
	if !strings.HasPrefix(secret, "sk-") || strings.Contains(other.stderr, secret) || other.status != 0 {
		t.Errorf("key create printed %+v", other)
	}
	store := keyStoreAt(t, url)
	who, err := store.Lookup(t.Context(), gateway.HashKey(key.Key))
	if err != nil || who == nil || *who != (gateway.Identity{Account: "alice", Role: "admin", KeyID: key.ID.String()}) {
		t.Fatalf("the key is %+v's: %v", who, err)
	}
	if who, err := store.Lookup(t.Context(), gateway.HashKey("sk-guess")); err != nil || who != nil {
		t.Errorf("a guess is %+v's: %v", who, err)
	}
	type list struct {
		Keys []apiKey `json:"keys"`
	}
	if all := parsed[list](t, env, "key", "list").Keys; len(all) != 2 || all[0] != key.apiKey || all[1].Account != "bob" {
		t.Errorf("listed: %+v", all)
	}
	if mine := parsed[list](t, env, "key", "list", "--account", "nobody").Keys; mine == nil || len(mine) != 0 {
		t.Errorf("nobody's keys: %+v", mine)
	}
	if text := succeeds(t, env, "key", "list"); strings.Contains(text, key.Key) || !strings.Contains(text, key.Hint) || !strings.Contains(text, "laptop") {
		t.Errorf("key list says\n%s", text)
	}
	fails(t, 1, "there is no key", env, "key", "revoke", "01890000-0000-7000-8000-000000000000")
	revoked := parsed[apiKey](t, env, "key", "revoke", key.ID.String())
	if revoked.RevokedAt == nil {
		t.Errorf("revoked: %+v", revoked)
	}
	if text := succeeds(t, env, "key", "revoke", key.ID.String()); !strings.Contains(text, "was revoked already, at "+at(revoked.RevokedAt)) {
		t.Errorf("revoked twice: %q", text)
	}
	if who, err := store.Lookup(t.Context(), gateway.HashKey(key.Key)); err != nil || who != nil {
		t.Errorf("a revoked key is %+v's: %v", who, err)
	}
}

func keyStoreAt(t *testing.T, url string) keyStore {
	t.Helper()
	r, err := ledger.OpenReader(t.Context(), ledger.Config{URL: url, Role: ledger.ServiceRole})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return keyStore{r.Pool()}
}

func TestPriceVerbs(t *testing.T) {
	t.Parallel()
	type list struct {
		AsOf   string     `json:"as_of"`
		Models []modelOut `json:"models"`
	}
	all, openai := parsed[list](t, nil, "price", "list"), parsed[list](t, nil, "price", "list", "--provider", "openai")
	if len(openai.Models) == 0 || len(openai.Models) >= len(all.Models) || openai.Models[0].Provider != "openai" {
		t.Errorf("%d models, %d of openai", len(all.Models), len(openai.Models))
	}
	m := parsed[showOut](t, nil, "price", "show", "gpt-4o-mini")
	if m.UnitPrices["input"].String() != "0.00000015" || m.UnitPrices.million(0) != "0.15" || len(m.Versions) == 0 || m.Example == nil {
		t.Errorf("gpt-4o-mini: %+v", m)
	}
	if text := succeeds(t, nil, "price", "show", "openai/gpt-4o-mini"); !strings.Contains(text, "0.15") || !strings.Contains(text, "costs at most "+m.Example.Amount.String()+" USD") {
		t.Errorf("price show says\n%s", text)
	}
	if text := succeeds(t, nil, "price", "list"); !strings.Contains(text, "USD per million tokens") {
		t.Errorf("price list says\n%s", text)
	}
	own := writeFile(t, filepath.Join(t.TempDir(), "own.yaml"), `{currency: EUR, unit: per_million, as_of: 2026-01-01, models: [
		{provider: p, model: m, mode: chat, context: 10, sources: [], versions: [{prices: {input: "1", output: "2"}}]}]}`)
	euro := []string{"PRICE_BOOK=" + own, "BILLING_CURRENCY=EUR"}
	if m := parsed[list](t, euro, "price", "list").Models; len(m) != 1 || m[0].Currency != "EUR" {
		t.Errorf("one's own book: %+v", m)
	}
	fails(t, 1, "the prices are in EUR and BILLING_CURRENCY is USD", euro[:1], "price", "list")
	bad := writeFile(t, filepath.Join(t.TempDir(), "bad.yaml"), "models: 5")
	fails(t, 1, "PRICE_BOOK "+bad+": price book: line 1", []string{"PRICE_BOOK=" + bad}, "price", "list")
}

// TestEmbeddedVerb runs commands on embedded servers of their own.
func TestEmbeddedVerb(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	quiet := []string{"LOG_LEVEL=ERROR", "TMPDIR=" + tmp, "DATABASE_URL=postgres://u:hunter2@real.example.com/d",
		"DATABASE_MIGRATE_URL=postgres://u:hunter2@real.example.com/d", "KAFKA_BROKERS=real.example.com:9092", "KAFKA_TLS=true", "REDIS_URL=redis://real.example.com"}
	r := run(t, quiet, "embedded", "--", "sh", "-c", `echo "$DATABASE_URL $KAFKA_BROKERS $REDIS_URL"; echo "$DATABASE_MIGRATE_URL$KAFKA_TLS$DATA_DIR" >&2; exit 7`)
	if r.status != 7 || !regexp.MustCompile(`^postgres://\S+ 127\.0\.0\.1:\d+ redis://:\w+@127\.0\.0\.1:\d+/0\n$`).MatchString(r.stdout) || r.stderr != "\n" {
		t.Errorf("embedded: %+v", r)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	fails(t, 1, "the command cannot be run", quiet, "embedded", "--", "no-such-command")
	// A signal is passed on, and what the command makes of it is the status.
	cmd := command(t.Context(), t, quiet, "embedded", "--", "sh", "-c", `trap 'exit 9' TERM; echo ready; while :; do read -r line || exit 1; done`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	lines := start(t, cmd)
	<-lines
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	io.WriteString(stdin, "\n") // some shells look at signals only between two lines
	for range lines {
	}
	cmd.Wait() //nolint:errcheck // its status is looked at
	if status := cmd.ProcessState.ExitCode(); status != 9 {
		t.Errorf("after SIGTERM the status is %d", status)
	}
}

// start starts a command and returns what it prints, line by line.
func start(t *testing.T, cmd interface {
	StdoutPipe() (io.ReadCloser, error)
	Start() error
}) <-chan string {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

// TestBesideServe runs verbs without a gateway, beside one, and after it, on one DATA_DIR.
func TestBesideServe(t *testing.T) {
	t.Parallel()
	env := []string{"DATA_DIR=" + t.TempDir(), "HOST=127.0.0.1", "PORT=0", "LOG_LEVEL=ERROR"}
	succeeds(t, env, "account", "credit", "alice", "5", "--reference", "before", "--open")
	cmd := command(t.Context(), t, env)
	lines := start(t, cmd)
	greeting := <-lines
	url := regexp.MustCompile(`http://localhost:\d+`).FindString(greeting)
	if url == "" {
		t.Fatalf("serve says %q", greeting)
	}
	go func() {
		for range lines {
		}
	}()
	beside := parsed[movementOut](t, env, "account", "credit", "alice", "5", "--reference", "beside")
	if beside.After.Available.String() != "110" {
		t.Errorf("beside: %+v", beside)
	}
	fails(t, 1, "is in use by process", env, "serve")
	token := parsed[tokenOut](t, env, "token", "--account", "alice").Token
	key := parsed[keyOut](t, env, "key", "create", "--account", "alice").Key
	for _, secret := range []string{token, key} {
		if balance := get(t, url+"/billing/balance", secret); !strings.Contains(balance, `"balance":110`) {
			t.Errorf("balance: %s", balance)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
	if report := parsed[ledger.Report](t, env, "ledger", "verify"); !report.Clean {
		t.Errorf("after: %+v", report)
	}
}

func get(t *testing.T, url, secret string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := newClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Sprint(resp.Status, err, string(body))
	}
	return string(body)
}
