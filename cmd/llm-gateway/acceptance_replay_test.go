package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"llm-gateway/cmd/llm-gateway/telemetry/receivertest"
	"llm-gateway/migrations/pgtest"
)

// replayDir holds recorded traffic of the real providers and a server that replays it; it is beside
// the project, not in it.
const replayDir = "../../../shared/replay"

// recordedStep is one recorded answer and what it is known to mean.
type recordedStep struct {
	Stream    bool
	Status    int
	Requested string `json:"model_requested"`
	Expect    *struct {
		Usage *struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
			Total      int64 `json:"total_tokens"`
			Cached     int64 `json:"cached_tokens"`
			Reasoning  int64 `json:"reasoning_tokens"`
			AudioIn    int64 `json:"input_audio_tokens"`
		}
	}
	Features []string
}

type recording struct {
	ID, Endpoint string
	Steps        []recordedStep
}

// meters are the recorded tokens, each once; nil where none were recorded.
func (s *recordedStep) meters() map[string]int64 {
	if s.Status != http.StatusOK || s.Expect == nil || s.Expect.Usage == nil {
		return nil
	}
	u := *s.Expect.Usage
	if u.Total == u.Prompt+u.Completion+u.Reasoning { // xAI leaves reasoning out of what it completed
		u.Completion += u.Reasoning
	}
	searches := int64(0)
	if strings.Contains(s.Requested, "-search-") { // billed a search each, which no usage reports
		searches = 1
	}
	return map[string]int64{"web_search": searches, "input": u.Prompt - u.Cached - u.AudioIn, "cached_input": u.Cached, "audio_in": u.AudioIn,
		"output": u.Completion - u.Reasoning, "reasoning": u.Reasoning}
}

// readRecordings skips the test where there are none.
func readRecordings(t *testing.T) (all []recording) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(replayDir, "recordings", "index.json"))
	if err != nil {
		t.Skip("the recordings of ../shared are absent: ", err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// startReplay runs the replaying server, with more arguments, and returns its address.
func startReplay(t *testing.T, more ...string) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is absent: ", err)
	}
	free := listenLocal(t)
	address := free.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	free.Close() //nolint:errcheck // it was only to find a port
	// -B: the directory is not ours.
	server := exec.Command(python, append([]string{"-B", filepath.Join(replayDir, "replay.py"), "--port", port}, more...)...)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill() //nolint:errcheck // it may have ended
		server.Wait()         //nolint:errcheck // it was killed
	})
	eventually(t, readyLimit, "replay.py listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close() //nolint:errcheck // it was only tried
		}
		return err == nil
	})
	return "http://" + address
}

// replayed asks for the i-th step of a recording. The filler makes the prompt as long as the recorded
// one, so that what is reserved covers what the recording bills.
func replayed(r *recording, i int, model string) string {
	step, filler, media := &r.Steps[i], 100, ""
	if m := step.meters(); m != nil {
		filler += int(m["input"] + m["cached_input"])
		if m["audio_in"] > 0 {
			media = `,{"type":"input_audio","input_audio":{"data":"","format":"wav"}}`
		}
	}
	messages := `{"role":"system","content":"` + strings.Repeat("x", filler) + `"},{"role":"user","content":[{"type":"text","text":"cas:` +
		r.ID + `;n=` + r.ID + `"}` + media + `]}` + strings.Repeat(`,{"role":"assistant","content":"a"},{"role":"user","content":"b"}`, i)
	return fmt.Sprintf(`{"model":%q,"messages":[%s],"stream":%v}`, model, messages, step.Stream)
}

// TestReplayThroughBinary sends every recorded chat answer through the real binary, and what was
// billed must be what was recorded.
func TestReplayThroughBinary(t *testing.T) {
	t.Parallel()
	all := readRecordings(t)
	dbURL := pgtest.URL(t)
	langfuse := receivertest.NewLangfuse(t)
	scanReceived(t, "Langfuse", langfuse.Raw)
	s := startServe(t, append(langfuseSettings(langfuse), "DATABASE_URL="+dbURL, "OPENAI_BASE_URL="+startReplay(t)+"/v1", "OPENAI_API_KEY=k", "BILLING_DEFAULT_BALANCE=10000", "LOG_LEVEL=ERROR")...)
	client, token := newClient(t), tokenFor(t, "replayer")
	_, models := fetch(t, client, s.url+"/v1/models", token)
	type sent struct {
		name string
		step *recordedStep
		got  reply
	}
	var sents []sent
	for r := range all {
		for i := range all[r].Steps {
			if all[r].Endpoint != "chat" {
				continue
			}
			model := all[r].Steps[i].Requested
			if model == "" || !strings.Contains(models, `"id":"`+model+`"`) {
				model = loadModel // the replaying server does not mind
			}
			got := chat(t.Context(), client, s.url, token, replayed(&all[r], i, model))
			sents = append(sents, sent{fmt.Sprint(all[r].ID, "/", i, " by ", model), &all[r].Steps[i], got})
		}
	}
	a := auditLedger(t, dbURL)
	billed := 0
	for i := range sents {
		if checkReplayed(t, a, sents[i].name, sents[i].step, &sents[i].got) {
			billed++
		}
	}
	t.Logf("%d recorded answers, %d billed by their recorded usage", len(sents), billed)
	if billed < 30 || len(a.open()) != 0 || len(a.lives) != len(sents) {
		t.Errorf("%d billed, %d open, %d requests in the ledger", billed, len(a.open()), len(a.lives))
	}
	checkTold(t, langfuse, a)
	verified(t, "DATABASE_URL="+dbURL)
	if n := a.plainlyCharged(); n != a.charged() {
		t.Errorf("%d of %d charges were calculated by hand", n, a.charged())
	}
	auditedAll(t, int64(a.charged()), "DATABASE_URL="+dbURL)
}

// checkReplayed says whether a usage was recorded and billed.
func checkReplayed(t *testing.T, a *audit, name string, step *recordedStep, got *reply) bool {
	t.Helper()
	l := a.lives[got.request]
	want := step.meters()
	switch {
	case l == nil || got.err != nil:
		t.Errorf("%s: %v; in the ledger %+v", name, got, l)
	case step.Status != http.StatusOK:
		if got.status != step.Status || l.reason != "provider_error" || l.commits != 0 {
			t.Errorf("%s: recorded %d, got %v; in the ledger %+v", name, step.Status, got, *l)
		}
	case want == nil:
		if l.commits == 1 && l.source != "counted" || l.commits == 0 && l.refunds != 1 {
			t.Errorf("%s: no usage was recorded; in the ledger %+v", name, *l)
		}
		t.Logf("%s: no usage recorded; complete %v, billed %q for %s", name, got.complete, l.source, l.commit.FloatString(12))
	default:
		for meter, n := range l.meters {
			if n != want[meter] && (meter != "requests" || n != 1) {
				t.Errorf("%s: meter %s is billed as %d, recorded as %d", name, meter, n, want[meter])
			}
		}
		if l.source != "provider" || !got.complete || a.rat(got.cost).Cmp(l.commit) != 0 {
			t.Errorf("%s: %v cost %s; in the ledger %+v", name, got, got.cost, *l)
		}
		return true
	}
	return false
}
