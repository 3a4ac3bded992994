package main

import (
	"context"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/migrations/pgtest"
)

// examineBy runs `check NAME --json` and returns its lines; it must end with 1 where any failed.
func examineBy(t *testing.T, env []string, name string) findings {
	t.Helper()
	r := run(t, env, "check", name, "--json", "--timeout", "20s")
	out := decoded[checkOutcome](t, r.stdout)
	if failed := out.Checks.count(verdictFail); r.status != min(1, failed) || out.Failed != failed || out.Warned != out.Checks.count(verdictWarn) {
		t.Errorf("check %s ended with %d: %+v", name, r.status, out)
	}
	if !slices.ContainsFunc(out.Checks, func(f finding) bool { return f.Check == "connection" && f.Verdict == verdictFail }) && name != "production" {
		return out.Checks // where nothing is secret, one form is enough
	}
	if text := run(t, env, "check", name, "--timeout", "20s"); text.status != r.status || strings.Contains(r.stdout+r.stderr+text.stdout+text.stderr, "hunter2") {
		t.Errorf("check %s: a password is shown, or it ends in another way as text:\n%s%s", name, text.stdout, text.stderr)
	}
	return out.Checks
}

// wants looks for lines: "name VERDICT part of the detail".
func (f findings) wants(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " | ")
		v, detail, _ := strings.Cut(rest, " | ")
		if !slices.ContainsFunc(f, func(one finding) bool {
			return one.Check == name && (v == "" || one.Verdict == verdict(v)) && strings.Contains(one.Detail, detail)
		}) {
			t.Errorf("no line %q in %+v", line, f)
		}
	}
}

// sql runs statements as the owner of a schema.
func sql(t *testing.T, at string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // the test goes on without it
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestCheckDatabase(t *testing.T) {
	t.Parallel()
	fresh := pgtest.URL(t)
	examineBy(t, []string{"DATABASE_URL=" + fresh}, "db").wants(t, "connection | OK", "round trip | OK", "encoding | OK | UTF8", "fsync | ", "role | OK",
		"triggers | OK", "migrations | OK | the latest", "clock | OK", "pooler | OK | none", "ledger | OK")
	examineBy(t, []string{"DATABASE_URL=" + pgtest.Empty(t), "AUTO_MIGRATE=false"}, "db").wants(t, "migrations | FAIL | migrate")
	broken := pgtest.URL(t)
	sql(t, broken, `ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_immutable`, `REVOKE INSERT ON ledger_events FROM llm_gateway`)
	examineBy(t, []string{"DATABASE_URL=" + broken}, "db").wants(t, "triggers | FAIL | ledger_events_immutable", "role | FAIL | lacks INSERT")
	loose := pgtest.URL(t)
	sql(t, loose, `GRANT DELETE ON ledger_events TO llm_gateway`, `DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	examineBy(t, []string{"DATABASE_URL=" + loose}, "db").wants(t, "role | FAIL | may DELETE events", "migrations | WARN | run `llm-gateway migrate`")
	examineBy(t, []string{"DATABASE_URL=" + withOption(t, fresh, "synchronous_commit", "off")}, "db").wants(t, "synchronous_commit | FAIL | acknowledged")
	examineBy(t, []string{"DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/x"}, "db").wants(t, "connection | FAIL | DATABASE_URL: no Postgres can be reached at 127.0.0.1:1")
	examineBy(t, []string{"DATABASE_URL=postgres://u:hunter2@no-such-host.invalid/x"}, "db").wants(t, "connection | FAIL | the host name is unknown")
	examineBy(t, nil, "db").wants(t, "embedded | SKIP | not running")
	wrong, err := url.Parse(fresh)
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword("nobody-of-that-name", "hunter2")
	examineBy(t, []string{"DATABASE_URL=" + wrong.String()}, "db").wants(t, "connection | FAIL | DATABASE_URL: the Postgres at")
}

// withOption sets a parameter of the session in a connection string.
func withOption(t *testing.T, at, name, value string) string {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func TestCheckRedis(t *testing.T) {
	t.Parallel()
	if at := os.Getenv("REDIS_URL"); at != "" {
		examineBy(t, []string{"REDIS_URL=" + at}, "redis").wants(t, "connection | OK", "round trip | OK", "scripts | OK")
	}
	examineBy(t, []string{"REDIS_URL=redis://:hunter2@127.0.0.1:1/0"}, "redis").wants(t, "connection | FAIL | REDIS_URL: no Redis can be reached at 127.0.0.1:1")
	examineBy(t, nil, "redis").wants(t, "embedded | SKIP | not running")
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server")
	}
	socketless := func(args ...string) string {
		l := httptest.NewServer(nil) // for a free port
		at := strings.TrimPrefix(l.URL, "http://")
		l.Close()
		_, port, _ := strings.Cut(at, ":")
		cmd := exec.CommandContext(t.Context(), server, append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()}, args...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			cmd.Wait()         //nolint:errcheck // the same
		})
		return at
	}
	guarded := socketless("--requirepass", "hunter2hunter2", "--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
	eventually(t, settleLimit, "Redis serves", func() bool {
		r := run(t, []string{"REDIS_URL=redis://:hunter2hunter2@" + guarded}, "check", "redis")
		return r.status == 0
	})
	examineBy(t, []string{"REDIS_URL=redis://:hunter2hunter2@" + guarded}, "redis").wants(t, "eviction | WARN | allkeys-lru", "scripts | OK", "version | OK")
	examineBy(t, []string{"REDIS_URL=redis://:hunter2wrong@" + guarded}, "redis").wants(t, "connection | FAIL | REDIS_URL:")
	examineBy(t, []string{"REDIS_URL=redis://" + guarded}, "redis").wants(t, "connection | FAIL | refuses the login")
	evicts := socketless("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	eventually(t, settleLimit, "Redis serves", func() bool { return run(t, []string{"REDIS_URL=redis://" + evicts}, "check", "redis").status == 0 })
	examineBy(t, []string{"REDIS_URL=redis://" + evicts}, "redis").wants(t, "eviction | OK | allkeys-lru")
	examineBy(t, []string{"REDIS_URL=redis://" + evicts, "BILLING_DEGRADED=spool"}, "redis").wants(t, "eviction | WARN | spent twice")
}

func TestCheckKafka(t *testing.T) {
	t.Parallel()
	brokers := brokerWith(t)[0]
	examineBy(t, []string{"KAFKA_BROKERS=" + brokers}, "kafka").wants(t, "connection | OK | 1 brokers", "round trip | OK", "topic | OK | serve makes it", "transactions | OK")
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	right := map[string]*string{"cleanup.policy": new("delete"), "retention.ms": new("-1"), "retention.bytes": new("-1"), "message.timestamp.type": new("LogAppendTime"),
		"max.message.bytes": new("1048588")}
	for name, change := range map[string]string{"good": "", "short": "604800000"} {
		if change != "" {
			right["retention.ms"] = new(change)
		}
		if _, err := admin.CreateTopic(t.Context(), 3, 1, right, name); err != nil {
			t.Fatal(err)
		}
		want := "topic | OK | 3 partitions"
		if change != "" {
			want = "topic | FAIL | retention.ms"
		}
		examineBy(t, []string{"KAFKA_BROKERS=" + brokers, "KAFKA_USAGE_TOPIC=" + name}, "kafka").wants(t, want, "replication | WARN")
		right["retention.ms"] = new("-1")
	}
	examineBy(t, []string{"KAFKA_BROKERS=" + brokers, "KAFKA_USAGE_TOPIC=good", "LEDGER_SHARDS=8"}, "kafka").wants(t, "topic | FAIL | has 3 partitions, and must have 8")
	guarded := brokerWith(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", "hunter2hunter2"))[0]
	login := []string{"KAFKA_BROKERS=" + guarded, "KAFKA_SASL=scram-sha-256", "KAFKA_USERNAME=u"}
	examineBy(t, append(login, "KAFKA_PASSWORD=hunter2hunter2"), "kafka").wants(t, "connection | OK", "login | OK | scram-sha-256 as u", "transactions | OK")
	examineBy(t, append(login, "KAFKA_PASSWORD=hunter2wrong"), "kafka").wants(t, "connection | FAIL | KAFKA_BROKERS:")
	examineBy(t, []string{"KAFKA_BROKERS=127.0.0.1:1"}, "kafka").wants(t, "connection | FAIL | KAFKA_BROKERS: no Kafka can be reached at 127.0.0.1:1")
	examineBy(t, nil, "kafka").wants(t, "embedded | SKIP | not running")
}

// TestCheckBesideServe: the embedded parts of a running gateway are checked where they are.
func TestCheckBesideServe(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	env := []string{"DATA_DIR=" + data}
	startServe(t, env...)
	examineBy(t, env, "db").wants(t, "connection | OK", "role | OK", "migrations | OK", "ledger | OK | 8 shards")
	examineBy(t, env, "redis").wants(t, "scripts | OK")
	examineBy(t, env, "kafka").wants(t, "topic | OK | 8 partitions", "transactions | OK")
}

func TestCheckProduction(t *testing.T) {
	t.Parallel()
	nothing := examineBy(t, []string{"DATABASE_URL="}, "production")
	nothing.wants(t, "ENVIRONMENT | FAIL", "SIMULATED_PROVIDER | FAIL", "JWT_SECRET_KEY | FAIL | openssl", "DATABASE_URL | FAIL | embedded", "REDIS_URL | FAIL",
		"KAFKA_BROKERS | FAIL", "providers | FAIL", "BILLING_DEFAULT_BALANCE | WARN", "SHUTDOWN_DELAY | WARN")
	examineBy(t, []string{"PORT=x"}, "production").wants(t, "settings | FAIL | PORT", "everything else | SKIP")
	for setting, want := range map[string]string{
		"JWT_SECRET_KEY=short": "JWT_SECRET_KEY | FAIL | 5 bytes",
		"JWT_SECRET_KEY=change-me-change-me-change-me-change-me":                        "JWT_SECRET_KEY | FAIL | examples",
		"JWT_SECRET_KEY=" + strings.Repeat("ab", 40):                                    "JWT_SECRET_KEY | FAIL | too few",
		"JWT_SECRET_KEY=kW3v0yT9qLr7ZbN4xGf1mHc8sJd6pUe2aViOtXyQ":                       "JWT_SECRET_KEY | OK",
		"ANTHROPIC_API_KEY=sk-ant-...":                                                  "ANTHROPIC_API_KEY | FAIL | it is no key",
		"SUPABASE_URL=https://127.0.0.1:1":                                              "JWT_ISSUER | OK",
		"DATABASE_MIGRATE_URL=postgres://me:hunter2@h/d":                                "settings | FAIL | DATABASE_MIGRATE_URL",
		"PRICE_BOOK=" + writeFile(t, filepath.Join(t.TempDir(), "b.yaml"), "models: 1"): "files | FAIL | PRICE_BOOK",
		`ALLOWED_HOSTS=["*"]`:                                                           "ALLOWED_HOSTS | WARN",
		`ALLOWED_HOSTS=["api.example.com"]`:                                             "ALLOWED_HOSTS | OK | api.example.com",
		`CORS_ORIGINS=["*"]`:                                                            "CORS_ORIGINS | WARN",
		`CORS_ORIGINS=[]`:                                                               "CORS_ORIGINS | OK",
		`TRUSTED_PROXIES=["0.0.0.0/0"]`:                                                 "TRUSTED_PROXIES | FAIL",
		`TRUSTED_PROXIES=["10.0.0.0/8"]`:                                                "TRUSTED_PROXIES | OK | 10.0.0.0/8",
		"SHARED_PROVIDER_IDS=allow":                                                     "SHARED_PROVIDER_IDS | WARN",
		"SHARED_PROVIDER_IDS=refuse":                                                    "SHARED_PROVIDER_IDS | OK",
		"RATE_LIMIT_STORAGE=memory":                                                     "RATE_LIMIT_STORAGE | WARN",
		"RATE_LIMIT_STORAGE=redis":                                                      "RATE_LIMIT_STORAGE | OK",
		"RATE_LIMIT_REQUESTS_PER_MINUTE=7":                                              "RATE_LIMIT_REQUESTS_PER_MINUTE | OK | 7",
		"MAX_IN_FLIGHT=0":                                                               "MAX_IN_FLIGHT | WARN",
		"MAX_IN_FLIGHT=5":                                                               "MAX_IN_FLIGHT | OK",
		"CIRCUIT_BREAKER_ENABLED=false":                                                 "CIRCUIT_BREAKER_ENABLED | WARN",
		"CIRCUIT_BREAKER_ENABLED=true":                                                  "CIRCUIT_BREAKER_ENABLED | OK",
		"RETRY_BUDGET_PERCENT=0":                                                        "RETRY_BUDGET_PERCENT | WARN",
		"METRICS_USER_BALANCE=5":                                                        "METRICS_USER_BALANCE | WARN",
		"METRICS_USER_BALANCE=off":                                                      "METRICS_USER_BALANCE | OK",
		"PROMETHEUS_ENABLED=false":                                                      "PROMETHEUS_ENABLED | WARN",
		"HEALTH_PROBES=off":                                                             "HEALTH_PROBES | WARN",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1":                                "OTEL_EXPORTER_OTLP_ENDPOINT | WARN | no connection",
		"SENTRY_DSN=http://hunter2@" + listenLocal(t).Addr().String() + "/1":            "SENTRY_DSN | OK | it can be reached",
		"LOG_FILE=" + filepath.Join(t.TempDir(), "gone", "log"):                         "LOG_FILE | FAIL | no such file or directory",
		"LOG_FILE=" + filepath.Join(t.TempDir(), "log"):                                 "LOG_FILE | OK",
		"LOG_LEVEL=INFO":                                                                "telemetry | SKIP",
	} {
		examineBy(t, []string{setting}, "production").wants(t, want)
	}
	unlimited := examineBy(t, []string{"RATE_LIMIT_REQUESTS_PER_MINUTE=0", "RATE_LIMIT_REQUESTS_PER_HOUR=0", "RESPONSE_CACHE=memory", "RESPONSE_CACHE_SHARED=true"}, "production")
	unlimited.wants(t, "RATE_LIMIT_REQUESTS_PER_MINUTE | WARN", "RESPONSE_CACHE_SHARED | WARN")
	careful := []string{"ENVIRONMENT=production", "JWT_SECRET_KEY=kW3v0yT9qLr7ZbN4xGf1mHc8sJd6pUe2aViOtXyQ", "DATABASE_URL=" + pgtest.URL(t), "REDIS_URL=" + os.Getenv("REDIS_URL"),
		"KAFKA_BROKERS=" + brokerWith(t)[0], "BILLING_DEFAULT_BALANCE=0", "SHUTDOWN_DELAY=5s", "AUTO_MIGRATE=false", "DEBUG=true", "LOG_LEVEL=DEBUG",
		"HEALTH_DETAILS=public", "BILLING_ENABLED=false", "OPENAI_API_KEY=sk-proj-Fq3dP9mVw2RkT7uYb4NcE6hJs8", "OPENAI_BASE_URL=http://127.0.0.1:1"}
	examineBy(t, careful, "production").wants(t, "ENVIRONMENT | OK", "SIMULATED_PROVIDER | OK", "JWT_SECRET_KEY | OK", "db: role | OK", "db: triggers | OK", "kafka: transactions | OK",
		"AUTO_MIGRATE | OK", "DEBUG | WARN", "LOG_LEVEL | WARN", "HEALTH_DETAILS | WARN", "BILLING_ENABLED | WARN", "provider openai | FAIL | no connection",
		"BILLING_DEFAULT_BALANCE | OK", "SHUTDOWN_DELAY | OK", "DATA_DIR | ", "OPENAI_API_KEY | OK")
}

// TestCheckSaysAll: what production refuses to start with ends no check, which says all the rest, too.
func TestCheckSaysAll(t *testing.T) {
	t.Parallel()
	weak := []string{"ENVIRONMENT=production", "JWT_SECRET_KEY=change-me-change-me-change-me-change-me", "DATABASE_URL=" + pgtest.URL(t),
		"ANTHROPIC_API_KEY=sk-ant-...", "ANTHROPIC_BASE_URL=http://127.0.0.1:1", "KAFKA_PASSWORD=hunter2"} // a mismatch, too
	fails(t, 1, "JWT_SECRET_KEY", weak[:2], "token")
	examineBy(t, weak, "production").wants(t, "JWT_SECRET_KEY | FAIL | examples", "settings | FAIL | KAFKA_SASL", "db: role | OK", "provider anthropic | FAIL | no connection",
		"PRICE_BOOK | ", "ALLOWED_HOSTS | WARN", "MAX_IN_FLIGHT | OK")
	examineBy(t, weak, "db").wants(t, "connection | OK")
	fails(t, 1, "anthropic: no connection", weak, "check", "providers")
}

// TestCheckPriceRecord: the prices of the files are held against those that the ledger has recorded.
func TestCheckPriceRecord(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=" + pgtest.URL(t)}
	judge := func(want string, more ...string) {
		t.Helper()
		examineBy(t, append(more, env...), "production").wants(t, "price record | "+want)
	}
	judge("SKIP")
	s := startServe(t, env...)
	judge("OK")
	chat(t.Context(), newClient(t), s.url, tokenFor(t, "payer"), chatBody(flatModel, "hello", false, ""))
	dear := writeFile(t, filepath.Join(t.TempDir(), "sell.yaml"), "currency: USD\nmarkup: \"50\"\n")
	judge("WARN | prices or more are others than the ledger has recorded", "SELL_BOOK="+dear)
}
