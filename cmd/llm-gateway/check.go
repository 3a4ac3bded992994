package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"llm-gateway/cmd/llm-gateway/upstreams"
	"llm-gateway/domain"
)

var checkVerb = verb{
	name: "check", args: "[db|redis|kafka|providers|production] [--timeout DURATION] [--json]",
	summary: "say what is set, and what is wrong with the settings and their files; or whether the servers and providers answer",
	about: "Without an argument every setting is read and listed, secrets hidden, and the files of PRICE_BOOK, SELL_BOOK\n" +
		"and UPSTREAMS are checked; nothing is asked of the network. `check providers` asks every provider that is\n" +
		"configured for its list of models, by each of its keys; that costs nothing. (An upstream that lists\n" +
		"its models to anybody says nothing about the key.) `check db`, `check redis` and `check kafka` connect, time a round\n" +
		"trip and name what is missing; they change nothing. `check production` goes through all that a careful operator would,\n" +
		"with a verdict for each line. The exit status is 1 if anything is wrong (FAIL); WARN is for you to judge.",
	run: runCheck,
}

func runCheck(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	timeout := fs.Duration("timeout", checkTimeout, "how long each provider or server may take")
	asJSON := jsonFlag(fs)
	what, err := a.parseAny(fs, args)
	switch {
	case err != nil:
		return err
	case len(what) > 1:
		return a.usage("too many arguments: %.60q", what[1])
	case *timeout <= 0 || *timeout > maxCheckTimeout:
		return a.usage("--timeout is a duration above 0s and up to %s", maxCheckTimeout)
	case len(what) == 0:
		return a.checkSettings(*asJSON)
	case what[0] == "providers":
		return a.checkProviders(ctx, *timeout, *asJSON)
	case what[0] == "production":
		return a.checkProduction(ctx, *timeout, *asJSON)
	case serverChecks[what[0]] != nil:
		return a.checkServer(ctx, what[0], *timeout, *asJSON)
	}
	return a.usage("after check comes nothing, or one of: db, redis, kafka, providers, production")
}

// checkOut is the JSON of `check`.
type checkOut struct {
	Settings  []settingOut  `json:"settings"`
	PriceBook *bookOut      `json:"price_book,omitempty"` // missing where it cannot be used
	Upstreams *upstreamsOut `json:"upstreams,omitempty"`  // the same
	Notes     []string      `json:"notes,omitempty"`      // what some settings are for
	Problems  []string      `json:"problems"`
}

// settingOut is one setting.
type settingOut struct {
	Name    string `json:"name"`
	Value   string `json:"value"` // "[secret]" for a secret that is set; "" where there is a problem
	From    string `json:"from"`
	Problem string `json:"problem,omitempty"`
}

// bookOut is what the price book says of itself.
type bookOut struct {
	Path     string `json:"path,omitempty"` // "": the built-in one
	Currency string `json:"currency"`
	AsOf     string `json:"as_of"`
	Models   int    `json:"models"`
}

// upstreamsOut counts what the file says.
type upstreamsOut struct {
	Path      string   `json:"path,omitempty"` // "": none
	Providers []string `json:"providers"`
	Models    int      `json:"models"`
	Aliases   int      `json:"aliases"`
	Fallbacks int      `json:"fallbacks"`
}

func (a *app) checkSettings(asJSON bool) error {
	src, err := readSources(a.environ, a.dotenv)
	if err != nil {
		return err
	}
	out := checked(src)
	if asJSON {
		err = a.printJSON(out)
	} else {
		err = a.printChecked(out)
	}
	if err != nil {
		return err
	}
	return firstOf(out.Problems, "problem")
}

// firstOf is an error that counts problems and names the first; nil where there is none.
func firstOf(problems []string, what string) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("1 %s was found: %s", what, oneLine(problems[0]))
	}
	return fmt.Errorf("%d %ss were found; the first: %s", len(problems), what, oneLine(problems[0]))
}

// checked reads all that there is, and goes on after a problem with what does not depend on it.
func checked(src sources) *checkOut {
	s, readings := readSettings(src)
	out := &checkOut{Problems: append([]string{}, unreadable(readings)...)}
	usable := map[string]bool{}
	for _, r := range readings {
		out.Settings = append(out.Settings, r.view())
		usable[r.of.name] = r.problem == ""
	}
	if len(out.Problems) == 0 {
		out.Problems = append(out.Problems, s.contradictions()...)
	}
	if err := s.signingProblem(); err != nil && usable["ENVIRONMENT"] && usable["JWT_SECRET_KEY"] && usable["JWT_JWKS_URL"] {
		out.Problems = append(out.Problems, err.Error())
	}
	out.Notes = s.notes()
	if usable["PRICE_BOOK"] && usable["BILLING_CURRENCY"] {
		if err := out.files(s, src, usable["UPSTREAMS"], usable["SELL_BOOK"]); err != nil {
			out.Problems = append(out.Problems, err.Error())
		}
	}
	return out
}

// signingProblem says why tokens could not be signed, without making a secret.
func (s *Settings) signingProblem() error {
	if s.Development() || s.JWTJWKSURL != "" {
		return nil
	}
	_, err := s.signingSecret()
	return err
}

// view hides what is secret, and what may be: a value that cannot be used is quoted by its problem
// where that does no harm.
func (r *reading) view() settingOut {
	out := settingOut{Name: r.of.name, Value: r.value, From: r.from, Problem: r.problem}
	switch {
	case r.problem != "":
		out.Value = ""
	case r.of.secret && r.value != "":
		out.Value = Secret(r.value).String()
	}
	return out
}

// files loads the price book, the upstreams and the sell book.
func (out *checkOut) files(s *Settings, src sources, withUpstreams, withSell bool) error {
	book, info, err := openPriceBook(s.PriceBook, s.Currency)
	if err != nil {
		return err
	}
	out.PriceBook = &bookOut{s.PriceBook, info.Currency, info.AsOf, len(book.Models())}
	if !withUpstreams {
		return nil
	}
	f, err := openUpstreams(s.Upstreams, s.Currency, src, book)
	if err != nil {
		return err
	}
	out.Upstreams = upstreamsView(s.Upstreams, f)
	if !withSell {
		return nil
	}
	if len(f.Upstreams) > 0 {
		if book, err = domain.NewPriceBook(modelsOf(f, book)); err != nil {
			return fmt.Errorf("UPSTREAMS %s: %w", s.Upstreams, err)
		}
	}
	_, err = openSellBook(s.SellBook, s.Currency, book)
	return err
}

func upstreamsView(path string, f *upstreams.File) *upstreamsOut {
	out := &upstreamsOut{Path: path, Providers: []string{}, Aliases: len(f.Aliases), Fallbacks: len(f.Fallbacks)}
	for i := range f.Upstreams {
		out.Providers = append(out.Providers, f.Upstreams[i].Name)
		out.Models += len(f.Upstreams[i].Models)
	}
	return out
}

func (a *app) printChecked(out *checkOut) error {
	rows := [][]string{{"SETTING", "VALUE", "FROM"}}
	for _, s := range out.Settings {
		value := s.Value
		if s.Problem != "" {
			value = "WRONG: " + s.Problem
		} else if value == "" {
			value = "-"
		}
		rows = append(rows, []string{s.Name, value, s.From})
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	if b := out.PriceBook; b != nil {
		fmt.Fprintf(a.stdout, "price book: %s, %d models, in %s, collected %s\n", or(b.Path, "the built-in one"), b.Models, b.Currency, b.AsOf)
	}
	if u := out.Upstreams; u != nil && u.Path == "" {
		fmt.Fprintln(a.stdout, "upstreams: none")
	} else if u != nil {
		fmt.Fprintf(a.stdout, "upstreams: %s, %s; %d models, %d aliases, %d lists of fallbacks\n", u.Path,
			or(strings.Join(u.Providers, ", "), "no providers"), u.Models, u.Aliases, u.Fallbacks)
	}
	for _, n := range out.Notes {
		fmt.Fprintf(a.stdout, "NOTE: %s\n", n)
	}
	for _, p := range out.Problems {
		fmt.Fprintf(a.stdout, "PROBLEM: %s\n", p)
	}
	if len(out.Problems) == 0 {
		fmt.Fprintln(a.stdout, "OK")
	}
	return nil
}

// or is a text, or another one where it is empty.
func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// readable are the settings as they are, also where they contradict each other or must not serve real users:
// what is checked is to be told all the same.
func (a *app) readable() (*Settings, sources, error) {
	src, err := readSources(a.environ, a.dotenv)
	if err != nil {
		return nil, sources{}, err
	}
	s, readings := readSettings(src)
	if problems := unreadable(readings); len(problems) > 0 {
		return nil, sources{}, &settingsError{problems}
	}
	return s, src, nil
}

// checkProviders asks every configured provider for its models.
func (a *app) checkProviders(ctx context.Context, timeout time.Duration, asJSON bool) error {
	s, src, err := a.readable()
	if err != nil {
		return err
	}
	var book *domain.PriceBook
	if book, _, err = openPriceBook(s.PriceBook, s.Currency); err != nil {
		return err
	}
	f, err := openUpstreams(s.Upstreams, s.Currency, src, book)
	if err != nil {
		return err
	}
	answers := askProviders(ctx, probes(configured(s, f)), timeout)
	if asJSON {
		err = a.printJSON(struct {
			Checks []probeOut `json:"checks"`
		}{answers})
	} else {
		err = a.printAnswers(answers)
	}
	if err != nil {
		return err
	}
	var failed []string
	for i := range answers {
		if !answers[i].OK {
			failed = append(failed, answers[i].Provider+": "+answers[i].Problem)
		}
	}
	return firstOf(failed, "failure")
}

func (a *app) printAnswers(answers []probeOut) error {
	if len(answers) == 0 {
		fmt.Fprintln(a.stdout, "there is nothing to ask: no provider's key is set, and UPSTREAMS names no provider")
		return nil
	}
	rows := [][]string{{"PROVIDER", "KEY", "ASKED", "ANSWER"}}
	for i := range answers {
		p := &answers[i]
		key, answer := "none", fmt.Sprintf("OK, %d ms", p.RoundTrip)
		if p.Key > 0 {
			key = fmt.Sprintf("%d of %d", p.Key, p.Keys)
		}
		if !p.OK {
			answer = "FAILED: " + p.Problem
		}
		rows = append(rows, []string{p.Provider, key, p.URL, answer})
	}
	return a.printTable(rows)
}
