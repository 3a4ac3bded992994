package main

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/migrations/pgtest"
)

// badStartLimit bounds how long a start may take that comes to nothing.
const badStartLimit = 15 * time.Second

// TestBadStarts: a serve that cannot work says why in one line, soon, without a secret, and ends; and
// it has made nothing by then.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	good := pgtest.Empty(t)
	succeeds(t, []string{"DATABASE_URL=" + good, "LEDGER_SHARDS=3"}, "migrate")
	dir := t.TempDir()
	book := writeFile(t, filepath.Join(dir, "book.yaml"), "models: hunter2")
	secret := strings.Repeat("hunter2", 5)
	for _, c := range []struct {
		name, want string
		env        []string
	}{
		{"a port that is taken", "cannot listen on 127.0.0.1 port", []string{"DATABASE_URL=" + good, "PORT=" + takenPort(t)}},
		{"nobody at the database's port", "no Postgres can be reached at 127.0.0.1:1: connect: connection refused", []string{"DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/d"}},
		{"a database URL that is none", "DATABASE_URL: the Postgres URL cannot be used", []string{"DATABASE_URL=mysql:/u:hunter2@h"}},
		{"a login that is refused", "refuses: ", []string{"DATABASE_URL=" + changed(t, good, func(u *url.URL) { u.User = url.UserPassword("no_such_role", "hunter2") })}},
		{"a database that is not there", `database "no_such_database" does not exist`, []string{"DATABASE_URL=" + changed(t, good, func(u *url.URL) { u.Path = "/no_such_database" })}},
		{"what is no Postgres", "no Postgres can be reached at", []string{"DATABASE_URL=postgres://u:hunter2@" + notPostgres(t) + "/d?sslmode=disable"}},
		{"a database that never answers", "it does not answer", []string{"DATABASE_URL=postgres://u:hunter2@" + silence(t) + "/d?sslmode=disable"}},
		{"another number of shards", "LEDGER_SHARDS is 8, but this ledger was initialised with 3", []string{"DATABASE_URL=" + good, "LEDGER_SHARDS=8"}},
		{"another currency", "BILLING_CURRENCY is EUR", []string{"DATABASE_URL=" + good, "BILLING_CURRENCY=EUR"}},
		{"a ledger that nobody made", "the ledger is not initialised: run `llm-gateway migrate`", []string{"DATABASE_URL=" + pgtest.Empty(t), "AUTO_MIGRATE=false"}},
		{"a broken price book", "PRICE_BOOK " + book + ": price book: line 1", []string{"DATABASE_URL=" + good, "PRICE_BOOK=" + book}},
		{"a price book that is a directory", "PRICE_BOOK: it must be a path to a file", []string{"PRICE_BOOK=" + dir}},
		{"production without a secret", "JWT_SECRET_KEY (or JWT_SECRET_KEY_FILE) must be set", []string{"ENVIRONMENT=production"}},
		{"production with a short secret", "it needs 32 or more", []string{"ENVIRONMENT=production", "JWT_SECRET_KEY=hunter2"}},
		{"an algorithm that does not fit", "JWT_JWKS_URL: it is needed", []string{"JWT_ALGORITHM=RS256", "JWT_SECRET_KEY=" + secret}},
		{"an issuer that is away", "JWT_JWKS_URL: the issuer's keys cannot be fetched: connect: connection refused", []string{"DATABASE_URL=" + good, "JWT_ALGORITHM=RS256", "JWT_JWKS_URL=http://127.0.0.1:1/keys"}},
		{"an issuer without keys", "JWT_JWKS_URL: the issuer's keys cannot be fetched", []string{"DATABASE_URL=" + good, "JWT_ALGORITHM=RS256", "JWT_JWKS_URL=" + noIssuer(t)}},
		{"a provider that is no URL", "OPENAI_BASE_URL: it must be", []string{"OPENAI_API_KEY=sk-hunter2", "OPENAI_BASE_URL=https://me:hunter2@h"}},
		{"a data directory that is a file", "not a directory", []string{"DATA_DIR=" + book}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			badStart(t, "", c.want, c.env)
		})
	}
	t.Run("a broken .env", func(t *testing.T) {
		t.Parallel()
		badStart(t, "PORT=0\nJWT_SECRET_KEY=\"hunter2\n", ".env is broken: line 2", nil)
	})
	t.Run("a wrong password", func(t *testing.T) {
		t.Parallel()
		wrong := changed(t, good, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "hunter2") })
		if conn, err := pgx.Connect(t.Context(), wrong); err == nil {
			conn.Close(context.Background()) //nolint:errcheck // it was only tried
			t.Skip("this Postgres takes any password")
		}
		badStart(t, "", "password authentication failed", []string{"DATABASE_URL=" + wrong})
	})
}

func badStart(t *testing.T, dotenv, want string, env []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), badStartLimit)
	defer cancel()
	cmd := command(ctx, t, append([]string{"HOST=127.0.0.1", "PORT=0"}, env...), "serve")
	cmd.WaitDelay = deathLimit
	if dotenv != "" {
		writeFile(t, filepath.Join(cmd.Dir, dotenvFile), dotenv)
	}
	begin := time.Now()
	r := finish(t, cmd)
	t.Logf("after %s: %s", time.Since(begin).Round(time.Millisecond), strings.TrimSpace(r.stderr))
	if r.status != 1 || !strings.HasPrefix(r.stderr, program+": ") || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("serve ended with %d, want 1 and one line with %q:\n%s", r.status, want, r.stderr)
	}
	if strings.Contains(r.stdout+r.stderr, "hunter2") {
		t.Errorf("a secret was printed: %s%s", r.stdout, r.stderr)
	}
	if made, err := filepath.Glob(filepath.Join(cmd.Dir, "data", "postgres*")); err != nil || len(made) > 0 {
		t.Errorf("it has made %v: %v", made, err)
	}
}

// changed is a connection string with one thing changed.
func changed(t testing.TB, connString string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(connString)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func listenLocal(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
	return l
}

func takenPort(t testing.TB) string {
	return strconv.Itoa(listenLocal(t).Addr().(*net.TCPAddr).Port)
}

// notPostgres is the address of something that speaks another protocol.
func notPostgres(t testing.TB) string {
	l := listenLocal(t)
	server := &http.Server{ReadHeaderTimeout: time.Second}
	go server.Serve(l)                   //nolint:errcheck // ends by Close
	t.Cleanup(func() { server.Close() }) //nolint:errcheck // the test is over
	return l.Addr().String()
}

// silence is the address of something that takes connections and says nothing: its backlog does.
func silence(t testing.TB) string { return listenLocal(t).Addr().String() }

// TestEnvironmentIsNotInherited guards the tests themselves: what this machine has set must not reach
// the binary under test.
func TestEnvironmentIsNotInherited(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "hunter2")
	cmd := command(t.Context(), t, nil, "version")
	for _, line := range cmd.Env {
		if name, _, _ := strings.Cut(line, "="); name == "DATABASE_URL" || name == "OPENAI_API_KEY" {
			t.Errorf("%s is inherited", name)
		}
	}
	if os.Getenv("OPENAI_API_KEY") == "" {
		t.Error("it was not set here")
	}
}
