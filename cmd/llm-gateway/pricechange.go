package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"llm-gateway/cmd/llm-gateway/pricebook"
	"llm-gateway/domain"
)

var (
	priceDiffVerb = verb{
		name: "price diff", args: "FILE [FILE] [--json]",
		summary: "say which prices differ: between the book in use and a file, or between two files",
		about:   "Prices are those charged: what a book leaves out is completed first. What differs for longer is listed at its first day.",
		run:     runPriceDiff,
	}
	priceImportVerb = verb{
		name: "price import", args: "litellm|genai-prices FILE [--models GLOB] [--from DATE] [--out FILE]",
		summary: "write a public price list as a price book",
		about: `FILE is LiteLLM's model_prices_and_context_window.json, or the data.json (version 2) of pydantic's
genai-prices. What cannot be said in a price book is listed on stderr. The book that is written has the
models of the list alone. A model that the book in use prices otherwise is refused, because what has been
charged is not priced anew; with --from it keeps its prices until then. Service tiers and regions that it has now
and that the list does not tell are listed, too: from then on they cost the base price.`,
		run: runPriceImport,
	}
)

// changeOut is one line of `price diff --json` and `price set --json`; no price is "".
type changeOut struct {
	Model string `json:"model"`
	From  string `json:"from,omitempty"` // "": since launch
	Where string `json:"where"`
	Meter string `json:"meter"`
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
}

func changeView(changes []domain.PriceChange) []changeOut {
	out := []changeOut{}
	text := func(a *domain.Amount) string {
		if a == nil {
			return ""
		}
		return a.String()
	}
	for _, c := range changes {
		out = append(out, changeOut{c.Provider + "/" + c.Model, domain.StartText(c.From), c.Where, c.Meter.String(), text(c.Old), text(c.New)})
	}
	return out
}

func (a *app) printChanges(changes []domain.PriceChange, asJSON bool) error {
	if asJSON {
		return a.printJSON(struct {
			Changes []changeOut `json:"changes"`
		}{changeView(changes)})
	}
	if len(changes) == 0 {
		fmt.Fprintln(a.stdout, "no price differs")
		return nil
	}
	rows := [][]string{{"MODEL", "FROM", "WHERE", "METER", "OLD", "NEW", ""}}
	for _, c := range changes {
		units, per := int64(perMillion), "per million"
		if c.Meter >= domain.WebSearch {
			units, per = 1, "each"
		}
		rows = append(rows, []string{c.Provider + "/" + c.Model, startOr(c.From, "launch"), c.Where, c.Meter.String(),
			priceFor(units, c.Old), priceFor(units, c.New), per})
	}
	return a.printTable(rows)
}

// priceFor is the price of so many units.
func priceFor(units int64, unit *domain.Amount) string {
	if unit == nil {
		return "-"
	}
	return unit.Times(units).String()
}

func runPriceDiff(_ context.Context, a *app, args []string) error {
	fs := a.flags()
	asJSON := jsonFlag(fs)
	files, err := a.parseAny(fs, args)
	switch {
	case err != nil:
		return err
	case len(files) == 0:
		return a.usage("FILE is missing")
	case len(files) > 2:
		return a.usage("too many arguments: %.60q", files[2])
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	if len(files) == 1 {
		files = []string{s.PriceBook, files[0]}
	}
	old, was, err := openPriceBook(files[0], s.Currency)
	if err != nil {
		return err
	}
	next, is, err := loadPriceBook(files[1])
	if err != nil {
		return fmt.Errorf("%s: %w", files[1], err)
	}
	if was.Currency != is.Currency {
		return fmt.Errorf("the one is in %s and the other in %s", was.Currency, is.Currency)
	}
	return a.printChanges(domain.DiffPrices(old, next), *asJSON)
}

// startToCome reads a day or a time to come, in UTC: what has begun may have been charged.
func (a *app) startToCome(text string) (time.Time, error) {
	from, err := domain.ParseStart(text)
	switch {
	case text == "":
		return from, a.usage("--from is mandatory")
	case err != nil:
		return from, a.usage("--from: %s", err)
	case !from.After(a.now()):
		return from, a.usage("--from: %s has begun (UTC), and what has been charged is not priced anew; the first day that can be set is %s",
			text, a.now().UTC().AddDate(0, 0, 1).Format(time.DateOnly))
	}
	return from, nil
}

func runPriceImport(_ context.Context, a *app, args []string) error {
	fs := a.flags()
	models := fs.String("models", "*", "only models that `GLOB` names, by model or provider/model; * stands for any text")
	from := fs.String("from", "", "the first day (`DATE`, YYYY-MM-DD, UTC) of prices that differ from those in use")
	out := fs.String("out", "", "write the book to `FILE`, which must not exist, and not to stdout")
	names, err := a.parse(fs, args, "FORMAT", "FILE")
	if err != nil {
		return err
	}
	var day time.Time
	if *from != "" {
		if day, err = a.startToCome(*from); err != nil {
			return err
		}
	}
	if names[0] != pricebook.FormatLiteLLM && names[0] != pricebook.FormatGenAI {
		return a.usage("%.40q is not litellm or genai-prices", names[0])
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	book, info, err := openPriceBook(s.PriceBook, s.Currency)
	if err != nil {
		return err
	}
	if info.Currency != "USD" {
		return fmt.Errorf("the list is in USD, and the price book in use in %s", info.Currency)
	}
	list, err := importList(names[0], names[1], *models)
	if err != nil {
		return err
	}
	text, err := a.importedBook(list, book, day, names)
	if err != nil {
		return err
	}
	if err := a.writeBook(*out, text); err != nil {
		return err
	}
	for _, l := range list.Left {
		fmt.Fprintf(a.stderr, "%s: %s\n", l.Model, l.What)
	}
	fmt.Fprintf(a.stderr, "%d models; %d things could not be said in a price book\n", len(list.Models), len(list.Left))
	return nil
}

func importList(format, path, models string) (*pricebook.Imported, error) {
	f, err := os.Open(path) //nolint:gosec // the command line names it
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	list, err := pricebook.Import(format, f, func(provider, model string) bool {
		return domain.MatchText(models, model) || domain.MatchText(models, provider+"/"+model)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(list.Models) == 0 {
		return nil, fmt.Errorf("%s: no model of it can be taken over (%d were left out)", path, len(list.Left))
	}
	return list, nil
}

// importedBook is the text of the list as a book that prices nothing anew that may have been charged.
func (a *app) importedBook(list *pricebook.Imported, book *domain.PriceBook, day time.Time, names []string) ([]byte, error) {
	models := slices.Clone(list.Models)
	if !day.IsZero() {
		for i := range models {
			taken, err := takenOver(book, &models[i], day)
			if err != nil {
				return nil, err
			}
			if names := untold(book, &taken, day); len(names) > 0 {
				list.Left = append(list.Left, pricebook.Left{Model: taken.Provider + "/" + taken.Name, What: fmt.Sprintf(
					"the list does not tell of %s: from %s on they cost the base price", strings.Join(names, ", "), domain.StartText(day))})
			}
			models[i] = taken
		}
	}
	next, err := domain.NewPriceBook(models)
	if err != nil {
		return nil, err
	}
	if changes := domain.Backdated(book, next, a.now()); len(changes) > 0 {
		return nil, fmt.Errorf("%d prices differ from those that may have been charged, the first: %s (per unit); give --from, or leave the model out by --models",
			len(changes), changes[0].String())
	}
	info := pricebook.Info{Currency: "USD", AsOf: a.now().UTC().Format(time.DateOnly)}
	text := pricebook.Text(info, names[0]+", "+filepath.Base(names[1]), models)
	_, err = pricebook.Load(strings.NewReader(string(text)))
	return text, err
}

// takenOver is a model of the book in use that keeps its prices until a day, and has the list's from then
// on; without a difference it is the book's, and one that the book does not have is the list's.
func takenOver(book *domain.PriceBook, listed *domain.Model, day time.Time) (domain.Model, error) {
	one, err := domain.NewPriceBook([]domain.Model{*listed})
	if err != nil {
		return *listed, err
	}
	has := book.Named(listed.Provider + "/" + listed.Name)
	if len(has) == 0 {
		return *listed, nil
	}
	out, same := *has[0], *has[0]
	out.Versions = slices.DeleteFunc(slices.Clone(out.Versions), func(v domain.PriceVersion) bool { return !v.From.Before(day) })
	for i, v := range one.Models()[0].Versions {
		last := i+1 == len(listed.Versions) || listed.Versions[i+1].From.After(day)
		if v.From.After(day) || last {
			if !v.From.After(day) {
				v.From = day
			}
			out.Versions = append(out.Versions, v)
		}
	}
	mine, err := domain.NewPriceBook([]domain.Model{out})
	if err != nil {
		return out, err
	}
	theirs, err := domain.NewPriceBook([]domain.Model{same})
	if err == nil && len(domain.DiffPrices(theirs, mine)) == 0 {
		return same, nil
	}
	return out, err
}

// untold names the service tiers and the regions that a model has in the book in use, and no longer from a day on:
// they are not refused then, as a meter without a price is, but cost the base price.
func untold(book *domain.PriceBook, taken *domain.Model, day time.Time) (names []string) {
	has := book.Named(taken.Provider + "/" + taken.Name)
	if len(has) == 0 {
		return nil
	}
	old, err := has[0].Price(day)
	if err != nil {
		return nil // it has no price then that could be lost
	}
	next, err := taken.Price(day)
	if err != nil {
		return nil
	}
	return append(missingKeys(old.ServiceTiers, next.ServiceTiers), missingKeys(old.Regions, next.Regions)...)
}

// missingKeys are those of old that next has not, in order.
func missingKeys[V any](old, next map[string]V) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(old)), func(name string) bool { _, still := next[name]; return still })
}

// writeBook writes to stdout, or to a file that is not there yet.
func (a *app) writeBook(path string, text []byte) error {
	if path == "" {
		_, err := a.stdout.Write(text)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // prices are no secret
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
