package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/embedded"
	"llm-gateway/migrations/pgtest"
)

const (
	firstStart  = 10 * time.Second // from nothing to ready, the promise
	killWorkers = 16
)

// embeddedSettings are a DATA_DIR and nothing else that matters: everything is the default.
func embeddedSettings(dataDir string) []string {
	return []string{"HOST=127.0.0.1", "PORT=0", "LOG_LEVEL=WARN", "DATA_DIR=" + dataDir}
}

// embeddedTopic is the ledger and the topic of a running serve that has neither from elsewhere.
func embeddedTopic(t testing.TB, dataDir string) published {
	t.Helper()
	e, err := embedded.ReadEndpoints(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	return published{e.PostgresURL, strings.Join(e.KafkaBrokers, ","), "llm.usage.v1"}
}

var (
	pasteCurl  = regexp.MustCompile(`(?s)\n(curl .*?\}')\n`)
	pasteToken = regexp.MustCompile(`Bearer ([\w.-]+)"`)
	curlURL    = regexp.MustCompile(`curl (\S+)`)
	curlData   = regexp.MustCompile(`-d '(.*)'`)
)

// TestStartAndKill is a life of the embedded default: the first start with nothing set, the printed
// curl, kill -9, the second start with everything still there, an orderly end.
func TestStartAndKill(t *testing.T) {
	dataDir := filepath.Join(t.TempDir(), "data")
	binary(t) // built before the time counts
	s := launchBare(t, embeddedSettings(dataDir)...).ready()
	t.Logf("ready from nothing in %s", s.readyIn.Round(time.Millisecond))
	if s.readyIn > firstStart {
		t.Errorf("ready after %s, promised within %s", s.readyIn, firstStart)
	}
	paste := s.says(pasteCurl)[1]
	runPaste(t, paste)
	token, client := pasteToken.FindStringSubmatch(paste)[1], newClient(t)
	before := transactionsOf(t, client, s.url, token)
	balance := balanceOf(t, client, s.url, token)
	second := launchBare(t, embeddedSettings(dataDir)...)
	second.await(endLimit)
	if status, text := second.cmd.ProcessState.ExitCode(), second.stderr.String(); status == 0 || !strings.Contains(text, "is in use by process") || strings.Count(text, "\n") != 1 {
		t.Errorf("a second serve ended with %d:\n%s", status, text)
	}
	killAll(t, s)

	s = launchBare(t, embeddedSettings(dataDir)...).ready()
	t.Logf("ready again after kill -9 in %s", s.readyIn.Round(time.Millisecond))
	if after := transactionsOf(t, client, s.url, token); after != before || !strings.Contains(after, "Chat completion with sim-small") {
		t.Errorf("transactions before:\n%s\nafter:\n%s", before, after)
	}
	if again := balanceOf(t, client, s.url, token); again != balance {
		t.Errorf("balance before: %s, after: %s", balance, again)
	}
	if r := chat(t.Context(), client, s.url, token, chatBody("sim-small", "Hello again!", false, "")); r.status != http.StatusOK {
		t.Errorf("the old token: %v", &r)
	}
	verified(t, "DATA_DIR="+dataDir)
	auditLedger(t, embeddedTopic(t, dataDir).databaseURL)
	pids := family(t, s.cmd.Process.Pid)
	s.stop()
	t.Logf("after SIGTERM %d processes were gone in %s", len(pids), gone(t, pids, deathLimit).Round(time.Millisecond))
	verified(t, "DATA_DIR="+dataDir)
}

// runPaste runs the printed request as a person would; without curl and sh, the same request in Go.
func runPaste(t *testing.T, paste string) {
	t.Helper()
	_, noCurl := exec.LookPath("curl")
	if _, noShell := exec.LookPath("sh"); noCurl == nil && noShell == nil {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", paste)
		cmd.Env = append(os.Environ(), "NO_PROXY=localhost", "no_proxy=localhost")
		out, err := cmd.Output()
		if err != nil || !containsAll(string(out), `"object":"chat.completion"`, `"total_tokens":`) {
			t.Errorf("the printed curl: %v\n%s", err, out)
		}
		return
	}
	base := strings.TrimSuffix(curlURL.FindStringSubmatch(paste)[1], "/v1/chat/completions")
	r := chat(t.Context(), newClient(t), base, pasteToken.FindStringSubmatch(paste)[1], curlData.FindStringSubmatch(paste)[1])
	if r.status != http.StatusOK || !r.complete {
		t.Errorf("the printed request: %v", &r)
	}
}

// transactionsOf is the list that an account is told, without how current it is.
func transactionsOf(t testing.TB, c *http.Client, base, token string) string {
	t.Helper()
	status, body := fetch(t, c, base+"/billing/transactions", token)
	var answer struct{ Transactions json.RawMessage }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		t.Errorf("transactions: %d %s", status, body)
	}
	return string(answer.Transactions)
}

var balancePattern = regexp.MustCompile(`"balance":[\d.]+,"reserved":[\d.]+`)

func balanceOf(t testing.TB, c *http.Client, base, token string) string {
	t.Helper()
	status, body := fetch(t, c, base+"/billing/balance", token)
	balance := balancePattern.FindString(body)
	if status != http.StatusOK || balance == "" {
		t.Errorf("balance: %d %s", status, body)
	}
	return balance
}

// killAll is kill -9 of serve alone; all its descendants must be gone soon after.
func killAll(t *testing.T, s *served) {
	t.Helper()
	pids := family(t, s.cmd.Process.Pid)
	if len(pids) < 4 {
		t.Errorf("serve has only the processes %v: where is its Postgres?", pids)
	}
	s.kill()
	t.Logf("after kill -9 %d processes were gone in %s", len(pids), gone(t, pids, deathLimit).Round(time.Millisecond))
	s.await(endLimit)
}

// TestEndsWithItsParent: what `make run` starts is gone when make is, kill -9 included.
func TestEndsWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a process that its parent has ended")
	}
	t.Parallel()
	cmd := command(t.Context(), t, embeddedSettings(filepath.Join(t.TempDir(), "data")), "serve", "--end-with-parent")
	shell := exec.Command("sh", append([]string{"-c", `"$@"; true`, "sh"}, cmd.Args...)...)
	shell.Dir, shell.Env = cmd.Dir, cmd.Env
	scanProcess(t, shell)
	killAll(t, launchCommand(t, shell).ready())
}

// TestKillUnderLoad kills serve again and again while it is busy: with its Postgres and its Kafka, which
// die with it, and on servers that stay, where it leaves its leases and open transactions behind.
func TestKillUnderLoad(t *testing.T) {
	t.Run("with its servers", func(t *testing.T) {
		t.Parallel()
		dataDir := filepath.Join(t.TempDir(), "data")
		env := append(embeddedSettings(dataDir), "JWT_SECRET_KEY="+testSecret)
		killUnderLoad(t, env, sized(5, 25), func() published { return embeddedTopic(t, dataDir) })
	})
	t.Run("on servers that stay", func(t *testing.T) {
		t.Parallel()
		p := publishedAt(t, pgtest.URL(t))
		env := []string{"HOST=127.0.0.1", "PORT=0", "LOG_LEVEL=WARN", "JWT_SECRET_KEY=" + testSecret, "DATABASE_URL=" + p.databaseURL}
		killUnderLoad(t, env, sized(2, 10), func() published { return p })
	})
}

// killUnderLoad: whatever a client saw finished must be settled in the ledger, and whatever is in the
// ledger be on the topic, once; what was under way may be open, for the next issue's sweeper.
func killUnderLoad(t *testing.T, env []string, rounds int, at func() published) {
	finished := map[string]reply{}
	s := launchBare(t, env...).ready()
	for round := range rounds {
		saw := loadUntilKilled(t, s, round)
		for i := range saw {
			finished[saw[i].request] = saw[i]
		}
		s = launchBare(t, env...).ready()
		verified(t, env...)
		p := at()
		a := auditLedger(t, p.databaseURL)
		for id, r := range finished {
			if l := a.lives[id]; l == nil || l.commits != 1 || l.commit.Cmp(a.rat(r.cost)) != 0 {
				t.Errorf("round %d: a client saw request %s finished for %s; the ledger has %+v", round, id, r.cost, l)
			}
		}
		t.Logf("round %d: %d finished, ready again in %s; in all %d finished, %d in the ledger, %d of them open",
			round, len(saw), s.readyIn.Round(time.Millisecond), len(finished), len(a.lives), len(a.open()))
		if open := len(a.open()); open > (round+1)*killWorkers {
			t.Errorf("%d requests are open; at most %d were under way in each of %d kills", open, killWorkers, round+1)
		}
		p.audit(t)
		auditProjections(t, p.databaseURL)
		if t.Failed() {
			return
		}
	}
	s.stop()
}

// loadUntilKilled sends requests, whole and streamed, until serve is killed in their midst, and
// returns those that finished.
func loadUntilKilled(t *testing.T, s *served, round int) []reply {
	t.Helper()
	var mu sync.Mutex
	var wait sync.WaitGroup
	var saw []reply
	var refused []string
	client, token := newClient(t), tokenFor(t, "survivor")
	enough, killAt := make(chan struct{}), 40+rand.IntN(200)
	for w := range killWorkers {
		wait.Go(func() {
			for i := 0; ; i++ {
				prompt := fmt.Sprintf("round %d worker %d request %d sim:tokens=%d sim:pace=%dms", round, w, i, 1+i%20, i%3)
				r := chat(t.Context(), client, s.url, token, chatBody("sim-small", prompt, (w+i)%2 == 0, ""))
				if r.status == 0 || !r.complete {
					return // it is dead
				}
				mu.Lock()
				if saw = append(saw, r); len(saw) == killAt {
					close(enough)
				}
				if r.status != http.StatusOK {
					refused = append(refused, r.String())
				}
				mu.Unlock()
			}
		})
	}
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	select {
	case <-enough:
	case <-limit.C:
		t.Errorf("not %d requests within %s", killAt, endLimit)
	}
	pids := family(t, s.cmd.Process.Pid)
	s.kill()
	gone(t, pids, deathLimit)
	s.await(endLimit)
	wait.Wait()
	if len(refused) > 0 {
		t.Errorf("%d were refused: %s", len(refused), refused[0])
	}
	return saw
}

// TestStopUnderLoad: SIGTERM lets what is under way end, and leaves nothing open.
func TestStopUnderLoad(t *testing.T) {
	all, url := gateways(t, 1)
	s, client, token := all[0], newClient(t), tokenFor(t, "patient")
	replies := make([]reply, 8)
	var wait sync.WaitGroup
	for i := range replies {
		wait.Go(func() {
			replies[i] = chat(t.Context(), client, s.url, token, chatBody("sim-small", fmt.Sprint(i, " sim:tokens=20 sim:pace=50ms"), true, ""))
		})
	}
	var a *audit
	eventually(t, settleLimit, "all are under way", func() bool {
		a = auditLedger(t, url)
		return len(a.open()) == len(replies)
	})
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	s.await(endLimit)
	for i := range replies {
		if r := &replies[i]; r.status != http.StatusOK || !r.complete {
			t.Errorf("%v", r)
		}
	}
	if a = auditLedger(t, url); len(a.open()) != 0 || s.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("open: %v; status %d:\n%s", a.open(), s.cmd.ProcessState.ExitCode(), tail(s.stderr.String()))
	}
}
