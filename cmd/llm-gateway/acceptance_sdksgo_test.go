package main

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// buildLimit bounds building the clients for Go, whose packages are huge.
const buildLimit = 20 * time.Minute

// goClients is a directory with the programs that use the pinned clients. Building them for the first time
// takes minutes of all CPUs, in which other tests would not be in time.
func goClients(t *testing.T) string {
	t.Helper()
	if !full() {
		t.Skip("the clients for Go take minutes to build: ACCEPTANCE=full")
	}
	compiler := tool(t, "go")
	module := filepath.Join(clientsDir, "go")
	sources := [][]byte{[]byte(runtime.Version())}
	err := filepath.WalkDir(module, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		sources = append(sources, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return installed(t, "go", sources, func(dir string) result {
		return goBuild(t, compiler, module, "-o", dir+string(filepath.Separator), "./openai", "./anthropic")
	})
}

func goBuild(t *testing.T, compiler, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, compiler, append([]string{"build"}, args...)...)
	cmd.Dir = dir
	return finish(t, cmd)
}

// TestClientsGo runs the official clients for Go.
func TestClientsGo(t *testing.T) {
	t.Parallel()
	readRecordings(t)
	dir := goClients(t)
	for _, client := range []string{"openai", "anthropic"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			runsSDK(t, client+"-go", dir, filepath.Join(dir, client))
		})
	}
}

// TestClientsDocumentedGo runs the code for Go of docs/clients.md as it stands.
func TestClientsDocumentedGo(t *testing.T) {
	t.Parallel()
	readRecordings(t)
	compiler := tool(t, "go")
	goClients(t) // skips where the modules are out of reach
	for _, heading := range []string{"openai-go", "anthropic-sdk-go"} {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			runsDocumented(t, heading, "go", func(w *sdkWorld, code string) string {
				return goRun(t, compiler, w.env, code)
			})
		})
	}
}

// goRun builds a program in a module with the pins, and runs it.
func goRun(t *testing.T, compiler string, env []string, code string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		pins, err := os.ReadFile(filepath.Join(clientsDir, "go", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(pins))
	}
	writeFile(t, filepath.Join(dir, "main.go"), code)
	if r := goBuild(t, compiler, dir, "-o", "example", "."); r.status != 0 {
		t.Fatalf("the example does not build:\n%s", tail(r.stderr))
	}
	return script(t, dir, env, filepath.Join(dir, "example"))
}
