package gateway_test

import (
	"context"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// commandLog sits directly before the ledger and remembers who asked for what, so that the audit
// finds every request, whatever its client was told.
type commandLog struct {
	gateway.Ledger
	views *projected // gets the events

	mu       sync.Mutex
	accounts map[string]bool
	reserves map[uuid.UUID]domain.Command
}

// Append implements gateway.Ledger.
func (l *commandLog) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	l.mu.Lock()
	if l.accounts == nil {
		l.accounts, l.reserves = map[string]bool{}, map[uuid.UUID]domain.Command{}
	}
	l.accounts[c.Account] = true
	if _, ok := c.Op.(domain.Reserve); ok {
		l.reserves[c.Op.Request()] = c
	}
	l.mu.Unlock()
	out, err := l.Ledger.Append(ctx, c)
	if err == nil {
		l.views.publish(out.Events)
	}
	return out, err
}

// reserved lists the ids of all requests that an account asked to reserve for.
func (l *commandLog) reserved(account string) (ids []uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, c := range l.reserves {
		if c.Account == account {
			ids = append(ids, id)
		}
	}
	return ids
}

// life is what the ledger knows of one request.
type life struct {
	reserve, commit, refund, overage *domain.Event
	others                           int // events that should not be there
}

func (e *env) life(account string, id uuid.UUID) life {
	e.t.Helper()
	if id == uuid.Nil {
		return life{}
	}
	events, err := e.memory.Request(context.Background(), account, id)
	if err != nil {
		e.t.Fatal(err)
	}
	var l life
	for i := range events {
		slot := map[domain.Kind]**domain.Event{domain.KindReserve: &l.reserve, domain.KindCommit: &l.commit,
			domain.KindRefund: &l.refund, domain.KindOverage: &l.overage}[events[i].Event.Kind]
		if slot == nil || *slot != nil {
			l.others++
			continue
		}
		*slot = &events[i].Event
	}
	return l
}

// String tells the life in words: "reserve commit(provider) refund(remainder)".
func (l life) String() string {
	var words []string
	if l.reserve != nil {
		words = append(words, "reserve")
	}
	if l.commit != nil {
		words = append(words, "commit("+string(l.commitData().UsageSource)+")")
	}
	if l.refund != nil {
		words = append(words, "refund("+string(l.refund.Data.(*domain.RefundData).Reason)+")")
	}
	if l.overage != nil {
		words = append(words, "overage("+string(l.overage.Data.(*domain.OverageData).Reason)+")")
	}
	for range l.others {
		words = append(words, "another")
	}
	return strings.Join(words, " ")
}

// commitData is that of the commit, or of what was charged late; an empty one where there is neither.
func (l life) commitData() *domain.CommitData {
	switch {
	case l.commit != nil:
		return l.commit.Data.(*domain.CommitData)
	case l.overage != nil:
		return &l.overage.Data.(*domain.OverageData).CommitData
	}
	return &domain.CommitData{}
}

// rat is an amount as a fraction of whole numbers: the audit's own arithmetic.
func rat(a domain.Amount) *big.Rat {
	r, ok := new(big.Rat).SetString(a.String())
	if !ok {
		panic("not a number: " + a.String())
	}
	return r
}

func ratOf(e *domain.Event) *big.Rat {
	if e == nil {
		return new(big.Rat)
	}
	return rat(e.Amount)
}

// audit proves the money of every request and account that the ledger was ever asked about.
func (e *env) audit() {
	e.asked.mu.Lock()
	defer e.asked.mu.Unlock()
	for id, c := range e.asked.reserves {
		e.auditRequest(id, c)
	}
	for name := range e.asked.accounts {
		e.auditAccount(name)
	}
	metrics := httptest.NewRecorder()
	promhttp.HandlerFor(e.metrics.Registry, promhttp.HandlerOpts{}).ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, leak := range append(e.scan.Written(e.logs.String()), e.scan.Written(metrics.Body.String())...) {
		e.t.Errorf("the log or the metrics tell %s", leak)
	}
}

// auditRequest: nothing at all, or one reserve that was settled or released, once.
func (e *env) auditRequest(id uuid.UUID, c domain.Command) {
	l := e.life(c.Account, id)
	if l.others > 0 {
		e.t.Errorf("%s: an event occurs twice: %s", id, l)
	}
	switch l.String() {
	case "":
	case "reserve":
		if e.o.open == nil || !e.o.open(c) {
			e.t.Errorf("%s of %s: its money is still reserved", id, c.Account)
		}
	case "reserve commit(provider)", "reserve commit(provider) refund(remainder)",
		"reserve commit(counted)", "reserve commit(counted) refund(remainder)":
		e.auditCharge(id, l)
	case "reserve refund(provider_error)", "reserve refund(client_abort)", "reserve refund(internal_error)",
		"reserve refund(shutdown)", "reserve refund(expired)":
		if ratOf(l.reserve).Cmp(ratOf(l.refund)) != 0 {
			e.t.Errorf("%s: of %s only %s came back", id, l.reserve.Amount, l.refund.Amount)
		}
	default:
		if !e.o.overages || l.overage == nil {
			e.t.Errorf("%s: an impossible life: %s", id, l)
		}
		e.auditCharge(id, l)
	}
}

// auditCharge: reserve = commit + refund, and the lines explain the commit (and overage) exactly.
func (e *env) auditCharge(id uuid.UUID, l life) {
	if sum := new(big.Rat).Add(ratOf(l.commit), ratOf(l.refund)); sum.Cmp(ratOf(l.reserve)) != 0 {
		e.t.Errorf("%s: reserved %s; committed and refunded %s", id, l.reserve.Amount, sum)
	}
	sum, d, explained := new(big.Rat), l.commitData(), domain.Meters{}
	for _, line := range d.Lines {
		product := new(big.Rat).Mul(rat(line.UnitPrice), new(big.Rat).SetInt64(line.Quantity))
		if product.Cmp(rat(line.Amount)) != 0 {
			e.t.Errorf("%s: a line that does not add up: %+v", id, line)
		}
		explained[line.Meter] += line.Quantity
		sum.Add(sum, product)
	}
	if len(d.Lines) > 0 && explained != d.Meters {
		e.t.Errorf("%s: the lines are of %+v, the meters %+v", id, explained, d.Meters)
	}
	if charged := new(big.Rat).Add(ratOf(l.commit), ratOf(l.overage)); sum.Cmp(charged) != 0 {
		e.t.Errorf("%s: the lines sum to %s, charged was %s", id, sum, charged)
	}
}

// auditAccount: nothing reserved, and available is the sum of all transactions.
func (e *env) auditAccount(name string) {
	a, err := e.memory.Account(context.Background(), name)
	if err != nil || a == nil {
		if err != nil {
			e.t.Errorf("account %s: %v", name, err)
		}
		return
	}
	all, err := e.memory.Transactions(context.Background(), name, 1_000_000, 0)
	if err != nil {
		e.t.Fatal(err)
	}
	sum := new(big.Rat)
	for i := range all {
		switch ev := &all[i].Event; ev.Kind {
		case domain.KindCredit:
			sum.Add(sum, rat(ev.Amount))
		default:
			sum.Sub(sum, rat(ev.Amount))
		}
	}
	if has := new(big.Rat).Add(rat(a.Available), rat(a.Reserved)); has.Cmp(sum) != 0 {
		e.t.Errorf("%s has %s and %s reserved; its transactions sum to %s", name, a.Available, a.Reserved, sum)
	}
	if !a.Reserved.IsZero() && e.o.open == nil {
		e.t.Errorf("%s has %s left reserved", name, a.Reserved)
	}
	if a.Available.Sign() < 0 && !e.o.overages {
		e.t.Errorf("%s is overspent: %s", name, a.Available)
	}
}

// account is one as it is now; nil where it is not open.
func (e *env) account(name string) *domain.Account {
	e.t.Helper()
	a, err := e.memory.Account(context.Background(), name)
	if err != nil {
		e.t.Fatal(err)
	}
	return a
}

// available is an account's balance in its canonical text.
func (e *env) available(name string) string {
	e.t.Helper()
	a := e.account(name)
	if a == nil {
		return "not open"
	}
	return a.Available.String()
}

// append does something to an account behind the gateway's back.
func (e *env) append(account string, op domain.Op) {
	e.t.Helper()
	_, err := e.asked.Append(context.Background(), domain.Command{
		ID: domain.CommandID(uuid.Must(uuid.NewV7())), Account: account, Op: op})
	if err != nil {
		e.t.Fatal(err)
	}
}

// untouched fails unless the account has had nothing but its opening.
func (e *env) untouched(what, account string) {
	e.t.Helper()
	a := e.account(account)
	if a == nil {
		return
	}
	opening, err := domain.ParseAmount(e.o.balance)
	if err != nil {
		opening = domain.MustAmount("100")
	}
	if len(e.asked.reserved(account)) > 0 || !a.Available.Equal(opening) {
		e.t.Errorf("%s: the account was touched: %+v", what, a)
	}
}
