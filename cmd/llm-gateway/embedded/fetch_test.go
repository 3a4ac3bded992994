package embedded

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// TestFetched really fetches, then starts and stops twice.
func TestFetched(t *testing.T) {
	t.Parallel()
	t.Run("as we are", func(t *testing.T) {
		t.Parallel()
		cache, dir := openDir(t), t.TempDir()
		for range 2 {
			p := start(t, Options{DataDir: dir, BinDir: "fetch", CacheDir: cache})
			checkFetched(t, p.URL())
			stop(t, p)
		}
		checkCache(t, cache)
	})
	t.Run("ordinary user", func(t *testing.T) {
		t.Parallel()
		user := otherUser(t)
		o := Options{DataDir: ownDir(t, user), BinDir: "fetch", CacheDir: ownDir(t, user)}
		for range 2 {
			h := startHelper(t, helperStartSome, user, o)
			checkFetched(t, h.begun().URL)
			h.finish()
		}
		checkCache(t, o.CacheDir)
	})
}

func checkFetched(t *testing.T, url string) {
	t.Helper()
	want := strings.TrimSuffix(string(prebuilt[defaultMajor]), ".0")
	if got := query(t, url, "SELECT current_setting('server_version')"); !strings.HasPrefix(got, want) {
		t.Errorf("server version %s, want %s", got, want)
	}
}

// checkCache: only the whole tree is left.
func checkCache(t *testing.T, cache string) {
	t.Helper()
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "postgres-") {
		t.Errorf("in the cache: %v, %v", entries, err)
	}
}

// TestFailedFetch: whatever the repository answers, nothing half fetched is left.
func TestFailedFetch(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"absent":  http.NotFound,
		"garbage": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "no archive") },
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			fmt.Fprint(w, "PK")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(answer)
			defer server.Close()
			cache := t.TempDir()
			config := embeddedpostgres.DefaultConfig().BinaryRepositoryURL(server.URL)
			if err := fetch(t.Context(), config, filepath.Join(cache, "postgres-18")); err == nil {
				t.Error("no error")
			}
			if entries, err := os.ReadDir(cache); err != nil || len(entries) > 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func TestPrebuiltVersionsAreThoseOfTheirMajor(t *testing.T) {
	t.Parallel()
	for major, version := range prebuilt {
		if !strings.HasPrefix(string(version), fmt.Sprint(major)+".") || major < minMajor {
			t.Errorf("%d: %s", major, version)
		}
	}
	if prebuilt[defaultMajor] == "" {
		t.Error("no default version")
	}
}

func TestLocalBinaries(t *testing.T) {
	t.Parallel()
	root := openDir(t)
	dirs := []string{filepath.Join(root, "absent")}
	for name, version := range map[string]string{
		"old": "13.9", "a": "15.4 (Debian 15.4-1)", "b": "17beta1", "c": "16.2", "not": "",
	} {
		fakeBinaries(t, filepath.Join(root, name), "postgres (PostgreSQL) "+version)
		dirs = append(dirs, filepath.Join(root, name))
	}
	if err := os.Mkdir(filepath.Join(root, "client"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		want, major int
		dir         string
	}{{0, 17, "b"}, {15, 15, "a"}, {16, 16, "c"}, {14, 0, ""}, {13, 0, ""}} {
		b, found := localBinaries(t.Context(), dirs, tc.want, nil)
		if found != (tc.major != 0) || b.major != tc.major || found && filepath.Base(b.dir) != tc.dir {
			t.Errorf("want %d: %+v", tc.want, b)
		}
	}
}

// fakeBinaries makes programs that print a version.
func fakeBinaries(t *testing.T, dir, version string) {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\necho %q\n", version)
	err := os.Mkdir(dir, 0o755)
	for _, name := range []string{"postgres", "initdb"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCacheOfOthersIsNotUsed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	fresh := filepath.Join(root, "a", "fresh")
	if err := useCache(fresh); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(fresh); err != nil || info.Mode().Perm() != cachePermission {
		t.Errorf("%v, %v", info, err)
	}
	open := filepath.Join(root, "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(fresh, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link} {
		if err := useCache(dir); err == nil {
			t.Errorf("%s is used", dir)
		}
	}
}
