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
	Witness  TailWitness      // nil: a lost tail is seen only where this writer itself knew more
	// Tracer sees the statements of the connections that append, PoolTracer those of all others; nil = nobody.
	Tracer, PoolTracer pgx.QueryTracer
}

// Postgres is the ledger in Postgres. It is safe for concurrent use; Close ends it.
type Postgres struct {
	*Ledger
	*Reader
	appends *postgresStore
}

// ErrMismatch says that the database holds another ledger than the one configured.
var ErrMismatch = errors.New("ledger mismatch")

// Open connects to an initialised ledger and starts its lanes. It refuses (ErrMismatch) a number of
// shards or a currency other than what the ledger was initialised with. With a witness, it begins to
// check all shards and does not wait for that: Refused tells.
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
	s := &postgresStore{config: config, prelude: c.prelude(), pooled: c.Pooled, meta: reader.meta, now: c.Now,
		lanes: make([]*laneConn, lanes)}
	s.tails = newTailGuard(reader.meta, c.Witness, c.Hooks, s.connect)
	p := &Postgres{Ledger: start(s, c.Shards, lanes, c.Hooks), Reader: reader, appends: s}
	s.tails.begin()
	return p, nil
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
	config.Tracer = c.Tracer
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

// postgresStore implements store. lanes[i] is used by lane i only.
type postgresStore struct {
	config  *pgx.ConnConfig
	prelude []string
	pooled  bool
	meta    Meta
	now     func() time.Time
	tails   *tailGuard
	lanes   []*laneConn
	closing sync.Once
}

// laneConn is a connection that appends, and what is known of the server at its other end.
type laneConn struct {
	conn   *pgx.Conn
	asks   string         // selectServer
	server string         // and its answer
	since  time.Time      // when it was made
	fine   map[int32]bool // the shards that may be appended to by this connection
}

func (s *postgresStore) close() {
	s.closing.Do(func() {
		s.tails.close()
		for _, l := range s.lanes {
			l.drop()
		}
	})
}

func (l *laneConn) drop() {
	if l != nil {
		drop(l.conn)
	}
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
	if s.lanes[lane] == nil {
		l, err := s.connect(ctx)
		if err != nil {
			return nil, err
		}
		s.lanes[lane] = l
	}
	answers, err := s.guarded(ctx, s.lanes[lane], batch)
	if err != nil {
		s.lanes[lane].drop()
		s.lanes[lane] = nil
	}
	return answers, err
}

// connect makes a connection for appending. It may lead to another server than the one before: that
// must hold the same ledger. A standby is refused even before it refuses to write: it could be
// promoted with this connection open, after it was looked at and before it had all.
func (s *postgresStore) connect(ctx context.Context) (*laneConn, error) {
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return nil, fmt.Errorf("connecting to Postgres: %w", err)
	}
	l := &laneConn{conn: conn, asks: selectServer(s.pooled), fine: map[int32]bool{}}
	meta, err := readMeta(ctx, conn)
	if err == nil && meta != s.meta {
		err = fmt.Errorf("%w: the server now holds ledger %s, not %s", ErrMismatch, meta.ID, s.meta.ID)
	}
	standby := false
	if err == nil {
		err = conn.QueryRow(ctx, l.asks+`, pg_is_in_recovery()`).Scan(&l.server, &standby)
	}
	if standby {
		err = errors.New("the server is a standby: it takes no appends")
	}
	if err != nil {
		drop(conn)
		return nil, err
	}
	l.since = time.Now()
	return l, nil
}

// guarded appends what belongs to shards that may be appended to, and answers the rest with why not.
// Where a locked head is not what must have become of the last one seen, nothing is decided on it: the
// shard is looked at, and the rest begins again.
func (s *postgresStore) guarded(ctx context.Context, l *laneConn, batch []domain.Command) ([]answer, error) {
	for range maxLooks {
		w := want(batch, s.meta.Shards)
		refused, err := s.tails.admit(ctx, l, w.shards)
		if err != nil {
			return nil, err
		}
		answers, err := s.part(ctx, l, batch, w, refused)
		odd := new(oddHeads)
		if !errors.As(err, &odd) {
			return answers, err
		}
		s.tails.forget(l, odd.shards)
	}
	return nil, fmt.Errorf("the heads went back and forth under %d looks", maxLooks)
}

// part transacts a batch without the commands of refused shards.
func (s *postgresStore) part(ctx context.Context, l *laneConn, batch []domain.Command, w *wanted, refused map[int32]error) ([]answer, error) {
	if len(refused) == 0 {
		return s.transact(ctx, l, batch, w)
	}
	answers := make([]answer, len(batch))
	var taken []domain.Command
	var places []int
	for i, c := range batch {
		if err := refused[w.shardOf[c.Account]]; err != nil {
			answers[i].err = err
			continue
		}
		taken, places = append(taken, c), append(places, i)
	}
	if len(taken) == 0 {
		return answers, nil
	}
	got, err := s.transact(ctx, l, taken, want(taken, s.meta.Shards))
	if err != nil {
		return nil, err
	}
	for i, place := range places {
		answers[place] = got[i]
	}
	return answers, nil
}

func (s *postgresStore) transact(ctx context.Context, l *laneConn, batch []domain.Command, w *wanted) ([]answer, error) {
	state, err := s.lockAndLoad(ctx, l, w)
	if err != nil {
		return nil, err
	}
	if odd := s.tails.odd(state.heads); len(odd) > 0 {
		return nil, errors.Join(&oddHeads{odd}, rollBack(ctx, l.conn))
	}
	if err := s.loadRepeats(ctx, l.conn, state, w, batch); err != nil {
		return nil, err
	}
	p, err := decide(state, batch, w.shardOf, s.meta.Currency, s.now())
	if err != nil {
		return nil, err
	}
	if len(p.events) == 0 {
		s.tails.saw(state.heads)
		return p.answers, rollBack(ctx, l.conn)
	}
	if err := s.write(ctx, l.conn, p, state.heads); err != nil {
		return nil, err
	}
	if err := commit(ctx, l.conn); err != nil {
		return nil, err
	}
	s.tails.saw(p.heads)
	return p.answers, nil
}

// commit ends a dbtx. In a failed one COMMIT answers ROLLBACK, without an error.
func commit(ctx context.Context, conn *pgx.Conn) error {
	tag, err := conn.Exec(ctx, "commit")
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("commit was answered with %s", tag)
	}
	return err
}

func rollBack(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "rollback")
	return err
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
