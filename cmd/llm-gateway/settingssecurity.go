package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"llm-gateway/gateway"
)

// The words of SHARED_PROVIDER_IDS.
const (
	sharedRefuse = "refuse"
	sharedAllow  = "allow"
)

// maxListed bounds the lists of hosts, origins and proxies, and the audiences.
const maxListed = 100

// issuerSettings are about whose tokens are good.
func issuerSettings() []setting {
	return []setting{
		{"JWT_ISSUER", "", false, "The `iss` that a token must have; the tokens of `llm-gateway token` get it. Empty: it is not looked at.",
			anyText(func(s *Settings) *string { return &s.JWTIssuer })},
		{"JWT_AUDIENCE", "", false, "The `aud` that a token must have, or several with commas between them: one of them. Tokens of `llm-gateway token` get the first. Empty: it is not looked at.",
			readAudience},
		{"SUPABASE_URL", "", false,
			"Your Supabase project, as https://project.supabase.co: its users' tokens are good here. Where JWT_JWKS_URL and JWT_SECRET_KEY are empty, JWT_JWKS_URL is its /auth/v1/.well-known/jwks.json, and JWT_ALGORITHM ES256 where nothing else is set; JWT_ISSUER is its /auth/v1 and JWT_AUDIENCE authenticated, where they are empty. A project that still signs with its shared secret: set that as JWT_SECRET_KEY. The project's Postgres is named by DATABASE_URL (through its pooler with PG_POOLER=transaction).",
			readProject},
		{"SUPABASE_KEY", "", true, "The project's public (anon) key. The gateway needs it for nothing and sends it nowhere; it may be set, because a project's other parts use it.",
			anySecret(func(s *Settings) *Secret { return &s.SupabaseKey })},
		{"SUPABASE_SERVICE_ROLE_KEY", "", true, "The project's key that passes all its rules. The gateway needs it for nothing and sends it nowhere: better leave it out. A token of the role service_role is no administrator's here.",
			anySecret(func(s *Settings) *Secret { return &s.SupabaseServiceKey })},
	}
}

// edgeSettings are about who may ask, and how.
func edgeSettings() []setting {
	return []setting{
		{"ALLOWED_HOSTS", `["*"]`, false,
			"The host names that requests may be for, as a JSON list: exact ones, *.example.com for all below one, * for any. Others get 400 invalid_host; ports do not count. /health, /live and /ready answer to any, because probes ask by address.",
			readHosts},
		{"CORS_ORIGINS", "[]", false,
			"The web pages that may call the gateway from a browser, as a JSON list of origins such as https://app.example.com; * for any. Cookies play no part.",
			readOrigins},
		{"TRUSTED_PROXIES", "[]", false,
			"The addresses of the proxies before the gateway, as a JSON list of addresses and networks such as 10.0.0.0/8. Only what they say in X-Forwarded-For and X-Forwarded-Proto is believed.",
			readProxies},
		{"SHARED_PROVIDER_IDS", sharedRefuse, false,
			"What providers keep by your one key (stored prompts, uploaded files, caches), any account could name by its id. refuse: such ids are refused, but for those that answers gave to the same account (responses and their items, containers). allow: every account may name everything, for where all are one tenant's.",
			readSharedIDs},
	}
}

func readSharedIDs(s *Settings, value string) error {
	s.SharedIDs = value == sharedAllow
	if !s.SharedIDs && value != sharedRefuse {
		return errors.New("it must be refuse or allow")
	}
	return nil
}

func readAudience(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	for audience := range strings.SplitSeq(value, ",") {
		if audience = strings.TrimSpace(audience); audience == "" {
			return errors.New("it must be one audience, or several with commas between them")
		}
		s.JWTAudience = append(s.JWTAudience, audience)
	}
	if len(s.JWTAudience) > maxListed {
		return fmt.Errorf("at most %d are taken", maxListed)
	}
	return nil
}

// readProject reads the address of a Supabase project. Its dashboard shows those of its parts, too, and by such a one
// no issuer would be right. Nothing is derived from a wrong one.
func readProject(s *Settings, value string) error {
	if err := webURL(func(s *Settings) *string { return &s.SupabaseURL })(s, value); err != nil {
		s.SupabaseURL = ""
		return err
	}
	if bare := strings.TrimRight(value, "/"); strings.ContainsAny(value, "?#") || strings.HasSuffix(bare, "/v1") {
		s.SupabaseURL = ""
		return errors.New("it must be the project's own address, without what stands behind it, such as /rest/v1")
	}
	return nil
}

// listed reads a JSON list of texts, each of which check takes.
func listed(value, of string, check func(string) bool) ([]string, error) {
	var list []string
	if json.Unmarshal([]byte(value), &list) != nil || list == nil || slices.ContainsFunc(list, func(v string) bool { return !check(v) }) {
		return nil, fmt.Errorf("it must be a JSON list of %s", of)
	}
	if len(list) > maxListed {
		return nil, fmt.Errorf("at most %d are taken", maxListed)
	}
	return list, nil
}

func readHosts(s *Settings, value string) (err error) {
	s.AllowedHosts, err = listed(value, `host names without ports, such as ["api.example.com", "*.example.com"]`, func(host string) bool {
		return host == "*" || isHost(strings.TrimPrefix(host, "*."))
	})
	if err == nil && len(s.AllowedHosts) == 0 {
		err = errors.New(`an empty list would refuse every request; ["*"] takes any host`)
	}
	return err
}

func readOrigins(s *Settings, value string) (err error) {
	s.CORSOrigins, err = listed(value, `origins, such as ["https://app.example.com"]`, func(origin string) bool {
		u, err := url.Parse(origin)
		return origin == "*" || err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && origin == u.Scheme+"://"+u.Host && !strings.Contains(origin, "*")
	})
	return err
}

func readProxies(s *Settings, value string) (err error) {
	s.TrustedProxies, err = listed(value, `addresses and networks, such as ["10.0.0.0/8"]`, func(proxy string) bool {
		prefix, err := netip.ParsePrefix(proxy)
		addr := prefix.Addr()
		if err != nil {
			addr, err = netip.ParseAddr(proxy)
		}
		return err == nil && addr.Zone() == "" && !addr.Is4In6() // of these two some readers make nothing, and some IPv4
	})
	return err
}

// What Supabase's tokens are like.
const (
	supabaseAlgorithm = "ES256" // of the keys that its projects begin with
	supabaseAudience  = "authenticated"
	supabaseIssuer    = "/auth/v1"
	supabaseKeys      = supabaseIssuer + "/.well-known/jwks.json"
)

// derive fills in what a Supabase project means for how its tokens are checked, where nothing else is set.
func (s *Settings) derive(readings []reading) {
	if s.SupabaseURL == "" {
		return
	}
	base := strings.TrimRight(s.SupabaseURL, "/")
	byKeys := s.JWTJWKSURL == "" && s.JWTSecretKey == ""
	for i := range readings {
		r, value := &readings[i], ""
		switch {
		case r.problem != "" || r.value != "" && r.from != fromDefault:
		case r.of.name == "JWT_JWKS_URL" && byKeys:
			value, s.JWTJWKSURL = base+supabaseKeys, base+supabaseKeys
		case r.of.name == "JWT_ALGORITHM" && byKeys:
			value, s.JWTAlgorithm = supabaseAlgorithm, supabaseAlgorithm
		case r.of.name == "JWT_ISSUER":
			value, s.JWTIssuer = base+supabaseIssuer, base+supabaseIssuer
		case r.of.name == "JWT_AUDIENCE":
			value, s.JWTAudience = supabaseAudience, []string{supabaseAudience}
		}
		if value != "" {
			r.value, r.from = value, "SUPABASE_URL"
		}
	}
}

// notes explain what some settings are for here.
func (s *Settings) notes() (notes []string) {
	if s.SupabaseURL != "" {
		tokens := "by its keys at " + s.JWTJWKSURL
		if s.JWTJWKSURL == "" {
			tokens = "by JWT_SECRET_KEY" //nolint:gosec // an address and no credential
		}
		notes = append(notes, "SUPABASE_URL: tokens of its users are checked "+tokens+"; sub is the account, and no role of Supabase's is an administrator's: those use an API key (`llm-gateway key create --role admin`). Its Postgres is used where DATABASE_URL names it.")
	}
	if s.SupabaseKey != "" {
		notes = append(notes, "SUPABASE_KEY: nothing here needs it, and it is sent nowhere")
	}
	if s.SupabaseServiceKey != "" {
		notes = append(notes, "SUPABASE_SERVICE_ROLE_KEY: nothing here needs it, and it is sent nowhere; it opens all of the project's data, so better leave it out")
	}
	return notes
}

// edge is what guards the gateway's door.
func (s *Settings) edge() gateway.Edge {
	return gateway.Edge{Hosts: s.AllowedHosts, Origins: s.CORSOrigins, Proxies: s.TrustedProxies}
}
