package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// pythonClients is a Python that has the pinned clients.
func pythonClients(t *testing.T) string {
	t.Helper()
	python := tool(t, "python3")
	requirements := filepath.Join(clientsDir, "python", "requirements.txt")
	pins, err := os.ReadFile(requirements)
	if err != nil {
		t.Fatal(err)
	}
	version, err := exec.CommandContext(t.Context(), python, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := installed(t, "python", [][]byte{pins, version}, func(dir string) result {
		ctx, cancel := context.WithTimeout(t.Context(), installLimit)
		defer cancel()
		if r := finish(t, exec.CommandContext(ctx, python, "-m", "venv", dir)); r.status != 0 {
			return r
		}
		return finish(t, exec.CommandContext(ctx, filepath.Join(dir, "bin", "python"), "-m", "pip", "install",
			"--quiet", "--disable-pip-version-check", "--requirement", requirements))
	})
	return filepath.Join(dir, "bin", "python")
}

// TestClientsPython runs the scenarios with the official clients for Python.
func TestClientsPython(t *testing.T) {
	t.Parallel()
	for _, client := range []string{"openai", "anthropic", "google", "langchain"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			readRecordings(t)
			runsSDK(t, client+"-python", filepath.Join(clientsDir, "python"), pythonClients(t), client+"_client.py")
		})
	}
}

// passedTests is how many of LangChain's tests pass at least: fewer mean that they were not found.
const passedTests = 120

// TestClientsLangChain runs LangChain's own standard tests.
func TestClientsLangChain(t *testing.T) {
	t.Parallel()
	w := startSDKWorld(t)
	printed := script(t, filepath.Join(clientsDir, "python"), w.env, pythonClients(t), "-m", "pytest", "test_langchain.py")
	passed := regexp.MustCompile(`(\d+) passed`).FindStringSubmatch(printed)
	if passed == nil {
		t.Fatalf("none of the tests passed:\n%s", tail(printed))
	}
	if n, err := strconv.Atoi(passed[1]); err != nil || n < passedTests {
		t.Errorf("%d of the tests passed", n)
	}
	t.Log(passed[0])
	w.audited(t, notSaid)
}

// TestClientsDocumented runs the code of docs/clients.md as it stands, and each block's call must be charged.
func TestClientsDocumented(t *testing.T) {
	t.Parallel()
	for _, heading := range []string{"openai for Python", "anthropic for Python", "google-genai for Python", "langchain-openai"} {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			runsDocumented(t, heading, "python", func(w *sdkWorld, code string) string {
				file := filepath.Join(t.TempDir(), "example.py")
				writeFile(t, file, code)
				return script(t, filepath.Dir(file), w.env, pythonClients(t), file)
			})
		})
	}
}
