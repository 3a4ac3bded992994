package main

import (
	"strings"
	"testing"
)

// productionSecret is one that production starts with.
const productionSecret = "9f2c1b7a64d0e8853ac1f7b2096de4417be1c0925a3f8d66"

// TestProductionRefuses is the table of what production does not start with, and of what is fine. The same is
// fine everywhere else, and no complaint quotes a secret.
func TestProductionRefuses(t *testing.T) {
	t.Parallel()
	const (
		random = "JWT_SECRET_KEY=" + productionSecret
		fine   = ""
	)
	for _, c := range []struct{ setting, problem string }{
		{random, fine},
		{"JWT_SECRET_KEY=Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ubw==", fine},
		{"JWT_SECRET_KEY=changemechangemechangemechangeme", "examples"},
		{"JWT_SECRET_KEY=ChangeMe-0123456789-abcdefghijklmnop", "examples"},
		{"JWT_SECRET_KEY=super-secret-jwt-token-with-at-least-32-characters-long", "examples"},
		{"JWT_SECRET_KEY=a-string-secret-at-least-256-bits-long", "examples"},
		{"JWT_SECRET_KEY=your-256-bit-secret-your-256-bit-secret", "examples"},
		{"JWT_SECRET_KEY=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "too few"},
		{"JWT_SECRET_KEY=01010101010101010101010101010101010101", "too few"},
		{"JWT_SECRET_KEY=abcdefghijabcdefghijabcdefghijabcdefghij", "repeats"},
		{"JWT_SECRET_KEY=abcdefghijklabcdefghijklabcdefghijklabcd", "repeats"},
		{"JWT_SECRET_KEY=" + testSecret, "examples"},
		{"OPENAI_API_KEY=sk-xxx", "no key"},
		{"OPENAI_API_KEY=sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "no key"},
		{"OPENAI_API_KEY=your-api-key-goes-in-here-please", "no key"},
		{"OPENAI_API_KEY=sk-proj-Fq3dP9mVw2RkT7uYb4NcE6hJs8", fine},
		{"ANTHROPIC_API_KEY=sk-ant-...", "no key"},
		{"GOOGLE_GEMINI_API_KEY=<your-gemini-key-right-here>", "no key"},
		{"DATABASE_URL=postgres://app:postgres@db.example.net/app?sslmode=require", "everybody tries"},
		{"DATABASE_URL=postgres://app:app@db.example.net/app?sslmode=require", "everybody tries"},
		{"DATABASE_URL=postgres://app@db.example.net/app?sslmode=require", "no password"},
		{"DATABASE_URL=postgres://app:Kx81mPq02ZtR@db.example.net/app?sslmode=require", fine},
		{"DATABASE_URL=postgres://postgres:postgres@localhost/app", fine},
		{"DATABASE_URL=postgres://postgres@127.0.0.1/app", fine},
		{"DATABASE_URL=host=/var/run/postgresql user=app dbname=app", fine},
		{"REDIS_URL=redis://:redis@cache.example.net:6379", "everybody tries"},
		{"REDIS_URL=rediss://:Kx81mPq02ZtR@cache.example.net:6379", fine},
		{"REDIS_URL=redis://cache.example.net:6379", fine},
		{"KAFKA_BROKERS=k:9092 KAFKA_SASL=scram-sha-256 KAFKA_USERNAME=u KAFKA_PASSWORD=kafka", "everybody tries"},
		{"KAFKA_BROKERS=k:9092 KAFKA_SASL=plain KAFKA_USERNAME=u KAFKA_PASSWORD=Kx81mPq02ZtR", "read on the way"},
		{"KAFKA_BROKERS=k:9092 KAFKA_SASL=plain KAFKA_TLS=true KAFKA_USERNAME=u KAFKA_PASSWORD=Kx81mPq02ZtR", fine},
		{"KAFKA_BROKERS=127.0.0.1:9092 KAFKA_SASL=plain KAFKA_USERNAME=u KAFKA_PASSWORD=Kx81mPq02ZtR", fine},
		{"JWT_ALGORITHM=ES256 JWT_JWKS_URL=http://issuer.example.net/keys", "must be https"},
		{"JWT_ALGORITHM=ES256 JWT_JWKS_URL=https://issuer.example.net/keys", fine},
		{"JWT_ALGORITHM=ES256 JWT_JWKS_URL=http://127.0.0.1:1/keys", fine},
		{"OPENAI_BASE_URL=http://vllm.example.net:8000 OPENAI_API_KEY=EMPTY", fine},
	} {
		settings := strings.Split(c.setting, " ")
		if strings.HasPrefix(c.setting, "DATABASE_URL=host=") {
			settings = []string{c.setting}
		}
		if _, err := load(t, "", append(settings, "ENVIRONMENT=staging")...); err != nil {
			t.Errorf("%s: elsewhere: %v", c.setting, err)
		}
		if !strings.HasPrefix(c.setting, "JWT_") {
			settings = append(settings, random)
		}
		_, err := load(t, "", append(settings, "ENVIRONMENT=production")...)
		switch {
		case c.problem == fine && err != nil:
			t.Errorf("%s: %v", c.setting, err)
		case c.problem != fine && (err == nil || !strings.Contains(err.Error(), c.problem) || !strings.Contains(err.Error(), "ENVIRONMENT is production")):
			t.Errorf("%s: %v, want %q", c.setting, err, c.problem)
		case err != nil:
			for _, s := range settings {
				if _, value, _ := strings.Cut(s, "="); len(value) > 7 && strings.Contains(err.Error(), value) {
					t.Errorf("%s: it is quoted: %v", c.setting, err)
				}
			}
		}
	}
}

// TestSupabase: a project's address says how its tokens are checked, but where that is set already, and check
// tells what each of the three is for.
func TestSupabase(t *testing.T) {
	t.Parallel()
	const project = "SUPABASE_URL=https://abc.supabase.co"
	type result struct{ algorithm, keys, issuer, audience string }
	derived := result{"ES256", "https://abc.supabase.co/auth/v1/.well-known/jwks.json", "https://abc.supabase.co/auth/v1", "authenticated"}
	with := func(change func(*result)) result {
		r := derived
		change(&r)
		return r
	}
	for _, c := range []struct {
		name string
		env  []string
		want result
	}{
		{"the address alone", []string{project}, derived},
		{"with a slash", []string{project + "/"}, derived},
		{"another algorithm", []string{project, "JWT_ALGORITHM=RS256"}, with(func(r *result) { r.algorithm = "RS256" })},
		{"another audience", []string{project, "JWT_AUDIENCE=a, b"}, with(func(r *result) { r.audience = "a,b" })},
		{"another issuer", []string{project, "JWT_ISSUER=https://auth.example.com"}, with(func(r *result) { r.issuer = "https://auth.example.com" })},
		{"other keys", []string{project, "JWT_JWKS_URL=https://k.example.com/keys", "JWT_ALGORITHM=ES256"}, with(func(r *result) { r.keys = "https://k.example.com/keys" })},
		{"its shared secret", []string{project, "JWT_SECRET_KEY=9f2c1b7a64d0e8853ac1f7b2096de4417be1c0925a3f8d66"}, with(func(r *result) { r.algorithm, r.keys = "HS256", "" })},
		{"no project", nil, result{algorithm: "HS256"}},
	} {
		s, err := load(t, "", c.env...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := (result{s.JWTAlgorithm, s.JWTJWKSURL, s.JWTIssuer, strings.Join(s.JWTAudience, ",")}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	for _, wrong := range []string{"abc.supabase.co", "https://abc.supabase.co/auth/v1", "https://abc.supabase.co/rest/v1/", "https://abc.supabase.co?a=b", "https://abc.supabase.co/#a"} {
		out := checked(sources{environment: map[string]string{"SUPABASE_URL": wrong}})
		if len(out.Problems) != 1 || !strings.HasPrefix(out.Problems[0], "SUPABASE_URL: it must be") || len(out.Notes) > 0 {
			t.Errorf("%s: problems %q, notes %q", wrong, out.Problems, out.Notes)
		}
	}
	out := checked(sources{environment: map[string]string{"SUPABASE_URL": "https://abc.supabase.co", "SUPABASE_KEY": "anon-hunter2", "SUPABASE_SERVICE_ROLE_KEY": "service-hunter2"}})
	notes := strings.Join(out.Notes, "\n")
	for _, want := range []string{"SUPABASE_URL: tokens", "SUPABASE_KEY: nothing", "SUPABASE_SERVICE_ROLE_KEY: nothing"} {
		if !strings.Contains(notes, want) || strings.Contains(notes, "hunter2") {
			t.Errorf("%q is not in %s", want, notes)
		}
	}
}
