package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/gateway"
	"llm-gateway/ledger"
)

// moody is a ledger in memory that can be away, and that somebody else can be faster on.
type moody struct {
	*ledger.Memory
	away   bool
	lost   bool   // what is appended happens, and the answer does not come
	before func() // of each append
}

var errAway = errors.New("the ledger is away")

func (m *moody) ReadPrices(ctx context.Context, record *domain.PriceRecord) error {
	if m.away {
		return errAway
	}
	return m.Memory.ReadPrices(ctx, record)
}

func (m *moody) Append(ctx context.Context, c domain.Command) (domain.Outcome, error) {
	if m.away {
		return domain.Outcome{}, errAway
	}
	if before := m.before; before != nil {
		m.before = nil
		before()
	}
	out, err := m.Memory.Append(ctx, c)
	if m.lost {
		return domain.Outcome{}, errAway
	}
	return out, err
}

func newMoody(t *testing.T) *moody {
	m := &moody{Memory: ledger.NewMemory(uuid.New(), 4, "USD", time.Now)}
	t.Cleanup(m.Close)
	return m
}

// recorder is one of a test, and what it logged.
func (m *moody) recorder() (*priceRecorder, *bytes.Buffer) {
	var out bytes.Buffer
	return newPriceRecorder(m, slog.New(slog.NewTextHandler(&out, nil))), &out
}

// changes lists the versions that came (+) and went (-), in the order of the record.
func (m *moody) changes(t *testing.T) string {
	t.Helper()
	events, err := m.Events(t.Context(), domain.ShardOf(domain.PricesAccount, 4), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range events {
		d := events[i].Event.Data.(*domain.AccountData)
		for _, c := range d.Prices.Changes {
			for sign, id := range map[string]string{"-": c.From, "+": c.To} {
				if _, rest, ok := strings.Cut(id, "@"); ok {
					from, _, _ := strings.Cut(rest, "#")
					out = append(out, sign+from)
				}
			}
		}
		out = append(out, d.Actor[:3])
	}
	return strings.Join(out, " ")
}

func catalogWith(t *testing.T, begins ...string) *gateway.Catalog {
	t.Helper()
	book, err := pricebook.Load(strings.NewReader(pricedBook(begins...)))
	if err != nil {
		t.Fatal(err)
	}
	return &gateway.Catalog{Prices: book}
}

func (m *moody) charge(t *testing.T, c *gateway.Catalog) {
	t.Helper()
	_, v, err := c.Prices.Lookup("sim-small", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.New()
	for _, op := range []domain.Op{domain.Open{Grant: domain.MustAmount("1"), Actor: "test"},
		domain.Reserve{RequestID: id, Data: domain.ReserveData{PriceVersion: v.ID}}, domain.Settle{RequestID: id, Data: domain.CommitData{PriceVersion: v.ID}}} {
		if _, err := m.Memory.Append(t.Context(), domain.Command{ID: newCommandID(), Account: "payer", Op: op}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPriceRecorder: what starts record, whoever comes first, and what they refuse.
func TestPriceRecorder(t *testing.T) {
	t.Parallel()
	m := newMoody(t)
	launch, later, back := catalogWith(t), catalogWith(t, "2098-01-01"), catalogWith(t, "2020-01-01")
	m.charge(t, launch)
	for i, c := range []*gateway.Catalog{launch, launch, later, launch, later, later} {
		p, out := m.recorder()
		if err := p.begin(t.Context(), c); err != nil || p.owing {
			t.Errorf("start %d: %v, %s", i, err, out)
		}
	}
	const want = "+launch gat +2098-01-01 gat -2098-01-01 gat +2098-01-01 gat"
	if got := m.changes(t); got != want {
		t.Errorf("recorded is\n%s\nand not\n%s", got, want)
	}
	p, _ := m.recorder()
	err := p.begin(t.Context(), back)
	if err == nil || !containsAll(err.Error(), pricedModel+" from 2020-01-01", "charged at", "by "+pricedModel+"@launch#", "begin the new price later") || m.changes(t) != want {
		t.Errorf("dated back: %v", err)
	}
	// The same without a record of its own: what the ledger has not, the catalog before says.
	fresh := newMoody(t)
	fresh.charge(t, launch)
	first, _ := fresh.recorder()
	if err := first.accepts(t.Context(), launch, back); err == nil || first.accepts(t.Context(), nil, back) != nil || first.accepts(t.Context(), launch, later) != nil {
		t.Errorf("without a record: %v", err)
	}
}

// TestPriceRecorderRaces: another gateway that records first is seen; an answer that did not come is asked for.
func TestPriceRecorderRaces(t *testing.T) {
	t.Parallel()
	m := newMoody(t)
	launch, later := catalogWith(t), catalogWith(t, "2098-01-01")
	p, _ := m.recorder()
	q, _ := m.recorder()
	m.before = func() { q.save(t.Context(), launch, "start") }
	p.save(t.Context(), launch, "start")
	m.before = func() { q.save(t.Context(), launch, "start") } // an older book that is read again
	p.save(t.Context(), later, "SIGHUP")
	m.lost = true
	if p.save(t.Context(), launch, "SIGHUP"); !p.owing {
		t.Error("an answer that did not come is no debt")
	}
	m.lost = false
	if p.save(t.Context(), launch, "again"); p.owing {
		t.Error("it is still owed")
	}
	if got := m.changes(t); got != "+launch gat +2098-01-01 gat -2098-01-01 gat" {
		t.Errorf("recorded is %s", got)
	}
}

// TestPricesWhileAway: with the ledger away prices to come are taken, and recorded when it is back; such as
// might have been charged otherwise are not, and the start itself does not fail.
func TestPricesWhileAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMoody(t)
		path := writeFile(t, filepath.Join(t.TempDir(), "prices.yaml"), pricedBook())
		catalog := &catalogFile{settings: &Settings{PriceBook: path, Currency: "USD"}}
		if err := catalog.reload(); err != nil {
			t.Fatal(err)
		}
		p, out := m.recorder()
		m.away = true
		if err := p.begin(t.Context(), catalog.now()); err != nil || !p.owing {
			t.Fatalf("a start without a ledger: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		hangups, ended := make(chan os.Signal), make(chan struct{})
		go func() {
			defer close(ended)
			followHangups(ctx, hangups, catalog, p, &logs{Logger: p.log})
		}()
		m.away = false
		<-time.After(recordPause + time.Second)
		synctest.Wait()
		if got := m.changes(t); p.owing || got != "+launch gat" {
			t.Errorf("recorded is %q: %s", got, out)
		}
		reread := func(begins ...string) string {
			writeFile(t, path, pricedBook(begins...))
			hangups <- syscall.SIGHUP
			synctest.Wait()
			return fmt.Sprint(len(catalog.now().Prices.Models()[0].Versions), p.owing)
		}
		m.away = true
		if got := reread("1990-01-01"); got != "1 false" || !strings.Contains(out.String(), "it cannot be known whether the price of "+pricedModel+" from 1990-01-01") {
			t.Errorf("a price that may have been charged otherwise: %s, %s", got, out)
		}
		if got := reread("2098-01-01"); got != "2 true" {
			t.Errorf("a price to come: %s, %s", got, out)
		}
		m.away = false
		<-time.After(recordPause)
		synctest.Wait()
		if got := m.changes(t); p.owing || got != "+launch gat +2098-01-01 gat" {
			t.Errorf("recorded is %q: %s", got, out)
		}
		cancel()
		<-ended
		m.Close()
	})
}

// TestSellDatesWhileAway: like prices, what is sold by an entry to come is taken without asking the ledger, and what
// may have been charged otherwise is not; a start knows it by the record, once there is one.
func TestSellDatesWhileAway(t *testing.T) {
	t.Parallel()
	m := newMoody(t)
	at := func(rules string) *gateway.Catalog {
		c := catalogWith(t)
		sell, err := pricebook.LoadSell(strings.NewReader(rules), c.Prices, "USD")
		if err != nil {
			t.Fatal(err)
		}
		c.Sell = sell
		return c
	}
	plain, back, later := at(`{markup: "5"}`), at(`{markup: "5", dated: [{from: 2020-01-01, markup: "7"}]}`), at(`{markup: "5", dated: [{from: 2098-01-01, markup: "7"}]}`)
	p, _ := m.recorder()
	if err := p.begin(t.Context(), back); err != nil { // nothing was recorded, and it records nothing wrong
		t.Errorf("the first start: %v", err)
	}
	q, _ := m.recorder()
	q.save(t.Context(), plain, "SIGHUP")
	m.charge(t, plain)
	if err := q.begin(t.Context(), back); err == nil || !containsAll(err.Error(), pricedModel+" from 2020-01-01 (", "+7%#", "for accounts in no group is dated backwards into charged time", "charged at") {
		t.Errorf("a start: %v", err)
	}
	m.away = true
	if err := q.accepts(t.Context(), plain, back); err == nil || !containsAll(err.Error(), "it cannot be known whether the price of "+pricedModel+" from 2020-01-01", "for accounts in no group") {
		t.Errorf("dated back: %v", err)
	}
	for name, next := range map[string]*gateway.Catalog{"to come": later, "another markup": at(`{markup: "6"}`), "the same": plain, "none": catalogWith(t)} {
		if err := q.accepts(t.Context(), plain, next); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.away = false
	q.save(t.Context(), back, "SIGHUP") // of a gateway that had read it in time
	r, _ := m.recorder()
	if err := r.accepts(t.Context(), plain, back); err == nil {
		t.Error("one that reads it too late has charged otherwise")
	}
	if err := r.begin(t.Context(), back); err != nil {
		t.Errorf("and starts again: %v", err)
	}
}

// TestBuiltinRecord: the first record of the built-in book is a few events, far below their bound.
func TestBuiltinRecord(t *testing.T) {
	t.Parallel()
	m := newMoody(t)
	p, _ := m.recorder()
	p.save(t.Context(), &gateway.Catalog{Prices: pricebook.Builtin()}, "start")
	events, err := m.Events(t.Context(), domain.ShardOf(domain.PricesAccount, 4), 0, 100)
	if err != nil || p.owing || len(events) == 0 || len(events) > 3 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i := range events {
		t.Logf("%d versions in %d bytes", len(events[i].Event.Data.(*domain.AccountData).Prices.Changes), len(events[i].Payload))
		if len(events[i].Payload) > domain.MaxPayload*4/5 {
			t.Errorf("event %d has %d bytes", i, len(events[i].Payload))
		}
	}
}
