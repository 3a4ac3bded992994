package observe

import (
	"container/list"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MaxBalances bounds the accounts whose balances can be shown.
const MaxBalances = 10_000

// balanceKept is how long an account is shown after this process last moved its money: another one may move it
// meanwhile.
const balanceKept = 15 * time.Minute

// balances shows the available balances of the accounts that this process served last. Most is 0 where the
// operator did not ask for them.
type balances struct {
	desc *prometheus.Desc
	most int

	mu    sync.Mutex
	of    map[string]*list.Element // of balance
	order *list.List               // the one that was served last comes first
}

type balance struct {
	account   string
	seq       int64
	available float64
	at        time.Time
}

func newBalances() *balances {
	return &balances{of: map[string]*list.Element{}, order: list.New(),
		desc: prometheus.NewDesc("user_balance", "What an account may still reserve without its credit limit, as of its last event that this process wrote; for 15 minutes."+inDashboards, []string{"user_id"}, nil)}
}

// Describe implements prometheus.Collector.
func (b *balances) Describe(to chan<- *prometheus.Desc) { to <- b.desc }

// Collect implements prometheus.Collector.
func (b *balances) Collect(to chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := b.order.Front(); e != nil; e = e.Next() {
		known := e.Value.(*balance)
		if time.Since(known.at) > balanceKept {
			return // those behind it are older
		}
		if m, err := prometheus.NewConstMetric(b.desc, prometheus.GaugeValue, known.available, known.account); err == nil {
			to <- m // a name that is no text has no series
		}
	}
}

// note keeps what an account has as of an event, unless a later one is known.
func (b *balances) note(account string, seq int64, available float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.of[account]
	if e == nil {
		if b.order.Len() >= b.most {
			oldest := b.order.Back()
			if oldest == nil { // none are shown
				return
			}
			delete(b.of, b.order.Remove(oldest).(*balance).account)
		}
		e = b.order.PushFront(&balance{account: account})
		b.of[account] = e
	}
	b.order.MoveToFront(e)
	known := e.Value.(*balance)
	if known.at = time.Now(); seq >= known.seq {
		known.seq, known.available = seq, available
	}
}

// ShowBalances makes the balances of the accounts that were served last part of the metrics: so many at most,
// and never more than MaxBalances. It is called before anything else, or not at all.
func (m *Metrics) ShowBalances(most int) { m.balances.most = min(most, MaxBalances) }

// Balance says what an account has available as of its event of that seq.
func (m *Metrics) Balance(account string, seq int64, available fmt.Stringer) {
	if m.balances.most > 0 {
		m.balances.note(account, seq, float(available))
	}
}
