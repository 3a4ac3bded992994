package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"llm-gateway/gateway"
)

// The bounds of the server. There is no WriteTimeout: it counts from a request's start and would cut
// long streams; the gateway bounds each write instead.
const (
	readHeaderTime = 10 * time.Second
	idleTime       = 2 * time.Minute
	maxHeader      = 64 << 10
	stopTime       = 15 * time.Second // how long requests that were told to end get for it
	greetingTTL    = 30 * 24 * time.Hour
	greetingUser   = "demo"
	// gcPercent lets the heap grow to five times what is live before it is collected. What is live is
	// a few megabytes, so Go's own 100 would collect many times a second for no memory worth having.
	// GOGC overrides it.
	gcPercent = 400
)

var serveVerb = verb{
	name: "serve", args: "[--port N] [--end-with-parent]", summary: "serve the API (the default)",
	about: `With no settings it starts an embedded Postgres, Kafka and Redis in ./data, prints a ready-to-paste
curl, and serves on port 8000. SIGHUP reads PRICE_BOOK, SELL_BOOK and UPSTREAMS again, and opens LOG_FILE anew. SIGTERM lets requests under way end.`,
	run: runServe,
}

func runServe(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	port := fs.Int("port", -1, "listen on this `port` instead of PORT")
	tied := fs.Bool("end-with-parent", false, "end when the process that started this one ends (Linux)")
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	if *port >= 0 {
		s.Port = *port
	}
	logs, err := a.serveLog(s)
	if err != nil {
		return err
	}
	if *tied {
		if err := endWithParent(ctx); err != nil {
			return err
		}
	}
	catalog, err := s.servable(a.sources)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
	if err != nil {
		return fmt.Errorf("cannot listen on %s port %d: %s", s.Host, s.Port, reason(err))
	}
	defer listener.Close() //nolint:errcheck // the server closes it first
	hold := holdBackend
	if !s.Billing {
		hold = func(context.Context, *app) (*holding, error) { return holdPlain(s) }
	}
	h, err := hold(ctx, a)
	if err != nil {
		return err
	}
	return errors.Join(serveOn(ctx, a, s, catalog, h, listener, logs), h.release())
}

// servable opens the catalog, and finds what would end the start later, before a database is made or
// migrated for nothing.
func (s *Settings) servable(src sources) (*catalogFile, error) {
	if s.JWTJWKSURL == "" && !s.Development() {
		if _, err := s.signingSecret(); err != nil {
			return nil, err
		}
	}
	return openCatalog(s, src)
}

// serving is a gateway that serves.
type serving struct {
	*parts
	settings *Settings
	prices   *priceRecorder // nil where nothing is billed
	server   *http.Server
	failed   chan error // has the server's end
	cancel   context.CancelFunc
}

// startServing wires a gateway, with its ledger made ready, and begins to serve.
func startServing(ctx context.Context, s *Settings, catalog *catalogFile, b backend, listener net.Listener, log *slog.Logger) (*serving, error) {
	meta, err := readyLedger(ctx, s, b.database)
	if err != nil {
		return nil, err
	}
	behind, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p, err := wire(behind, s, catalog, b, meta, log)
	if err != nil {
		cancel()
		return nil, err
	}
	prices := newPriceRecorder(p.ledger, log)
	if err := prices.begin(ctx, catalog.now()); err != nil {
		p.close()
		cancel()
		return nil, err
	}
	run := serveParts(s, p, cancel, listener, log)
	run.prices = prices
	return run, nil
}

// serveParts begins to serve what is wired.
func serveParts(s *Settings, p *parts, cancel context.CancelFunc, listener net.Listener, log *slog.Logger) *serving {
	server := &http.Server{Handler: p.gateway.Handler(), ReadHeaderTimeout: readHeaderTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, DisableGeneralOptionsHandler: true, // OPTIONS * is an unknown URL like any other
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	run := &serving{parts: p, settings: s, server: server, failed: make(chan error, 1), cancel: cancel}
	go func() { run.failed <- server.Serve(listener) }() // ends by stop
	return run
}

// stop ends it in order: it is no longer ready; requests end; what they left is settled and published.
func (r *serving) stop() {
	r.gateway.Leave()
	time.Sleep(r.settings.ShutdownDelay)
	r.endRequests()
	r.close()
	r.cancel()
}

// endRequests stops accepting and lets requests under way end. After SHUTDOWN_TIMEOUT they are told to: then
// they settle for what was delivered. Whoever has not read his answer by then is cut off.
func (r *serving) endRequests() {
	if shutDown(r.server, r.settings.ShutdownTimeout) == nil {
		return
	}
	r.gateway.Stop()
	if shutDown(r.server, stopTime) != nil {
		r.server.Close() //nolint:errcheck // the process ends
	}
}

func shutDown(server *http.Server, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return server.Shutdown(ctx)
}

// serveOn serves until ctx ends, the server fails, or an embedded part dies.
func serveOn(ctx context.Context, a *app, s *Settings, catalog *catalogFile, h *holding, listener net.Listener, log *logs) error {
	start := startServing
	if h.plain {
		start = servingPlain
	}
	running, err := start(ctx, s, catalog, h.backend, listener, log.Logger)
	if err != nil {
		return err
	}
	defer running.stop()
	running.metrics.LogFailures(log.failures)
	a.greet(s, h, listener.Addr())
	defer onHangup(catalog, running.prices, log)()
	select {
	case <-ctx.Done():
		log.Info("stopping: requests under way may end", "for_at_most", s.ShutdownDelay+s.ShutdownTimeout)
		return nil
	case err := <-running.failed:
		return err
	case <-h.ended():
		return h.cause
	}
}

// where says which servers the gateway works with.
func (h *holding) where() string {
	if h.plain {
		return "nothing is billed"
	}
	var own, named []string
	for _, part := range []struct {
		name, setting string
		embedded      bool
	}{{"Postgres", "DATABASE_URL", h.postgres != nil}, {"Kafka", "KAFKA_BROKERS", h.kafka != nil}, {"Redis", "REDIS_URL", h.cache != nil}} {
		if part.embedded {
			own = append(own, part.name)
		} else {
			named = append(named, part.name+" at "+part.setting)
		}
	}
	if len(own) > 0 {
		named = append(named, "embedded "+strings.Join(own, ", ")+" in "+h.dataDir)
	}
	return strings.Join(named, ", ")
}

// greet says where the gateway is; in development, with a request to paste.
func (a *app) greet(s *Settings, h *holding, addr net.Addr) {
	base := "http://localhost:" + strconv.Itoa(addr.(*net.TCPAddr).Port)
	where := h.where()
	ready := fmt.Sprintf("LLM Gateway %s is ready on %s (%s, %s)", s.version(), base, s.Environment, where)
	if !s.Development() && a.log != nil { // a line of the log, at whatever level: stdout may be read by a machine
		a.log.Handler().Handle(context.Background(), slog.NewRecord(time.Now(), slog.LevelInfo, ready, 0)) //nolint:errcheck // there is nowhere left to say it
		if a.log.file == nil {
			return
		}
	}
	fmt.Fprintln(a.stdout, ready)
	if !s.Development() {
		return
	}
	token, _, err := a.sign(s, greetingUser, gateway.RoleUser, greetingTTL)
	if err != nil {
		return
	}
	model := "gpt-4o-mini"
	if s.Simulated {
		model = "sim-small"
	}
	fmt.Fprintf(a.stdout, `
Try it (a token of the account %q, valid for 30 days, in development only):

curl %s/v1/chat/completions \
  -H "Authorization: Bearer %s" \
  -H "Content-Type: application/json" \
  -d '{"model": %q, "messages": [{"role": "user", "content": "Hello!"}]}'

`, greetingUser, base, token, model)
}
