package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"

	"llm-gateway/cmd/llm-gateway/upstreams"
	"llm-gateway/gateway/health"
	"llm-gateway/gateway/observe"
	"llm-gateway/projections"
)

// The bounds beyond which a component that works counts as degraded.
const (
	slowPostgres = 500 * time.Millisecond
	slowRedis    = 100 * time.Millisecond
	slowKafka    = time.Second
	manyBehind   = 10_000           // events of the ledger that a follower has not
	oldSight     = time.Minute      // what a relay said of itself before is no news
	sweepTrouble = 10 * time.Second // how long a failed round of the sweeper is told of
	diskLow      = 1 << 30          // bytes that are free where DATA_DIR is
)

// sights is what the followers said of themselves last, by their hooks. It is safe for concurrent use.
type sights struct {
	mu     sync.Mutex
	relay  map[int32]sighted // by shard
	swept  time.Time         // when the sweeper last failed
	halted map[string]error  // by projection: what stands still there
}

type sighted struct {
	lag int64
	at  time.Time
}

func newSights() *sights { return &sights{relay: map[int32]sighted{}, halted: map[string]error{}} }

func (s *sights) relayLag(shard int32, events int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relay[shard] = sighted{events, time.Now()}
}

func (s *sights) sweepFailed(error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swept = time.Now()
}

func (s *sights) projectionHalted(projection string, shard int32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := projection + "/" + strconv.Itoa(int(shard))
	if err == nil {
		delete(s.halted, key)
	} else {
		s.halted[key] = err
	}
}

// haltedOf counts the shards that a projection stands still in.
func (s *sights) haltedOf(projection string, shards int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for shard := range shards {
		if s.halted[projection+"/"+strconv.Itoa(shard)] != nil {
			n++
		}
	}
	return n
}

// startHealth begins to check everything that the gateway works with.
func (p *parts) startHealth(ctx context.Context, s *Settings, catalog *catalogFile, log *slog.Logger) {
	checks := []health.Check{
		{Name: "postgres", Needed: s.Degraded != degradedSpool, Run: p.checkPostgres},
		{Name: "ledger", Needed: true, Run: p.checkShards},
		{Name: "clock", Needed: true, Run: p.checkClock},
		{Name: "lease", Needed: s.Degraded != degradedSpool, Run: p.checkLease},
		{Name: "sweeper", Run: p.checkSweeper},
		{Name: "journal", Run: p.checkJournal},
		{Name: "redis", Run: p.checkRedis},
		{Name: "kafka", Run: p.checkKafka},
		{Name: "relay", Run: p.checkRelay},
		{Name: "disk", Run: checkDisk(s.DataDir)},
	}
	status := &statusOnce{read: projections.NewReader(p.ledger.Pool(), p.ledger.Meta()).Status}
	for _, name := range projections.Names() {
		checks = append(checks, health.Check{Name: "projection " + name, Run: p.checkProjection(status, name)})
	}
	p.startChecker(ctx, s, catalog, checks, log)
}

// startChecker checks components and providers at the interval, and tells the log and the metrics.
func (p *parts) startChecker(ctx context.Context, s *Settings, catalog *catalogFile, checks []health.Check, log *slog.Logger) {
	var probe *health.Probe
	if s.HealthProbes {
		probe = health.NewProbe((&providerProbes{catalog: catalog}).ask, nil)
	}
	sampler := health.NewSampler(s.DataDir)
	p.health = health.Start(ctx, health.Config{Every: s.HealthEvery, Checks: checks, Providers: func() (out []health.Check) {
		for name := range catalog.now().Providers {
			out = append(out, health.Provider(name, p.traffic, probe, p.circuits))
		}
		return out
	}, System: sampler.Sample, Changed: func(name string, from health.State, now *health.Component) {
		tellChange(log, name, from, now)
	}, Reported: func(r *health.Report) { tellMetrics(p.metrics, r) }})
}

// circuits asks the gateway, which is put together after its checks have begun.
func (p *parts) circuits(provider string) []health.Circuit {
	if g := p.serving.Load(); g != nil {
		return g.Circuits(provider)
	}
	return nil
}

// tellChange logs that something is another way than it was. That all is well at the start is no news.
func tellChange(log *slog.Logger, name string, from health.State, now *health.Component) {
	level := slog.LevelInfo
	switch {
	case now.State == health.Degraded || now.State == health.Unknown && from == health.Down:
		level = slog.LevelWarn
	case now.State == health.Down:
		level = slog.LevelError
	case from == "" || from == health.Unknown || now.State == health.Unknown:
		level = slog.LevelDebug
	}
	log.Log(context.Background(), level, "a component is "+string(now.State), "component", name, "before", string(from), "detail", now.Detail)
}

// tellMetrics shows a report. What is slow has answered.
func tellMetrics(m *observe.Metrics, r *health.Report) {
	for name, c := range r.Components {
		m.Component(name, c.State == health.Up, c.State != health.Unknown)
		m.Answered(name, c.State != health.Down)
	}
	for name, c := range r.Providers {
		m.Component(health.ProviderPrefix+name, c.State == health.Up, c.State != health.Unknown)
	}
	m.Checked()
}

func down(detail string) health.Result { return health.Result{State: health.Down, Detail: detail} }

// answered is what came of a round trip: down where it failed, degraded where it took long.
func answered(began time.Time, err error, what string, slow time.Duration) health.Result {
	took := time.Since(began)
	switch {
	case err != nil:
		return down(what + " does not answer")
	case took > slow:
		return health.Result{State: health.Degraded, Latency: took, Detail: "a round trip takes longer than " + slow.String()}
	}
	return health.Result{State: health.Up, Latency: took}
}

func (p *parts) checkPostgres(ctx context.Context) health.Result {
	began := time.Now()
	_, err := p.ledger.ClockSkew(ctx)
	r := answered(began, err, "Postgres", slowPostgres)
	pool := p.ledger.Pool().Stat()
	r.Facts = map[string]any{"connections": pool.TotalConns(), "connections_in_use": pool.AcquiredConns(), "connections_limit": pool.MaxConns()}
	return r
}

func (p *parts) checkClock(ctx context.Context) health.Result {
	skew, err := p.ledger.ClockSkew(ctx)
	if err != nil {
		return health.Result{State: health.Unknown, Detail: "Postgres, whose clock counts, does not answer"}
	}
	r := health.Result{State: health.Up, Facts: map[string]any{"skew_ms": skew.Milliseconds()}}
	switch {
	case skew.Abs() > clockTolerance:
		r.State, r.Detail = health.Down, fmt.Sprintf("this gateway's clock is %s from Postgres's; at most %s is tolerated", skew.Round(time.Millisecond), clockTolerance)
	case skew.Abs() > clockTolerance/2:
		r.State, r.Detail = health.Degraded, "this gateway's clock drifts from Postgres's"
	}
	return r
}

func (p *parts) checkShards(context.Context) health.Result {
	refused, shards := p.ledger.Refused(), p.ledger.Meta().Shards
	r := health.Result{State: health.Up, Facts: map[string]any{"shards": shards, "shards_refusing": len(refused)}}
	if len(refused) > 0 {
		r.State, r.Detail = health.Down, shardsRefuse(refused).Error()
	}
	return r
}

func (p *parts) checkLease(context.Context) health.Result {
	if !p.recovery.owner.Held() {
		return down("this process's lease has run out, so it reserves nothing")
	}
	return health.Result{State: health.Up}
}

func (p *parts) checkSweeper(context.Context) health.Result {
	p.sights.mu.Lock()
	defer p.sights.mu.Unlock()
	if since := time.Since(p.sights.swept); since < sweepTrouble {
		return health.Result{State: health.Degraded, Detail: "a round failed: what dead gateways reserved is not given back meanwhile",
			Facts: map[string]any{"failed_at": p.sights.swept.UTC()}}
	}
	return health.Result{State: health.Up}
}

func (p *parts) checkJournal(context.Context) health.Result {
	waiting, bytes, oldest := p.journal.Waiting()
	r := health.Result{State: health.Up, Facts: map[string]any{"waiting_commands": waiting, "waiting_bytes": bytes}}
	if waiting > 0 {
		r.State, r.Detail = health.Degraded, "settlements wait for Postgres"
		r.Facts["oldest"] = oldest.UTC()
	}
	return r
}

func (f *followers) checkRedis(ctx context.Context) health.Result {
	began := time.Now()
	return answered(began, f.redis.Ping(ctx).Err(), "Redis", slowRedis)
}

// checkKafka asks the leaders of the topic's partitions, which nothing answers from what it remembers.
func (f *followers) checkKafka(ctx context.Context) health.Result {
	began := time.Now()
	_, err := f.topic.State(ctx)
	return answered(began, err, "Kafka", slowKafka)
}

// checkRelay goes by the shards that this process publishes; another process publishes the others.
func (f *followers) checkRelay(context.Context) health.Result {
	f.sights.mu.Lock()
	defer f.sights.mu.Unlock()
	shards, lag := 0, int64(0)
	for _, s := range f.sights.relay {
		if time.Since(s.at) < oldSight {
			shards, lag = shards+1, lag+s.lag
		}
	}
	if shards == 0 {
		return health.Result{State: health.Unknown, Detail: "this process publishes no shard at the moment"}
	}
	return behind(lag, map[string]any{"shards": shards, "lag_events": lag}, "the topic")
}

// behind judges a lag.
func behind(lag int64, facts map[string]any, what string) health.Result {
	r := health.Result{State: health.Up, Facts: facts}
	if lag > manyBehind {
		r.State, r.Detail = health.Degraded, fmt.Sprintf("%s is %d events behind the ledger", what, lag)
	}
	return r
}

// statusOnce reads the positions of all projections, once for all who ask within a moment.
type statusOnce struct {
	read func(context.Context) ([]projections.StatusRow, error)

	mu   sync.Mutex
	at   time.Time
	rows []projections.StatusRow
	err  error
}

// statusFresh is for how long an answer is shared: less than two checks are apart.
const statusFresh = minHealthEvery / 2

func (o *statusOnce) get(ctx context.Context) ([]projections.StatusRow, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.at) > statusFresh {
		o.rows, o.err = o.read(ctx)
		o.at = time.Now()
	}
	return o.rows, o.err
}

func (p *parts) checkProjection(status *statusOnce, name string) func(context.Context) health.Result {
	shards := p.ledger.Meta().Shards
	return func(ctx context.Context) health.Result {
		rows, err := status.get(ctx)
		if err != nil {
			return health.Result{State: health.Unknown, Detail: "Postgres, which has it, does not answer"}
		}
		return judgeProjection(rows, name, p.sights.haltedOf(name, shards))
	}
}

func judgeProjection(rows []projections.StatusRow, name string, halted int) health.Result {
	lag, exists, asOf := int64(0), true, time.Time{}
	for _, row := range rows {
		if row.Projection != name {
			continue
		}
		lag, exists = lag+row.Behind, exists && row.Exists
		if row.Behind > 0 && (asOf.IsZero() || row.AsOf.Before(asOf)) {
			asOf = row.AsOf
		}
	}
	facts := map[string]any{"lag_events": lag}
	if !asOf.IsZero() {
		facts["as_of"] = asOf.UTC()
	}
	switch {
	case !exists:
		return health.Result{State: health.Down, Facts: facts, Detail: "its table is gone: `llm-gateway projections rebuild " + name + "` makes it"}
	case halted > 0:
		return health.Result{State: health.Degraded, Facts: facts, Detail: fmt.Sprintf("it stands still in %d shards; the log says why", halted)}
	}
	return behind(lag, facts, "it")
}

func checkDisk(dir string) func(context.Context) health.Result {
	return func(context.Context) health.Result {
		free, total := health.Disk(dir)
		if free == nil || total == nil {
			return health.Result{State: health.Unknown, Detail: "this platform does not tell"}
		}
		r := health.Result{State: health.Up, Facts: map[string]any{"free_bytes": *free, "total_bytes": *total}}
		if *free < diskLow {
			r.State, r.Detail = health.Degraded, "less than 1 GiB is free where DATA_DIR is: the journal needs room"
		}
		return r
	}
}

// providerProbes asks providers for their list of models, by one key after the other.
type providerProbes struct {
	catalog *catalogFile

	mu   sync.Mutex
	turn map[string]int
}

func (o *providerProbes) ask(ctx context.Context, name string) health.Result {
	u := o.catalog.upstream(name)
	if u == nil { // the simulated one
		return health.Result{State: health.Up}
	}
	probe := probeOf(u, o.key(u))
	out := probe.ask(ctx, health.CheckTime-time.Second)
	r := health.Result{State: health.Up, Latency: time.Duration(out.RoundTrip) * time.Millisecond}
	if !out.OK {
		r.State, r.Detail = health.Down, out.Problem
	}
	return r
}

// key is whose turn it is, from 1; 0 where there is none.
func (o *providerProbes) key(u *upstreams.Upstream) int {
	if len(u.Keys) == 0 {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.turn == nil || len(o.turn) > math.MaxInt16 {
		o.turn = map[string]int{}
	}
	o.turn[u.Name] = o.turn[u.Name]%len(u.Keys) + 1
	return o.turn[u.Name]
}
