package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"llm-gateway/cmd/llm-gateway/secret"
	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// Secret is a setting that is never printed: formatting and logging it gives "[secret]".
type Secret = secret.Text

// Settings is the configuration of one process, checked.
type Settings struct {
	Host        string
	Port        int    // 0: any free port
	Environment string // development, staging or production
	LogLevel    slog.Level
	LogFile     string // "" = stdout
	Debug       bool
	AppVersion  string // "" = the build's own

	HealthEvery  time.Duration
	HealthPublic bool // HEALTH_DETAILS=public
	HealthProbes bool // HEALTH_PROBES, with auto decided

	ShutdownDelay   time.Duration // unready, and still serving
	ShutdownTimeout time.Duration // until requests under way are ended

	DatabaseURL        Secret // "" = embedded
	DatabaseMigrateURL Secret // "" = DatabaseURL
	AutoMigrate        bool
	Pooled             bool // PG_POOLER=transaction
	DataDir            string
	EmbeddedBin        string // embedded.Options.BinDir
	LedgerShards       int    // 0: what the ledger was initialised with; newLedgerShards for a new one

	RedisURL      Secret   // REDIS_URL, or made of REDIS_HOST; "" = embedded
	KafkaBrokers  []string // none = embedded
	KafkaTopic    string
	KafkaTLS      bool
	KafkaSASL     string // none, plain, scram-sha-256 or scram-sha-512
	KafkaUsername string
	KafkaPassword Secret
	KafkaTrust    trustFiles
	RedisTrust    trustFiles

	JWTSecretKey Secret // "" in development: made and kept in DataDir (signingSecret)
	JWTAlgorithm string
	JWTTokenTTL  time.Duration
	JWTJWKSURL   string // "" = tokens are signed with the secret key
	JWTIssuer    string // "" = any
	JWTAudience  []string

	SupabaseURL                     string
	SupabaseKey, SupabaseServiceKey Secret

	AllowedHosts, CORSOrigins, TrustedProxies []string
	SharedIDs                                 bool // SHARED_PROVIDER_IDS=allow

	OpenAIKey, AnthropicKey, GeminiKey Secret
	OpenAIBaseURL                      string
	AnthropicBaseURL, GeminiBaseURL    string
	RetryEnabled                       bool
	RetryAttempts                      int
	RetryBaseDelay, RetryMaxDelay      time.Duration
	Simulated                          bool // SIMULATED_PROVIDER, with auto decided
	resilience                              // settingsresilience.go
	caching                                 // responsecache.go

	Upstreams string // the path of a file of upstreams; "" = none

	Billing        bool
	PriceBook      string // a path; "" = built in
	SellBook       string // a path; "" = sold at cost
	Currency       string
	DefaultBalance domain.Amount
	ReservePolicy  string // cap or refuse
	Degraded       string // deny or spool
	ModelsFormat   string // openai or array

	Limits       Limits
	Telemetry    telemetrySettings
	Prometheus   bool
	UserBalances int // 0: METRICS_USER_BALANCE=off
}

// degradedSpool is the BILLING_DEGRADED that lets requests go on while Postgres is away.
const degradedSpool = "spool"

// The environments. Anything else is refused, so that a misspelt production is none by accident.
const (
	envDevelopment = "development"
	envStaging     = "staging"
	envProduction  = "production"
)

// Development says whether conveniences are in place that production must not have.
func (s *Settings) Development() bool { return s.Environment == envDevelopment }

// Production says whether this serves real users.
func (s *Settings) Production() bool { return s.Environment == envProduction }

// settings reads the settings once; the error names everything that is wrong with them.
func (a *app) settings() (*Settings, error) {
	if a.loaded != nil {
		return a.loaded, nil
	}
	src, err := readSources(a.environ, a.dotenv)
	if err != nil {
		return nil, err
	}
	s, err := loadSettings(src)
	if err != nil {
		return nil, err
	}
	a.loaded, a.sources = s, src
	return s, nil
}

// settingsError is all that is wrong with the settings.
type settingsError struct{ problems []string }

func (e *settingsError) Error() string {
	if len(e.problems) == 1 {
		return "a setting cannot be used: " + e.problems[0]
	}
	return fmt.Sprintf("%d settings cannot be used:\n  %s", len(e.problems), strings.Join(e.problems, "\n  "))
}

// loadSettings reads every declared setting, or says all that is wrong with them.
func loadSettings(src sources) (*Settings, error) {
	s, readings := readSettings(src)
	wrong := &settingsError{unreadable(readings)}
	if len(wrong.problems) == 0 {
		wrong.problems = s.contradictions()
	}
	if len(wrong.problems) > 0 {
		return nil, wrong
	}
	return s, nil
}

// unreadable are the problems of settings one by one.
func unreadable(readings []reading) (problems []string) {
	for _, r := range readings {
		if r.problem != "" {
			problems = append(problems, r.of.name+": "+r.problem)
		}
	}
	return problems
}

// reading is a setting as it was found.
type reading struct {
	of      setting
	value   string // the default where nothing is set; it may be secret
	from    string // where it was set, or "default"
	problem string // "" where it can be used
}

// readSettings reads every declared setting. A value that is empty is the default. What a setting with
// a problem left in the Settings is not to be used.
func readSettings(src sources) (*Settings, []reading) {
	s := &Settings{}
	var all []reading
	for _, d := range declared() {
		value, from, err := src.value(d)
		if value == "" {
			value = d.def
		}
		if err == nil {
			err = d.read(s, value)
		}
		r := reading{of: d, value: value, from: from}
		if err != nil {
			r.problem = d.complaint(value, err)
		}
		all = append(all, r)
	}
	s.derive(all)
	s.deriveRedis(all)
	return s, all
}

// shownValue bounds what a message quotes of a value.
const shownValue = 60

// complaint quotes what was given, unless it is secret.
func (d *setting) complaint(value string, err error) string {
	if d.secret || value == "" || errors.As(err, new(*sourceError)) {
		return err.Error()
	}
	if len(value) > shownValue {
		value = value[:shownValue] + "..."
	}
	return fmt.Sprintf("%s, not %q", err, value)
}

// contradictions says what is wrong with settings that are right one by one.
func (s *Settings) contradictions() []string {
	return append(s.mismatches(), s.productionProblems()...)
}

// mismatches are settings that do not go together.
func (s *Settings) mismatches() (problems []string) {
	shared := strings.HasPrefix(s.JWTAlgorithm, "HS")
	switch {
	case shared && s.JWTJWKSURL != "":
		problems = append(problems, "JWT_ALGORITHM: an issuer's tokens (JWT_JWKS_URL) are RS256 or ES256, or their longer forms, not "+s.JWTAlgorithm)
	case !shared && s.JWTJWKSURL == "":
		problems = append(problems, "JWT_JWKS_URL: it is needed to check tokens by JWT_ALGORITHM="+s.JWTAlgorithm)
	}
	if s.DatabaseURL == "" && s.DatabaseMigrateURL != "" {
		problems = append(problems, "DATABASE_MIGRATE_URL: it goes with DATABASE_URL, which is not set")
	}
	problems = append(problems, s.Telemetry.contradictions()...)
	problems = append(problems, trustContradictions("KAFKA", "KAFKA_TLS", s.KafkaTrust, s.KafkaTLS)...)
	problems = append(problems, trustContradictions("REDIS", "a rediss:// REDIS_URL", s.RedisTrust, strings.HasPrefix(string(s.RedisURL), "rediss://"))...)
	return append(problems, s.kafkaContradictions()...)
}

// kafkaContradictions says what is wrong with how Kafka is reached.
func (s *Settings) kafkaContradictions() (problems []string) {
	login, sasl := s.KafkaUsername != "" || s.KafkaPassword != "", s.KafkaSASL != saslNone
	switch {
	case len(s.KafkaBrokers) == 0 && (login || sasl || s.KafkaTLS):
		problems = append(problems, "KAFKA_BROKERS: KAFKA_TLS, KAFKA_SASL and their like go with it, and it is not set")
	case sasl && (s.KafkaUsername == "" || s.KafkaPassword == ""):
		problems = append(problems, "KAFKA_USERNAME: it and KAFKA_PASSWORD are needed to log in by KAFKA_SASL="+s.KafkaSASL)
	case login && !sasl:
		problems = append(problems, "KAFKA_SASL: it says how KAFKA_USERNAME and KAFKA_PASSWORD log in, and is none")
	}
	return problems
}

// oneOf reads one of a few words.
func oneOf(into func(*Settings) *string, words ...string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if !slices.Contains(words, value) {
			return errors.New("it must be " + orList(words))
		}
		*into(s) = value
		return nil
	}
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// anyText reads whatever is there.
func anyText(into func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*into(s) = value
		return nil
	}
}

// credential reads a key that goes into a header.
func credential(into func(*Settings) *Secret) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		for i := range len(value) {
			if value[i] <= ' ' || value[i] > '~' {
				return errors.New("it must be one word of printable ASCII")
			}
		}
		*into(s) = Secret(value)
		return nil
	}
}

// between reads a whole number.
func between(into func(*Settings) *int, low, high int) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < low || n > high {
			return fmt.Errorf("it must be a whole number from %d to %d", low, high)
		}
		*into(s) = n
		return nil
	}
}

// postgresURL reads a connection string; the error never quotes it.
func postgresURL(into func(*Settings) *Secret) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*into(s) = Secret(value)
		if value == "" {
			return nil
		}
		_, err := ledger.ConnConfig(value, "", false)
		return err
	}
}

// existing reads a path to something that must be there; "" is allowed.
func existing(what string, isDir bool, into func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*into(s) = value
		if value == "" {
			return nil
		}
		info, err := os.Stat(value)
		if err != nil || info.IsDir() != isDir {
			return fmt.Errorf("it must be a path to %s that exists", what)
		}
		return nil
	}
}
