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

// goClients is a directory with the programs that use the pinned clients.
func goClients(t *testing.T) string {
	t.Helper()
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
		ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, compiler, "build", "-o", dir+string(filepath.Separator), "./openai", "./anthropic")
		cmd.Dir = module
		return finish(t, cmd)
	})
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
