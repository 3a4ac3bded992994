package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"llm-gateway/gateway/provider"
	"llm-gateway/migrations/pgtest"
)

// A siege is gateways on one ledger that serve a steady load while something is done to them, or to
// their servers. In the end the ledger is held against what the clients saw and against what the
// provider served, request by request.

const (
	besieged   = 2                    // gateways
	siegePace  = 5 * time.Millisecond // between two requests
	siegeLimit = 90 * time.Second     // for what was left open to be given back, leases run out included
)

// nonceWitness is a witness that knows requests by the nonce in their prompt.
type nonceWitness struct {
	*httptest.Server
	mu     sync.Mutex
	calls  map[string]int
	served map[string]usage // of answers that went out whole
}

var noncePattern = regexp.MustCompile(`nonce (\d+)`)

func newNonceWitness(t testing.TB) *nonceWitness {
	w := &nonceWitness{calls: map[string]int{}, served: map[string]usage{}}
	upstream := provider.Handler(provider.NewSimulated())
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		found := noncePattern.FindSubmatch(body)
		if err != nil || found == nil {
			http.Error(rw, "no nonce", http.StatusBadRequest)
			return
		}
		nonce := string(found[1])
		w.mu.Lock()
		w.calls[nonce]++
		w.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		tape := &tape{ResponseWriter: rw}
		upstream.ServeHTTP(tape, r)
		w.note(nonce, tape.text.Bytes())
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *nonceWitness) note(nonce string, wire []byte) {
	for line := range bytes.SplitSeq(wire, []byte("\n")) {
		var a struct{ Usage *usage }
		if json.Unmarshal(bytes.TrimPrefix(line, []byte("data: ")), &a) == nil && a.Usage != nil {
			w.mu.Lock()
			w.served[nonce] = *a.Usage
			w.mu.Unlock()
		}
	}
}

func (w *nonceWitness) called(nonce string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[nonce] > 0
}

// siege is the gateways, and what their clients saw.
type siege struct {
	t       testing.TB
	w       *nonceWitness
	p       published
	env     []string
	data    [besieged]string
	running [besieged]*served
	at      [besieged]atomic.Pointer[string] // where each can be reached

	stop, ended chan struct{} // of the load

	mu      sync.Mutex
	nonces  map[string]string // by the hash of the body
	replies map[string]reply  // by nonce
}

// besiege makes ready a siege on a ledger of its own.
func besiege(t testing.TB, more ...string) *siege {
	k := &siege{t: t, w: newNonceWitness(t), p: publishedAt(t, pgtest.URL(t)), nonces: map[string]string{}, replies: map[string]reply{},
		stop: make(chan struct{}), ended: make(chan struct{})}
	k.env = append([]string{"HOST=127.0.0.1", "PORT=0", "LOG_LEVEL=WARN", "JWT_SECRET_KEY=" + testSecret, "DATABASE_URL=" + k.p.databaseURL,
		"OPENAI_BASE_URL=" + k.w.URL, "OPENAI_API_KEY=k", "BILLING_DEFAULT_BALANCE=" + loadBalance}, more...)
	for slot := range besieged {
		k.data[slot] = filepath.Join(t.TempDir(), "data")
	}
	return k
}

// start starts one gateway: a binary, with more settings.
func (k *siege) start(slot int, binary string, more ...string) {
	k.t.Helper()
	env := append(append([]string{"DATA_DIR=" + k.data[slot]}, k.env...), more...)
	cmd := command(context.Background(), k.t, env, "serve")
	cmd.Path, cmd.Args[0] = binary, binary
	s := launchCommand(k.t, cmd).ready()
	k.running[slot] = s
	k.at[slot].Store(&s.url)
}

// begin lets clients send requests to all gateways until finish.
func (k *siege) begin() {
	go func() {
		defer close(k.ended)
		k.load()
	}()
}

func (k *siege) load() {
	var wait sync.WaitGroup
	client, pace := newClient(k.t), time.NewTicker(siegePace)
	defer pace.Stop()
	tokens := make([]string, loadAccounts)
	for i := range tokens {
		tokens[i] = tokenFor(k.t, loadAccount(i))
	}
	next := make(chan int)
	for range killWorkers {
		wait.Go(func() {
			for i := range next {
				k.send(client, i, tokens[i/besieged%loadAccounts])
			}
		})
	}
	defer wait.Wait()
	defer close(next)
	for i := 0; ; i++ {
		select {
		case <-pace.C:
			next <- i
		case <-k.stop:
			return
		}
	}
}

func (k *siege) send(client *http.Client, i int, token string) {
	k.sendBody(client, i%besieged, strconv.Itoa(i), loadBody(i), token)
}

// sendBody sends one request, which is known by the nonce in its prompt, to one gateway.
func (k *siege) sendBody(client *http.Client, slot int, nonce, body, token string) {
	sum := sha256.Sum256([]byte(body))
	k.mu.Lock()
	k.nonces[hex.EncodeToString(sum[:])] = nonce
	k.mu.Unlock()
	r := chat(context.Background(), client, *k.at[slot].Load(), token, body)
	r.header = nil // there will be many
	k.mu.Lock()
	k.replies[nonce] = r
	k.mu.Unlock()
}

// served counts the requests that clients have seen finished.
func (k *siege) served() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.replies {
		if r.finished() {
			n++
		}
	}
	return n
}

// awaitCharged waits until what clients have seen finished is charged: the last of it may wait in journals,
// whose pauses grow while the ledger is away.
func awaitCharged(t testing.TB, databaseURL string, replies []reply) {
	t.Helper()
	var ids []string
	for i := range replies {
		if replies[i].finished() {
			ids = append(ids, replies[i].request)
		}
	}
	eventually(t, siegeLimit, "what clients have seen is charged, the journals are empty", func() bool {
		return countRows(t, databaseURL, `SELECT count(*) FROM ledger_reservations WHERE state IN ('settled', 'late') AND request_id::text = ANY('{`+
			strings.Join(ids, ",")+`}')`) == int64(len(ids))
	})
}

// finished says that the client has the whole answer.
func (r *reply) finished() bool { return r.status == http.StatusOK && r.complete }

// finish ends the load, waits until nothing is left open, and audits. It returns what became of the
// requests.
func (k *siege) finish() outcomes {
	k.t.Helper()
	close(k.stop)
	<-k.ended
	eventually(k.t, siegeLimit, "nothing is left open", func() bool {
		return countRows(k.t, k.p.databaseURL, `SELECT count(*) FROM ledger_reservations WHERE state = 'open'`) == 0
	})
	awaitCharged(k.t, k.p.databaseURL, slices.Collect(maps.Values(k.replies))) // nobody changes them any more
	o := k.check(auditLedger(k.t, k.p.databaseURL))
	k.p.auditWithin(k.t, siegeLimit)
	auditProjections(k.t, k.p.databaseURL)
	verified(k.t, k.env...)
	k.t.Log(o)
	return o
}

// outcomes counts what became of the requests that were reserved.
type outcomes struct {
	reserved, finished int
	unseen             int // charged for what was served, and the client has not seen the end of it
	late               int // charged after they had been given back
	counted            int // charged for what was delivered of an answer that broke off
	expired, released  int // given back
	uncalled           int // of all these, how many never reached the provider
}

func (o outcomes) String() string {
	return fmt.Sprintf("%d requests were reserved, %d finished; of the others %d were charged as served, %d as counted; %d given back as expired, %d as failed; %d late; %d never reached the provider",
		o.reserved, o.finished, o.unseen, o.counted, o.expired, o.released, o.late, o.uncalled)
}

// check holds the ledger against what clients saw and what the provider served: each request once.
func (k *siege) check(a *audit) (o outcomes) {
	k.t.Helper()
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	seen := map[string]bool{}
	for id, l := range a.lives {
		nonce, known := k.nonces[l.bodyHash]
		if !known || seen[nonce] {
			k.t.Fatalf("request %s is nobody's, or a second one: %+v", id, l)
		}
		seen[nonce] = true
		if k.w.calls[nonce] == 0 {
			o.uncalled++
		}
		k.judge(a, &o, id, l, k.replies[nonce], k.w.served[nonce])
	}
	o.reserved = len(a.lives)
	for nonce, calls := range k.w.calls {
		if calls > 1 || !seen[nonce] {
			k.t.Errorf("the provider was called %d times for request %s; in the ledger: %t", calls, nonce, seen[nonce])
		}
	}
	for nonce, r := range k.replies {
		if r.finished() && !seen[nonce] {
			k.t.Errorf("request %s was answered, and is not in the ledger", nonce)
		}
	}
	return o
}

// judge looks at one request.
func (k *siege) judge(a *audit, o *outcomes, id string, l *life, r reply, used usage) {
	k.t.Helper()
	charged := l.commits == 1 || l.late()
	if r.finished() && (!charged || l.commit.Cmp(a.rat(r.cost)) != 0 || r.request != id) {
		k.t.Errorf("a client saw request %s finished for %s; the ledger has %+v", id, r.cost, l)
	}
	if charged && l.source == "provider" && (!sameMeters(l.meters, used) || l.commit.Cmp(priced(a, used)) != 0) {
		k.t.Errorf("request %s: served %+v, billed %+v", id, used, l)
	}
	if l.late() {
		o.late++
	}
	switch {
	case r.finished():
		o.finished++
	case charged && l.source == "counted":
		o.counted++
	case charged:
		o.unseen++
	case l.reason == "expired":
		o.expired++
	default:
		o.released++
	}
}
