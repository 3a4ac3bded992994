package main

import (
	"flag"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"llm-gateway/gateway"
)

// root is the top of the repository, seen from this package.
const root = "../.."

// TestTidy holds the repository to its rules. What each check refuses is in tidychecks_test.go;
// that each of them does refuse is in tidybad_test.go.
func TestTidy(t *testing.T) {
	t.Parallel()
	files := readTree(t)
	complain(t, checkTop(names(t, root), files[".gitignore"]))
	for name, text := range files {
		complain(t, checkText(name, text))
		if strings.HasSuffix(name, ".go") {
			complain(t, checkGo(name, text))
		}
	}
}

// TestEnvExample holds env.example and the table of settings against each other.
func TestEnvExample(t *testing.T) {
	t.Parallel()
	file := filepath.Join(root, "env.example")
	if *update {
		writeFile(t, file, renderEnvExample(declared()))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, checkEnvExample(declared(), string(text)))
}

var update = flag.Bool("update", false, "write env.example from the table of settings")

// TestOpenAPI holds openapi.yaml and the routes against each other.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	complain(t, checkOpenAPI(gateway.Routes(), text))
}

func complain(t *testing.T, problems []string) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
}

// maxTidyFile is above what any file of text in the tree has.
const maxTidyFile = 4 << 20

// readTree reads all files that are not ignored by git, by their slashed path from the root.
func readTree(t *testing.T) map[string]string {
	t.Helper()
	ignore, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name != "." && (name == ".git" || ignored(string(ignore), name)) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxTidyFile {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// ignored says whether .gitignore has a pattern for a path: those of one component, as ours are,
// and a leading slash for the top.
func ignored(gitignore, name string) bool {
	parts := strings.Split(name, "/")
	for pattern := range strings.Lines(gitignore) {
		pattern = strings.Trim(strings.TrimSpace(pattern), "/")
		if pattern == "" || strings.HasPrefix(pattern, "#") {
			continue
		}
		if slices.ContainsFunc(parts, func(part string) bool {
			matched, err := path.Match(pattern, part)
			return err == nil && matched
		}) {
			return true
		}
	}
	return false
}
