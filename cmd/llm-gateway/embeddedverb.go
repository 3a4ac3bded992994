package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"
)

var embeddedVerb = verb{
	name: "embedded", args: "-- COMMAND [ARGUMENT...]",
	summary: "run a command with an embedded Postgres, Kafka and Redis, at DATABASE_URL, KAFKA_BROKERS and REDIS_URL in its environment",
	about: `They are fresh ones in a temporary directory, which is removed in the end; where DATA_DIR is in the
environment (a .env file does not count), they are those kept there. What is already set of these
settings, and of those that go with them, is not used: what runs here is often a test, and that must
not reach a real server by accident. Signals are passed on, and the exit status is the command's.`,
	run: runEmbedded,
}

func runEmbedded(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	if len(args) > 0 && isHelp(args[0]) {
		_, err := a.parse(fs, args[:1])
		return err
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return a.usage("COMMAND is missing")
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("the command cannot be run: %w", err)
	}
	own := *s
	own.DatabaseURL, own.DatabaseMigrateURL, own.KafkaBrokers, own.RedisURL = "", "", nil, ""
	dir, remove, err := embeddedDir(a)
	if err != nil {
		return err
	}
	defer remove()
	h, err := holdDir(ctx, &own, dir, a.logger(s))
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args[1:]...) // not by ctx, which would kill it: signals are passed on
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, a.stdout, a.stderr
	cmd.Env = h.environment(a.environ)
	return errors.Join(runPassing(ctx, cmd), h.release())
}

// environment is one in which the command finds the embedded parts, and nothing of others: a setting
// that is empty is the default, whatever a .env file says.
func (h *holding) environment(environ []string) []string {
	for _, pair := range [][2]string{
		{"DATABASE_URL", string(h.URL)}, {"DATABASE_MIGRATE_URL", ""}, {"PG_POOLER", ""},
		{"REDIS_URL", string(h.redis)},
		{"KAFKA_BROKERS", strings.Join(h.brokers, ",")}, {"KAFKA_TLS", ""}, {"KAFKA_SASL", ""}, {"KAFKA_USERNAME", ""}, {"KAFKA_PASSWORD", ""},
	} {
		environ = with(environ, pair[0], pair[1])
	}
	return environ
}

// with is an environment in which name has value, and comes from no file.
func with(environ []string, name, value string) []string {
	var out []string
	for _, line := range environ {
		if !strings.HasPrefix(line, name+"=") && !strings.HasPrefix(line, name+fileSuffix+"=") {
			out = append(out, line)
		}
	}
	return append(out, name+"="+value)
}

// embeddedDir is DATA_DIR where the environment has one, or else a new directory, which remove
// removes.
func embeddedDir(a *app) (dir string, remove func(), err error) {
	for _, line := range a.environ {
		if value, ok := strings.CutPrefix(line, "DATA_DIR="); ok && value != "" {
			return value, func() {}, nil
		}
	}
	dir, err = os.MkdirTemp("", program+"-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() {
		if err := os.RemoveAll(dir); err != nil {
			slog.Warn("the temporary DATA_DIR is left behind", "dir", dir, "error", err)
		}
	}, nil
}

// runPassing runs a command, passes signals to it, and returns its exit status.
func runPassing(ctx context.Context, cmd *exec.Cmd) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := ctx.Err(); err != nil { // one came before we listened
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the command cannot be run: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGINT && isatty.IsTerminal(os.Stdin.Fd()) {
				continue // the terminal has sent it to the whole process group
			}
			cmd.Process.Signal(s) //nolint:errcheck // it has just ended
		case err := <-done:
			return commandStatus(err)
		}
	}
}

// signalled is what shells add to a signal's number where it ended a command.
const signalled = 128

func commandStatus(err error) error {
	ended := new(exec.ExitError)
	if !errors.As(err, &ended) {
		return err
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitStatus(signalled + int(status.Signal()))
	}
	return exitStatus(ended.ExitCode())
}
