package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"llm-gateway/cmd/llm-gateway/embedded"
	"llm-gateway/ledger"
)

const (
	turnWait = 30 * time.Second       // how long a verb waits until it is its turn on a DATA_DIR
	stayWait = 5 * time.Second        // how long one that stays waits for a short verb to end
	turnPoll = 100 * time.Millisecond // between two looks
	stopWait = 20 * time.Second       // how long the embedded Postgres gets to stop
)

// database says where Postgres is.
type database struct {
	URL      Secret // what the service works with, as Role
	OwnerURL Secret // what migrates
	Role     string // what the service works as
	Member   string // the login that must be able to become Role, where it is not the owner
	Pooled   bool   // a transaction pooler stands before URL
	Embedded bool
}

// ownerPooled says whether the pooler stands before the owner too: a DATABASE_MIGRATE_URL of its own
// is how one goes round it.
func (d database) ownerPooled() bool { return d.Pooled && d.OwnerURL == d.URL }

// config is the ledger's configuration for the service.
func (d database) config(m ledger.Meta) ledger.Config {
	return ledger.Config{URL: string(d.URL), Role: d.Role, Pooled: d.Pooled, Shards: m.Shards, Currency: m.Currency}
}

// externalDatabase is the one that the settings name.
func externalDatabase(s *Settings) (database, error) {
	d := database{URL: s.DatabaseURL, OwnerURL: s.DatabaseMigrateURL, Role: ledger.ServiceRole, Pooled: s.Pooled}
	if d.OwnerURL == "" || d.OwnerURL == d.URL {
		d.OwnerURL = d.URL
		return d, nil
	}
	config, err := ledger.ConnConfig(string(d.URL), "", false)
	if err != nil {
		return database{}, err
	}
	d.Member = config.User
	return d, nil
}

// embeddedDatabase is the one at the URL of an embedded Postgres; no pooler stands before it.
func embeddedDatabase(url string) database {
	return database{URL: Secret(url), OwnerURL: Secret(url), Role: ledger.ServiceRole, Embedded: true}
}

// openDatabase finds the database for a verb that is soon done: the one that DATABASE_URL names; the
// embedded one of the process that runs on this DATA_DIR; or one started for as long as the verb
// needs it. release must be called.
func openDatabase(ctx context.Context, a *app) (d database, release func(), err error) {
	s, err := a.settings()
	if err != nil {
		return database{}, nil, err
	}
	if s.DatabaseURL != "" {
		d, err = externalDatabase(s)
		return d, func() {}, err
	}
	log := a.logger(s)
	err = untilTurn(ctx, turnWait, func() error {
		e, found := embedded.ReadEndpoints(s.DataDir)
		if found == nil {
			d, release = embeddedDatabase(e.PostgresURL), func() {}
			return nil
		}
		if !errors.Is(found, embedded.ErrNoEndpoints) {
			return found
		}
		h, err := hold(ctx, s, s.DataDir, log)
		if err != nil {
			return err
		}
		d, release = h.database, func() {
			if err := h.release(); err != nil {
				log.Warn("the embedded Postgres did not end well", "error", err)
			}
		}
		return nil
	})
	return d, release, err
}

// untilTurn tries until the DATA_DIR is free, for a while.
func untilTurn(ctx context.Context, limit time.Duration, try func() error) error {
	begin := time.Now()
	tick := time.NewTicker(turnPoll)
	defer tick.Stop()
	for {
		err := try()
		if !errors.Is(err, embedded.ErrLocked) || time.Since(begin) > limit {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// holding is a DATA_DIR that this process holds, and the embedded Postgres in it, if there is one.
type holding struct {
	database
	dataDir  string
	lock     *embedded.DirLock
	postgres *embedded.Postgres
}

// holdDatabase takes the DATA_DIR for a process that stays, and finds its database: the one that
// DATABASE_URL names, or an embedded one, started here and made known to other verbs. It refuses a
// DATA_DIR that another process stays on.
func holdDatabase(ctx context.Context, a *app) (*holding, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	return holdDir(ctx, s, s.DataDir, a.logger(s))
}

func holdDir(ctx context.Context, s *Settings, dataDir string, log *slog.Logger) (h *holding, err error) {
	err = untilTurn(ctx, stayWait, func() error {
		if e, found := embedded.ReadEndpoints(dataDir); found == nil {
			return fmt.Errorf("DATA_DIR %s is in use by process %d; a second gateway needs a DATA_DIR of its own", dataDir, e.PID)
		}
		h, err = hold(ctx, s, dataDir, log)
		return err
	})
	if errors.Is(err, embedded.ErrLocked) {
		return nil, fmt.Errorf("DATA_DIR is taken: %w; a second gateway needs one of its own", err)
	}
	if err != nil {
		return nil, err
	}
	if err := h.publish(); err != nil {
		return nil, errors.Join(err, h.release())
	}
	return h, nil
}

// hold takes a DATA_DIR, and starts the embedded Postgres where there is no other.
func hold(ctx context.Context, s *Settings, dataDir string, log *slog.Logger) (*holding, error) {
	lock, err := embedded.Lock(dataDir)
	if err != nil {
		return nil, err
	}
	h := &holding{dataDir: dataDir, lock: lock}
	if s.DatabaseURL != "" {
		h.database, err = externalDatabase(s)
	} else {
		h.postgres, err = embedded.StartPostgres(ctx, embedded.Options{DataDir: dataDir, BinDir: s.EmbeddedBin, Log: log})
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	if h.postgres != nil {
		h.database = embeddedDatabase(h.postgres.URL())
	}
	return h, nil
}

// publish tells other verbs where the embedded Postgres is.
func (h *holding) publish() error {
	if h.postgres == nil {
		return nil
	}
	return embedded.WriteEndpoints(h.dataDir, embedded.Endpoints{PostgresURL: string(h.URL), PID: os.Getpid()})
}

// ended is closed when the embedded Postgres has ended; nil, which never is, without one.
func (h *holding) ended() <-chan struct{} {
	if h.postgres == nil {
		return nil
	}
	return h.postgres.Done()
}

// release stops the embedded Postgres and gives the DATA_DIR up.
func (h *holding) release() error {
	var stopped error
	if h.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopWait)
		defer cancel()
		stopped = h.postgres.Stop(ctx)
	}
	return errors.Join(stopped, h.lock.Unlock())
}

// databaseError says in one line why a database could not be used, and where it is; never with the
// password.
func databaseError(err error, at Secret) error {
	connect := new(pgconn.ConnectError)
	if err == nil || !errors.As(err, &connect) {
		return err
	}
	config, bad := ledger.ConnConfig(string(at), "", false)
	if bad != nil {
		return bad
	}
	where := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	if strings.HasPrefix(config.Host, "/") {
		where = config.Host // a socket
	}
	refused := new(pgconn.PgError)
	if errors.As(err, &refused) {
		return fmt.Errorf("the Postgres at %s refuses: %s (%s)", where, oneLine(refused.Message), refused.Code)
	}
	return fmt.Errorf("no Postgres can be reached at %s: %s", where, reason(err))
}

// reason is the innermost cause of a failed connection.
func reason(err error) string {
	failed, name := new(net.OpError), new(net.DNSError)
	switch {
	case errors.As(err, &name):
		return "the host name is unknown"
	case errors.As(err, &failed) && failed.Err != nil && !failed.Timeout():
		return oneLine(failed.Err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &failed):
		return "it does not answer"
	}
	return oneLine(err.Error())
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
