package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	minMajor  = 14 // the oldest version that this package runs
	fetchWord = "fetch"

	probeWait = 10 * time.Second // for `postgres --version`
)

// binaries is a directory whose programs have been seen to run.
type binaries struct {
	dir     string
	major   int
	version string // as `postgres --version` prints it
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// chooseBinaries returns binaries for a cluster of the major version want, or, when want is 0, the
// newest local ones, else the prebuilt ones.
func chooseBinaries(ctx context.Context, o Options, want int, user *account) (binaries, error) {
	switch o.BinDir {
	case fetchWord:
		return fetchedBinaries(ctx, o, want, user)
	case "":
		if b, found := localBinaries(ctx, binaryDirs(), want, user); found {
			return b, nil
		}
		return fetchedBinaries(ctx, o, want, user)
	}
	b, err := probe(ctx, o.BinDir, user)
	if err != nil {
		return b, err
	}
	if want != 0 && b.major != want {
		return b, fmt.Errorf("%w: it is of %d, the binaries given in %s are of %d", ErrDataVersion, want, o.BinDir, b.major)
	}
	return b, nil
}

// localBinaries picks among directories that may or may not hold binaries.
func localBinaries(ctx context.Context, dirs []string, want int, user *account) (best binaries, found bool) {
	for _, dir := range dirs {
		b, err := probe(ctx, dir, user)
		if err != nil || want != 0 && b.major != want {
			continue
		}
		if b.major > best.major {
			best, found = b, true
		}
	}
	return best, found
}

// binaryDirs lists where packages put postgres and initdb, whichever exist, each once.
func binaryDirs() []string {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                       // Debian, Ubuntu
		"/usr/libexec/postgresql*",                        // Alpine
		"/usr/pgsql-*/bin",                                // PGDG for Red Hat
		"/opt/homebrew/opt/postgresql@*/bin",              // Homebrew on ARM
		"/usr/local/opt/postgresql@*/bin",                 // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin", // Homebrew on Linux
		"/usr/local/pgsql/bin",                            // from source
	} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		dirs = append(dirs, found...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	return dirs
}

// probe asks the binaries in dir for their version, as the user that is going to run them: that
// also shows whether the user can reach them and whether their libraries are there.
func probe(ctx context.Context, dir string, user *account) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, err
	}
	for _, name := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return binaries{}, fmt.Errorf("postgres binaries: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version")
	cmd.Env = childEnvironment()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: user.credential()}
	output, err := cmd.Output()
	if err != nil {
		return binaries{}, fmt.Errorf("postgres binaries: %s --version: %w%s", cmd.Path, err, stderrOf(err))
	}
	version := strings.TrimSpace(string(output))
	match := versionPattern.FindStringSubmatch(version)
	if match == nil {
		return binaries{}, fmt.Errorf("postgres binaries: %s is %q", cmd.Path, version)
	}
	major, err := strconv.Atoi(match[1])
	if err != nil || major < minMajor {
		return binaries{}, fmt.Errorf("postgres binaries: %s is %q, the oldest supported is %d", cmd.Path, version, minMajor)
	}
	return binaries{dir: dir, major: major, version: version}, nil
}

// stderrOf is what a failed command said, for the end of an error message.
func stderrOf(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(exit.Stderr) == 0 {
		return ""
	}
	return ": " + strings.TrimSpace(string(exit.Stderr))
}
