package main

import (
	"context"
	"errors"
	"os"
	"time"

	"llm-gateway/gateway/health"
)

// wantedDisk is how many bytes are to be free where DATA_DIR is.
const wantedDisk = 5 << 30

// checkProduction goes through all that a careful operator would. Settings that contradict each other, or that
// production refuses, do not end it: only such as cannot be read.
func (a *app) checkProduction(ctx context.Context, timeout time.Duration, asJSON bool) error {
	src, err := readSources(a.environ, a.dotenv)
	if err != nil {
		return err
	}
	s, readings := readSettings(src)
	p := &production{settings: s, now: a.now(), timeout: timeout}
	if problems := unreadable(readings); len(problems) > 0 {
		p.wrong(problems)
		p.skipf("everything else", "mend these settings first")
		return a.conclude(p.findings, asJSON)
	}
	if problems := s.mismatches(); len(problems) > 0 {
		p.wrong(problems)
	} else {
		p.okf("settings", "all of them can be used together")
	}
	if p.catalog, err = openCatalog(s, src); err != nil {
		p.catalog = nil
		p.failf("files", "%s", err)
	} else {
		p.okf("files", "PRICE_BOOK, SELL_BOOK and UPSTREAMS can be used")
	}
	p.kind()
	p.secrets()
	p.certificates()
	p.servers(ctx)
	p.dataDir()
	p.money()
	p.recorded(ctx)
	p.providers(ctx)
	p.watching()
	p.receivers(ctx)
	p.edge()
	p.limits()
	return a.conclude(p.findings, asJSON)
}

// production is a configuration that is being judged.
type production struct {
	findings
	settings *Settings
	catalog  *catalogFile // nil where the files cannot be used
	now      time.Time
	timeout  time.Duration // for each server, provider or receiver
}

// wrong takes in problems of settings, which begin with their names.
func (p *production) wrong(problems []string) {
	for _, problem := range problems {
		p.failf("settings", "%s", problem)
	}
}

func (p *production) kind() {
	s := p.settings
	p.either(s.Production(), "ENVIRONMENT", envProduction, verdictFail, s.Environment+": set it to production, or conveniences of development are on")
	p.either(!s.Simulated, "SIMULATED_PROVIDER", "off", verdictFail, "on: customers are charged for answers that nobody made. Set it to off")
	p.either(s.Billing, "BILLING_ENABLED", "true", verdictWarn, "false: nothing is billed, and nobody is limited by money")
}

// secrets tells of what production refuses to start with.
func (p *production) secrets() {
	s, found := p.settings, map[string]bool{}
	for _, c := range s.careless() {
		found[c.name] = true
		p.failf(c.name, "%s", c.why)
	}
	for _, one := range []struct {
		name string
		set  bool
	}{
		{"OPENAI_API_KEY", s.OpenAIKey != ""}, {"ANTHROPIC_API_KEY", s.AnthropicKey != ""}, {"GOOGLE_GEMINI_API_KEY", s.GeminiKey != ""},
		{"DATABASE_MIGRATE_URL", s.DatabaseMigrateURL != ""}, {"KAFKA_PASSWORD", s.KafkaPassword != ""}, {"JWT_JWKS_URL", s.JWTJWKSURL != ""},
	} {
		if one.set && !found[one.name] {
			p.okf(one.name, "nothing speaks against it")
		}
	}
	if s.JWTJWKSURL != "" {
		p.either(s.JWTIssuer != "" && len(s.JWTAudience) > 0, "JWT_ISSUER", "iss and aud of tokens are looked at", verdictWarn,
			"it or JWT_AUDIENCE is not set: a token that your identity provider made for another application is good here, too")
		return
	}
	switch {
	case found["JWT_SECRET_KEY"]:
	case s.JWTSecretKey == "":
		p.failf("JWT_SECRET_KEY", "not set: make one, such as by `openssl rand -base64 48`, and give it to all gateways")
	case len(s.JWTSecretKey) < minSecret:
		p.failf("JWT_SECRET_KEY", "%d bytes; use %d or more", len(s.JWTSecretKey), minSecret)
	default:
		p.okf("JWT_SECRET_KEY", "%d bytes", len(s.JWTSecretKey))
	}
}

// servers checks each server that the settings name; an embedded one is none for production.
func (p *production) servers(ctx context.Context) {
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
		bounded, cancel := context.WithTimeout(ctx, p.timeout)
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
