package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// oldestNode is the oldest version that the clients run on. Some ask for a newer one.
const oldestNode = 20

// nodeTool is the path of a Node that the clients run on.
func nodeTool(t *testing.T) string {
	t.Helper()
	node := tool(t, "node")
	version, err := exec.CommandContext(t.Context(), node, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var major int
	if n, err := fmt.Sscanf(string(version), "v%d.", &major); n != 1 || major < oldestNode {
		t.Skipf("the clients need Node %d, this is %q: %v", oldestNode, version, err)
	}
	return node
}

// nodeClients is a directory with the scripts and the pinned clients that they import.
func nodeClients(t *testing.T) string {
	t.Helper()
	npm := tool(t, "npm")
	pins, err := os.ReadFile(filepath.Join(clientsDir, "node", "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	clients := installed(t, "node", [][]byte{pins}, func(dir string) result {
		writeFile(t, filepath.Join(dir, "package.json"), string(pins))
		ctx, cancel := context.WithTimeout(t.Context(), installLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, npm, "install", "--silent", "--no-package-lock", "--no-audit", "--no-fund")
		cmd.Dir = dir
		return finish(t, cmd)
	})
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(clientsDir, "node"))); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(dir, "node_modules")) // of one who tried the scripts in their place
	if err := os.Symlink(filepath.Join(clients, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestClientsNode runs the official clients for Node.
func TestClientsNode(t *testing.T) {
	t.Parallel()
	readRecordings(t)
	node := nodeTool(t)
	dir := nodeClients(t)
	for _, client := range []string{"openai", "anthropic", "google"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			runsSDK(t, client+"-node", dir, node, client+".mjs")
		})
	}
}

// TestClientsDocumentedNode runs the code for Node of docs/clients.md as it stands.
func TestClientsDocumentedNode(t *testing.T) {
	t.Parallel()
	readRecordings(t)
	node := nodeTool(t)
	for _, heading := range []string{"openai for Node", "anthropic for Node", "google-genai for Node"} {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			dir := nodeClients(t)
			runsDocumented(t, heading, "js", func(w *sdkWorld, code string) string {
				writeFile(t, filepath.Join(dir, "example.mjs"), code)
				return script(t, dir, w.env, node, "example.mjs")
			})
		})
	}
}
