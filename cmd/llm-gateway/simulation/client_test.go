package simulation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

const (
	headerAttempt = "X-Attempt"
	chatPath      = "/v1/chat/completions"
	balancePath   = "/billing/balance"
)

// attempt is one HTTP request, from its client's side and the model's.
type attempt struct {
	w       *world
	plan    *attemptPlan
	call    *callPlan
	name    string
	witness *witness
	gone    chan struct{} // closed when the client has left
	sighting
}

func (w *world) makeAttempt(c *callPlan, p *attemptPlan) *attempt {
	a := &attempt{w: w, plan: p, call: c, name: p.name, gone: make(chan struct{})}
	a.sighting = sighting{name: p.name, account: c.account, key: c.key, asks: c.body(p), model: c.model,
		words: c.words, stream: c.stream, header: map[string]string{}, failsWith: p.script.end.status()}
	if p.other {
		a.words++
	}
	if a.reads = p.reads; a.reads {
		a.asks, a.key, a.stream = "", "", false
	}
	a.witness = &a.sighting.witness
	return a
}

// run sends the request and takes what comes. A client that leaves does not wait for the gateway to notice.
func (a *attempt) run() {
	a.began = time.Now()
	over := make(chan struct{})
	a.w.clients.Go(func() {
		defer close(over)
		a.send()
		a.ended = time.Now()
	})
	select {
	case <-over:
	case <-a.gone:
	}
}

func (a *attempt) send() {
	p := a.w.processOn(a.plan.gateway)
	if p == nil {
		a.refused = true
		return
	}
	if _, err := p.enter(context.Background(), kindArrive, a.name+" arrives"); err != nil || !p.takesRequests() {
		a.refused = true
		return
	}
	p.serving.Add(1)
	defer p.serving.Done()
	a.owner = p.life.owner
	ctx, cancel := context.WithCancel(withCaller(p.ctx, a.name))
	defer cancel()
	r := &response{a: a, p: p, ctx: ctx, cancel: cancel, head: http.Header{}}
	if a.plan.leaves {
		go r.leave()
	}
	whole := a.serve(p, r, a.request(ctx))
	r.finish(whole)
}

func (a *attempt) request(ctx context.Context) *http.Request {
	method, path, body := http.MethodPost, chatPath, a.asks
	if a.reads {
		method, path, body = http.MethodGet, balancePath, ""
	}
	r, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if a.atLeast != "" {
		r.Header.Set("x-billing-position", a.atLeast)
	}
	r.Header.Set("Authorization", "Bearer "+secretOf(a.name))
	r.Header.Set(headerAttempt, a.name)
	if a.key != "" {
		r.Header.Set("Idempotency-Key", a.key)
	}
	return r
}

// secretOf is an attempt's own API key: its id is the attempt's name, and so in the events.
func secretOf(attempt string) string { return "sk-" + attempt }

// serve runs the gateway's handler as net/http would. It reports whether the handler came to its end.
func (a *attempt) serve(p *process, w http.ResponseWriter, r *http.Request) (whole bool) {
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			whole = false
		}
	}()
	p.gateway.Handler().ServeHTTP(w, r)
	return true
}

// settled says whether the client has an answer that it need not ask for again.
func (a *attempt) settled() bool {
	if a.left || a.refused || !a.whole { // one that was left may still be under way
		return false
	}
	if a.stream && a.status == http.StatusOK {
		return strings.HasSuffix(string(a.got), "data: [DONE]\n\n")
	}
	return a.status < http.StatusInternalServerError && a.status != http.StatusConflict
}

// errGone is what a write to a client says that is not there.
var errGone = errors.New("simulated: the client is gone")

// response is the way back to the client: what is written leaves with the next flush.
type response struct {
	a      *attempt
	p      *process
	ctx    context.Context // of the request
	cancel context.CancelFunc
	head   http.Header
	buffer []byte
	writes int

	mu     sync.Mutex
	broken bool // nothing gets through any more
}

// Header implements http.ResponseWriter.
func (r *response) Header() http.Header { return r.head }

// WriteHeader implements http.ResponseWriter.
func (r *response) WriteHeader(status int) {
	if r.a.status != 0 {
		return
	}
	r.a.status = status
	for _, name := range []string{"x-billing-request-id", "x-billing-cost", "x-billing-position", "idempotent-replayed", "x-billing-output-cap"} {
		if v := r.head.Get(name); v != "" {
			r.a.header[name] = v
		}
	}
}

// Write implements http.ResponseWriter.
func (r *response) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.isBroken() {
		return 0, errGone
	}
	r.buffer = append(r.buffer, b...)
	return len(b), nil
}

// FlushError is what http.ResponseController looks for.
func (r *response) FlushError() error {
	r.WriteHeader(http.StatusOK)
	if r.isBroken() {
		return errGone
	}
	r.writes++
	f, err := r.p.enter(r.ctx, kindDeliver, fmt.Sprintf("%s gets part %d", r.a.name, r.writes))
	if err != nil {
		r.breakOff()
		return errGone
	}
	r.a.got = append(r.a.got, r.buffer...)
	if f != goOn {
		r.breakOff()
		return errGone
	}
	r.a.acked = append(r.a.acked, r.buffer...)
	r.buffer = r.buffer[:0]
	return nil
}

// Flush implements http.Flusher.
func (r *response) Flush() { r.FlushError() } //nolint:errcheck // this is what http.Flusher is like

// SetWriteDeadline and SetReadDeadline are what http.ResponseController looks for. Nothing takes long.
func (r *response) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline is as above.
func (r *response) SetReadDeadline(time.Time) error { return nil }

func (r *response) isBroken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// breakOff ends the connection, which ends the request's context, as net/http does.
func (r *response) breakOff() {
	r.mu.Lock()
	r.broken = true
	r.mu.Unlock()
	r.cancel()
}

// leave lets the client go at any moment.
func (r *response) leave() {
	if r.p.w.s.park(r.ctx, &parked{name: r.a.name + " leaves", kind: kindOutside}) == goOn {
		r.a.left = true
		r.breakOff()
		close(r.a.gone)
	}
}

// finish sends what is left when the handler has come to its end. One that did not breaks the connection.
func (r *response) finish(whole bool) {
	switch {
	case !whole || r.isBroken():
		r.breakOff()
		return
	case len(r.buffer) > 0 && r.FlushError() != nil:
		return
	}
	r.WriteHeader(http.StatusOK)
	r.a.whole = true
}

// identity is who an attempt's key speaks for.
func (a *attempt) identity() *gateway.Identity {
	return &gateway.Identity{Account: a.account, Role: gateway.RoleUser, KeyID: a.name}
}

// runClient makes a client's calls, one after the other.
func (w *world) runClient(c clientPlan) {
	for _, call := range c.calls {
		w.think(call.think)
		if call.together {
			var all sync.WaitGroup
			for _, p := range call.attempts {
				all.Go(w.attempt(p.name).run)
			}
			all.Wait()
		} else {
			w.runCall(call)
		}
		if call.reads != nil {
			a := w.attempt(call.reads.name)
			for _, p := range call.attempts {
				if at := w.attempt(p.name).position(); at != "" {
					a.atLeast = at
				}
			}
			a.run()
		}
	}
}

// runCall makes a call's attempts one after the other, as long as there is a reason to.
func (w *world) runCall(call *callPlan) {
	again := call.again
	for _, p := range call.attempts {
		a := w.attempt(p.name)
		if a.run(); a.settled() && !again {
			return
		}
		again = again && !a.settled()
		w.think(p.pause)
	}
}

// position is where the answer said that the charge stands; "" where it did not.
func (a *attempt) position() string {
	if a.left {
		return ""
	}
	if at := a.header["x-billing-position"]; at != "" {
		return at
	}
	_, after, _ := strings.Cut(string(a.got), `"position":"`)
	at, _, _ := strings.Cut(after, `"`)
	return at
}

// think lets a time pass, or the run end.
func (w *world) think(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.over:
	}
}

// runCredit makes an administrator's change through a process's ledger, and makes it again under another
// id where that got no answer, as a person would.
func (w *world) runCredit(i int, c creditPlan) {
	w.think(c.after)
	ops := []domain.Op{domain.Credit{Amount: domain.MustAmount(c.amount), Data: domain.MovementData{Reference: c.reference, Actor: "admin"}}}
	if c.freeze {
		ops = append(ops, configure(domain.AccountData{Frozen: new(true), Actor: "admin"}), configure(domain.AccountData{Frozen: new(false), Actor: "admin"}))
	}
	if c.limit != "" {
		limit := domain.MustAmount(c.limit)
		ops = append(ops, configure(domain.AccountData{CreditLimit: &limit, Actor: "admin"}))
	}
	for _, op := range ops {
		for try := 0; try <= c.repeats; try++ {
			w.administer(i, try, c, op)
		}
	}
}

func configure(d domain.AccountData) domain.Op { return domain.Configure{Data: d} }

func (w *world) administer(i, try int, c creditPlan, op domain.Op) {
	p := w.processOn((i + try) % w.plan.gateways)
	if p == nil {
		w.think(time.Second)
		return
	}
	ctx, cancel := context.WithTimeout(withCaller(p.ctx, fmt.Sprintf("admin %d", i)), 10*time.Second)
	defer cancel()
	_, err := p.writer.Append(ctx, domain.Command{ID: newID(), Account: c.account, Op: op})
	if _, ok := op.(domain.Credit); ok && err == nil {
		w.credits[i].acknowledged = true // only this goroutine writes it
	}
	w.think(time.Second)
}
