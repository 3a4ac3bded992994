package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"llm-gateway/domain"
	"llm-gateway/projections"
)

// setting declares one setting. env.example repeats the table, and a test holds it to that.
type setting struct {
	name   string
	def    string // the default; "" also where the absence means something
	secret bool   // may come as name_FILE, and is never shown
	about  string // what it is, for env.example
	read   func(s *Settings, value string) error
}

// maxTokenMinutes bounds JWT_ACCESS_TOKEN_EXPIRE_MINUTES: a year.
const maxTokenMinutes = 365 * 24 * 60

// declared is every setting, in the order in which a new operator meets them.
func declared() []setting {
	var all []setting
	for _, part := range [...][]setting{serverSettings(), operatingSettings(), storeSettings(), redisSettings(), streamSettings(),
		trustSettings("KAFKA", "Kafka", func(s *Settings) *trustFiles { return &s.KafkaTrust }),
		trustSettings("REDIS", "Redis", func(s *Settings) *trustFiles { return &s.RedisTrust }),
		tokenSettings(), issuerSettings(), edgeSettings(), providerSettings(), retrySettings(), resilienceSettings(), cacheSettings(),
		limitSettings(), moneySettings(), metricSettings(), telemetrySettingsTable()} {
		all = append(all, part...)
	}
	return all
}

func serverSettings() []setting {
	return []setting{
		{"HOST", "0.0.0.0", false, "The address that the gateway listens on: an IP address or a host name.", readHost},
		{"PORT", "8000", false, "The port that it listens on. 0 takes any free one, which the first line of output names.",
			between(func(s *Settings) *int { return &s.Port }, 0, 65535)},
		{"ENVIRONMENT", envDevelopment, false,
			"development, staging or production. Only development makes a JWT_SECRET_KEY and prints a token at the start; production has no simulated provider unless asked for by name, and refuses secrets that are none; `llm-gateway check production` says what else it wants.",
			oneOf(func(s *Settings) *string { return &s.Environment }, envDevelopment, envStaging, envProduction)},
		{"LOG_LEVEL", "INFO", false, "DEBUG, INFO, WARN or ERROR.", readLogLevel},
		{"SHUTDOWN_DELAY", "0s", false,
			"At SIGTERM, how long the gateway still takes requests while /ready already says no, so that balancers notice: a duration such as 5s.",
			duration(func(s *Settings) *time.Duration { return &s.ShutdownDelay }, time.Minute)},
		{"SHUTDOWN_TIMEOUT", "25s", false,
			"After that, how long requests under way may go on by themselves. Then what they delivered is charged, and the rest given back.",
			duration(func(s *Settings) *time.Duration { return &s.ShutdownTimeout }, time.Hour)},
	}
}

func storeSettings() []setting {
	return []setting{
		{"DATABASE_URL", "", true,
			"Postgres, as postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=/path/to/ca.pem; sslcert and sslkey are files too. Empty: an embedded Postgres, kept in DATA_DIR.",
			postgresURL(func(s *Settings) *Secret { return &s.DatabaseURL })},
		{"DATABASE_MIGRATE_URL", "", true,
			"Postgres for `migrate`: a login that may create tables and a role. Empty: DATABASE_URL.",
			postgresURL(func(s *Settings) *Secret { return &s.DatabaseMigrateURL })},
		{"AUTO_MIGRATE", "true", false,
			"true: `serve` brings the database up to date at its start, under a lock. false: that is left to `llm-gateway migrate`.",
			yesNo(func(s *Settings) *bool { return &s.AutoMigrate })},
		{"PG_POOLER", "none", false,
			"transaction: a transaction pooler such as PgBouncer stands before Postgres, so nothing is kept on the server between transactions. Otherwise none.", readPooler},
		{"DATA_DIR", "./data", false,
			"What this process keeps: the journal of settlements that wait for Postgres, the embedded Postgres and Kafka, a made JWT secret. One `serve` at a time. Put it on a durable volume.",
			anyText(func(s *Settings) *string { return &s.DataDir })},
		{"EMBEDDED_POSTGRES_BIN", "", false,
			"The directory of the initdb and postgres that the embedded Postgres uses. Empty: the newest on this machine, otherwise prebuilt ones are fetched once; fetch: always those.", readEmbeddedBin},
		{"LEDGER_SHARDS", "", false,
			"From 1 to 1024: how many chains the ledger has, fixed for good when it is initialised. Empty: what the ledger was initialised with; 8 for a new one. Another number than the ledger's is refused.", readShards},
	}
}

// The words of KAFKA_SASL.
const (
	saslNone   = "none"
	saslPlain  = "plain"
	saslSHA256 = "scram-sha-256"
	saslSHA512 = "scram-sha-512"
)

func streamSettings() []setting {
	return []setting{
		{"KAFKA_BROKERS", "", false,
			"Kafka, as host:port, several with commas between them. Empty: an embedded one, kept in DATA_DIR.", readBrokers},
		{"KAFKA_USAGE_TOPIC", "llm.usage.v1", false,
			"The topic of all events. The gateway makes it, with one partition for each shard, and keeps it for ever; a topic of another ledger is refused.", readTopicName},
		{"KAFKA_TLS", "false", false, "true: the way to KAFKA_BROKERS is TLS, by the system's certificate authorities or KAFKA_CA_FILE.",
			yesNo(func(s *Settings) *bool { return &s.KafkaTLS })},
		{"KAFKA_SASL", saslNone, false, "How KAFKA_USERNAME and KAFKA_PASSWORD log in: none, plain, scram-sha-256 or scram-sha-512.",
			oneOf(func(s *Settings) *string { return &s.KafkaSASL }, saslNone, saslPlain, saslSHA256, saslSHA512)},
		{"KAFKA_USERNAME", "", false, "The login for KAFKA_SASL.", anyText(func(s *Settings) *string { return &s.KafkaUsername })},
		{"KAFKA_PASSWORD", "", true, "Its password.", anySecret(func(s *Settings) *Secret { return &s.KafkaPassword })},
	}
}

func tokenSettings() []setting {
	return []setting{
		{"JWT_SECRET_KEY", "", true,
			"The secret that tokens are signed with, 32 bytes or more. Empty: in development one is made and kept in DATA_DIR; elsewhere the start is refused.",
			anySecret(func(s *Settings) *Secret { return &s.JWTSecretKey })},
		{"JWT_ALGORITHM", "HS256", false,
			"HS256, HS384 or HS512 with JWT_SECRET_KEY; RS256, RS384, RS512, ES256, ES384 or ES512 with JWT_JWKS_URL.",
			oneOf(func(s *Settings) *string { return &s.JWTAlgorithm },
				"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512")},
		{"JWT_ACCESS_TOKEN_EXPIRE_MINUTES", "30", false, "How long a token of `llm-gateway token` is valid, in minutes, where nothing else is asked for.", readTokenTTL},
		{"JWT_JWKS_URL", "", false, "Where the public keys of your identity provider are; a start that cannot fetch them fails. Empty: tokens are signed with JWT_SECRET_KEY.",
			webURL(func(s *Settings) *string { return &s.JWTJWKSURL })},
	}
}

func providerSettings() []setting {
	return []setting{
		{"OPENAI_API_KEY", "", true, "The key for OpenAI. Empty: its models answer 503 provider_not_configured.",
			credential(func(s *Settings) *Secret { return &s.OpenAIKey })},
		{"ANTHROPIC_API_KEY", "", true, "The key for Anthropic. Empty: its models answer 503 provider_not_configured.",
			credential(func(s *Settings) *Secret { return &s.AnthropicKey })},
		{"GOOGLE_GEMINI_API_KEY", "", true, "The key for Google's Gemini. Empty: its models answer 503 provider_not_configured.",
			credential(func(s *Settings) *Secret { return &s.GeminiKey })},
		{"OPENAI_BASE_URL", "https://api.openai.com/v1", false, "Where OpenAI, or what speaks its API, is. A trailing /v1 may be there or not.",
			webURL(func(s *Settings) *string { return &s.OpenAIBaseURL })},
		{"ANTHROPIC_BASE_URL", "https://api.anthropic.com", false, "Where Anthropic, or what speaks its API, is. A trailing /v1 may be there or not.",
			webURL(func(s *Settings) *string { return &s.AnthropicBaseURL })},
		{"GEMINI_BASE_URL", "https://generativelanguage.googleapis.com", false, "Where Google's Gemini API, or what speaks it, is. A trailing /v1beta may be there or not.",
			webURL(func(s *Settings) *string { return &s.GeminiBaseURL })},
		{"SIMULATED_PROVIDER", "auto", false,
			"on, off or auto: the provider that needs no key and answers by itself, with priced models of its own. auto: on, but off where ENVIRONMENT is production.",
			onOffAuto(func(s *Settings) *bool { return &s.Simulated }, func(s *Settings) bool { return !s.Production() })},
		{"UPSTREAMS", "", false,
			"A file (YAML) of further providers that speak the API of OpenAI, Azure, Anthropic or Gemini, with their keys, models and prices, and of aliases and fallbacks. Read again at SIGHUP; deployments/upstreams.example.yaml explains it, `llm-gateway check` checks it. Empty: none.",
			existing("a file", false, func(s *Settings) *string { return &s.Upstreams })},
	}
}

func retrySettings() []setting {
	return []setting{
		{"RETRY_ENABLED", "true", false,
			"true: a provider that fails before its first byte (no connection, 408, 429, 5xx) is called again, inside the same reservation.",
			yesNo(func(s *Settings) *bool { return &s.RetryEnabled })},
		{"RETRY_MAX_ATTEMPTS", "3", false, "How often one provider is called for one request at most, the first time included, from 1 to 10.",
			between(func(s *Settings) *int { return &s.RetryAttempts }, 1, 10)},
		{"RETRY_BASE_DELAY", "1.0", false, "The first pause before another call, in seconds, at most: each pause is drawn between 0 and this, which doubles each time.",
			seconds(func(s *Settings) *time.Duration { return &s.RetryBaseDelay }, time.Hour)},
		{"RETRY_MAX_DELAY", "60.0", false, "The longest pause, in seconds. A provider whose Retry-After is longer is not called again.",
			seconds(func(s *Settings) *time.Duration { return &s.RetryMaxDelay }, time.Hour)},
	}
}

func moneySettings() []setting {
	return []setting{
		{"BILLING_ENABLED", "true", false,
			"false: a plain gateway. Nothing is reserved, charged or kept, no ledger is started, and every answer says x-billing: disabled. API keys are looked up in DATABASE_URL; without one only tokens are taken. An Idempotency-Key holds nothing then.",
			yesNo(func(s *Settings) *bool { return &s.Billing })},
		{"PRICE_BOOK", "", false, "A price book file (YAML) in place of the built-in prices. Read again at SIGHUP.",
			existing("a file", false, func(s *Settings) *string { return &s.PriceBook })},
		{"SELL_BOOK", "", false,
			"A file (YAML) of what customers pay: markups and fixed prices, per model, provider and group of accounts. Without it they pay what the providers charge. Read again at SIGHUP.",
			existing("a file", false, func(s *Settings) *string { return &s.SellBook })},
		{"BILLING_CURRENCY", "USD", false, "The currency of the ledger and its prices, three capital letters; fixed for good when the ledger is initialised.", readCurrency},
		{"BILLING_DEFAULT_BALANCE", "100.0", false, "What an account is opened with, by its first valid token.", readDefaultBalance},
		{"RESERVE_POLICY", "cap", false,
			"What happens to a request without a maximum of its own, where the balance does not afford the model's: cap lowers the maximum to what it affords and says so; refuse answers 402.",
			oneOf(func(s *Settings) *string { return &s.ReservePolicy }, "cap", "refuse")},
		{"BILLING_DEGRADED", "deny", false,
			"While Postgres is away: deny answers model calls 503 with Retry-After; spool lets them go on within the balances that Redis knew last, and books them when it is back. What is no longer covered then becomes an overage. Either way a call under way ends well.",
			oneOf(func(s *Settings) *string { return &s.Degraded }, "deny", degradedSpool)},
		{"MODELS_FORMAT", "openai", false, "What GET /v1/models answers: openai (an object with data) or array (the bare list).",
			oneOf(func(s *Settings) *string { return &s.ModelsFormat }, "openai", "array")},
	}
}

func readHost(s *Settings, value string) error {
	s.Host = value
	if !isHost(value) {
		return errors.New("it must be an IP address or a host name, without a port")
	}
	return nil
}

func isHost(value string) bool {
	if _, err := netip.ParseAddr(value); err == nil {
		return true
	}
	return value != "" && value == strings.Trim(value, ".-") && !strings.ContainsFunc(value, notInHostName)
}

func notInHostName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
}

func readLogLevel(s *Settings, value string) error {
	switch strings.ToUpper(value) {
	case "DEBUG":
		s.LogLevel = slog.LevelDebug
	case "INFO":
		s.LogLevel = slog.LevelInfo
	case "WARN", "WARNING":
		s.LogLevel = slog.LevelWarn
	case "ERROR":
		s.LogLevel = slog.LevelError
	default:
		return errors.New("it must be DEBUG, INFO, WARN or ERROR")
	}
	return nil
}

// duration reads a time of up to most.
func duration(into func(*Settings) *time.Duration, most time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 || d > most {
			return fmt.Errorf("it must be a duration from 0s to %s, such as 10s", most)
		}
		*into(s) = d
		return nil
	}
}

// seconds reads a number of seconds, such as 0.5.
func seconds(into func(*Settings) *time.Duration, most time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		d, err := time.ParseDuration(value + "s")
		if err != nil || d < 0 || d > most {
			return fmt.Errorf("it must be a number of seconds from 0 to %.0f, such as 0.5", most.Seconds())
		}
		*into(s) = d
		return nil
	}
}

func yesNo(into func(*Settings) *bool) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		yes, err := strconv.ParseBool(strings.ToLower(value))
		if err != nil {
			return errors.New("it must be true or false")
		}
		*into(s) = yes
		return nil
	}
}

// readRedisURL reads a connection string; the error never quotes it.
func readRedisURL(s *Settings, value string) error {
	s.RedisURL = Secret(value)
	if value == "" {
		return nil
	}
	client, err := projections.OpenRedis(value, nil)
	if err != nil {
		return err
	}
	return client.Close()
}

// maxBrokers bounds KAFKA_BROKERS: those that a client begins with; it learns of the others.
const maxBrokers = 64

func readBrokers(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	if strings.Contains(value, "@") {
		return &sourceError{"it must be host:port, without credentials"} // which a quote would show
	}
	for broker := range strings.SplitSeq(value, ",") {
		broker = strings.TrimSpace(broker)
		host, port, err := net.SplitHostPort(broker)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || !isHost(strings.ReplaceAll(host, "_", "-")) || bad != nil || n == 0 { // names of containers have underscores
			return errors.New("it must be host:port, or several with commas between them")
		}
		s.KafkaBrokers = append(s.KafkaBrokers, broker)
	}
	if len(s.KafkaBrokers) > maxBrokers {
		return fmt.Errorf("at most %d are taken", maxBrokers)
	}
	return nil
}

// maxTopicName is Kafka's bound, less what the names of transactions add to it.
const maxTopicName = 240

func readTopicName(s *Settings, value string) error {
	s.KafkaTopic = value
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if value == "." || value == ".." || len(value) > maxTopicName || strings.ContainsFunc(value, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("it must be 1 to %d letters, digits, dots, underscores and hyphens", maxTopicName)
	}
	return nil
}

func readPooler(s *Settings, value string) error {
	s.Pooled = value == "transaction"
	if !s.Pooled && value != "none" {
		return errors.New("it must be none or transaction")
	}
	return nil
}

// fetchBinaries is the word that embedded.Options.BinDir takes for the prebuilt binaries.
const fetchBinaries = "fetch"

func readEmbeddedBin(s *Settings, value string) error {
	if value == fetchBinaries {
		s.EmbeddedBin = value
		return nil
	}
	return existing("a directory", true, func(s *Settings) *string { return &s.EmbeddedBin })(s, value)
}

func readShards(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	return between(func(s *Settings) *int { return &s.LedgerShards }, 1, domain.MaxShards)(s, value)
}

func anySecret(into func(*Settings) *Secret) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*into(s) = Secret(value)
		return nil
	}
}

func readTokenTTL(s *Settings, value string) error {
	minutes := 0
	err := between(func(*Settings) *int { return &minutes }, 1, maxTokenMinutes)(s, value)
	s.JWTTokenTTL = time.Duration(minutes) * time.Minute
	return err
}

// webURL reads an address; "" is allowed.
func webURL(into func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*into(s) = value
		if value == "" {
			return nil
		}
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return &sourceError{"it must be http://... or https://..., without credentials"} // which a quote would show
		}
		return nil
	}
}

// onOffAuto reads on or off; auto is what ENVIRONMENT, which is read before, makes of it.
func onOffAuto(into func(*Settings) *bool, auto func(*Settings) bool) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		switch value {
		case "on", "off":
			*into(s) = value == "on"
		case "auto":
			*into(s) = auto(s)
		default:
			return errors.New("it must be auto, on or off")
		}
		return nil
	}
}

func readCurrency(s *Settings, value string) error {
	s.Currency = value
	if domain.CheckCurrency(value) != nil {
		return errors.New("it must be three capital letters, such as USD")
	}
	return nil
}

func readDefaultBalance(s *Settings, value string) error {
	amount, err := domain.ParseAmount(value)
	if err != nil || amount.Sign() < 0 {
		return fmt.Errorf("it must be an amount of 0 or more with at most %d decimals, such as 100.0", domain.AmountScale)
	}
	s.DefaultBalance = amount
	return nil
}
