package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"pgregory.net/rapid"

	"llm-gateway/domain"
	"llm-gateway/gateway"
)

// fleet are gateways over one ledger, which is away for all of them, and over one Redis; each has its own
// journal.
type fleet struct {
	*env
	gateways []*env
	ledgers  []*absent
	journals []*spoolJournal
}

func startFleet(t *testing.T, n int, spool gateway.Spool) *fleet {
	f := &fleet{}
	for i := range n {
		o := options{spool: spool, journal: &spoolJournal{}, share: f.env}
		f.ledgers, f.journals = append(f.ledgers, &absent{}), append(f.journals, o.journal.(*spoolJournal))
		f.gateways = append(f.gateways, startAbsent(t, f.ledgers[i], o))
		f.env = f.gateways[0]
	}
	return f
}

func (f *fleet) set(how presence) {
	for _, l := range f.ledgers {
		l.set(how)
	}
}

// booked brings the ledger back, has all journals drained at the same time, twice where a process began
// again, and returns how the requests lived.
func (f *fleet) booked(spooled []domain.Spooled) map[string]int {
	f.t.Helper()
	f.set(there)
	var wait sync.WaitGroup
	for i, g := range f.gateways {
		g.gw.Close()
		again := &spoolJournal{commands: f.journals[i].commands}
		wait.Go(func() {
			for _, j := range []*spoolJournal{f.journals[i], again} {
				if refused := j.drain(f.t, g.gw); len(refused) > 0 {
					f.t.Errorf("refused: %v", refused)
				}
			}
		})
	}
	wait.Wait()
	lives := map[string]int{}
	for _, o := range spooled {
		lives[f.life("spoon", o.RequestID).String()]++
	}
	return lives
}

// TestSpoolTogether: 256 calls at once, on one gateway and on three, where Redis knows of money for fewer:
// exactly so many succeed, and each of them is booked once.
func TestSpoolTogether(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		gateways, affords int
		spendable         string
		real              bool
	}{{1, 100, "1.000000001", false}, {3, 37, "0.379999999", false}, {3, 0, "0.009999999", false}, {3, 256, "2.56", false}, {1, 50, "0.5", true}, {3, 99, "0.999", true}} {
		t.Run(fmt.Sprint(c.gateways, " of ", c.spendable), func(t *testing.T) {
			t.Parallel()
			var held func() int
			var spool gateway.Spool
			if c.real {
				server := miniredis.RunT(t)
				r := newRedisSpool(t, server, c.spendable)
				spool, held = r, func() int { return len(server.Keys()) - 1 } // there is the balance
			} else {
				m := knows(c.spendable)
				spool, held = m, func() int { return len(m.Held("spoon")) }
			}
			f := startFleet(t, c.gateways, spool)
			f.set(refusing)
			var mu sync.Mutex
			got := map[string]int{}
			together(256, func(i int) {
				a := f.gateways[i%c.gateways].post("spoon", []string{chatPath, streamPath}[i/7%2], chatBody("sim-flat", fmt.Sprintf("sim:tokens=3 sim:pace=%dms", i%4), ""))
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprint(a.status, a.code())]++
			})
			if got["200"] != c.affords || got["402insufficient_quota"] != 256-c.affords || len(got) > 2 {
				t.Errorf("%v; want %d of 256", got, c.affords)
			}
			var spooled []domain.Spooled
			for _, j := range f.journals {
				spooled = append(spooled, j.spooled()...)
			}
			lives := f.booked(spooled)
			if len(spooled) != c.affords || lives["reserve commit(provider)"] != c.affords || held() != 0 {
				t.Errorf("%d are spooled, and booked as %v; %d are held", len(spooled), lives, held())
			}
			left := domain.MustAmount("100").Sub(domain.MustAmount("0.01").Times(int64(c.affords)))
			if f.available("spoon") != left.String() {
				t.Errorf("%s is left, want %s", f.available("spoon"), left)
			}
		})
	}
}

// fault is how something fares that can fail.
type fault int

const (
	well fault = iota
	broken
	unheard // what it is asked happens, and then it fails
)

// set lets something that can fail do so, or no more.
func (f fault) set(fail func(error, bool)) {
	if f == well {
		fail(nil, false)
		return
	}
	fail(errors.New("no"), f == unheard)
}

// moment is one call, and how everything fares meanwhile.
type moment struct {
	Ledger              presence
	Redis, Journal      fault
	Spendable           string // what Redis knows; "" = as it was
	Frozen              bool
	Path, Model, Prompt string
	Milliseconds        int // that pass afterwards
}

var moments = rapid.Custom(func(t *rapid.T) moment {
	return moment{
		Ledger:    rapid.SampledFrom([]presence{there, refusing, refusing, silent, deaf, dying}).Draw(t, "ledger"),
		Redis:     rapid.SampledFrom([]fault{well, well, well, broken, unheard}).Draw(t, "Redis"),
		Journal:   rapid.SampledFrom([]fault{well, well, well, well, broken, unheard}).Draw(t, "journal"),
		Spendable: rapid.SampledFrom([]string{"", "", "", "0", "0.01", "200"}).Draw(t, "spendable"),
		Frozen:    rapid.IntRange(0, 5).Draw(t, "frozen") == 5,
		Path:      rapid.SampledFrom([]string{chatPath, streamPath}).Draw(t, "path"),
		Model:     rapid.SampledFrom([]string{"sim-flat", "sim-small", "sim-free"}).Draw(t, "model"),
		Prompt: rapid.SampledFrom([]string{"x", "x", "sim:tokens=7", "sim:status=500", "sim:tokens=9 sim:cut=4",
			"sim:tokens=9 sim:cut=1"}).Draw(t, "prompt"),
		Milliseconds: rapid.IntRange(0, 6000).Draw(t, "ms"),
	}
})

// live lets a moment happen, and returns what the client was told of its charge.
func (s *spooling) live(m moment) (a answer, cost string) {
	s.ledger.set(m.Ledger)
	m.Redis.set(s.holds.Fail)
	m.Journal.set(s.journal.fail)
	if m.Spendable != "" {
		s.holds.Know("spoon", m.Spendable, m.Frozen)
	}
	a = s.post("spoon", m.Path, chatBody(m.Model, m.Prompt, ""))
	cost = a.header.Get("x-billing-cost")
	if a.status == http.StatusOK && m.Path == streamPath {
		if e := a.events(s.t); e.done {
			cost = e.bill(s.t).Get("cost").Str
		}
	}
	s.gw.Close() // what goes on behind the client's back meets the same
	<-time.After(time.Duration(m.Milliseconds) * time.Millisecond)
	return a, cost
}

// wrong says what is wrong with how a request lived, after what its client was told: a charge that was told
// is there once, and of no other amount; what failed at the provider was not charged.
func (s *spooling) wrong(a answer, cost string) string {
	l, charged := s.life("spoon", a.id()), domain.Zero
	for _, e := range []*domain.Event{l.commit, l.overage} {
		if e != nil {
			charged = charged.Add(e.Amount)
		}
	}
	switch {
	case l.others > 0,
		cost != "" && (charged.String() != cost || l.commit == nil && l.overage == nil),
		a.status == http.StatusBadGateway && charged.Sign() != 0:
		return fmt.Sprintf("it was told %d and %q, and lived as %q of %s: %s", a.status, cost, l, charged, a.body)
	}
	return ""
}

// TestWhateverIsAway: ledger, Redis and journal go and come back at any time. When all are well again, what
// was told is what is booked, and nothing stays reserved but what nobody could take the release of.
func TestWhateverIsAway(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		plan, problems := rapid.SliceOfN(moments, 1, 15).Draw(rt, "moments"), []string{}
		synctest.Test(t, func(t *testing.T) {
			o := options{overages: true}
			if slices.ContainsFunc(plan, func(m moment) bool { return m.Ledger == dying && m.Journal == broken }) {
				o.open = func(domain.Command) bool { return true } // nothing takes the release: the sweeper has to
			}
			s := startSpooling(t, o, newPipes())
			s.holds.Know("spoon", "200", false)
			type told struct {
				answer
				cost string
			}
			var all []told
			for _, m := range plan {
				a, cost := s.live(m)
				all = append(all, told{a, cost})
			}
			s.holds.Fail(nil, false)
			for _, err := range s.recovers() {
				problems = append(problems, err.Error())
			}
			for i, a := range all {
				if wrong := s.wrong(a.answer, a.cost); wrong != "" {
					problems = append(problems, fmt.Sprintf("%d: %s", i, wrong))
				}
			}
			for step := range strings.FieldsSeq(s.spoolCounts()) {
				name, n, _ := strings.Cut(step, "=")
				more, _ := strconv.Atoi(n)
				counts[name] += more
			}
		})
		if len(problems) > 0 {
			rt.Fatal(strings.Join(problems, "\n"))
		}
	})
	t.Log(counts)
}
