package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"llm-gateway/cmd/llm-gateway/embedded"
	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
	"llm-gateway/ledger"
)

var priceSetVerb = verb{
	name: "price set", args: "PROVIDER/MODEL --from DATE METER=PRICE... [--actor TEXT] [--json]",
	summary: "add a dated version to a model in the file of PRICE_BOOK",
	about: `Prices are as the book writes them: per million tokens, or for one web_search or one of requests. What is
not named stays as it was, tiers and service tiers included. All else in the file stays as it is, comments
too. Running gateways take it over at SIGHUP. DATE is a day to come, in UTC, or a time such as
2026-05-01T12:00:00Z: what has been charged is not priced anew. Where the ledger can be reached (DATABASE_URL, or a
gateway that runs on this DATA_DIR), it must know of no charge by other prices from then on, and it records the change
and who made it (--actor; the system's user where it is not given). Where it cannot, the next gateway that reads
the file records it.`,
	run: runPriceSet,
}

// priceSetting is one call of price set.
type priceSetting struct {
	change pricebook.Change
	path   string // of PRICE_BOOK
	actor  string
	old    *domain.PriceBook // the file's, as it was
	next   *domain.PriceBook // and as it is to be
	text   []byte
}

func runPriceSet(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	from := fs.String("from", "", "the first day (`DATE`, YYYY-MM-DD, UTC) or the time of the new prices (mandatory)")
	who := fs.String("actor", "", "`TEXT` that says who changes the prices")
	asJSON := jsonFlag(fs)
	words, err := a.parseAny(fs, args)
	if err != nil {
		return err
	}
	change, err := a.readChange(words, *from)
	if err != nil {
		return err
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	if s.PriceBook == "" {
		return errors.New("the built-in price book is part of the program: set PRICE_BOOK to a file of your own, and change that")
	}
	p := &priceSetting{change: change, actor: priceActor(*who)}
	if p.path, err = filepath.EvalSymlinks(s.PriceBook); err != nil { // a link stays one
		return fmt.Errorf("PRICE_BOOK %s: %w", s.PriceBook, err)
	}
	unlock, err := lockBook(ctx, p.path)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.prepare(s); err != nil {
		return err
	}
	if err := p.setIn(ctx, a, s); err != nil {
		return err
	}
	return a.printChanges(domain.DiffPrices(p.old, p.next), *asJSON)
}

const (
	// bookWait is how long a `price set` waits for others on the same book: each takes no longer than appendWait.
	bookWait = 2 * appendWait
	bookPoll = 20 * time.Millisecond
)

// lockBook keeps every other `price set` away from a book until unlock: two that read the same text would each
// write it without the other's prices, and both would be recorded. The directory is what is locked, because the
// file is another one after each change.
func lockBook(ctx context.Context, path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := embedded.FlockWithin(ctx, dir, bookWait, bookPoll); err != nil {
		return nil, fmt.Errorf("nothing was changed, is another `price set` at it? %w", errors.Join(err, dir.Close()))
	}
	return func() { _ = dir.Close() }, nil // the lock goes with it
}

// priceActor is who changes prices by this program.
func priceActor(given string) string {
	name := given
	if u, err := user.Current(); name == "" && err == nil {
		name = actor + ":" + u.Username
	}
	if name = domain.CleanText(name, domain.MaxForeignText); name == "" {
		return actor
	}
	return name
}

// prepare works out what the file is to be.
func (p *priceSetting) prepare(s *Settings) (err error) {
	if p.old, _, err = openPriceBook(s.PriceBook, s.Currency); err != nil {
		return err
	}
	text, err := os.ReadFile(p.path)
	if err == nil {
		p.text, err = pricebook.Set(text, p.change)
	}
	if err == nil {
		p.next, err = pricebook.Load(bytes.NewReader(p.text))
	}
	if err != nil {
		return fmt.Errorf("PRICE_BOOK %s: %w", s.PriceBook, err)
	}
	return nil
}

// setIn changes the file, under the eyes of the ledger where there is one within reach.
func (p *priceSetting) setIn(ctx context.Context, a *app, s *Settings) error {
	if _, err := embedded.ReadEndpoints(s.DataDir); s.DatabaseURL == "" && err != nil {
		return replaceFile(p.path, p.text)
	}
	ctx, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	reached := false
	err := withLedger(ctx, a, func(l *ledger.Postgres) error {
		reached = true
		return p.setRecorded(ctx, a, l)
	})
	if reached {
		return err
	}
	fmt.Fprintf(a.stderr, "the ledger is not within reach (%s): the next gateway that reads the file records the change\n", err)
	return replaceFile(p.path, p.text)
}

// setRecorded changes the file and records that. A ledger without a record has one as soon as a gateway
// starts: then of all prices.
func (p *priceSetting) setRecorded(ctx context.Context, a *app, l *ledger.Postgres) error {
	var record domain.PriceRecord
	if err := l.ReadPrices(ctx, &record); err != nil {
		return err
	}
	if err := refuseBackdated(ctx, l, record.Repriced(p.next), nil); err != nil {
		return err
	}
	if err := replaceFile(p.path, p.text); err != nil || !record.Begun() {
		return err
	}
	old, next := domain.CostVersions(p.old), domain.CostVersions(p.next)
	_, err := recordPrices(ctx, l, &record, p.actor, "price set", func(r *domain.PriceRecord) *domain.PricesData {
		return r.Next(domain.BookCost, r.With(old, next))
	})
	if err != nil {
		fmt.Fprintf(a.stderr, "the file is changed, and the ledger did not record it (%s): the next gateway that reads the file does\n", err)
	}
	return nil
}

// readChange reads the words of `price set`.
func (a *app) readChange(words []string, from string) (c pricebook.Change, err error) {
	if len(words) == 0 {
		return c, a.usage("PROVIDER/MODEL is missing")
	}
	provider, model, full := strings.Cut(words[0], "/")
	switch {
	case !full:
		return c, a.usage("a model is named with its provider here: %.60q is not PROVIDER/MODEL", words[0])
	case len(words) == 1:
		return c, a.usage("METER=PRICE is missing")
	}
	c = pricebook.Change{Provider: provider, Model: model, Prices: map[string]string{}}
	if c.From, err = a.startToCome(from); err != nil {
		return c, err
	}
	for _, word := range words[1:] {
		meter, price, ok := strings.Cut(word, "=")
		if _, err := domain.ParseMeter(meter); err != nil || !ok {
			return c, a.usage("%.60q is not METER=PRICE", word)
		}
		if _, twice := c.Prices[meter]; twice {
			return c, a.usage("%s is given twice", meter)
		}
		c.Prices[meter] = price
	}
	return c, nil
}

// replaceFile puts other contents in a file's place; whoever reads it meets the old or the new, and whole.
func replaceFile(path string, text []byte) error {
	was, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // after the renaming there is nothing to remove
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(was.Mode().Perm()), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
