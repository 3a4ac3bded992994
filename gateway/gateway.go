// Package gateway is the HTTP edge: it speaks the OpenAI API to applications, takes every model
// call through the meter (meter.go, the page to read first), and answers questions about money.
//
// The problem: what reaches a provider costs money, and what reaches a client cannot be taken back.
// So nothing is sent upstream before its cost is reserved, and no answer ends before its charge is
// durable.
//
// Invariants:
//   - What is priced is what is sent: one parse, no duplicate keys, no unknown spelling of a field
//     that costs.
//   - A hold is settled or released exactly once, whatever happens to the request.
//   - Errors are one type (Error), rendered in one place; they never hold credentials or prompts.
//   - Money is decided by the ledger. What is projected may refuse a call early, once the ledger's own
//     head agrees; it lets one pass only while the ledger is away and the operator chose so (spool.go).
//   - The package knows no database: it declares the small interfaces that it needs (Ledger, Facts,
//     Projections, Balances, Journal, Spool, Keys, Overrides, limit.Shared), and cmd hands them in.
//
// Tests: tables of hostile requests against the whole handler over ledger.Memory; the flow under
// faults of the simulated provider; recorded traffic of the real providers; fuzzing of the parser;
// the same calls with a lying cache of balances and without one, whose outcomes must be the same; every
// store failing at its n-th call, and every way for a ledger not to answer.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/observe/trace"
)

// ReservePolicy says what happens where a client named no maximum and the balance does not afford
// the model's.
type ReservePolicy string

// ReserveCap sends the request with the maximum that the balance affords; ReserveRefuse answers 402.
const (
	ReserveCap    ReservePolicy = "cap"
	ReserveRefuse ReservePolicy = "refuse"
)

// Facts answers from the ledger itself, as committed: the authority. Accounts that are not open are
// nil; requests of other accounts have no events; events come in order.
type Facts interface {
	Account(ctx context.Context, name string) (*domain.Account, error)
	Request(ctx context.Context, account string, id uuid.UUID) ([]domain.Recorded, error)
	// Witnessed is Request with what stood before each event: the hash, and the account's balances.
	Witnessed(ctx context.Context, account string, id uuid.UUID) ([]domain.Witnessed, error)
	// BalanceAt is an account's balances at a past moment, from all its events up to then.
	BalanceAt(ctx context.Context, account string, at time.Time) (domain.Past, error)
	// Response is the answer that was kept of an account's request; nil where none was.
	Response(ctx context.Context, account string, id uuid.UUID) (*domain.Response, error)
	Statements
}

// Projections answers from what consumers made of the events, and says how current that is. Each
// method first waits, about a second and no longer, until the projection has reached atLeast. The zero
// Position, one of another shard than the account's, and one that the ledger does not have are not
// waited for.
type Projections interface {
	// Balance is the account's; nil where the projection has not seen the account yet. The reading's
	// position names the account's shard even then.
	Balance(ctx context.Context, account string, atLeast domain.Position) (*domain.Account, domain.Reading, error)
	// Transactions are the account's, newest first.
	Transactions(ctx context.Context, account string, limit, offset int, atLeast domain.Position) ([]domain.Transaction, domain.Reading, error)
	// Stats has a row for each group that consumed anything: hours and days in their order, models and
	// providers by amount, the dearest first.
	Stats(ctx context.Context, account string, q domain.StatsQuery, atLeast domain.Position) ([]domain.StatsRow, domain.Reading, error)
	// Margins is the consumption of one account or of all, for those who sell. It waits for nothing.
	Margins(ctx context.Context, q domain.MarginQuery) (domain.Margins, error)
}

// Config is what cmd hands in. All fields are needed unless they say otherwise.
type Config struct {
	Ledger         Ledger
	Facts          Facts
	Projections    Projections
	Balances       Balances // nil = no cache: Postgres alone decides
	Journal        Journal  // nil = none: only the ledger makes settlements durable
	Spool          Spool    // with a Journal: calls go on while the ledger is away; nil = they are denied
	Keys           Keys
	Belongings     Belongings // nil = nobody knows whose a provider's ids are
	SharedIDs      bool       // SHARED_PROVIDER_IDS=allow: whatever they are, every account may name them
	Tokens         *Tokens
	Edge           Edge
	Catalog        func() *Catalog // what can be called now
	Retry          Retry           // the zero value: a failed call is not made again
	Resilience     Resilience      // the zero value: no circuits, and no budget of retries
	Caching        Caching         // the zero value: no answer is kept for others who ask the same
	Owner          uuid.UUID       // this process start
	Owned          func() bool     // whether its lease is held now; nil = always
	Currency       string
	DefaultBalance domain.Amount
	ReservePolicy  ReservePolicy
	ModelsArray    bool                               // MODELS_FORMAT=array
	Ready          func(ctx context.Context) error    // nil = ready to serve
	Degraded       func(ctx context.Context) []string // what is away that a ready gateway can do without; nil = nothing
	Health         Health                             // nil = nothing is checked
	HealthPublic   bool                               // HEALTH_DETAILS=public
	Traffic        *health.Traffic                    // is told how the providers' calls went; nil = nobody is
	Unbilled       bool                               // BILLING_ENABLED=false: the Ledger is an Unbilled one, and every answer says so
	Version        string
	Environment    string
	Metrics        *observe.Metrics
	Tracer         trace.Tracer // nil = nobody follows requests
	NoMetrics      bool         // they are counted, and there is no GET /metrics
	Log            *slog.Logger
	Now            func() time.Time // nil = time.Now
	Limits         RateLimits       // the zero value: none
	InFlight       InFlight         // the zero value: no bounds
}

// Gateway serves the API. Make it with New, serve its Handler, end it with Close.
type Gateway struct {
	ledger         Ledger
	facts          Facts
	projections    Projections
	keys           *keyCache
	belongings     Belongings
	sharedIDs      bool
	tokens         *Tokens
	edge           *edge
	catalog        func() *Catalog
	retry          Retry
	circuits       *circuits
	responses      *keptAnswers
	owner          uuid.UUID
	owned          func() bool
	journal        Journal
	spool          Spool
	currency       string
	defaultBalance domain.Amount
	reservePolicy  ReservePolicy
	modelsArray    bool
	ready          func(ctx context.Context) error
	degraded       func(ctx context.Context) []string
	checks         Health
	healthPublic   bool
	traffic        *health.Traffic
	unbilled       bool
	version        string
	environment    string
	metrics        *observe.Metrics
	tracer         trace.Tracer // nil = none
	scrape         http.Handler // nil = there is none
	log            *slog.Logger
	now            func() time.Time

	accounts   *openAccounts
	positions  *positions
	outage     *outage
	statements chan struct{} // holds one for each statement that is being made
	gate       *gate         // nil = none
	limits     RateLimits
	overrides  *overrideCache // nil = none
	bodies     *bodies
	slots      *slots
	spoolAfter atomic.Int64 // nothing is spooled before, in Unix nanoseconds
	engine     *gin.Engine
	tasks      sync.WaitGroup // requests under way, and what background started

	leaving  atomic.Bool     // no longer ready
	stopping context.Context // ends when calls under way cannot be waited for
	stop     context.CancelFunc
}

// New wires a gateway. It starts nothing.
func New(c Config) (*Gateway, error) {
	if c.Ledger == nil || c.Facts == nil || c.Projections == nil || c.Keys == nil || c.Tokens == nil || c.Catalog == nil || c.Metrics == nil ||
		c.Log == nil || c.Owner == uuid.Nil {
		return nil, errors.New("gateway: the configuration is incomplete")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	if c.Degraded == nil {
		c.Degraded = func(context.Context) []string { return nil }
	}
	if c.Traffic == nil {
		c.Traffic = health.NewTraffic(c.Now)
	}
	if c.Owned == nil {
		c.Owned = func() bool { return true }
	}
	edge, err := newEdge(c.Edge)
	if err != nil {
		return nil, err
	}
	stopping, stop := context.WithCancel(context.Background())
	g := &Gateway{
		edge:  edge,
		owned: c.Owned, journal: c.Journal, spool: c.Spool, stopping: stopping, stop: stop,
		ledger: c.Ledger, facts: c.Facts, projections: c.Projections, keys: newKeyCache(c.Keys, c.Now), belongings: c.Belongings, sharedIDs: c.SharedIDs, tokens: c.Tokens, catalog: c.Catalog, retry: c.Retry,
		circuits:  newCircuits(c.Resilience, c.Now, c.Metrics, c.Traffic, c.Log),
		responses: &keptAnswers{Caching: c.Caching, now: c.Now, metrics: c.Metrics},
		owner:     c.Owner, currency: c.Currency,
		defaultBalance: c.DefaultBalance, reservePolicy: c.ReservePolicy, modelsArray: c.ModelsArray, ready: c.Ready, degraded: c.Degraded,
		checks: c.Health, healthPublic: c.HealthPublic, traffic: c.Traffic, unbilled: c.Unbilled,
		version: c.Version, environment: c.Environment, metrics: c.Metrics, tracer: c.Tracer, log: c.Log, now: c.Now,
		accounts: newOpenAccounts(), positions: newPositions(), outage: &outage{log: c.Log},
		statements: make(chan struct{}, statementsAtOnce),
		limits:     c.Limits, bodies: newBodies(maxBodies, c.Metrics), slots: newSlots(c.InFlight, c.Metrics),
	}
	if c.Limits.Overrides != nil {
		g.overrides = newOverrideCache(c.Limits.Overrides, c.Now)
	}
	if c.Balances != nil {
		g.gate = newGate(c.Balances, c.Facts, c.Now)
	}
	g.watch(c.NoMetrics)
	g.engine = g.newEngine(c.Edge.Proxies)
	return g, nil
}

// Handler serves the API.
func (g *Gateway) Handler() http.Handler { return g.engine }

// Leave makes the gateway unready, so that no more requests are sent to it. It still serves those that
// come.
func (g *Gateway) Leave() { g.leaving.Store(true) }

// Stop cancels all calls of providers: what was delivered is settled, all else given back.
func (g *Gateway) Stop() { g.stop() }

// Close waits for requests that are still settling, and for what was left to be done behind clients'
// backs; each of them is bounded by journalAfter, journalTime and settleTime. The server must have stopped
// before.
func (g *Gateway) Close() { g.tasks.Wait() }

// background runs a bounded task that no client waits for.
func (g *Gateway) background(task func()) { g.tasks.Go(task) }
