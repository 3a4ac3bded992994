package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
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

// TestClientsPython runs the official clients for Python.
func TestClientsPython(t *testing.T) {
	t.Parallel()
	for _, client := range []string{"openai", "anthropic", "google"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			readRecordings(t)
			runsSDK(t, client+"-python", filepath.Join(clientsDir, "python"), pythonClients(t), client+"_client.py")
		})
	}
}
