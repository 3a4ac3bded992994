package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"llm-gateway/gateway"
	"llm-gateway/migrations/pgtest"
)

// hostile are texts that try to be lines of their own, or to move a terminal's cursor.
var hostile = []string{"a\nlevel=ERROR msg=forged", "\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}", "\x1b[2J\x1b[1;31mforged", "\u009b2J", "\u2028forged",
	"x\x00y", "b\" message=\"forged", "\u202eforged", strings.Repeat("\n", 100), "=", "", "\xff\xfe"}

func TestHostileValuesForgeNoLines(t *testing.T) {
	t.Parallel()
	for _, debug := range []bool{true, false} {
		for _, text := range hostile {
			var out bytes.Buffer
			log := slog.New(newLogHandler(&out, &Settings{Debug: debug}))
			log.With("with", text).WithGroup("g").Info("hello "+text, "value", text, slog.Group("in", "deep", text), "error", errors.New(text), text, 1)
			line := strings.TrimSuffix(out.String(), "\n")
			if strings.ContainsAny(line, "\n\r\x1b\x00") || strings.Contains(line, "\u2028") || debug && (strings.Contains(line, "\u009b") || strings.Contains(line, "\u202e")) {
				t.Errorf("debug %t: %q", debug, line)
			}
			if debug && strings.Count(line, "level=ERROR") > strings.Count(line, `\nlevel=ERROR`) {
				t.Errorf("it can be taken for a line: %q", line)
			}
			if !debug && !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %q", line)
			}
		}
	}
}

func TestReadableLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newLogHandler(&out, &Settings{Debug: true, LogLevel: slog.LevelInfo})
	at := time.Date(2026, 11, 27, 1, 2, 3, 4e6, time.UTC)
	record := slog.NewRecord(at, slog.LevelWarn, "not ready: Postgres", 0)
	record.AddAttrs(slog.String("model", "a/b"), slog.String("error", "two words"), slog.Int("n", 3), slog.String("stack", "goroutine 1\n\tfile.go:3\x1b\n"), slog.Group("g", "k", "v"))
	if err := r.WithAttrs([]slog.Attr{slog.Int("shard", 1)}).Handle(context.Background(), record); err != nil {
		t.Fatal(err)
	}
	want := "2026-11-27 01:02:03.004 WARN  not ready: Postgres shard=1 model=a/b error=\"two words\" n=3 g.k=v\n    goroutine 1\n    \"    file.go:3\\x1b\"\n"
	if out.String() != want {
		t.Errorf("%q\nwant %q", out.String(), want)
	}
	if r.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("it writes what LOG_LEVEL leaves out")
	}
}

// TestLogFileThatTakesNothing: lines go elsewhere and are counted, and come back when the file does.
func TestLogFileThatTakesNothing(t *testing.T) {
	t.Parallel()
	var instead bytes.Buffer
	path := filepath.Join(t.TempDir(), "log")
	f := &logFile{path: path, instead: &instead}
	write := func(text string) {
		if n, err := f.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if err := f.reopen(); err != nil {
		t.Fatal(err)
	}
	write("one\n")
	f.file.Close() //nolint:errcheck // so that it takes nothing
	write("two\n")
	write("three\n")
	if err := f.reopen(); err != nil {
		t.Fatal(err)
	}
	write("four\n")
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "one\nfour\n" || instead.String() != "two\nthree\n" || f.failed.Load() != 2 {
		t.Errorf("%q, %v; instead %q, counted %d", text, err, instead.String(), f.failed.Load())
	}
	if err := (&logFile{path: filepath.Join(path, "below")}).reopen(); err == nil {
		t.Error("a file below a file was opened")
	}
}

// logLines parses what a gateway has logged; whatever is no JSON fails.
func logLines(t testing.TB, text string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("not a line of JSON: %q", line)
		}
		lines = append(lines, one)
	}
	return lines
}

const canary = "CANARY-7f3a-do-not-log"

// echoing is an upstream that repeats the prompt in all that it says: as an answer, an error, or garbage.
func echoing(t testing.TB) string {
	t.Helper()
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) //nolint:errcheck // a short one is a test too
		n++
		w.Header().Set("Content-Type", "application/json")
		switch n % 4 {
		case 0:
			w.WriteHeader(http.StatusInternalServerError)
		case 1:
			w.WriteHeader(http.StatusBadRequest)
		case 2:
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprintf(w, `{"error":{"message":%q,"type":"x","code":"x"}}`, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestLog drives the binary with LOG_LEVEL=DEBUG, through every API, well and badly: each request is one
// line of JSON with the names that are promised, nothing of a prompt, an answer or a credential is in it,
// and the file is rotated by SIGHUP.
func TestLog(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gateway.log")
	s := startServe(t, "DATABASE_URL="+pgtest.URL(t), "LOG_LEVEL=DEBUG", "LOG_FILE="+file, "OPENAI_API_KEY=sk-canary-key", "OPENAI_BASE_URL="+echoing(t),
		"ENVIRONMENT=staging", "RETRY_ENABLED=false")
	client, token := newClient(t), tokenFor(t, "zoe")
	r := chat(t.Context(), client, s.url, token, chatBody(flatModel, canary, false, ""))
	prompts(t, client, s.url, token)
	moved := file + ".1"
	if err := os.Rename(file, moved); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, settleLimit, "the log is opened again", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && bytes.Contains(text, []byte("were read again"))
	})
	after := chat(t.Context(), client, s.url, token, chatBody(flatModel, canary, true, ""))
	s.stop()
	var texts [2]string
	for i, name := range []string{moved, file} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	for _, secret := range []string{canary, token, "sk-canary-key", "forged", testSecret} {
		if strings.Contains(texts[0]+texts[1]+s.stdout.String()+s.stderr.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	wantLine(t, logLines(t, texts[0]), &r, r.cost)
	wantLine(t, logLines(t, texts[1]), &after, after.cost)
}

// prompts sends the canary through everything, in all ways that end in errors, and with hostile names.
func prompts(t *testing.T, client *http.Client, base, token string) {
	t.Helper()
	for _, model := range []string{flatModel, "gpt-4o-mini", "no-such-" + canary, "a\\nforged"} {
		for range 4 {
			for path, body := range map[string]string{
				"/v1/chat/completions":        `{"model":"%s","messages":[{"role":"user","content":"` + canary + `"}]}`,
				"/v1/chat/completions/stream": `{"model":"%s","messages":[{"role":"user","content":"` + canary + `"}]}`,
				"/v1/messages":                `{"model":"%s","max_tokens":20,"messages":[{"role":"user","content":"` + canary + `"}]}`,
				"/v1/responses":               `{"model":"%s","input":"` + canary + `","` + canary + `":1}`,
				"/v1/embeddings":              `{"model":"%s","input":"` + canary + `"}`,
				"/v1/completions":             `{"model":"%s","prompt":"` + canary + `"}`,
				"/v1/" + canary:               `{"model":"%s"}`,
			} {
				post(t.Context(), client, base+path+"?key="+canary, token, strings.Replace(body, "%s", model, 1))
				post(t.Context(), client, base+path, canary, strings.Replace(body, "%s", model, 1))
			}
		}
	}
	post(t.Context(), client, base+"/v1/chat/completions", token, `{"model":"`+flatModel+`","messages":"`+canary+`"`)
	post(t.Context(), client, base+"/v1/chat/completions", token, chatBody(flatModel, canary, false, `,"`+canary+`":1,"`+canary+`":2`))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/billing/balance", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-request-id", "\x1b[2Jforged "+canary)
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close() //nolint:errcheck // nobody reads it
	}
}

// wantLine finds a request's line, and the promised names in it.
func wantLine(t *testing.T, lines []map[string]any, r *reply, cost string) {
	t.Helper()
	for _, one := range lines {
		if one["billing_request_id"] != r.request {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(one["timestamp"]))
		tokens, _ := one["tokens"].(float64)
		took, _ := one["duration_ms"].(float64)
		if err != nil || time.Since(at).Abs() > time.Hour || one["level"] != "INFO" || one["message"] != "request" || one["model"] != flatModel || one["user_id"] != "zoe" ||
			one["request_id"] != r.header.Get("x-request-id") || one["cost"] != cost || one["position"] != r.position || tokens < 1 || took <= 0 {
			t.Errorf("%v, %v", one, err)
		}
		return
	}
	t.Errorf("no line of %s", r.request)
}

func BenchmarkLine(b *testing.B) {
	for name, debug := range map[string]bool{"json": false, "readable": true} {
		b.Run(name, func(b *testing.B) {
			log := slog.New(newLogHandler(io.Discard, &Settings{Debug: debug}))
			attrs := []slog.Attr{slog.String("method", "POST"), slog.String("path", "/v1/chat/completions"), slog.Int("status", 200), slog.Float64("duration_ms", 12.5),
				slog.String("request_id", "d8680585-ef51-4121-9b9b-a44c496b3fa1"), slog.String("user_id", gateway.RoleUser), slog.String("model", "sim-small"),
				slog.String("billing_request_id", "01a21e18-48b3-757a-bb9a-f148a35b2df6"), slog.Int64("tokens", 54), slog.String("cost", "0.0000288"), slog.String("position", "3:5")}
			b.ReportAllocs()
			for b.Loop() {
				log.LogAttrs(b.Context(), slog.LevelInfo, "request", attrs...)
			}
		})
	}
}
