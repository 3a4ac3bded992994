package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/gateway/leaktest"
)

// Whatever a test does, what the binary writes meanwhile is scanned: the output of every process (command), the
// metrics of every gateway before its end, each error that a client gets (newClient), and what receivers of
// telemetry are sent. One scan knows the secrets, credentials and prompts of the whole run.

// metricsLimit bounds the wait for metrics that are scanned: a gateway may be frozen, or gone.
const metricsLimit = 2 * time.Second

// leaks is what nothing of the run may tell.
var leaks = func() *leaktest.Scan {
	s := leaktest.New()
	for _, secret := range []string{testSecret, canaryKey, receivertest.LangfuseSecret, "hunter2", "k-openai", "refused-openai"} {
		s.Secret("what tests call a secret", secret)
	}
	for _, said := range []string{canary, canaryPrompt, canaryHeader} {
		s.Said(said)
	}
	return s
}()

// scanProcess looks at all that a process has written, when the test ends.
func scanProcess(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	leaks.Settings(cmd.Env)
	t.Cleanup(func() {
		if cmd.Process == nil {
			return
		}
		for _, leak := range leaksOf(cmd) {
			t.Errorf("%v tells %s", cmd.Args[1:], leak)
		}
	})
}

// printers are the verbs that print a credential because they were asked to; serve does in development, and embedded
// and sh print what their commands do.
var printers = []string{"token", "key", "demo", "serve", "embedded", ""}

// leaksOf is what a process that has ended told.
func leaksOf(cmd *exec.Cmd) []string {
	errs, ok := cmd.Stderr.(fmt.Stringer)
	if !ok {
		return []string{"nobody what it writes: the test does not keep it"}
	}
	found := leaks.Written(errs.String())
	if out, ok := cmd.Stdout.(fmt.Stringer); ok {
		verb := append(slices.Clone(cmd.Args[1:]), "")[0]
		if slices.Contains(printers, verb) || cmd.Args[0] == "sh" {
			found = append(found, leaks.Printed(out.String())...)
		} else {
			found = append(found, leaks.Written(out.String())...)
		}
	}
	file := valueOf(cmd.Env, "LOG_FILE")
	if file == "" {
		return found
	}
	files, _ := filepath.Glob(file + "*") //nolint:errcheck // the pattern is a path
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			found = append(found, err.Error())
		}
		found = append(found, leaks.Written(string(text))...)
	}
	return found
}

// scanMetrics looks at the metrics of a gateway that still answers.
func (s *served) scanMetrics() {
	s.t.Helper()
	if s.url == "" {
		return
	}
	for _, leak := range metricLeaks(s.url) {
		s.t.Errorf("the metrics tell %s", leak)
	}
}

func metricLeaks(base string) []string {
	client := http.Client{Timeout: metricsLimit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(base + "/metrics")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) //nolint:errcheck // a gateway may die meanwhile
	return leaks.Written(string(text))
}

// scanAnswers is a transport by which credentials and prompts become known, and errors are looked at.
func scanAnswers(t testing.TB, base http.RoundTripper) http.RoundTripper {
	var mu sync.Mutex
	var found []string
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, what := range found {
			t.Error(what)
		}
	})
	return leaks.Transport(base, func(what string) {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(found, what) {
			found = append(found, what)
		}
	})
}

// ownLogin is how a gateway logs in at a receiver: that credential is the receiver's to know.
var ownLogin = regexp.MustCompile(`(?m)^Authorization \[Basic [\w+/=]+\]$`)

// scanReceived looks at all that a receiver of telemetry was sent, when the test ends.
func scanReceived(t testing.TB, name string, raw func() []byte) {
	t.Cleanup(func() {
		for _, leak := range leaks.Written(ownLogin.ReplaceAllString(string(raw()), "")) {
			t.Errorf("%s is told %s", name, leak)
		}
	})
}

// planted is what a leaking process of TestScanFinds writes, and where.
var planted = map[string]string{
	"a provider's key":      `{"msg":"upstream","key":"%k"}`,
	"the signing secret":    "JWT_SECRET_KEY=" + testSecret,
	"a database's password": "cannot reach postgres://gateway:%p@db.example.com/ledger",
	"a client's token":      "token %t refused",
	"a prompt":              `{"error":"cannot parse: the patient %n says so"}`,
	"an API key":            "made sk-" + "AAAAAAAABBBBBBBBCCCCCCCCDDDDDDDDEEEEEEEEFFF",
}

// TestScanFinds plants leaks in all that is scanned: each is found, and what is told properly is not.
func TestScanFinds(t *testing.T) {
	t.Parallel()
	n := "tulip-" + strings.Repeat("4f", 8)
	marks := strings.NewReplacer("%k", "key-"+n, "%p", "password-"+n, "%t", tokenFor(t, n), "%n", n)
	leaks.Settings([]string{"SOME_API_KEY=key-" + n, "DATABASE_URL=postgres://u:password-" + n + "@h/d"})
	leaks.Body([]byte(`{"messages":[{"role":"user","content":"the patient ` + n + ` says \"x\""}]}`))
	echo := func(out, errs string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s' "$1"; printf '%s' "$2" >&2`, "sh", out, errs)
		cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, newOutput()
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		cmd.Args = []string{program, "verb"}
		return cmd
	}
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, isMetric := strings.CutPrefix(r.URL.Path, "/metric/"); isMetric {
			fmt.Fprintf(w, "requests_total{label=%q} 1\n", strings.TrimSuffix(text, "/metrics"))
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, marks.Replace(r.Header.Get("X-Answer"))) //nolint:errcheck // the test's own client
	}))
	t.Cleanup(answers.Close)
	answered := func(text string) (found []string) {
		client := http.Client{Transport: leaks.Transport(http.DefaultTransport, func(what string) { found = append(found, what) })}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, answers.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Answer", text)
		if resp, err := client.Do(req); err != nil {
			t.Error(err)
		} else {
			resp.Body.Close() //nolint:errcheck // nobody reads it
		}
		return found
	}
	for name, line := range planted {
		line = marks.Replace(line)
		if len(leaksOf(echo("", line))) == 0 || len(leaksOf(echo(line, ""))) == 0 {
			t.Errorf("%s in the output is not found", name)
		}
		if len(metricLeaks(answers.URL+"/metric/"+url.PathEscape(line))) == 0 {
			t.Errorf("%s in the metrics is not found", name)
		}
		if own := name == "a prompt"; len(answered(line)) == 0 != own {
			t.Errorf("%s in an answer: found %v", name, answered(line))
		}
	}
	for _, inside := range []string{"goroutine 7 [running]", "gateway/call.go:12", "cannot use *domain.Event", "ERROR (SQLSTATE 23505)", "dial tcp 10.0.0.7:5432", "open /home/app/x"} {
		if len(answered(inside)) == 0 {
			t.Errorf("%q in an answer is not found", inside)
		}
	}
	if found := metricLeaks(answers.URL + "/metric/tulip"); len(found) > 0 {
		t.Errorf("found in metrics that tell nothing: %q", found)
	}
	const fine = `{"error":{"message":"Unknown model. See GET /v1/models.","code":"model_not_found","request_id":"0199-7f3a"}} 127.0.0.1:8000 user_id=tulip`
	if found := append(leaksOf(echo(fine, fine)), answered(fine)...); len(found) > 0 {
		t.Errorf("found in what tells nothing: %q", found)
	}
}
