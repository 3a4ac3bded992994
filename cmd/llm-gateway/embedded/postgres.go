package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	superuser = "llm_gateway_owner"
	database  = "llm_gateway"
	loopback  = "127.0.0.1"

	maxPortAttempts = 5                     // a free port may be taken between choice and use
	readyWait       = 60 * time.Second      // until SELECT 1 answers
	recoveryWait    = 10 * time.Minute      // instead, while Postgres says that it is recovering
	authWait        = 3 * time.Second       // a wrong password is final, unless the port is another's
	readyPoll       = 50 * time.Millisecond // between two attempts
	pingWait        = 5 * time.Second       // for one attempt
	createWait      = 60 * time.Second      // for CREATE DATABASE, which copies a template
	fastStopWait    = 10 * time.Second      // after SIGINT: checkpoint and end
	quitWait        = 8 * time.Second       // after SIGQUIT: end without a checkpoint
	killWait        = 5 * time.Second       // after SIGKILL: the kernel only
)

// shutdown is how a postmaster is stopped. It gives its own children 5 s after a SIGQUIT.
var shutdown = []stage{
	{syscall.SIGINT, fastStopWait},
	{syscall.SIGQUIT, quitWait},
	{syscall.SIGKILL, killWait},
}

// errPortTaken says that another process took the chosen port; worth another attempt.
var errPortTaken = errors.New("port taken")

// Options says where what is kept is, and which binaries run Postgres.
type Options struct {
	// DataDir is the DATA_DIR; the cluster is in its subdirectory postgres, Kafka's records are in
	// its subdirectory kafka. Required.
	DataDir string
	// BinDir is a directory with postgres and initdb, which must fit the cluster. The word
	// "fetch" forces the prebuilt binaries. Empty: local binaries, else the prebuilt ones.
	BinDir string
	// CacheDir is where prebuilt binaries are kept. Empty: /var/cache/llm-gateway for root,
	// which the unprivileged user can read; the user's cache directory otherwise; if neither
	// can be written, a directory of our own under the temporary directory.
	CacheDir string
	// Log tells of slow steps and of an unexpected end. nil: silent.
	Log *slog.Logger
}

// Postgres is a running Postgres child process.
type Postgres struct {
	child    *child
	url      string
	logFile  *serverLog
	stopping atomic.Bool
}

// StartPostgres makes the cluster if there is none, starts Postgres on it and returns when it
// answers and has the database llm_gateway. ctx bounds the start only. The caller should hold
// Lock(o.DataDir). Errors: ErrDataVersion when the cluster is of a major version for which there
// are no binaries, ErrNotCluster when the directory holds something else, ErrLocked when another
// Postgres runs on it and does not end within predecessorWait. A Postgres that ends at once is
// reported with the last lines of its log.
func StartPostgres(ctx context.Context, o Options) (*Postgres, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := openCluster(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	defer c.close()
	for range maxPortAttempts {
		var p *Postgres
		if p, err = c.launch(ctx); err == nil {
			return p, nil
		}
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	return nil, fmt.Errorf("embedded postgres: %w", err)
}

// URL is the connection string of the superuser of this private cluster, password included:
// postgres://llm_gateway_owner:<password>@127.0.0.1:<port>/llm_gateway?sslmode=disable
func (p *Postgres) URL() string { return p.url }

// PID is the process id of the postmaster.
func (p *Postgres) PID() int { return p.child.pid() }

// Done is closed when the child has ended, whoever ended it.
func (p *Postgres) Done() <-chan struct{} { return p.child.done }

// Stop shuts Postgres down: fast (SIGINT) for at most fastStopWait or until ctx ends, then at once
// (SIGQUIT), then SIGKILL. It returns when the child is gone. An error means that the fast shutdown
// did not do: committed data is safe all the same and the next start recovers it.
func (p *Postgres) Stop(ctx context.Context) error {
	p.stopping.Store(true)
	if err := p.child.stop(ctx, shutdown); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	return nil
}

// launch makes one attempt to start Postgres, on a port that is free right now.
func (c *cluster) launch(ctx context.Context) (*Postgres, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	log, err := openServerLog(c.root)
	if err != nil {
		return nil, err
	}
	defer log.closeFile()
	p := &Postgres{logFile: log, url: serverURL(c.password, port, database)}
	p.child, err = c.spawn(log, port, func(exit error) {
		if !p.stopping.Load() {
			c.opts.Log.Error("embedded postgres ended by itself", "exit", exit, "log", log.tail())
		}
	})
	if err != nil {
		return nil, err
	}
	if err := p.awaitReady(ctx, serverURL(c.password, port, "postgres")); err != nil {
		_ = p.Stop(ctx) // the start's error says more than how the remains were stopped
		return nil, err
	}
	return p, nil
}

// spawn starts the postmaster. Settings are arguments, so that neither postgresql.conf nor ALTER
// SYSTEM can weaken them.
func (c *cluster) spawn(log *serverLog, port int, ended func(error)) (*child, error) {
	dir, err := os.Open(c.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	cmd := c.command(log, "postgres", dir)
	cmd.Args = append(cmd.Args, "-D", c.dirArgument(c.dir))
	for _, setting := range []string{
		"listen_addresses=" + loopback, "port=" + strconv.Itoa(port), "unix_socket_directories=",
		"max_connections=100", "shared_buffers=128MB", "ssl=off",
		"fsync=on", "full_page_writes=on", "synchronous_commit=on",
		"logging_collector=off", "log_destination=stderr", "log_timezone=UTC", "timezone=UTC",
	} {
		cmd.Args = append(cmd.Args, "-c", setting)
	}
	return startChild(cmd, c.user, syscall.SIGQUIT, ended)
}

// awaitReady returns when the server answers and the database exists, or says why it does not.
func (p *Postgres) awaitReady(ctx context.Context, adminURL string) error {
	begin := time.Now()
	limit := readyWait
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		err := ensureDatabase(ctx, adminURL)
		if err == nil {
			return nil
		}
		limit = readyLimit(err, limit, time.Since(begin))
		select {
		case <-p.child.done:
			return p.earlyEnd()
		case <-ctx.Done():
			return fmt.Errorf("waiting for readiness: %w", ctx.Err())
		case <-poll.C:
		}
		if time.Since(begin) > limit {
			return fmt.Errorf("not ready after %s: %w", limit, err)
		}
	}
}

// readyLimit adapts how long in all to wait, given the last attempt's error and the time waited so
// far: giving up in the middle of a crash recovery would only begin it again at the next start,
// and a refused password does not become right by waiting.
func readyLimit(err error, limit, waited time.Duration) time.Duration {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return limit
	}
	switch {
	case pg.Code == "57P03": // cannot_connect_now
		return recoveryWait
	case pg.Code[:2] == "28": // invalid authorization
		return min(limit, waited+authWait)
	}
	return limit
}

// earlyEnd explains a child that ended before it was ready.
func (p *Postgres) earlyEnd() error {
	p.stopping.Store(true)
	tail := p.logFile.tail()
	err := fmt.Errorf("ended before it was ready (%w); its log %s ends:\n%s", p.child.err, p.logFile.path, tail)
	if portTaken(tail) {
		return fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return err
}

// ensureDatabase connects to the server's maintenance database and creates ours if it is absent.
// A CREATE DATABASE that is cut short leaves none, so existence is enough of a check.
func ensureDatabase(ctx context.Context, adminURL string) error {
	pingCtx, cancel := context.WithTimeout(ctx, pingWait)
	defer cancel()
	conn, err := pgx.Connect(pingCtx, adminURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(pingCtx))
	var exists bool
	const query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
	if err := conn.QueryRow(pingCtx, query, database).Scan(&exists); err != nil || exists {
		return err
	}
	createCtx, cancel := context.WithTimeout(ctx, createWait)
	defer cancel()
	_, err = conn.Exec(createCtx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize())
	return err
}

func serverURL(password string, port int, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, password),
		Host:     net.JoinHostPort(loopback, strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// freePort asks the kernel for a port of the loopback address that nobody listens on.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// absolute resolves a DATA_DIR once, since every child runs with another working directory.
func absolute(dataDir string) (string, error) {
	if dataDir == "" {
		return "", errors.New("no data directory given")
	}
	return filepath.Abs(dataDir)
}
