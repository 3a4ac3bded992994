package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"

	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
	"llm-gateway/migrations/pgtest"
)

// authority is a certificate authority made for one test, with its certificates in files.
type authority struct {
	t   *testing.T
	dir string
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	return writeFile(a.t, a.path(name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

// certify makes a certificate for hosts and a name, and returns the files of it and of its key.
func (a *authority) certify(name string, hosts ...string) (cert, key string) {
	a.t.Helper()
	own := a.newKey()
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.ca, &own.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", raw)
}

// freePort is a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was only asked
	return l.Addr().(*net.TCPAddr).Port
}

// TestRedisTLS speaks to a real server by TLS: with the right authority and certificate it answers, and with no
// other.
func TestRedisTLS(t *testing.T) {
	t.Parallel()
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is absent: ", err)
	}
	right, wrong := newAuthority(t, "right"), newAuthority(t, "wrong")
	cert, key := right.certify("server", "127.0.0.1")
	mine, myKey := right.certify("client")
	forged, forgedKey := wrong.certify("client")
	secure, plain := freePort(t), freePort(t)
	run := exec.Command(server, "--port", strconv.Itoa(plain), "--bind", "127.0.0.1", "--tls-port", strconv.Itoa(secure), "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", right.path("ca.pem"), "--tls-auth-clients", "yes", "--requirepass", "hunter2", "--save", "", "--dir", t.TempDir())
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		run.Process.Kill() //nolint:errcheck // it may have ended
		run.Wait()         //nolint:errcheck // it was killed
	})
	client := func(ca, cert, key string) []string {
		return []string{"REDIS_CA_FILE=" + ca, "REDIS_CERT_FILE=" + cert, "REDIS_KEY_FILE=" + key}
	}
	ping := func(host string, port int, files ...string) error {
		s, err := load(t, "", append(files, fmt.Sprintf("REDIS_URL=rediss://:hunter2@%s:%d/0", host, port))...)
		if err != nil {
			t.Fatal(err)
		}
		r, err := openRedis(s, s.RedisURL)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() //nolint:errcheck // it was only tried
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return redisError(r.Ping(ctx).Err(), s.RedisURL)
	}
	until(t, func() bool {
		return redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", plain)}).Ping(t.Context()).Err() != nil && dials(plain)
	})
	if err := ping("127.0.0.1", secure, client(right.path("ca.pem"), mine, myKey)...); err != nil {
		t.Errorf("the right certificates: %v", err)
	}
	for name, err := range map[string]error{
		"another authority":        ping("127.0.0.1", secure, client(wrong.path("ca.pem"), mine, myKey)...),
		"the system's authorities": ping("127.0.0.1", secure),
		"another name":             ping("localhost", secure, client(right.path("ca.pem"), mine, myKey)...),
		"no certificate of ours":   ping("127.0.0.1", secure, "REDIS_CA_FILE="+right.path("ca.pem")),
		"another's for ours":       ping("127.0.0.1", secure, client(right.path("ca.pem"), forged, forgedKey)...),
		"a server that has none":   ping("127.0.0.1", plain, client(right.path("ca.pem"), mine, myKey)...),
		"no server":                ping("127.0.0.1", freePort(t), client(right.path("ca.pem"), mine, myKey)...),
	} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func dials(port int) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		c.Close() //nolint:errcheck // it was only tried
	}
	return err == nil
}

// until waits for something that soon is so.
func until(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
	}
}

// TestKafkaTLS speaks to a Kafka by TLS with a login: with the right authority and password the topic is made,
// and with no others, in words that tell no secret.
func TestKafkaTLS(t *testing.T) {
	t.Parallel()
	right, wrong := newAuthority(t, "right"), newAuthority(t, "wrong")
	pair := func(hosts ...string) *tls.Config {
		cert, key := right.certify("server"+strings.Join(hosts, ""), hosts...)
		c, err := trustFiles{Cert: cert, Key: key}.config()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	start := func(options ...kfake.Opt) string {
		c, err := kfake.NewCluster(append(options, kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", "hunter2"), kfake.Superuser("SCRAM-SHA-512", "u", "hunter2"))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c.ListenAddrs()[0]
	}
	good, misnamed, plain := start(kfake.TLS(pair("127.0.0.1"))), start(kfake.TLS(pair("elsewhere.example"))), start()
	ca := "KAFKA_CA_FILE=" + right.path("ca.pem")
	for _, c := range []struct {
		name, at, sasl, password, ca string
		want                         string // "" = it works
	}{
		{"all is right", good, "scram-sha-512", "hunter2", ca, ""},
		{"all is right, by plain", good, "plain", "hunter2", ca, ""},
		{"another authority", good, "plain", "hunter2", "KAFKA_CA_FILE=" + wrong.path("ca.pem"), "certificate"},
		{"the system's authorities", good, "plain", "hunter2", "", "certificate"},
		{"another name", misnamed, "plain", "hunter2", ca, "certificate"},
		{"a server that has none", plain, "plain", "hunter2", ca, "at " + plain},
		{"a wrong password", good, "scram-sha-512", "hunter3", ca, "the Kafka at "},
		{"a wrong password, by plain", good, "plain", "hunter3", ca, "the Kafka at "},
		{"no login", good, "none", "", ca, "closes the connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			env := []string{"KAFKA_BROKERS=" + c.at, "KAFKA_TLS=true", "KAFKA_SASL=" + c.sasl, c.ca}
			if c.sasl != "none" {
				env = append(env, "KAFKA_USERNAME=u", "KAFKA_PASSWORD="+c.password)
			}
			s, err := load(t, "", env...)
			if err != nil {
				t.Fatal(err)
			}
			b := backend{streams: externalStreams(s)}
			k, err := topic.Open(b.kafkaConfig(s, ledger.Meta{ID: uuid.New(), Shards: 1}, slog.New(slog.DiscardHandler)))
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			err = kafkaError(k.Ensure(ctx), b.brokers)
			if c.want == "" && err != nil && !strings.Contains(err.Error(), "another ledger") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("it tells too much: %v", err)
			}
		})
	}
}

// TestPostgresTLS turns TLS on in the Postgres that the tests have, and asks it for proof of who it is.
func TestPostgresTLS(t *testing.T) {
	admin := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // the test ends
	var pid int
	var super string
	if err := conn.QueryRow(t.Context(), `SELECT pg_backend_pid(), current_setting('is_superuser')`).Scan(&pid, &super); err != nil || super != "on" {
		t.Skip("this Postgres is not ours to change: ", err)
	}
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)) // a server stands in its data directory
	if err != nil {
		t.Skip("this Postgres is elsewhere: ", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Skip("this Postgres is elsewhere: ", err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	right, wrong := newAuthority(t, "right"), newAuthority(t, "wrong")
	cert, key := right.certify("server", "127.0.0.1")
	for name, from := range map[string]string{"tls_test.pem": cert, "tls_test.key": key} {
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to := writeFile(t, filepath.Join(dir, name), string(raw))
		if err := os.Chown(to, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	set := func(sql ...string) {
		t.Helper()
		for _, s := range append(sql, "SELECT pg_reload_conf()") {
			if _, err := conn.Exec(context.Background(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	set("ALTER SYSTEM SET ssl_cert_file = 'tls_test.pem'", "ALTER SYSTEM SET ssl_key_file = 'tls_test.key'", "ALTER SYSTEM SET ssl = on")
	t.Cleanup(func() {
		set("ALTER SYSTEM RESET ssl", "ALTER SYSTEM RESET ssl_cert_file", "ALTER SYSTEM RESET ssl_key_file")
	})
	config, err := pgx.ParseConfig(admin)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(host, mode, ca string) error {
		text := fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s sslmode=%s", host, config.Port, config.User, config.Password, config.Database, mode)
		if ca != "" {
			text += " sslrootcert=" + ca
		}
		c, err := ledger.ConnConfig(text, "", false)
		if err != nil {
			t.Fatal(err)
		}
		one, err := pgx.ConnectConfig(t.Context(), c)
		if err != nil {
			return databaseError(err, Secret(text))
		}
		defer one.Close(context.Background()) //nolint:errcheck // it was only tried
		encrypted := false
		if err := one.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted); err != nil || !encrypted {
			t.Errorf("%s by %s: encrypted %v, %v", host, mode, encrypted, err)
		}
		return nil
	}
	var last error
	defer func() { t.Log("the last answer: ", last) }()
	until(t, func() bool { last = connect("127.0.0.1", "require", ""); return last == nil })
	if err := connect("127.0.0.1", "verify-full", right.path("ca.pem")); err != nil {
		t.Errorf("the right authority: %v", err)
	}
	for name, err := range map[string]error{
		"another authority":        connect("127.0.0.1", "verify-full", wrong.path("ca.pem")),
		"another authority, by ca": connect("127.0.0.1", "verify-ca", wrong.path("ca.pem")),
		"another name":             connect("localhost", "verify-full", right.path("ca.pem")),
	} {
		if err == nil || config.Password != "" && strings.Contains(err.Error(), config.Password) {
			t.Errorf("%s: %v", name, err)
		}
	}
	set("ALTER SYSTEM SET ssl = off")
	until(t, func() bool { return connect("127.0.0.1", "require", "") != nil })
}
