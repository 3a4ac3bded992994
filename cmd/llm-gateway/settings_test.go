package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

// load reads settings from an environment and the text of a .env file.
func load(t testing.TB, dotenv string, environ ...string) (*Settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), dotenvFile)
	if dotenv != "" {
		writeFile(t, path, dotenv)
	}
	return (&app{environ: environ, dotenv: path}).settings()
}

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSettingsDefaults(t *testing.T) {
	t.Parallel()
	s, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{Host: "0.0.0.0", Port: 8000, Environment: "development", HealthEvery: 15 * time.Second, Billing: true, LogLevel: slog.LevelInfo, ShutdownTimeout: 25 * time.Second, AutoMigrate: true,
		DataDir: "./data", JWTAlgorithm: "HS256", JWTTokenTTL: 30 * time.Minute, OpenAIBaseURL: "https://api.openai.com/v1",
		AnthropicBaseURL: "https://api.anthropic.com", GeminiBaseURL: "https://generativelanguage.googleapis.com",
		RetryEnabled: true, RetryAttempts: 3, RetryBaseDelay: time.Second, RetryMaxDelay: time.Minute,
		KafkaTopic: "llm.usage.v1", KafkaSASL: "none", AllowedHosts: []string{"*"}, CORSOrigins: []string{}, TrustedProxies: []string{},
		Simulated: true, Currency: "USD", DefaultBalance: s.DefaultBalance, ReservePolicy: "cap", Degraded: "deny", ModelsFormat: "openai", Prometheus: true,
		Telemetry: telemetrySettings{OTLPProtocol: "http/protobuf", OTLPTimeout: 10_000, Service: "llm-gateway", Sampler: "parentbased_always_on",
			LangfuseHost: "https://cloud.langfuse.com"},
		resilience: resilience{RetryBudget: 20, CircuitEnabled: true, CircuitThreshold: 5, CircuitRecovery: time.Minute,
			UpstreamConnect: 10 * time.Second, UpstreamFirstByte: 10 * time.Minute, UpstreamIdle: 2 * time.Minute, UpstreamTotal: 30 * time.Minute},
		caching: caching{CacheStore: "off", CacheTTL: time.Hour, CacheMaxBytes: 64 << 20},
		Limits:  Limits{Storage: "redis", Account: domain.Quotas{60, 1000, 0}, InFlight: gateway.InFlight{Most: 10_000, Wait: time.Second}}}
	if !reflect.DeepEqual(*s, want) {
		t.Errorf("got  %+v\nwant %+v", *s, want)
	}
	if s.DefaultBalance.String() != "100" {
		t.Errorf("BILLING_DEFAULT_BALANCE is %s", s.DefaultBalance)
	}
}

func TestSettingsGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := writeFile(t, filepath.Join(dir, "prices.yaml"), "x")
	for _, c := range []struct {
		set  string
		read func(*Settings) any
		want any
	}{
		{"HOST=::1", func(s *Settings) any { return s.Host }, "::1"},
		{"HOST=gateway.example.com", func(s *Settings) any { return s.Host }, "gateway.example.com"},
		{"PORT=0", func(s *Settings) any { return s.Port }, 0},
		{"PORT= 9000 ", func(s *Settings) any { return s.Port }, 9000},
		{"ENVIRONMENT=production", func(s *Settings) any { return s.Production() && !s.Development() && !s.Simulated }, true},
		{"ENVIRONMENT=staging", func(s *Settings) any { return !s.Production() && !s.Development() && s.Simulated }, true},
		{"LOG_LEVEL=debug", func(s *Settings) any { return s.LogLevel }, slog.LevelDebug},
		{"LOG_LEVEL=WARNING", func(s *Settings) any { return s.LogLevel }, slog.LevelWarn},
		{"AUTO_MIGRATE=False", func(s *Settings) any { return s.AutoMigrate }, false},
		{"PG_POOLER=transaction", func(s *Settings) any { return s.Pooled }, true},
		{"DATABASE_URL=postgres://u:p@h/d", func(s *Settings) any { return string(s.DatabaseURL) }, "postgres://u:p@h/d"},
		{"DATABASE_URL=host=h user=u", func(s *Settings) any { return string(s.DatabaseURL) }, "host=h user=u"},
		{"REDIS_URL=redis://:p@h:6380/2", func(s *Settings) any { return string(s.RedisURL) }, "redis://:p@h:6380/2"},
		{"REDIS_URL=rediss://u:p@a:1,b:2", func(s *Settings) any { return string(s.RedisURL) }, "rediss://u:p@a:1,b:2"},
		{"REDIS_URL=redis://a,b:1?master_name=m", func(s *Settings) any { return string(s.RedisURL) }, "redis://a,b:1?master_name=m"},
		{"KAFKA_BROKERS=kafka_1.example.com:9092", func(s *Settings) any { return strings.Join(s.KafkaBrokers, "|") }, "kafka_1.example.com:9092"},
		{"KAFKA_BROKERS=a:1, 10.0.0.1:65535 ,[::1]:9092", func(s *Settings) any { return strings.Join(s.KafkaBrokers, "|") }, "a:1|10.0.0.1:65535|[::1]:9092"},
		{"KAFKA_BROKERS=", func(s *Settings) any { return len(s.KafkaBrokers) }, 0},
		{"KAFKA_USAGE_TOPIC=My_topic-1.x", func(s *Settings) any { return s.KafkaTopic }, "My_topic-1.x"},
		{"KAFKA_TLS=False", func(s *Settings) any { return s.KafkaTLS }, false},
		{"EMBEDDED_POSTGRES_BIN=fetch", func(s *Settings) any { return s.EmbeddedBin }, "fetch"},
		{"EMBEDDED_POSTGRES_BIN=" + dir, func(s *Settings) any { return s.EmbeddedBin }, dir},
		{"LEDGER_SHARDS=", func(s *Settings) any { return s.LedgerShards }, 0},
		{"LEDGER_SHARDS=1024", func(s *Settings) any { return s.LedgerShards }, 1024},
		{"JWT_ACCESS_TOKEN_EXPIRE_MINUTES=60", func(s *Settings) any { return s.JWTTokenTTL }, time.Hour},
		{"OPENAI_API_KEY=sk-1", func(s *Settings) any { return string(s.OpenAIKey) }, "sk-1"},
		{"RETRY_ENABLED=false", func(s *Settings) any { return s.RetryEnabled }, false},
		{"RETRY_BASE_DELAY=0.25", func(s *Settings) any { return s.RetryBaseDelay }, 250 * time.Millisecond},
		{"RETRY_MAX_DELAY=0", func(s *Settings) any { return s.RetryMaxDelay }, time.Duration(0)},
		{"ANTHROPIC_BASE_URL=http://127.0.0.1:9/v1", func(s *Settings) any { return s.AnthropicBaseURL }, "http://127.0.0.1:9/v1"},
		{"GEMINI_BASE_URL=http://127.0.0.1:9", func(s *Settings) any { return s.GeminiBaseURL }, "http://127.0.0.1:9"},
		{"OPENAI_BASE_URL=http://127.0.0.1:9/v1", func(s *Settings) any { return s.OpenAIBaseURL }, "http://127.0.0.1:9/v1"},
		{"SIMULATED_PROVIDER=off", func(s *Settings) any { return s.Simulated }, false},
		{"UPSTREAMS=" + file, func(s *Settings) any { return s.Upstreams }, file},
		{"PRICE_BOOK=" + file, func(s *Settings) any { return s.PriceBook }, file},
		{"SELL_BOOK=" + file, func(s *Settings) any { return s.SellBook }, file},
		{"BILLING_CURRENCY=EUR", func(s *Settings) any { return s.Currency }, "EUR"},
		{"BILLING_DEFAULT_BALANCE=0", func(s *Settings) any { return s.DefaultBalance.String() }, "0"},
		{"RESERVE_POLICY=refuse", func(s *Settings) any { return s.ReservePolicy }, "refuse"},
		{"BILLING_DEGRADED=deny", func(s *Settings) any { return s.Degraded }, "deny"},
		{"BILLING_DEGRADED=spool", func(s *Settings) any { return s.Degraded }, "spool"},
		{"PROMETHEUS_ENABLED=false", func(s *Settings) any { return s.Prometheus }, false},
		{"METRICS_USER_BALANCE=off", func(s *Settings) any { return s.UserBalances }, 0},
		{"METRICS_USER_BALANCE=500", func(s *Settings) any { return s.UserBalances }, 500},
		{"MODELS_FORMAT=array", func(s *Settings) any { return s.ModelsFormat }, "array"},
	} {
		s, err := load(t, "", c.set)
		if err != nil {
			t.Errorf("%s: %v", c.set, err)
		} else if got := c.read(s); got != c.want {
			t.Errorf("%s: read as %v", c.set, got)
		}
	}
	s, err := load(t, "", "ENVIRONMENT=production", "SIMULATED_PROVIDER=on")
	if err != nil || !s.Simulated {
		t.Errorf("asked for by name, the simulated provider is %v in production: %v", s, err)
	}
}

func TestSettingsBad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ set, want string }{
		{"HOST=localhost:80", `HOST: it must be an IP address or a host name, without a port, not "localhost:80"`},
		{"HOST=a b", "HOST: it must be"},
		{"PORT=x", `PORT: it must be a whole number from 0 to 65535, not "x"`},
		{"PORT=65536", "PORT: it must be"},
		{"PORT=-1", "PORT: it must be"},
		{"ENVIRONMENT=prod", "ENVIRONMENT: it must be development, staging or production"},
		{"LOG_LEVEL=loud", "LOG_LEVEL: it must be DEBUG, INFO, WARN or ERROR"},
		{"AUTO_MIGRATE=yes", "AUTO_MIGRATE: it must be true or false"},
		{"PG_POOLER=session", "PG_POOLER: it must be none or transaction"},
		{"DATABASE_URL=postgres://u:hunter2@h:port/d", "DATABASE_URL: the Postgres URL cannot be used"},
		{"DATABASE_MIGRATE_URL=postgres://u:hunter2@h/d", "DATABASE_MIGRATE_URL: it goes with DATABASE_URL"},
		{"REDIS_URL=http://u:hunter2@h", "REDIS_URL: the Redis URL cannot be used"},
		{"REDIS_URL=redis://u:hunter2@h:port", "REDIS_URL: the Redis URL cannot be used"},
		{"REDIS_URL=redis://u:hunter2@a,b/1", "REDIS_URL: the Redis URL cannot be used: a cluster"},
		{"REDIS_URL=h:6379", "REDIS_URL: the Redis URL cannot be used"},
		{"KAFKA_BROKERS=localhost", `KAFKA_BROKERS: it must be host:port, or several with commas between them, not "localhost"`},
		{"KAFKA_BROKERS=a:9092,", "KAFKA_BROKERS: it must be"},
		{"KAFKA_BROKERS=a:0", "KAFKA_BROKERS: it must be"},
		{"KAFKA_BROKERS=a:65536", "KAFKA_BROKERS: it must be"},
		{"KAFKA_BROKERS=:9092", "KAFKA_BROKERS: it must be"},
		{"KAFKA_BROKERS=::1:9092", "KAFKA_BROKERS: it must be"},
		{"KAFKA_BROKERS=kafka://a:9092", "KAFKA_BROKERS: it must be"},
		{"KAFKA_BROKERS=a b:9092", "KAFKA_BROKERS: it must be"},
		{"KAFKA_BROKERS=u:hunter2@a:9092", "KAFKA_BROKERS: it must be host:port, without credentials"},
		{"KAFKA_BROKERS=hunter2@a:9092", "KAFKA_BROKERS: it must be host:port, without credentials"},
		{"KAFKA_BROKERS=" + strings.Repeat("a:1,", maxBrokers) + "a:1", "KAFKA_BROKERS: at most 64 are taken"},
		{"KAFKA_USAGE_TOPIC=..", "KAFKA_USAGE_TOPIC: it must be 1 to"},
		{"KAFKA_USAGE_TOPIC=a/b", "KAFKA_USAGE_TOPIC: it must be 1 to"},
		{"KAFKA_USAGE_TOPIC=ä", "KAFKA_USAGE_TOPIC: it must be 1 to"},
		{"KAFKA_USAGE_TOPIC=" + strings.Repeat("x", maxTopicName+1), "KAFKA_USAGE_TOPIC: it must be 1 to"},
		{"KAFKA_TLS=yes", "KAFKA_TLS: it must be true or false"},
		{"KAFKA_SASL=gssapi", "KAFKA_SASL: it must be none, plain, scram-sha-256 or scram-sha-512"},
		{"KAFKA_TLS=true", "KAFKA_BROKERS: KAFKA_TLS, KAFKA_SASL and their like go with it, and it is not set"},
		{"KAFKA_PASSWORD=hunter2", "KAFKA_BROKERS: KAFKA_TLS"},
		{"EMBEDDED_POSTGRES_BIN=/no/such", "EMBEDDED_POSTGRES_BIN: it must be a path to a directory that exists"},
		{"LEDGER_SHARDS=0", "LEDGER_SHARDS: it must be a whole number from 1 to 1024"},
		{"LEDGER_SHARDS=1025", "LEDGER_SHARDS: it must be"},
		{"JWT_ALGORITHM=none", "JWT_ALGORITHM: it must be HS256"},
		{"JWT_ALGORITHM=RS256", "JWT_JWKS_URL: it is needed to check tokens by JWT_ALGORITHM=RS256"},
		{"JWT_JWKS_URL=https://i.example.com/keys", "JWT_ALGORITHM: an issuer's tokens"},
		{"JWT_JWKS_URL=ftp://i.example.com", "JWT_JWKS_URL: it must be http://"},
		{"JWT_ACCESS_TOKEN_EXPIRE_MINUTES=0", "JWT_ACCESS_TOKEN_EXPIRE_MINUTES: it must be a whole number from 1 to"},
		{`ALLOWED_HOSTS=api.example.com`, "ALLOWED_HOSTS: it must be a JSON list of host names"},
		{`ALLOWED_HOSTS=["api.example.com:443"]`, "ALLOWED_HOSTS: it must be a JSON list of host names without ports"},
		{`ALLOWED_HOSTS=[]`, "ALLOWED_HOSTS: an empty list would refuse every request"},
		{`CORS_ORIGINS=["https://app.example.com/"]`, "CORS_ORIGINS: it must be a JSON list of origins"},
		{`CORS_ORIGINS=["https://*.example.com"]`, "CORS_ORIGINS: it must be a JSON list of origins"},
		{`TRUSTED_PROXIES=["proxy"]`, "TRUSTED_PROXIES: it must be a JSON list of addresses"},
		{`TRUSTED_PROXIES=["fe80::1%eth0", "10.0.0.0/8"]`, "TRUSTED_PROXIES: it must be a JSON list of addresses"},
		{`TRUSTED_PROXIES=["::ffff:10.0.0.1"]`, "TRUSTED_PROXIES: it must be a JSON list of addresses"},
		{`TRUSTED_PROXIES=["::ffff:10.0.0.0/104"]`, "TRUSTED_PROXIES: it must be a JSON list of addresses"},
		{"SHARED_PROVIDER_IDS=Allow", "SHARED_PROVIDER_IDS: it must be refuse or allow"},
		{"OPENAI_API_KEY=hunter2 x", "OPENAI_API_KEY: it must be one word of printable ASCII"},
		{"OPENAI_BASE_URL=https://me:hunter2@h/v1", "OPENAI_BASE_URL: it must be http://... or https://..., without credentials"},
		{"SIMULATED_PROVIDER=yes", "SIMULATED_PROVIDER: it must be auto, on or off"},
		{"UPSTREAMS=" + os.TempDir(), "UPSTREAMS: it must be a path to a file that exists"},
		{"PRICE_BOOK=/no/such/hidden", "PRICE_BOOK: it must be a path to a file that exists"},
		{"BILLING_CURRENCY=usd", "BILLING_CURRENCY: it must be three capital letters"},
		{"BILLING_DEFAULT_BALANCE=-1", "BILLING_DEFAULT_BALANCE: it must be an amount of 0 or more"},
		{"BILLING_DEFAULT_BALANCE=1e3", "BILLING_DEFAULT_BALANCE: it must be an amount"},
		{"BILLING_DEFAULT_BALANCE=0.0000000000001", "BILLING_DEFAULT_BALANCE: it must be an amount"},
		{"RESERVE_POLICY=ask", "RESERVE_POLICY: it must be cap or refuse"},
		{"BILLING_DEGRADED=free", "BILLING_DEGRADED: it must be deny or spool"},
		{"BILLING_DEGRADED=SPOOL", "BILLING_DEGRADED: it must be deny or spool"},
		{"MODELS_FORMAT=xml", "MODELS_FORMAT: it must be openai or array"},
		{"MODELS_FORMAT=" + strings.Repeat("x", 1000), `xxx..."`},
	} {
		_, err := load(t, "", c.set)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.80s: %v, want %s", c.set, err, c.want)
		}
	}
	_, err := load(t, "", "PORT=x", "LOG_LEVEL=loud", "BILLING_CURRENCY=euro")
	if err == nil || strings.Count(err.Error(), "\n") != 3 || !strings.HasPrefix(err.Error(), "3 settings cannot be used") {
		t.Errorf("three bad values: %v", err)
	}
}

func TestKafkaLogin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set  string
		want string // the mechanism, or a part of the error
	}{
		{"KAFKA_TLS=true", "none"},
		{"KAFKA_SASL=plain KAFKA_USERNAME=u KAFKA_PASSWORD=hunter2", "PLAIN"},
		{"KAFKA_SASL=scram-sha-256 KAFKA_USERNAME=u KAFKA_PASSWORD=hunter2", "SCRAM-SHA-256"},
		{"KAFKA_SASL=scram-sha-512 KAFKA_USERNAME=u KAFKA_PASSWORD=hunter2 KAFKA_TLS=true", "SCRAM-SHA-512"},
		{"KAFKA_SASL=plain", "KAFKA_USERNAME: it and KAFKA_PASSWORD are needed to log in by KAFKA_SASL=plain"},
		{"KAFKA_SASL=plain KAFKA_USERNAME=u", "KAFKA_USERNAME: it and KAFKA_PASSWORD are needed"},
		{"KAFKA_SASL=plain KAFKA_PASSWORD=hunter2", "KAFKA_USERNAME: it and KAFKA_PASSWORD are needed"},
		{"KAFKA_USERNAME=u KAFKA_PASSWORD=hunter2", "KAFKA_SASL: it says how KAFKA_USERNAME and KAFKA_PASSWORD log in, and is none"},
	} {
		s, err := load(t, "", append(strings.Fields(c.set), "KAFKA_BROKERS=a:1,b:2")...)
		got := fmt.Sprint(err)
		if err == nil {
			b := backend{streams: externalStreams(s)}
			config := b.kafkaConfig(s, ledger.Meta{Shards: 3}, nil)
			got = "none"
			if config.SASL != nil {
				got = config.SASL.Name()
			}
			if (config.TLS != nil) != strings.Contains(c.set, "TLS") || len(config.Brokers) != 2 || config.Shards != 3 || config.Name != "llm.usage.v1" {
				t.Errorf("%s: %+v", c.set, config)
			}
		}
		if !strings.Contains(got, c.want) || strings.Contains(got, "hunter2") {
			t.Errorf("%s: %s, want %s", c.set, got, c.want)
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "good"), "sk-from-file\n")
	empty := writeFile(t, filepath.Join(dir, "empty"), " \n")
	large := writeFile(t, filepath.Join(dir, "large"), strings.Repeat("x", maxSettingsFile+1))
	shaped := map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "key=sk-from-file", "SENTRY_DSN": "https://sk-from-file@sentry.example.com/1"}
	for _, d := range declared() {
		if !d.secret || strings.HasSuffix(d.name, "_URL") {
			continue
		}
		file := good
		if text := shaped[d.name]; text != "" {
			file = writeFile(t, filepath.Join(dir, d.name), text+"\n")
		}
		s, err := load(t, "", d.name+"_FILE="+file, "KAFKA_BROKERS=a:1", "KAFKA_SASL=plain", "KAFKA_USERNAME=u",
			map[bool]string{false: "KAFKA_PASSWORD=x"}[d.name == "KAFKA_PASSWORD"])
		if err != nil || !strings.Contains(fmt.Sprint(bare(s.Telemetry.OTLPHeaders), bare(s.Telemetry.LangfusePublic), bare(s.Telemetry.LangfuseSecret), bare(s.Telemetry.SentryDSN), bare(s.SupabaseKey), bare(s.SupabaseServiceKey), bare(s.JWTSecretKey), bare(s.OpenAIKey), bare(s.AnthropicKey), bare(s.GeminiKey), bare(s.KafkaPassword)), "sk-from-file") {
			t.Errorf("%s_FILE: %v", d.name, err)
		}
	}
	for _, c := range []struct {
		dotenv  string
		environ []string
		want    string // the key, or a part of the error
	}{
		{"", []string{"OPENAI_API_KEY_FILE=" + dir + "/none"}, "the file that OPENAI_API_KEY_FILE names cannot be used"},
		{"", []string{"OPENAI_API_KEY_FILE=" + empty}, "it is empty"},
		{"", []string{"OPENAI_API_KEY_FILE=" + large}, "it is larger than"},
		{"", []string{"OPENAI_API_KEY_FILE=" + good, "OPENAI_API_KEY=a"}, "both it and OPENAI_API_KEY_FILE are set"},
		{"", []string{"OPENAI_API_KEY_FILE=" + good, "OPENAI_API_KEY="}, "sk-from-file"},
		{"OPENAI_API_KEY_FILE=" + good, nil, "sk-from-file"},
		{"OPENAI_API_KEY_FILE=" + good, []string{"OPENAI_API_KEY=from-env"}, "from-env"},
		{"OPENAI_API_KEY=from-dotenv", []string{"OPENAI_API_KEY_FILE=" + good}, "sk-from-file"},
		{"", []string{"MODELS_FORMAT_FILE=" + good}, ""}, // not a secret, so not a setting
	} {
		s, err := load(t, c.dotenv, c.environ...)
		got := fmt.Sprint(err)
		if err == nil {
			got = bare(s.OpenAIKey)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%q %q: %s, want %s", c.dotenv, c.environ, got, c.want)
		}
	}
}

func bare(s Secret) string { return string(s) }

func TestDotenv(t *testing.T) {
	t.Parallel()
	s, err := load(t, "# a comment\nPORT=9001\nHOST='127.0.0.1'\nMODELS_FORMAT=array\nUNKNOWN=x\n", "PORT=9002", "MODELS_FORMAT=")
	if err != nil {
		t.Fatal(err)
	}
	if s.Port != 9002 || s.Host != "127.0.0.1" || s.ModelsFormat != "openai" {
		t.Errorf("port %d, host %s, format %s: the environment must win, also when empty", s.Port, s.Host, s.ModelsFormat)
	}
	for _, c := range []struct{ text, want string }{
		{"PORT=1\nthis is hunter2\n", "line 2 "},
		{"\n\n# c\nhunter2 without equals", "line 4 "},
		{"PORT=1\nJWT_SECRET_KEY=\"hunter2\nHOST=x\n", "line 2 "},
		{"A='x\ny'\nB=2\n=hunter2\n", "line 4 "},
		{"A=1\x00hunter2\n", "line 1 "},
		{strings.Repeat("# hunter2\n", maxSettingsFile/5), "larger than"},
	} {
		_, err := load(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dotenvFile) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.40q: %v, want %s", c.text, err, c.want)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := Settings{OpenAIKey: "hunter2", DatabaseURL: "hunter2"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "settings", s, "key", s.OpenAIKey)
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %q", s, s, s.OpenAIKey), log.String()} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestSigningSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		s    Settings
		want string
	}{
		{Settings{Environment: envDevelopment, JWTSecretKey: "short"}, "short"},
		{Settings{Environment: envProduction}, "JWT_SECRET_KEY (or JWT_SECRET_KEY_FILE) must be set where ENVIRONMENT is production"},
		{Settings{Environment: envStaging}, "must be set where ENVIRONMENT is staging"},
		{Settings{Environment: envProduction, JWTSecretKey: Secret(strings.Repeat("x", 31))}, "has 31 bytes"},
		{Settings{Environment: envProduction, JWTSecretKey: Secret(strings.Repeat("x", 32))}, strings.Repeat("x", 32)},
		{Settings{Environment: envDevelopment, JWTJWKSURL: "https://x"}, "tokens come from the issuer"},
		{Settings{Environment: envDevelopment, DataDir: writeFile(t, filepath.Join(dir, "file"), "")}, "kept in DATA_DIR"},
	} {
		secret, err := c.s.signingSecret()
		if got := fmt.Sprint(string(secret), err); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s, want %s", c.s, got, c.want)
		}
	}
}

// TestSecretIsMadeOnce lets many processes' worth of goroutines make it at once.
func TestSecretIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	secrets := make([]string, 32)
	var all sync.WaitGroup
	for i := range secrets {
		all.Go(func() {
			secret, err := keptSecret(dir)
			if err != nil {
				t.Error(err)
			}
			secrets[i] = string(secret)
		})
	}
	all.Wait()
	for _, s := range secrets {
		if s != secrets[0] || len(s) != 2*minSecret {
			t.Fatalf("secrets differ: %q", secrets)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("left behind: %v %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	writeFile(t, filepath.Join(dir, madeSecretFile), "")
	if _, err := keptSecret(dir); err == nil {
		t.Error("an empty secret was taken")
	}
}
