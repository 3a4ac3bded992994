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
//   - The package knows no database: it declares the small interfaces that it needs (Ledger, Reader,
//     Keys), and cmd hands them in.
//
// Tests: tables of hostile requests against the whole handler over ledger.Memory; the flow under
// faults of the simulated provider; recorded traffic of the real providers; fuzzing of the parser.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/gateway/observe"
	"llm-gateway/gateway/provider"
)

// ReservePolicy says what happens where a client named no maximum and the balance does not afford
// the model's.
type ReservePolicy string

// ReserveCap sends the request with the maximum that the balance affords; ReserveRefuse answers 402.
const (
	ReserveCap    ReservePolicy = "cap"
	ReserveRefuse ReservePolicy = "refuse"
)

// Reader answers questions from what has been committed. Accounts that are not open are nil, requests
// of other accounts have no events; events come in order, transactions newest first.
type Reader interface {
	Account(ctx context.Context, name string) (*domain.Account, error)
	Request(ctx context.Context, account string, id uuid.UUID) ([]domain.Recorded, error)
	Transactions(ctx context.Context, account string, limit, offset int) ([]domain.Recorded, error)
}

// Config is what cmd hands in. All fields are needed unless they say otherwise.
type Config struct {
	Ledger         Ledger
	Reader         Reader
	Keys           Keys
	Tokens         *Tokens
	Prices         func() *domain.PriceBook // the book in force now
	Providers      map[string]provider.Provider
	Missing        map[string]string // by provider: what to set so that it can be called; may be nil
	Owner          uuid.UUID         // this process start
	Currency       string
	DefaultBalance domain.Amount
	ReservePolicy  ReservePolicy
	ModelsArray    bool                            // MODELS_FORMAT=array
	Ready          func(ctx context.Context) error // nil = ready to serve
	Version        string
	Environment    string
	Metrics        *observe.Metrics
	Log            *slog.Logger
	Now            func() time.Time // nil = time.Now
}

// Gateway serves the API. Make it with New, serve its Handler, end it with Close.
type Gateway struct {
	ledger         Ledger
	reader         Reader
	keys           *keyCache
	tokens         *Tokens
	prices         func() *domain.PriceBook
	providers      map[string]provider.Provider
	missing        map[string]string
	owner          uuid.UUID
	currency       string
	defaultBalance domain.Amount
	reservePolicy  ReservePolicy
	modelsArray    bool
	ready          func(ctx context.Context) error
	version        string
	environment    string
	metrics        *observe.Metrics
	log            *slog.Logger
	now            func() time.Time

	accounts *openAccounts
	engine   *gin.Engine
	tasks    sync.WaitGroup // requests under way, and what background started
}

// New wires a gateway. It starts nothing.
func New(c Config) (*Gateway, error) {
	if c.Ledger == nil || c.Reader == nil || c.Keys == nil || c.Tokens == nil || c.Prices == nil || c.Metrics == nil ||
		c.Log == nil || c.Owner == uuid.Nil {
		return nil, errors.New("gateway: the configuration is incomplete")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	g := &Gateway{
		ledger: c.Ledger, reader: c.Reader, keys: newKeyCache(c.Keys, c.Now), tokens: c.Tokens, prices: c.Prices,
		providers: c.Providers, missing: c.Missing, owner: c.Owner, currency: c.Currency,
		defaultBalance: c.DefaultBalance, reservePolicy: c.ReservePolicy, modelsArray: c.ModelsArray, ready: c.Ready,
		version: c.Version, environment: c.Environment, metrics: c.Metrics, log: c.Log, now: c.Now,
		accounts: newOpenAccounts(),
	}
	g.engine = g.newEngine()
	return g, nil
}

// Handler serves the API.
func (g *Gateway) Handler() http.Handler { return g.engine }

// Close waits for requests that are still settling, and for what was left to be done behind clients'
// backs; each of them is bounded by settleTime. The server must have stopped before.
func (g *Gateway) Close() { g.tasks.Wait() }

// background runs a bounded task that no client waits for.
func (g *Gateway) background(task func()) { g.tasks.Go(task) }
