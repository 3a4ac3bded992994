package main

import (
	"context"
	"fmt"
	"net/http"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

const (
	pricedModel = "simulated/sim-small"
	// priceNotice is how long before a price begins its book is written and read: longer than that takes here.
	priceNotice = 2 * time.Second
	// priceAfter is how long requests go on after a price has begun, at least.
	priceAfter = 2 * time.Second
)

// pricedBook is a book of one simulated model: a launch price, and one for each beginning, a cent dearer each.
func pricedBook(begins ...string) string {
	book := `currency: USD
unit: per_million
as_of: 2026-01-01
models:
  - provider: simulated
    model: sim-small
    mode: chat
    context: 128000
    max_output: 16384
    sources: []
    versions:
      - prices: {input: "0.15", cached_input: "0.075", output: "0.60"}
`
	for i, from := range begins {
		book += fmt.Sprintf("      - {from: %s, prices: {input: \"0.%d\", cached_input: \"0.1\", output: \"0.%d\"}}\n", from, 16+i, 61+i)
	}
	return book
}

type logOut struct {
	Changes []loggedOut `json:"changes"`
}

// recorded waits until the ledger has recorded so many changes of versions.
func recorded(t *testing.T, env []string, n int) []loggedOut {
	t.Helper()
	var changes []loggedOut
	eventually(t, readyLimit, fmt.Sprint(n, " recorded changes"), func() bool {
		changes = parsed[logOut](t, env, "price", "log").Changes
		return len(changes) >= n
	})
	if len(changes) != n {
		t.Errorf("recorded are %d: %+v", len(changes), changes)
	}
	return changes
}

func (s *served) hangUp() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

// begin is a time to come at which a price can begin.
func begin() time.Time {
	return time.Now().Add(priceNotice).Truncate(time.Second).Add(time.Second).UTC()
}

// TestPricesChangeUnderLoad: the price book, and what customers pay, change twice under requests on two
// gateways. Each request is charged by the version in force when it was reserved, every change is recorded once,
// and the audit of all is clean.
func TestPricesChangeUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	book, sell := writeFile(t, filepath.Join(dir, "prices.yaml"), pricedBook()), writeFile(t, filepath.Join(dir, "sell.yaml"), `{markup: "5"}`)
	files := []string{"PRICE_BOOK=" + book, "SELL_BOOK=" + sell}
	all, url := gateways(t, 2, files...)
	env := slices.Concat(files, []string{"DATABASE_URL=" + url})
	recorded(t, env, 2) // each book's one version, once for both gateways
	load := loadPriced(t, all)
	first := begin()
	writeFile(t, book, pricedBook(first.Format(time.RFC3339)))
	for _, s := range all {
		s.hangUp()
	}
	recorded(t, env, 4)
	second := begin()
	if second.Before(first.Add(priceAfter)) {
		second = first.Add(priceAfter)
	}
	writeFile(t, book, pricedBook(first.Format(time.RFC3339), second.Format(time.RFC3339)))
	writeFile(t, sell, `{markup: "10"}`)
	for _, s := range all {
		s.hangUp()
	}
	changes := recorded(t, env, 4+1+3) // a version more; what all three are sold at
	load(second.Add(priceAfter))
	if time.Now().Before(second) {
		t.Fatal("it ended too early")
	}
	for i, c := range changes {
		if c.Model != pricedModel || !strings.HasPrefix(c.Actor, "gateway:") || (c.Book == domain.BookCost) != (i == 0 || i == 2 || i == 4) {
			t.Errorf("%d: %+v", i, c)
		}
	}
	checkPriced(t, auditLedger(t, url), first, second)
	report := parsed[ledger.AuditReport](t, env, "audit", "--all")
	if !report.Clean || report.Charges < 20 {
		t.Errorf("%+v", report)
	}
	t.Logf("%d charges of %s", report.Charges, report.Amount)
	verified(t, "DATABASE_URL="+url)
}

// loadPriced asks from several connections, whole and streamed, until the time that the function it returns
// is given; each of them to the end. All have had an answer when it returns.
func loadPriced(t *testing.T, all []*served) (until func(time.Time)) {
	t.Helper()
	const connections = 6
	client, stop := newClient(t), make(chan struct{})
	var wait, warm sync.WaitGroup
	for i := range connections {
		token := tokenFor(t, fmt.Sprint("payer", i))
		warm.Add(1)
		wait.Go(func() {
			answered := sync.OnceFunc(warm.Done)
			defer answered()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				body := chatBody("sim-small", fmt.Sprintf("nonce %d of %d sim:tokens=%d", n, i, 1+n%20), n%2 == 0, "")
				if got := chat(context.Background(), client, all[(i+n)%len(all)].url, token, body); got.status != http.StatusOK || !got.complete {
					t.Errorf("%v", &got)
					return
				}
				answered()
			}
		})
	}
	warm.Wait()
	once := sync.OnceFunc(func() { close(stop); wait.Wait() })
	t.Cleanup(once)
	return func(end time.Time) {
		left := time.NewTimer(time.Until(end))
		defer left.Stop()
		select {
		case <-left.C:
		case <-t.Context().Done():
		}
		once()
	}
}

// checkPriced: every request is charged by the version that it was reserved by, of all there were, and by none
// before it was in force.
func checkPriced(t *testing.T, a *audit, begins ...time.Time) {
	t.Helper()
	charged := map[string]int{}
	for id, l := range a.lives {
		if l.commits != 1 || l.priceVersion != l.reservedBy || l.source != "provider" {
			t.Errorf("%s: reserved by %s, charged by %s: %+v", id, l.reservedBy, l.priceVersion, *l)
		}
		from, sold := "launch", ""
		for _, at := range begins {
			if strings.HasPrefix(l.priceVersion, pricedModel+"@"+domain.StartText(at)+"#") {
				if from = domain.StartText(at); l.reservedAt.Before(at) {
					t.Errorf("%s: reserved at %s by %s", id, l.reservedAt, l.priceVersion)
				}
			}
		}
		for _, markup := range []string{"+5%#", "+10%#"} {
			if strings.Contains(l.priceVersion, markup) {
				sold = markup
			}
		}
		charged[from]++
		charged[sold]++
	}
	for _, what := range []string{"launch", domain.StartText(begins[0]), domain.StartText(begins[1]), "+5%#", "+10%#"} {
		if charged[what] == 0 {
			t.Errorf("nothing was charged by %s: %v", what, charged)
		}
	}
	if charged[""] > 0 {
		t.Errorf("sold at cost: %v", charged)
	}
	t.Logf("charged by version: %v", charged)
}

// TestPricesDatedBackwards: a price that begins in charged time is refused at SIGHUP and at the start, by name,
// and what is in force stays; dated later it is taken. There and back again is recorded each time, and a start
// without a change is not.
func TestPricesDatedBackwards(t *testing.T) {
	t.Parallel()
	today, book := time.Now().UTC().Format(time.DateOnly), filepath.Join(t.TempDir(), "prices.yaml")
	writeFile(t, book, pricedBook())
	env := onPostgres(t, "PRICE_BOOK="+book, "LOG_LEVEL=INFO")
	s := startServe(t, env...)
	client, token := newClient(t), tokenFor(t, "payer")
	ask := func(s *served) reply {
		return chat(t.Context(), client, s.url, token, chatBody("sim-small", "hello", false, ""))
	}
	charged := ask(s)
	recorded(t, env, 1)

	wrong := pricedModel + " from " + today
	writeFile(t, book, pricedBook(today))
	s.hangUp()
	said := func(s *served, texts ...string) {
		t.Helper()
		eventually(t, readyLimit, strings.Join(texts, " ... "), func() bool { return containsAll(s.stdout.String(), texts...) })
	}
	said(s, "those in force stay", wrong, "is dated backwards into charged time: "+positionBefore(charged.position))
	if again := ask(s); again.status != http.StatusOK || again.cost != charged.cost {
		t.Errorf("what was in force is not: %v, %s instead of %s", &again, again.cost, charged.cost)
	}
	writeFile(t, book, pricedBook("2099-01-01"))
	s.hangUp()
	recorded(t, env, 2)
	writeFile(t, book, pricedBook())
	s.hangUp()
	recorded(t, env, 3)
	s.stop()

	writeFile(t, book, pricedBook(today))
	refused := launch(t, env...)
	refused.await(endLimit)
	if status, text := refused.cmd.ProcessState.ExitCode(), refused.stderr.String(); status != 1 || !containsAll(text, wrong, "is dated backwards into charged time", "begin the new price later") {
		t.Errorf("a start with it ended with %d:\n%s", status, text)
	}
	recorded(t, env, 3)
	writeFile(t, book, pricedBook("2099-01-01"))
	s = startServe(t, env...)
	recorded(t, env, 4)
	s.kill()
	s.await(endLimit)
	startServe(t, env...)
	changes := recorded(t, env, 4)
	for i, want := range []bool{true, true, false, true} {
		if added := changes[i].To != "" && changes[i].From == ""; added != want || changes[i].Model != pricedModel {
			t.Errorf("%d: %+v", i, changes[i])
		}
	}
	if text := succeeds(t, env, "price", "log"); !containsAll(text, "1 versions", "2099-01-01", "gateway:", pricedModel+"@2099-01-01#") {
		t.Errorf("price log:\n%s", text)
	}
	if text := succeeds(t, env, "price", "log", "--model", "acme/*"); text != "no change of prices has been recorded\n" {
		t.Errorf("of another model:\n%s", text)
	}
	fails(t, 2, "nobody's account", env, "account", "show", domain.PricesAccount)
	fails(t, 2, "nobody's account", env, "key", "create", "--account", domain.PricesAccount)
	verified(t, env...)
	succeeds(t, env, "projections", "verify")
}

// TestSoldDatedBackwards: an entry of the sell book by which somebody would have paid otherwise is refused at SIGHUP
// and at the start, by name, and what is in force stays. One that nobody has paid otherwise than, one to come, and
// another rule without a day are taken.
func TestSoldDatedBackwards(t *testing.T) {
	t.Parallel()
	dir, today := t.TempDir(), time.Now().UTC().Format(time.DateOnly)
	book, sell := writeFile(t, filepath.Join(dir, "prices.yaml"), pricedBook()), filepath.Join(dir, "sell.yaml")
	write := func(markup, dated, friends string) {
		t.Helper()
		writeFile(t, sell, fmt.Sprintf(`{markup: %q, dated: [%s], groups: [{name: friends, accounts: [friend], markup: "0", dated: [%s]}]}`, markup, dated, friends))
	}
	entry := func(from, markup string) string { return fmt.Sprintf("{from: %s, markup: %q}", from, markup) }
	write("100", "", "")
	env := onPostgres(t, "PRICE_BOOK="+book, "SELL_BOOK="+sell, "LOG_LEVEL=INFO")
	s := startServe(t, env...)
	client := newClient(t)
	ask := func(account string) reply {
		t.Helper()
		got := chat(t.Context(), client, s.url, tokenFor(t, account), chatBody("sim-small", "hello", false, ""))
		if got.status != http.StatusOK {
			t.Errorf("%v", &got)
		}
		return got
	}
	charged := ask("payer")
	recorded(t, env, 2)
	refusedHere := func(texts ...string) {
		t.Helper()
		before := len(s.stdout.String())
		s.hangUp()
		texts = append(texts, "those in force stay", "is dated backwards into charged time: ")
		eventually(t, readyLimit, strings.Join(texts, " ... "), func() bool { return containsAll(s.stdout.String()[before:], texts...) })
	}

	wrong := pricedModel + " from " + today
	write("100", entry(today, "150"), "")
	refusedHere(wrong, "+150%#", "for accounts in no group", positionBefore(charged.position))
	if again := ask("payer"); again.cost != charged.cost {
		t.Errorf("what was in force is not: %s instead of %s", again.cost, charged.cost)
	}
	write("100", entry("2099-01-01", "150"), entry(today, "100")) // of friends, nobody has paid yet; and to come
	s.hangUp()
	recorded(t, env, 3)
	if friend := ask("friend"); friend.cost != charged.cost {
		t.Errorf("a friend pays %s, not %s", friend.cost, charged.cost)
	}
	write("100", entry("2099-01-01", "150"), entry(today, "50"))
	refusedHere(wrong, "+50%#", "for the group friends")
	write("200", entry("2099-01-01", "150"), entry(today, "100")) // from now on
	s.hangUp()
	recorded(t, env, 4)
	if dearer := ask("payer"); dearer.cost == charged.cost {
		t.Errorf("twice the markup and still %s", dearer.cost)
	}
	s.stop()

	write("200", entry(today, "170")+","+entry("2099-01-01", "150"), entry(today, "100"))
	refused := launch(t, env...)
	refused.await(endLimit)
	if status, text := refused.cmd.ProcessState.ExitCode(), refused.stderr.String(); status != 1 || !containsAll(text, wrong, "+170%#", "for accounts in no group", "is dated backwards into charged time", "begin the new price later") {
		t.Errorf("a start with it ended with %d:\n%s", status, text)
	}
	write("170", entry("2099-01-01", "150"), entry(today, "100"))
	s = startServe(t, env...)
	recorded(t, env, 5)
	s.kill()
	s.await(endLimit)
	startServe(t, env...)
	recorded(t, env, 5)
	verified(t, env...)
	succeeds(t, env, "audit", "--all")
}

// positionBefore is the position of the event before: a charge's last event gives the rest back.
func positionBefore(position string) string {
	p, err := domain.ParsePosition(position)
	if err != nil {
		return err.Error()
	}
	p.Seq--
	return p.String() + " "
}

// TestPriceSetRecords: price set asks the ledger, and records who did it; gateways that take it over later record
// nothing more. Without a ledger in reach the file is changed, and that is said.
func TestPriceSetRecords(t *testing.T) {
	t.Parallel()
	book := writeFile(t, filepath.Join(t.TempDir(), "prices.yaml"), pricedBook())
	env := onPostgres(t, "PRICE_BOOK="+book)
	s := startServe(t, env...)
	recorded(t, env, 1)
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format(time.DateOnly) }

	chargeAhead(t, valueOf(env, "DATABASE_URL"), book, 48*time.Hour)
	fails(t, 1, pricedModel+" from "+day(1), env, "price", "set", pricedModel, "--from", day(1), "output=7")
	if text := readFile(t, book); text != pricedBook() {
		t.Errorf("a refusal left\n%s", text)
	}
	succeeds(t, env, "price", "set", pricedModel, "--from", day(3), "output=7")
	succeeds(t, env, "price", "set", pricedModel, "--from", day(3)+"T12:00:00Z", "output=8", "--actor", "finance:mary")
	changes := recorded(t, env, 3)
	if u, err := user.Current(); err == nil && changes[1].Actor != "cli:"+u.Username || changes[1].EffectiveFrom != day(3) || changes[1].Reason != "price set" {
		t.Errorf("%+v", changes[1])
	}
	if c := changes[2]; c.Actor != "finance:mary" || c.EffectiveFrom != day(3)+"T12:00:00Z" || c.From != "" || !strings.HasPrefix(c.To, pricedModel+"@"+day(3)+"T12:00:00Z#") {
		t.Errorf("%+v", c)
	}
	s.hangUp()
	s.stop()
	s = startServe(t, env...)
	recorded(t, env, 3)
	s.stop()

	away := []string{"PRICE_BOOK=" + book, "DATABASE_URL=postgres://nobody@127.0.0.1:1/none"}
	r := run(t, away, "price", "set", pricedModel, "--from", day(9), "output=9")
	if r.status != 0 || !strings.Contains(r.stderr, "the next gateway that reads the file records the change") || !strings.Contains(readFile(t, book), "from: "+day(9)) {
		t.Errorf("without a ledger: %+v", r)
	}
	startServe(t, env...)
	if c := recorded(t, env, 4)[3]; !strings.HasPrefix(c.Actor, "gateway:") || c.EffectiveFrom != day(9) {
		t.Errorf("%+v", c)
	}
	verified(t, env...)
}

// chargeAhead charges by the launch price, by a clock that is ahead.
func chargeAhead(t *testing.T, at, book string, ahead time.Duration) {
	t.Helper()
	prices, _, err := loadPriceBook(book)
	if err != nil {
		t.Fatal(err)
	}
	_, v, err := prices.Lookup("sim-small", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := ledger.OpenReader(t.Context(), ledger.Config{URL: at})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, err := ledger.Open(t.Context(), ledger.Config{URL: at, Role: ledger.ServiceRole, Shards: r.Meta().Shards, Currency: r.Meta().Currency,
		Now: func() time.Time { return time.Now().Add(ahead) }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	settle := manySettle(uuid.New(), 7)
	charge, err := v.Charge(settle.Data.Meters, "")
	if err != nil {
		t.Fatal(err)
	}
	settle.Charge, settle.Data.Lines, settle.Data.CostLines, settle.Data.PriceVersion = charge.Amount, charge.Lines, charge.Lines, charge.PriceVersion
	appendMany(t, l, "ahead", domain.Open{Grant: domain.MustAmount("10"), Actor: "test"})
	appendMany(t, l, "ahead", domain.Reserve{RequestID: settle.RequestID, Amount: domain.MustAmount("1"), Data: domain.ReserveData{PriceVersion: v.ID}})
	appendMany(t, l, "ahead", settle)
}
