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
	stopWait = 20 * time.Second       // how long the embedded parts get to stop
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

// streams says where Kafka and Redis are.
type streams struct {
	brokers []string // none: there is no Kafka to be had
	redis   Secret   // "": no Redis
}

// backend is the servers that a process works with.
type backend struct {
	database
	streams
}

// externalStreams are those that the settings name.
func externalStreams(s *Settings) streams { return streams{s.KafkaBrokers, s.RedisURL} }

// needs says which servers a process wants; Postgres always.
type needs struct{ kafka, redis bool }

// external says whether the settings name all that is wanted.
func (n needs) external(s *Settings) bool {
	return s.DatabaseURL != "" && (!n.kafka || len(s.KafkaBrokers) > 0) && (!n.redis || s.RedisURL != "")
}

// openBackend finds the servers for a verb that is soon done: those that the settings name; the
// embedded ones of the process that runs on this DATA_DIR; or some started for as long as the verb
// needs them. Where Postgres is external and nobody ever had an embedded Kafka in this DATA_DIR, there
// is none; and there is no Redis but that of a process that stays, since it begins empty. release must
// be called.
func openBackend(ctx context.Context, a *app, n needs) (b backend, release func(), err error) {
	s, err := a.settings()
	if err != nil {
		return backend{}, nil, err
	}
	if n.external(s) {
		b, err = externalBackend(s)
		return b, func() {}, err
	}
	log := a.logger(s)
	err = untilTurn(ctx, turnWait, func() error {
		e, found := embedded.ReadEndpoints(s.DataDir)
		if found == nil {
			b, err = runningBackend(s, n, e)
			release = func() {}
			return err
		}
		if !errors.Is(found, embedded.ErrNoEndpoints) {
			return found
		}
		started := needs{kafka: n.kafka && len(s.KafkaBrokers) == 0}
		if s.DatabaseURL != "" && (!started.kafka || !embedded.HasKafka(s.DataDir)) {
			b, err = externalBackend(s)
			release = func() {}
			return err
		}
		h, err := hold(ctx, s, s.DataDir, started, log)
		if err != nil {
			return err
		}
		b, release = h.backend, func() {
			if err := h.release(); err != nil {
				log.Warn("an embedded part did not end well", "error", err)
			}
		}
		return nil
	})
	return b, release, err
}

// externalBackend is what the settings name, and nothing else.
func externalBackend(s *Settings) (backend, error) {
	d, err := externalDatabase(s)
	return backend{d, externalStreams(s)}, err
}

// runningBackend is what the settings name, and for the rest the embedded parts of a running process.
func runningBackend(s *Settings, n needs, e embedded.Endpoints) (backend, error) {
	b := backend{embeddedDatabase(e.PostgresURL), externalStreams(s)}
	if len(b.brokers) == 0 {
		b.brokers = e.KafkaBrokers
	}
	if b.redis == "" {
		b.redis = Secret(e.RedisURL)
	}
	var err error
	switch {
	case s.DatabaseURL != "":
		b.database, err = externalDatabase(s)
	case e.PostgresURL == "":
		err = notTheSame("DATABASE_URL", s, e)
	}
	if err == nil && n.kafka && len(b.brokers) == 0 {
		err = notTheSame("KAFKA_BROKERS", s, e)
	}
	return b, err
}

// notTheSame says that the process on the DATA_DIR works with a server that this one has not been told
// of. To work without it, or with another one, would be to work on another ledger.
func notTheSame(setting string, s *Settings, e embedded.Endpoints) error {
	return fmt.Errorf("%s is not set, but process %d on DATA_DIR %s does not run an embedded one: this verb needs the settings that it has", setting, e.PID, s.DataDir)
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

// holding is a DATA_DIR that this process holds, and the embedded parts in it.
type holding struct {
	backend
	dataDir  string
	plain    bool // nothing is billed, and nothing was started
	lock     *embedded.DirLock
	postgres *embedded.Postgres // nil where it is external, and so below
	kafka    *embedded.Kafka
	cache    *embedded.Redis
	over     chan struct{} // closed when an embedded part ended by itself
	cause    error         // which one; to be read after over
	stopped  chan struct{} // closed by release
}

// holdBackend takes the DATA_DIR for a process that stays, and finds its servers: those that the
// settings name, or embedded ones, started here and made known to other verbs. It refuses a DATA_DIR
// that another process stays on.
func holdBackend(ctx context.Context, a *app) (*holding, error) {
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
		h, err = hold(ctx, s, dataDir, needs{kafka: true, redis: true}, log)
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

// hold takes a DATA_DIR, and starts the embedded parts of what is needed and not external.
func hold(ctx context.Context, s *Settings, dataDir string, n needs, log *slog.Logger) (*holding, error) {
	lock, err := embedded.Lock(dataDir)
	if err != nil {
		return nil, err
	}
	h := &holding{dataDir: dataDir, lock: lock, over: make(chan struct{}), stopped: make(chan struct{})}
	h.streams = externalStreams(s)
	if err := h.start(ctx, s, n, embedded.Options{DataDir: dataDir, BinDir: s.EmbeddedBin, Log: log}); err != nil {
		return nil, errors.Join(err, h.release())
	}
	go h.watch()
	return h, nil
}

// start starts the embedded parts; those that are fast first, so that Postgres is not begun for nothing.
func (h *holding) start(ctx context.Context, s *Settings, n needs, o embedded.Options) (err error) {
	if n.kafka && len(h.brokers) == 0 {
		if h.kafka, err = embedded.StartKafka(ctx, o); err != nil {
			return err
		}
		h.brokers = h.kafka.Brokers()
	}
	if n.redis && h.redis == "" {
		if h.cache, err = embedded.StartRedis(); err != nil {
			return err
		}
		h.redis = Secret(h.cache.URL())
	}
	if s.DatabaseURL != "" {
		h.database, err = externalDatabase(s)
		return err
	}
	if h.postgres, err = embedded.StartPostgres(ctx, o); err != nil {
		return err
	}
	h.database = embeddedDatabase(h.postgres.URL())
	return nil
}

// watch closes over when Postgres or Kafka has ended, until release. A channel that is nil never is.
func (h *holding) watch() {
	var postgres, kafka <-chan struct{}
	if h.postgres != nil {
		postgres = h.postgres.Done()
	}
	if h.kafka != nil {
		kafka = h.kafka.Done()
	}
	select {
	case <-h.stopped:
		return
	case <-postgres:
		h.cause = errors.New("the embedded Postgres has ended; DATA_DIR/postgres.log may say why")
	case <-kafka:
		h.cause = errors.New("the embedded Kafka cannot write to DATA_DIR any more; the log says why")
	}
	close(h.over)
}

// publish tells other verbs where the embedded parts are.
func (h *holding) publish() error {
	e := embedded.Endpoints{PID: os.Getpid()}
	if h.postgres != nil {
		e.PostgresURL = string(h.URL)
	}
	if h.kafka != nil {
		e.KafkaBrokers = h.brokers
	}
	if h.cache != nil {
		e.RedisURL = string(h.redis)
	}
	return embedded.WriteEndpoints(h.dataDir, e)
}

// ended is closed when an embedded part has ended by itself; cause is which one.
func (h *holding) ended() <-chan struct{} { return h.over }

// release stops the embedded parts, the ledger's Postgres before what is made from it, and gives the
// DATA_DIR up.
func (h *holding) release() error {
	close(h.stopped)
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	var stopped []error
	if h.postgres != nil {
		stopped = append(stopped, h.postgres.Stop(ctx))
	}
	if h.kafka != nil {
		stopped = append(stopped, h.kafka.Stop(ctx))
	}
	if h.cache != nil {
		h.cache.Stop()
	}
	return errors.Join(append(stopped, h.lock.Unlock())...)
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
	var waited net.Error
	switch {
	case errors.As(err, &name):
		return "the host name is unknown"
	case errors.As(err, &failed) && failed.Err != nil && !failed.Timeout():
		return oneLine(failed.Err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &failed), errors.As(err, &waited) && waited.Timeout():
		return "it does not answer"
	}
	return oneLine(err.Error())
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
