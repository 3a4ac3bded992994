package main

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"llm-gateway/ledger"
)

// What production refuses to start with: secrets that everybody knows, and ways on which secrets can be read.
// Nothing here quotes a secret.

// fewBytes is how many different bytes a secret must have: 32 random ones have more, hexadecimal or not.
const fewBytes = 8

// placeholders are parts of secrets that stand in examples: of this project, of Supabase, of JWT's pages, and
// of what people type. They are long enough that no random secret has them.
var placeholders = []string{"changeme", "change-me", "change_me", "change this", "your-secret", "your_secret", "yoursecret", "your-256-bit", "your-super",
	"supersecret", "super-secret", "super_secret", "a-string-secret", "secretkey", "secret-key", "secret_key", "my-secret", "mysecret", "insecure",
	"placeholder", "replace-me", "replace_me", "replaceme", "your-api-key", "your_api_key", "yourapikey", "your-key", "your_key", "dummy-key", "example", "password", "acceptance", "development"}

// commonPasswords are those that servers are shipped and tried with.
var commonPasswords = []string{"postgres", "postgresql", "password", "passw0rd", "changeme", "secret", "admin", "root", "test", "example", "redis", "kafka", "default", "123456", "12345678", "qwerty", "pass", "pw", "llm-gateway"}

// careless is a setting that must not serve real users, and why.
type careless struct{ name, why string }

// productionProblems are the defaults and short cuts that must not serve real users, where it does.
func (s *Settings) productionProblems() (problems []string) {
	if !s.Production() {
		return nil
	}
	for _, c := range s.careless() {
		problems = append(problems, c.name+": "+c.why+", and ENVIRONMENT is production")
	}
	return problems
}

// careless are these settings, wherever it is; `check production` tells of them before.
func (s *Settings) careless() (found []careless) {
	add := func(name, why string) {
		if why != "" {
			found = append(found, careless{name, why})
		}
	}
	if len(s.JWTSecretKey) >= minSecret { // shorter ones are refused where they are used
		add("JWT_SECRET_KEY", wellKnown(string(s.JWTSecretKey)))
	}
	if u, err := url.Parse(s.JWTJWKSURL); err == nil && u.Scheme == "http" && !local(u.Hostname()) {
		add("JWT_JWKS_URL", "whoever is on the way there could sign tokens: it must be https")
	}
	for _, key := range []struct{ name, base, home, key string }{
		{"OPENAI_API_KEY", s.OpenAIBaseURL, "api.openai.com", string(s.OpenAIKey)},
		{"ANTHROPIC_API_KEY", s.AnthropicBaseURL, "api.anthropic.com", string(s.AnthropicKey)},
		{"GOOGLE_GEMINI_API_KEY", s.GeminiBaseURL, "generativelanguage.googleapis.com", string(s.GeminiKey)},
	} {
		if u, err := url.Parse(key.base); err == nil && u.Hostname() == key.home && key.key != "" { // others may need none
			add(key.name, standIn(key.key))
		}
	}
	add("DATABASE_URL", openDatabase(string(s.DatabaseURL)))
	add("DATABASE_MIGRATE_URL", openDatabase(string(s.DatabaseMigrateURL)))
	add("REDIS_URL", openRedisURL(string(s.RedisURL)))
	if common(string(s.KafkaPassword)) {
		add("KAFKA_PASSWORD", "it is one that everybody tries")
	}
	if s.KafkaSASL == saslPlain && !s.KafkaTLS && slices.ContainsFunc(s.KafkaBrokers, func(b string) bool {
		host, _, err := net.SplitHostPort(b)
		return err != nil || !local(host)
	}) {
		add("KAFKA_TLS", "KAFKA_SASL=plain would send the password so that it can be read on the way")
	}
	return found
}

// openRedisURL says why a connection string's password is none; "" where it may be one, or there is none.
func openRedisURL(at string) string {
	u, err := url.Parse(at)
	if err != nil || u.User == nil || local(u.Hostname()) {
		return ""
	}
	if password, _ := u.User.Password(); common(password) {
		return "its password is one that everybody tries"
	}
	return ""
}

// wellKnown says why a secret is none; "" where it may be one.
func wellKnown(secret string) string {
	lower := strings.ToLower(secret)
	if slices.ContainsFunc(placeholders, func(p string) bool { return strings.Contains(lower, p) }) {
		return "it is, or is made of, what stands in examples"
	}
	different := map[byte]bool{}
	for i := range len(secret) {
		different[secret[i]] = true
	}
	if len(different) < fewBytes {
		return "it has too few different characters to be random"
	}
	for unit := 1; unit <= len(secret)/2; unit++ {
		if strings.Repeat(secret[:unit], len(secret)/unit+1)[:len(secret)] == secret {
			return "it repeats itself"
		}
	}
	return ""
}

// shortestKey is the shortest key that a provider gives out, in bytes, and less.
const shortestKey = 20

// standIn says why a key is none of a provider's; "" where it may be one.
func standIn(key string) string {
	lower := strings.ToLower(key)
	switch {
	case len(key) < shortestKey, strings.Contains(lower, "xxxx"), strings.Contains(lower, "..."), strings.ContainsAny(lower, "<>{}"),
		slices.ContainsFunc(placeholders, func(p string) bool { return strings.Contains(lower, p) }):
		return "it is no key, but stands for one"
	}
	return ""
}

// openDatabase says why a connection string's password is none; "" where it may be one. Who shows a
// certificate needs no password.
func openDatabase(text string) string {
	if text == "" {
		return ""
	}
	config, err := ledger.ConnConfig(text, "", false)
	switch {
	case err != nil || local(config.Host) || strings.HasPrefix(config.Host, "/"):
		return ""
	case config.Password == "" && (config.TLSConfig == nil || len(config.TLSConfig.Certificates) == 0):
		return "it has no password"
	case common(config.Password), config.Password != "" && config.Password == config.User:
		return "its password is one that everybody tries"
	}
	return ""
}

func common(password string) bool {
	return slices.Contains(commonPasswords, strings.ToLower(password))
}
