package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/gateway"
	"llm-gateway/migrations/pgtest"
)

// The official clients, at the versions that deployments/clients pins, run their scenarios against the
// binary, whose three providers are the replaying server. What they see, they judge themselves; then the
// ledger is held against what that server says it served. A script prints `ok <client> <provider>
// <scenario>` for each scenario, and at the end `calls <n>`: how many model calls were answered.

const clientsDir = "../../deployments/clients"

// sdkModels is the model that clients ask each provider for.
var sdkModels = map[string]string{"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-5", "gemini": "gemini-2.5-flash"}

// sdkScenarios is what every client must have been through with every provider.
var sdkScenarios = []string{"text", "stream", "tools", "structured", "image", "error", "abort", "refresh"}

// sdkWorld is a gateway whose providers all are one replaying server.
type sdkWorld struct {
	url, replay, db string
	env             []string // what a script is told of it
}

func startSDKWorld(t *testing.T) *sdkWorld {
	t.Helper()
	readRecordings(t)
	replay := startReplay(t, "--smart", "--auth", "upstream")
	db := pgtest.URL(t)
	s := startServe(t, "DATABASE_URL="+db, "RETRY_ENABLED=false", "LOG_LEVEL=ERROR", "BILLING_DEFAULT_BALANCE=1000",
		"OPENAI_BASE_URL="+replay, "OPENAI_API_KEY=upstream-openai",
		"ANTHROPIC_BASE_URL="+replay, "ANTHROPIC_API_KEY=upstream-anthropic",
		"GEMINI_BASE_URL="+replay, "GOOGLE_GEMINI_API_KEY=upstream-gemini")
	models, err := json.Marshal(sdkModels)
	if err != nil {
		t.Fatal(err)
	}
	return &sdkWorld{url: s.url, replay: replay, db: db, env: []string{
		"GATEWAY_URL=" + s.url, "TOKEN=" + tokenFor(t, "reader"), "EXPIRED_TOKEN=" + expiredTokenFor(t, "reader"), "MODELS=" + string(models),
		"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1", "PYTHONDONTWRITEBYTECODE=1",
	}}
}

// expiredTokenFor signs a token that was good an hour ago.
func expiredTokenFor(t *testing.T, account string) string {
	t.Helper()
	tokens, err := gateway.NewTokens("HS256", []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Sign(account, gateway.RoleUser, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// runsSDK is one client's script against a world of its own: its own judgement, and then the ledger's.
func runsSDK(t *testing.T, client, dir, interpreter string, args ...string) {
	t.Helper()
	w := startSDKWorld(t)
	printed := script(t, dir, w.env, interpreter, args...)
	for _, provider := range slices.Sorted(maps.Keys(sdkModels)) {
		for _, scenario := range sdkScenarios {
			if line := fmt.Sprintf("ok %s %s %s\n", client, provider, scenario); !strings.Contains(printed, line) {
				t.Errorf("it did not print %q", line)
			}
		}
	}
	said := regexp.MustCompile(`(?m)^calls (\d+)$`).FindStringSubmatch(printed)
	if said == nil {
		t.Fatalf("it did not say how many calls were answered:\n%s", tail(printed))
	}
	calls, err := strconv.Atoi(said[1])
	if err != nil {
		t.Fatal(err)
	}
	w.audited(t, calls)
}

// notSaid stands for a number of calls that a client does not tell.
const notSaid = -1

// runsDocumented runs the code that docs/clients.md has under a heading, for a gateway that is somewhere else.
func runsDocumented(t *testing.T, heading, language string, run func(w *sdkWorld, code string) string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "clients.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindStringSubmatch(section)
	if block == nil || !strings.Contains(block[1], "http://localhost:8000") {
		t.Fatalf("docs/clients.md has no block of %s that calls the gateway under %q", language, heading)
	}
	w := startSDKWorld(t)
	if printed := run(w, strings.ReplaceAll(block[1], "http://localhost:8000", w.url)); !strings.Contains(printed, "Hello!") {
		t.Errorf("it printed %q", printed)
	}
	w.audited(t, 1)
}

// servedCall is one call that reached the replaying server, as served.py tells it.
type servedCall struct {
	Endpoint      string
	Status        int // 0: it never came to one
	Cassette      *string
	Step          int
	Nonce         *string
	Disconnected  bool
	Image         bool
	Input, Output int64
}

// aborted says that the client went away: scripts name such calls by a nonce.
func (c *servedCall) aborted() bool {
	return c.Disconnected || c.Nonce != nil && strings.HasPrefix(*c.Nonce, "abort")
}

// meters are the tokens that the call's usage claims, each once.
func (c *servedCall) meters(all map[string]*recording) map[string]int64 {
	if c.Cassette != nil && c.Input == 0 {
		return all[*c.Cassette].Steps[c.Step].meters()
	}
	return map[string]int64{"input": c.Input, "output": c.Output}
}

// served asks the replaying server what it did.
func (w *sdkWorld) served(t *testing.T) (calls []servedCall) {
	t.Helper()
	status, log := fetch(t, newClient(t), w.replay+"/__log", "")
	if status != http.StatusOK {
		t.Fatalf("the log of the replaying server: %d, %.300s", status, log)
	}
	cmd := exec.CommandContext(t.Context(), "python3", filepath.Join(clientsDir, "served.py"), replayDir)
	cmd.Stdin = strings.NewReader(log)
	r := finish(t, cmd)
	if r.status != 0 {
		t.Fatalf("served.py ended with %d:\n%s", r.status, tail(r.stderr))
	}
	if err := json.Unmarshal([]byte(r.stdout), &calls); err != nil {
		t.Fatal(err)
	}
	return calls
}

// audited holds the ledger against what was served: everything is settled, every complete answer is
// charged by exactly the usage that was served, every failure is given back, every aborted stream was
// charged for what was counted. calls is how many answers the clients say they had.
func (w *sdkWorld) audited(t *testing.T, calls int) {
	t.Helper()
	var a *audit
	eventually(t, settleLimit, "everything is settled", func() bool {
		a = auditLedger(t, w.db)
		return len(a.open()) == 0
	})
	served, charged := newTally(), newTally()
	recordings := map[string]*recording{}
	for _, r := range readRecordings(t) {
		recordings[r.ID] = &r
	}
	for _, c := range w.served(t) {
		switch {
		case c.aborted():
			served.ends["aborted"]++
		case c.Status != http.StatusOK:
			served.ends["failed"]++
		default:
			served.answered(c.meters(recordings))
		}
		if c.Image {
			served.images++
		}
	}
	for id, l := range a.lives {
		switch {
		case l.source == "provider":
			charged.answered(l.meters)
		case l.source == "counted" && l.meters["output"] > 0:
			charged.ends["aborted"]++
		case l.reason == "provider_error":
			charged.ends["failed"]++
		default:
			t.Errorf("request %s: %+v", id, *l)
		}
	}
	t.Logf("%d calls reached the providers: %v; charged: %v", len(a.lives), served.ends, charged.ends)
	served.mustBe(t, charged)
	if calls >= len(sdkScenarios) && served.images < len(sdkModels) {
		t.Errorf("a picture reached the providers %d times", served.images)
	}
	if got := charged.ends["answered"] + charged.ends["aborted"]; calls != notSaid && got != calls {
		t.Errorf("the client says that %d calls were answered, the ledger %d", calls, got)
	}
	for name, row := range a.rows {
		if row[1].Sign() != 0 {
			t.Errorf("account %s has %s reserved", name, row[1])
		}
	}
	verified(t, "DATABASE_URL="+w.db)
}

// tally counts how calls ended, and the usages of those that were answered.
type tally struct {
	ends   map[string]int
	usages map[string]int
	images int
}

func newTally() *tally { return &tally{ends: map[string]int{}, usages: map[string]int{}} }

func (y *tally) answered(meters map[string]int64) {
	y.ends["answered"]++
	var parts []string
	for _, meter := range slices.Sorted(maps.Keys(meters)) {
		if n := meters[meter]; n != 0 && meter != "requests" {
			parts = append(parts, fmt.Sprintf("%s=%d", meter, n))
		}
	}
	y.usages[strings.Join(parts, " ")]++
}

// mustBe compares what was served with what was charged.
func (y *tally) mustBe(t *testing.T, charged *tally) {
	t.Helper()
	if !maps.Equal(y.ends, charged.ends) {
		t.Errorf("served: %v; in the ledger: %v", y.ends, charged.ends)
	}
	for usage := range maps.Keys(y.usages) {
		if y.usages[usage] != charged.usages[usage] {
			t.Errorf("usage %q was served %d times, charged %d times", usage, y.usages[usage], charged.usages[usage])
		}
	}
	for usage, n := range charged.usages {
		if y.usages[usage] == 0 {
			t.Errorf("usage %q was charged %d times, never served", usage, n)
		}
	}
}

// installing is held while clients are installed: tests that need the same ones wait for each other.
var installing sync.Mutex

// installed is a directory in which install has put what the pins name, kept for the next run under a name
// made of the pins. Where CI runs, a failure is one; elsewhere the registry may just be out of reach.
func installed(t *testing.T, kind string, pins [][]byte, install func(dir string) result) string {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	base = filepath.Join(base, "llm-gateway-clients")
	sum := sha256.Sum256(bytes.Join(pins, []byte{0}))
	dir := filepath.Join(base, kind+"-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	fresh := fmt.Sprintf("%s-new-%d", dir, os.Getpid())
	if err := os.MkdirAll(fresh, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh) //nolint:errcheck // where it has its name it is not there
	if r := install(fresh); r.status != 0 {
		report := t.Skipf
		if os.Getenv("CI") == "true" {
			report = t.Fatalf
		}
		report("the clients cannot be installed:\n%s", tail(cmp.Or(r.stderr, r.stdout)))
	}
	// Another process may have been quicker; its directory is as good.
	if err := os.Rename(fresh, dir); err != nil {
		if _, err := os.Stat(dir); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tool is the path of a program, without which the test is skipped.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is absent")
	}
	return path
}
