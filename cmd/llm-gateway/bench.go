package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"llm-gateway/cmd/llm-gateway/bench"
	"llm-gateway/gateway"
)

const (
	benchModel   = "gpt-4o-mini"
	benchAccount = "bench"
	benchStart   = 2 * time.Minute  // for a process to say where it listens; may fetch Postgres
	benchStop    = 40 * time.Second // for it to end
)

var benchVerb = verb{
	name: "bench", args: "[--requests N] [--rounds N] [--connections N] [--json]",
	summary: "measure what a billed request costs, beside a bare reverse proxy",
	about: `It starts, on loopback and in a temporary directory, a simulated upstream, a bare gin reverse
proxy, and this gateway with an embedded Postgres; sends both the same load in turn, whole and
streamed; and prints the CPU per request of each, as the kernel accounts it. Linux only. In the end
it verifies the ledger.`,
	run: runBench,
}

func runBench(ctx context.Context, a *app, args []string) error {
	if len(args) == 1 && args[0] == "upstream" { // a party of the bench, in a process of its own
		return bench.Upstream(ctx, a.stdout)
	}
	if len(args) == 2 && args[0] == "proxy" {
		return bench.Proxy(ctx, a.stdout, args[1])
	}
	fs := a.flags()
	requests := fs.Int("requests", 5000, "`requests` per round, party and mode")
	rounds := fs.Int("rounds", 3, "counted `rounds`, after one to warm up")
	connections := fs.Int("connections", 64, "concurrent `connections`")
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	stage, err := openStage(ctx)
	if err != nil {
		return err
	}
	defer stage.close()
	config := bench.Config{Model: benchModel, Requests: *requests, Rounds: *rounds, Connections: *connections}
	if isTerminal(a.stderr) {
		config.Progress = a.stderr
	}
	if err := stage.cast(&config); err != nil {
		return err
	}
	report, err := bench.Run(ctx, config)
	if err != nil {
		return err
	}
	if err := stage.verify(); err != nil {
		return err
	}
	if *asJSON {
		return a.printJSON(report)
	}
	report.WriteText(a.stdout)
	fmt.Fprintln(a.stdout, "\nledger verify: clean")
	return nil
}

// stage is where the bench plays: a directory, and the processes in it.
type stage struct {
	ctx     context.Context
	cancel  context.CancelFunc
	exe     string
	dir     string
	secret  string
	players []*exec.Cmd
}

func openStage(ctx context.Context) (*stage, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "llm-gateway-bench-")
	if err != nil {
		return nil, err
	}
	random := make([]byte, minSecret)
	rand.Read(random) //nolint:errcheck // crypto/rand never returns an error
	s := &stage{exe: exe, dir: dir, secret: hex.EncodeToString(random)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s, nil
}

// close ends the players, the gateway before what it talks to, and removes the directory.
func (s *stage) close() {
	for _, p := range slices.Backward(s.players) {
		p.Process.Signal(syscall.SIGTERM)                              //nolint:errcheck // it may have ended
		kill := time.AfterFunc(benchStop, func() { p.Process.Kill() }) //nolint:errcheck // as above
		p.Wait()                                                       //nolint:errcheck // how it ended no longer matters
		kill.Stop()
	}
	s.cancel()
	os.RemoveAll(s.dir) //nolint:errcheck // a temporary directory
}

// cast starts the parties and tells the bench where they are.
func (s *stage) cast(c *bench.Config) error {
	upstream, _, err := s.start(nil, "bench", "upstream")
	if err != nil {
		return err
	}
	proxy, proxyPID, err := s.start(nil, "bench", "proxy", upstream)
	if err != nil {
		return err
	}
	served, gatewayPID, err := s.start(s.settings(upstream), "serve")
	if err != nil {
		return err
	}
	postgres, err := postmaster(s.dir)
	if err != nil {
		return err
	}
	tokens, err := gateway.NewTokens("HS256", []byte(s.secret))
	if err != nil {
		return err
	}
	if c.Token, err = tokens.Sign(benchAccount, gateway.RoleUser, time.Now(), 24*time.Hour); err != nil {
		return err
	}
	c.Proxy = bench.Target{URL: proxy, Processes: map[string]int{"proxy": proxyPID}}
	c.Gateway = bench.Target{URL: served, Processes: map[string]int{"gateway": gatewayPID, "postgres": postgres}}
	return nil
}

// settings are those of a gateway in production: what it logs and checks there is part of the cost.
func (s *stage) settings(upstream string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	return append(env, "ENVIRONMENT=production", "HOST=127.0.0.1", "PORT=0", "DATA_DIR="+filepath.Join(s.dir, "data"),
		"JWT_SECRET_KEY="+s.secret, "OPENAI_API_KEY=bench", "OPENAI_BASE_URL="+upstream,
		"RATE_LIMIT_REQUESTS_PER_MINUTE=0", "RATE_LIMIT_REQUESTS_PER_HOUR=0", "BILLING_DEFAULT_BALANCE=1000000", "EMBEDDED_POSTGRES_BIN="+os.Getenv("EMBEDDED_POSTGRES_BIN"))
}

var address = regexp.MustCompile(`http://[a-z0-9.]+:[0-9]+`)

// start runs this binary as another process and waits until it says where it listens.
func (s *stage) start(env []string, args ...string) (url string, pid int, err error) {
	log, err := os.Create(filepath.Join(s.dir, strings.Join(args[:min(2, len(args))], "-")+".log"))
	if err != nil {
		return "", 0, err
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor
	cmd := exec.CommandContext(s.ctx, s.exe, args...)
	cmd.Dir, cmd.Env, cmd.Stderr = s.dir, env, log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	s.players = append(s.players, cmd)
	late := time.AfterFunc(benchStart, func() { cmd.Process.Kill() }) //nolint:errcheck // then the pipe ends
	defer late.Stop()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if found := address.FindString(lines.Text()); found != "" {
			go io.Copy(io.Discard, stdout) //nolint:errcheck // ends with the process
			return found, cmd.Process.Pid, nil
		}
	}
	said, _ := os.ReadFile(log.Name())
	return "", 0, fmt.Errorf("%s did not start: %s", strings.Join(args, " "), oneLine(string(said)))
}

// postmaster finds the process of the embedded Postgres.
func postmaster(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "data", "postgres", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(strings.TrimSpace(first))
}

// verify holds the bench's own ledger against its events, beside the running gateway.
func (s *stage) verify() error {
	cmd := exec.CommandContext(s.ctx, s.exe, "ledger", "verify")
	cmd.Dir, cmd.Env = s.dir, s.settings("http://127.0.0.1:1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(errors.New("the bench's ledger is not clean: "+oneLine(string(out))), err)
	}
	return nil
}
