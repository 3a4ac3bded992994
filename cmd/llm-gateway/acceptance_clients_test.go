package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"llm-gateway/migrations/pgtest"
)

// installLimit bounds fetching a client from its registry.
const installLimit = 5 * time.Minute

// readmeBlock is the README's code in a language, for a gateway that is somewhere else.
func readmeBlock(t *testing.T, language, base string) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(text)
	if block == nil || !strings.Contains(string(block[1]), "http://localhost:8000/v1") {
		t.Fatalf("the README has no block of %s that calls the gateway", language)
	}
	return strings.ReplaceAll(string(block[1]), "http://localhost:8000", base)
}

// foreignSetting is what official clients would read of the environment of whoever runs the tests.
var foreignSetting = regexp.MustCompile(`^(OPENAI|ANTHROPIC|GEMINI|GOOGLE|LANGCHAIN|LANGSMITH)_`)

// script runs a program and returns what it printed; it must end well.
func script(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), installLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	for _, line := range os.Environ() {
		if !foreignSetting.MatchString(line) {
			cmd.Env = append(cmd.Env, line)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	r := finish(t, cmd)
	if r.status != 0 {
		t.Fatalf("%s %v ended with %d:\n%s%s", name, args, r.status, tail(r.stdout), tail(r.stderr))
	}
	return r.stdout
}

// clientEnds is how an official client tells the ends that a request can have.
type clientEnds struct {
	Version, Key, Model, Quota string
	Aborted                    int
}

const pythonEnds = `
import json, os
import openai

def client(key):
    return openai.OpenAI(base_url=os.environ["BASE"] + "/v1", api_key=key, max_retries=0)

def end(key, model, **more):
    try:
        client(key).chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], **more)
    except openai.APIStatusError as e:
        return f"{type(e).__name__} {e.status_code} {e.code}"
    return "none"

token, aborted = os.environ["TOKEN"], 0
stream = client(token).chat.completions.create(model="sim-small", stream=True,
    messages=[{"role": "user", "content": "sim:tokens=400 sim:pace=20ms"}])
for chunk in stream:
    aborted += 1
    if aborted == 6:
        stream.close()
        break
print(json.dumps({"version": openai.__version__, "aborted": aborted, "key": end("wrong", "sim-small"),
    "model": end(token, "no-such-model"), "quota": end(token, "sim-small", n=128, max_completion_tokens=16384)}))
`

const scriptEnds = `
import OpenAI from "openai";
import { readFileSync } from "node:fs";

const client = (apiKey) => new OpenAI({ baseURL: process.env.BASE + "/v1", apiKey, maxRetries: 0 });
async function end(key, model, more) {
  try {
    await client(key).chat.completions.create({ model, messages: [{ role: "user", content: "hi" }], ...more });
  } catch (e) {
    return e.constructor.name + " " + e.status + " " + e.code;
  }
  return "none";
}
const token = process.env.TOKEN;
let aborted = 0;
const stream = await client(token).chat.completions.create({ model: "sim-small", stream: true,
  messages: [{ role: "user", content: "sim:tokens=400 sim:pace=20ms" }] });
for await (const chunk of stream) {
  if (++aborted == 6) stream.controller.abort();
  if (aborted >= 6) break;
}
console.log(JSON.stringify({ aborted, key: await end("wrong", "sim-small"), model: await end(token, "no-such-model"),
  quota: await end(token, "sim-small", { n: 128, max_completion_tokens: 16384 }),
  version: JSON.parse(readFileSync("node_modules/openai/package.json")).version }));
`

// TestOfficialClients runs the README's examples as they stand, with the official clients, and
// sees how they tell the ends that a request can have.
func TestOfficialClients(t *testing.T) {
	t.Parallel()
	t.Run("python", func(t *testing.T) {
		t.Parallel()
		python := pythonClients(t)
		officialClient(t, t.TempDir(), "python", pythonEnds, clientEnds{Key: "AuthenticationError 401 invalid_api_key",
			Model: "NotFoundError 404 model_not_found", Quota: "APIStatusError 402 insufficient_quota", Aborted: 6}, python)
	})
	t.Run("javascript", func(t *testing.T) {
		t.Parallel()
		node := nodeTool(t)
		officialClient(t, nodeClients(t), "js", scriptEnds, clientEnds{Key: "AuthenticationError 401 invalid_api_key",
			Model: "NotFoundError 404 model_not_found", Quota: "APIError 402 insufficient_quota", Aborted: 6}, node)
	})
}

// officialClient runs the README's example and the ends on a gateway of their own.
func officialClient(t *testing.T, dir, language, ends string, want clientEnds, interpreter string) {
	t.Helper()
	dbURL := pgtest.URL(t)
	s := startServe(t, "DATABASE_URL="+dbURL, "BILLING_DEFAULT_BALANCE=1")
	env := []string{"TOKEN=" + tokenFor(t, "reader"), "BASE=" + s.url, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1"}
	name := map[string]string{"python": "example.py", "js": "example.mjs"}[language]
	writeFile(t, filepath.Join(dir, name), readmeBlock(t, language, s.url))
	if printed := script(t, dir, env, interpreter, name); len(strings.Fields(printed)) < 10 {
		t.Errorf("the README's example printed %q", printed)
	}
	a := auditLedger(t, dbURL)
	streams := 0
	for _, l := range a.lives {
		if l.stream {
			streams++
		}
	}
	if len(a.lives) != 2 || streams != 1 || len(a.open()) != 0 {
		t.Errorf("the README's example is in the ledger as %d requests, %d streamed, %d open", len(a.lives), streams, len(a.open()))
	}
	writeFile(t, filepath.Join(dir, "ends-"+name), ends)
	var got clientEnds
	if err := json.Unmarshal([]byte(script(t, dir, env, interpreter, "ends-"+name)), &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("openai for %s: %+v", language, got)
	if want.Version = got.Version; got.Version == "" || got != want {
		t.Errorf("%s: %+v, want %+v", language, got, want)
	}
	eventually(t, settleLimit, "the aborted stream is settled", func() bool {
		a = auditLedger(t, dbURL)
		return len(a.lives) == 3 && len(a.open()) == 0
	})
	aborted := 0
	for id, l := range a.lives {
		if l.source != "counted" {
			continue
		}
		aborted++
		t.Logf("the aborted stream %s: %d tokens delivered, %s charged of %s", id, l.meters["output"], l.commit.FloatString(12), l.reserve.FloatString(12))
		if l.commits != 1 || l.meters["output"] < 4 || l.meters["output"] > 100 {
			t.Errorf("the aborted stream: %+v", *l)
		}
	}
	if aborted != 1 {
		t.Errorf("%d requests were charged by count", aborted)
	}
	verified(t, "DATABASE_URL="+dbURL)
}
