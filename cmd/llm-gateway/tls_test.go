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
	"errors"
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
	eventually(t, settleLimit, "the server is there", func() bool {
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

// securePostgres starts a Postgres that speaks TLS, by the binaries of the one that the tests have, and returns
// its port. Only the user app may log in, by the password hunter2.
func securePostgres(t *testing.T, cert, key string, more ...string) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // it was only asked
	pid := 0
	if err := conn.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	info, err2 := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err := errors.Join(err, err2); err != nil {
		t.Skip("the tests' Postgres is elsewhere: ", err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	dir, err := os.MkdirTemp("", "tls-postgres-") //nolint:usetesting // the server's user must be able to get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // it is a temporary one
	writeFile(t, filepath.Join(dir, "password"), "hunter2")
	for from, name := range map[string]string{cert: "server.pem", key: "server.key"} {
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(raw))
	}
	for _, name := range []string{"", "password", "server.pem", "server.key"} {
		if err := os.Chown(filepath.Join(dir, name), int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	as := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(filepath.Dir(exe), name), args...)
		cmd.Dir = dir
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
		}
		return cmd
	}
	if out, err := as("initdb", "-D", filepath.Join(dir, "data"), "-U", "app", "-A", "scram-sha-256", "--pwfile", filepath.Join(dir, "password"), "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	port := freePort(t)
	args := []string{"-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}
	run := as("postgres", append(args, more...)...)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		run.Process.Signal(syscall.SIGINT) //nolint:errcheck // it may have ended
		run.Wait()                         //nolint:errcheck // it was told to
	})
	eventually(t, settleLimit, "the server is there", func() bool { return dials(port) })
	return port
}

// TestPostgresTLS asks a real Postgres by TLS for proof of who it is.
func TestPostgresTLS(t *testing.T) {
	t.Parallel()
	right, wrong := newAuthority(t, "right"), newAuthority(t, "wrong")
	cert, key := right.certify("server", "127.0.0.1")
	secure := securePostgres(t, cert, key, "-c", "ssl=on", "-c", "ssl_cert_file=../server.pem", "-c", "ssl_key_file=../server.key")
	plain := securePostgres(t, cert, key, "-c", "ssl=off")
	connect := func(host string, port int, mode, password string, ca *authority) error {
		text := fmt.Sprintf("postgres://app:%s@%s/postgres?sslmode=%s&sslrootcert=%s", password, net.JoinHostPort(host, strconv.Itoa(port)), mode, ca.path("ca.pem"))
		s, err := load(t, "", "DATABASE_URL="+text)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ledger.ConnConfig(string(s.DatabaseURL), "", false)
		if err != nil {
			t.Fatal(err)
		}
		one, err := pgx.ConnectConfig(t.Context(), c)
		if err != nil {
			return databaseError(err, s.DatabaseURL)
		}
		defer one.Close(context.Background()) //nolint:errcheck // it was only tried
		encrypted := false
		if err := one.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted); err != nil || !encrypted {
			t.Errorf("%s by %s: encrypted %v, %v", host, mode, encrypted, err)
		}
		return nil
	}
	eventually(t, settleLimit, "the server is there", func() bool { return connect("127.0.0.1", secure, "verify-full", "hunter2", right) == nil })
	for name, err := range map[string]error{
		"another authority":        connect("127.0.0.1", secure, "verify-full", "hunter2", wrong),
		"another authority, by ca": connect("127.0.0.1", secure, "verify-ca", "hunter2", wrong),
		"another name":             connect("localhost", secure, "verify-full", "hunter2", right),
		"a server that has none":   connect("127.0.0.1", plain, "verify-full", "hunter2", right),
		"a wrong password":         connect("127.0.0.1", secure, "verify-full", "hunter3", right),
	} {
		if err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}
