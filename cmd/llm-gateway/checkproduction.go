package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"llm-gateway/gateway/health"
)

const (
	oldPrices     = 90 * 24 * time.Hour // a price book that is older has missed changes
	wantedDisk    = 5 << 30             // bytes free where DATA_DIR is
	distinctBytes = 12                  // of a secret, at least
)

// checkProduction goes through all that a careful operator would.
func (a *app) checkProduction(ctx context.Context, timeout time.Duration, asJSON bool) error {
	src, err := readSources(a.environ, a.dotenv)
	if err != nil {
		return err
	}
	p := &production{sources: src, now: a.now()}
	s, readings := readSettings(src)
	p.settings, p.readings = s, readings
	if out := checked(src); len(out.Problems) > 0 {
		for _, problem := range out.Problems {
			p.failf("settings", "%s", problem)
		}
		p.skipf("everything else", "mend the settings first")
		return a.conclude(p.findings, asJSON)
	}
	p.okf("settings", "all of them can be used, and so can their files")
	p.kind()
	p.secrets()
	p.servers(ctx, timeout)
	p.dataDir()
	p.money()
	p.providers(ctx, timeout)
	p.watching()
	p.edge()
	return a.conclude(p.findings, asJSON)
}

// production is a configuration that is being judged.
type production struct {
	findings
	settings *Settings
	sources  sources
	readings []reading
	now      time.Time
}

// value is a setting that another part of the program may declare; known says that it does.
func (p *production) value(name string) (value string, known bool) {
	for i := range p.readings {
		if p.readings[i].of.name == name {
			return p.readings[i].value, true
		}
	}
	return "", false
}

func (p *production) kind() {
	s := p.settings
	p.either(s.Production(), "ENVIRONMENT", envProduction, verdictFail, s.Environment+": set it to production, or conveniences of development are on")
	p.either(!s.Simulated, "SIMULATED_PROVIDER", "off", verdictFail, "on: customers are charged for answers that nobody made. Set it to off")
	p.either(s.Billing, "BILLING_ENABLED", "true", verdictWarn, "false: nothing is billed, and nobody is limited by money")
}

func (p *production) secrets() {
	s := p.settings
	if s.JWTJWKSURL != "" {
		p.either(strings.HasPrefix(s.JWTJWKSURL, "https://"), "JWT_JWKS_URL", "the issuer's keys are fetched by TLS", verdictFail, "use https://: whoever is on the way can sign tokens")
		return
	}
	secret, err := s.signingSecret()
	switch {
	case s.JWTSecretKey == "":
		p.failf("JWT_SECRET_KEY", "not set: make one, such as by `openssl rand -base64 48`, and give it to all gateways")
	case err != nil:
		p.failf("JWT_SECRET_KEY", "%s", err)
	case len(secret) < minSecret:
		p.failf("JWT_SECRET_KEY", "%d bytes; use %d or more", len(secret), minSecret)
	case weak(secret):
		p.failf("JWT_SECRET_KEY", "it looks made up, or is an example: make one, such as by `openssl rand -base64 48`")
	default:
		p.okf("JWT_SECRET_KEY", "%d bytes", len(secret))
	}
}

// weak says whether a secret was not drawn: few different bytes, or words that examples are made of.
func weak(secret []byte) bool {
	different := map[byte]bool{}
	for _, b := range secret {
		different[b] = true
	}
	lower := bytes.ToLower(secret)
	for _, word := range []string{"secret", "password", "change", "example", "your-", "test", "default", "12345678", "abcdefgh"} {
		if bytes.Contains(lower, []byte(word)) {
			return true
		}
	}
	return len(different) < distinctBytes
}

// servers checks each server that the settings name; an embedded one is none for production.
func (p *production) servers(ctx context.Context, timeout time.Duration) {
	s := p.settings
	for _, one := range []struct {
		name, setting, why string
		set                bool
	}{
		{"db", "DATABASE_URL", "the ledger would be on this machine's disk alone", s.DatabaseURL != ""},
		{"redis", "REDIS_URL", "each gateway would have a cache and limits of its own", s.RedisURL != ""},
		{"kafka", "KAFKA_BROKERS", "the topic would be on the ledger's own disk, and no witness of it", len(s.KafkaBrokers) > 0},
	} {
		if !one.set {
			if s.Billing {
				p.failf(one.setting, "not set, so it is embedded: %s", one.why)
			} else {
				p.skipf(one.setting, "not set, and nothing is billed")
			}
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, timeout)
		p.findings = append(p.findings, serverChecks[one.name](bounded, s).under(one.name)...)
		cancel()
	}
	separate := s.DatabaseMigrateURL != "" && s.DatabaseMigrateURL != s.DatabaseURL
	switch {
	case !s.AutoMigrate:
		p.okf("AUTO_MIGRATE", "false: `llm-gateway migrate` is a step of your deployment")
	case separate:
		p.warnf("AUTO_MIGRATE", "true: every gateway holds DATABASE_MIGRATE_URL, which may drop tables. Set it to false, and migrate as a step of your deployment")
	default:
		p.warnf("AUTO_MIGRATE", "true: gateways change the schema at their start, by a login that may. Set it to false, and migrate by DATABASE_MIGRATE_URL")
	}
}

// dataDir: the journal is money that Postgres has not got yet.
func (p *production) dataDir() {
	dir := p.settings.DataDir
	file, err := os.CreateTemp(dir, ".check-*")
	if errors.Is(err, os.ErrNotExist) {
		p.warnf("DATA_DIR", "it is not there yet, and serve makes it: see that it is on a volume that stays")
		return
	}
	if err != nil {
		p.failf("DATA_DIR", "it cannot be written: %s", reason(err))
		return
	}
	name := file.Name()
	_, err = file.WriteString("x")
	if err == nil {
		err = file.Sync()
	}
	file.Close()    //nolint:errcheck // it goes at once
	os.Remove(name) //nolint:errcheck // the same
	kind := volatileDisk(dir)
	switch {
	case err != nil:
		p.failf("DATA_DIR", "it cannot be written durably: %s", reason(err))
	case kind != "":
		p.failf("DATA_DIR", "it is on %s: what waits in the journal for Postgres is lost with the process. Put it on a volume that stays", kind)
	default:
		p.okf("DATA_DIR", "it can be written; see that it outlives the container")
	}
	free, _ := health.Disk(dir)
	if free == nil {
		p.skipf("disk", "this platform does not tell")
		return
	}
	p.either(*free >= wantedDisk, "disk", "5 GiB or more are free where DATA_DIR is", verdictWarn, "less than 5 GiB is free where DATA_DIR is; the journal may need 256 MiB while Postgres is away")
}

func (p *production) money() {
	s := p.settings
	book, info, err := openPriceBook(s.PriceBook, s.Currency)
	if err != nil {
		p.failf("PRICE_BOOK", "%s", err)
		return
	}
	asOf, err := time.Parse(time.DateOnly, info.AsOf)
	p.either(err == nil && p.now.Sub(asOf) < oldPrices, "PRICE_BOOK", "its prices are of "+info.AsOf, verdictWarn,
		"its prices are of "+or(info.AsOf, "an unknown day")+": compare them (`llm-gateway price diff`), or customers pay what providers no longer charge")
	var without []string
	for _, m := range book.Models() {
		if _, err := m.Price(p.now); err != nil {
			without = append(without, m.Name)
		}
	}
	p.either(len(without) == 0, "prices", "every model has one today", verdictWarn, "no price today, so not called: "+strings.Join(without[:min(len(without), 5)], ", "))
	p.either(s.SellBook != "", "SELL_BOOK", "customers pay by it", verdictWarn, "not set: customers pay what the providers charge, and nothing is earned")
	p.either(s.DefaultBalance.Sign() == 0, "BILLING_DEFAULT_BALANCE", "0: nobody is given money by logging in", verdictWarn,
		s.DefaultBalance.String()+" "+s.Currency+" is given to every new account: to whoever your issuer gives a token")
	if s.Degraded == degradedSpool {
		p.okf("BILLING_DEGRADED", "spool: while Postgres is away calls go on within what Redis knew; what is not covered then becomes an overage, which you bear")
	} else {
		p.okf("BILLING_DEGRADED", "deny: while Postgres is away model calls answer 503")
	}
	p.skipf("checkpoint", "run `llm-gateway ledger verify` every night, and keep what it prints outside of the database")
}

func (p *production) providers(ctx context.Context, timeout time.Duration) {
	book, _, err := openPriceBook(p.settings.PriceBook, p.settings.Currency)
	if err != nil {
		return // it has been told
	}
	f, err := openUpstreams(p.settings.Upstreams, p.settings.Currency, p.sources, book)
	if err != nil {
		p.failf("UPSTREAMS", "%s", err)
		return
	}
	all := configured(p.settings, f)
	if len(all) == 0 {
		p.failf("providers", "no provider's key is set, and UPSTREAMS names none: nothing can be called")
	}
	answers := askProviders(ctx, probes(all), timeout)
	for i := range answers {
		one := &answers[i]
		p.either(one.OK, "provider "+one.Provider, "it takes the key", verdictFail, one.Problem)
		p.either(strings.HasPrefix(one.URL, "https://") || !one.OK, "provider "+one.Provider+" TLS", "https", verdictWarn, "http: keys and prompts can be read on the way")
	}
}

// watching is what tells an operator that something is wrong.
func (p *production) watching() {
	s := p.settings
	p.either(s.LogLevel > slog.LevelDebug, "LOG_LEVEL", s.LogLevel.String(), verdictWarn, "DEBUG: a line for every retry of a client. Set it to INFO")
	p.either(!s.Debug, "DEBUG", "false", verdictWarn, "true: the log is text that machines do not read. Set it to false")
	p.either(!s.HealthPublic, "HEALTH_DETAILS", detailsAdmin, verdictWarn, "public: everybody can read what stands behind the gateway, and what of it is away")
	p.either(s.ShutdownDelay > 0, "SHUTDOWN_DELAY", s.ShutdownDelay.String(), verdictWarn, "0s: a balancer sends requests to a gateway that has left. Set it to longer than its checks of /ready are apart")
	if on, known := p.value("PROMETHEUS_ENABLED"); known {
		p.either(on == "true", "PROMETHEUS_ENABLED", "/metrics is served; see that somebody reads it, and has alerts (docs/operating.md)", verdictWarn, "false: nobody is told when something is wrong")
	} else {
		p.okf("metrics", "/metrics is served; see that somebody reads it, and has alerts (docs/operating.md)")
	}
}

// carelessEdge are the settings that guard the HTTP edge, where this release has it: what is careless, and why.
var carelessEdge = []struct{ name, careless, why string }{
	{"ALLOWED_HOSTS", "*", "any Host header is taken: name yours"},
	{"CORS_ALLOWED_ORIGINS", "*", "any web page may call this gateway with its visitors' tokens: name yours"},
	{"RATE_LIMIT_ENABLED", "false", "one client can take all there is"},
}

func (p *production) edge() {
	for _, e := range carelessEdge {
		value, known := p.value(e.name)
		if !known {
			continue
		}
		p.either(value != e.careless && value != "", e.name, value, verdictWarn, or(value, "not set")+": "+e.why)
	}
}
