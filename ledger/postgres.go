package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"llm-gateway/domain"
)

// The bounds of the Postgres store.
const (
	DefaultLanes = 2 // connections that append; more of them make smaller batches
	connectTime  = 3 * time.Second
	keepAlive    = 5 * time.Second
)

// session is set on every connection that appends, so that a writer that freezes holds up the
// others for seconds at most. The planner settings pin index look-ups: a plan that was made while
// the tables were empty would otherwise scan them until the next analyze.
var session = map[string]string{
	"statement_timeout":                   "5000",
	"lock_timeout":                        "3000",
	"idle_in_transaction_session_timeout": "5000",
	"synchronous_commit":                  "on",
	"tcp_keepalives_idle":                 "5",
	"enable_seqscan":                      "off",
	"enable_hashjoin":                     "off",
	"enable_mergejoin":                    "off",
	"jit":                                 "off", // what is forbidden above costs 1e10 where it is used all the same
}

// Config says where the ledger is and what it must be.
type Config struct {
	URL      string // a Postgres connection string
	Role     string // the role to work as; "" = the login's own
	Pooled   bool   // a transaction pooler stands in between (PG_POOLER=transaction)
	Shards   int    // LEDGER_SHARDS
	Currency string
	Lanes    int // 0 = DefaultLanes
	Hooks    Hooks
	Now      func() time.Time // nil = time.Now
}

// Postgres is the ledger in Postgres. It is safe for concurrent use; Close ends it.
type Postgres struct {
	*Ledger
	*Reader
}

// ErrMismatch says that the database holds another ledger than the one configured.
var ErrMismatch = errors.New("ledger mismatch")

// Open connects to an initialised ledger and starts its lanes. It refuses (ErrMismatch) a number of
// shards or a currency other than what the ledger was initialised with.
func Open(ctx context.Context, c Config) (*Postgres, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	reader, err := OpenReader(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := reader.meta.Check(c.Shards, c.Currency); err != nil {
		reader.Close()
		return nil, err
	}
	config, err := c.connConfig()
	if err != nil {
		reader.Close()
		return nil, err
	}
	lanes := c.Lanes
	if lanes <= 0 {
		lanes = DefaultLanes
	}
	lanes = min(lanes, c.Shards)
	s := &postgresStore{config: config, prelude: c.prelude(), meta: reader.meta, now: c.Now, conns: make([]*pgx.Conn, lanes)}
	return &Postgres{Ledger: start(s, c.Shards, lanes, c.Hooks), Reader: reader}, nil
}

// Close lets what has queued become durable and closes all connections.
func (p *Postgres) Close() {
	p.Ledger.Close()
	p.Reader.Close()
}

// connConfig is a connection's configuration for appending.
func (c Config) connConfig() (*pgx.ConnConfig, error) {
	config, err := ConnConfig(c.URL, c.Role, c.Pooled)
	if err != nil {
		return nil, err
	}
	if !c.Pooled { // a pooler refuses start-up parameters; prelude sets them in each dbtx
		maps.Copy(config.RuntimeParams, session)
	}
	return config, nil
}

// prelude is what begins each dbtx.
func (c Config) prelude() []string {
	sql := []string{"begin isolation level read committed"}
	if !c.Pooled {
		return sql
	}
	for name, value := range session {
		if name != "tcp_keepalives_idle" {
			sql = append(sql, fmt.Sprintf("set local %s = '%s'", name, value))
		}
	}
	if c.Role != "" {
		sql = append(sql, "set local role "+pgx.Identifier{c.Role}.Sanitize())
	}
	return sql
}

// ConnConfig parses a connection string for this program: role is worked as from the start, and
// behind a transaction pooler nothing is kept on the server between transactions.
func ConnConfig(url, role string, pooled bool) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the Postgres URL cannot be used: %w", hidePassword(err))
	}
	config.ConnectTimeout = connectTime
	config.DialFunc = (&net.Dialer{KeepAlive: keepAlive, Timeout: connectTime}).DialContext
	config.RuntimeParams["application_name"] = "llm-gateway"
	config.RuntimeParams["timezone"] = "UTC"
	if pooled {
		delete(config.RuntimeParams, "timezone")
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
		config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	} else if role != "" {
		config.RuntimeParams["role"] = role
	}
	return config, nil
}

// hidePassword keeps a connection string out of messages: parse errors quote it.
func hidePassword(err error) error {
	if parse := new(pgconn.ParseConfigError); errors.As(err, &parse) {
		return errors.New("it must look like postgres://user:password@host:port/database?options")
	}
	return err
}

// postgresStore implements store. Each lane owns one connection; conns[i] is used by lane i only.
type postgresStore struct {
	config  *pgx.ConnConfig
	prelude []string
	meta    Meta
	now     func() time.Time
	conns   []*pgx.Conn
	closing sync.Once
}

func (s *postgresStore) close() {
	s.closing.Do(func() {
		for _, conn := range s.conns {
			drop(conn)
		}
	})
}

// drop closes a connection without waiting for long; its dbtx, if any, is rolled back.
func drop(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn.Close(ctx) //nolint:errcheck // nothing depends on how it ends
}

// append implements store: one batch is one dbtx. After any error the connection is dropped: what
// state it is in is not worth knowing, and the dbtx ends with it.
func (s *postgresStore) append(ctx context.Context, lane int, batch []domain.Command) ([]answer, error) {
	conn, err := s.connection(ctx, lane)
	if err != nil {
		return nil, err
	}
	answers, err := s.transact(ctx, conn, batch)
	if err != nil {
		drop(conn)
		s.conns[lane] = nil
	}
	return answers, err
}

// connection returns the lane's connection, made anew where there is none. A new one may lead to
// another server than before: it must hold the same ledger.
func (s *postgresStore) connection(ctx context.Context, lane int) (*pgx.Conn, error) {
	if s.conns[lane] != nil {
		return s.conns[lane], nil
	}
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return nil, fmt.Errorf("connecting to Postgres: %w", err)
	}
	meta, err := readMeta(ctx, conn)
	if err == nil && meta != s.meta {
		err = fmt.Errorf("%w: the server now holds ledger %s, not %s", ErrMismatch, meta.ID, s.meta.ID)
	}
	if err != nil {
		drop(conn)
		return nil, err
	}
	s.conns[lane] = conn
	return conn, nil
}

func (s *postgresStore) transact(ctx context.Context, conn *pgx.Conn, batch []domain.Command) ([]answer, error) {
	w := want(batch, s.meta.Shards)
	state, err := s.lockAndLoad(ctx, conn, w)
	if err == nil {
		err = s.loadRepeats(ctx, conn, state, w, batch)
	}
	if err != nil {
		return nil, err
	}
	p, err := decide(state, batch, w.shardOf, s.meta.Currency, s.now())
	if err != nil {
		return nil, err
	}
	if len(p.events) == 0 {
		_, err := conn.Exec(ctx, "rollback")
		return p.answers, err
	}
	if err := s.write(ctx, conn, p, state.heads); err != nil {
		return nil, err
	}
	tag, err := conn.Exec(ctx, "commit")
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("commit was answered with %s", tag)
	}
	return p.answers, err
}

// errCount marks a statement that did not report the rows that it had to.
var errCount = errors.New("unexpected row count")

// guilty says whether an error was caused by what was asked, not by how the server is: data
// exceptions (22), violated constraints (23), a row count that does not add up, tables that
// contradict the events. Trying again would not help; leaving the guilty command out would.
func (s *postgresStore) guilty(err error) bool {
	if errors.Is(err, errCount) || errors.Is(err, domain.ErrImpossible) || errors.Is(err, domain.ErrEvent) {
		return true
	}
	pg := new(pgconn.PgError)
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23"))
}

// pgUUID is an id as a parameter. Behind a pooler the driver does not ask the server for the types
// of parameters: their Go types must tell, and those of arrays of bytes do not.
func pgUUID(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }
