// Command llm-gateway is the whole program in one binary; `llm-gateway help` lists its verbs.
//
// Problem: whoever runs a gateway that carries money needs to start it, to look into its ledger and
// to move money by hand, without learning a second tool, and without a second way to the data.
//
// Invariants:
//   - Every verb that changes the ledger goes through ledger.Append, like the server does.
//   - Every verb works beside a running `serve` and without one: DATA_DIR tells where the embedded
//     Postgres is, and where none is running the verb starts it for as long as it needs it.
//   - Exit status 0 is success, 2 a wrong call, 1 anything else; an error is on stderr and says what
//     to do. No secret is ever printed, but for the token or key that was asked for.
//   - Settings are declared in one table (settings.go), which env.example is held against.
//
// A file per verb; backend.go finds the database, migrate.go brings it up to date. Tested by driving
// the real binary against Postgres, and by tables for settings and arguments. tidy_test.go holds the
// whole repository to its rules.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// program is the binary's name in messages.
const program = "llm-gateway"

// verb is one thing that the binary does. A name of two words is a verb of a group.
type verb struct {
	name    string
	args    string // what follows the name in the usage
	summary string // one line
	about   string // more, or ""
	run     func(ctx context.Context, a *app, args []string) error
}

// verbs lists everything, in the order of help. It is a function because help itself reads it.
func verbs() []verb {
	return []verb{
		serveVerb, demoVerb, checkVerb,
		migrateVerb,
		tokenVerb,
		accountShowVerb, accountCreditVerb, accountDebitVerb, accountFreezeVerb, accountUnfreezeVerb, accountLimitVerb, accountLimitsVerb,
		statementVerb, reconcileVerb,
		keyCreateVerb, keyListVerb, keyRevokeVerb,
		priceListVerb, priceShowVerb, auditVerb, priceDiffVerb, priceSetVerb, priceImportVerb, priceLogVerb, priceRerateVerb,
		ledgerVerifyVerb, ledgerRecoverVerb, ledgerJournalVerb,
		projectionsRebuildVerb, projectionsVerifyVerb, projectionsStatusVerb,
		embeddedVerb,
		benchVerb,
		{name: "version", args: "[--json]", summary: "say which build this is", run: runVersion},
		{name: "help", args: "[VERB]", summary: "list the verbs, or explain one", run: runHelp},
	}
}

// app is what a verb is handed: where it writes, what it is called with, and the settings.
type app struct {
	verb           verb
	stdout, stderr io.Writer
	now            func() time.Time
	environ        []string // as of os.Environ
	dotenv         string   // the path of the .env file
	loaded         *Settings
	sources        sources // what loaded was read from
	log            *logs   // of a process that serves
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end; the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	a := &app{stdout: os.Stdout, stderr: os.Stderr, now: time.Now, environ: os.Environ(), dotenv: dotenvFile}
	os.Exit(a.main(ctx, os.Args[1:]))
}

// main runs what the arguments name and returns the exit status.
func (a *app) main(ctx context.Context, args []string) int {
	v, rest, err := find(verbs(), args)
	if err == nil {
		a.verb = v
		err = v.run(ctx, a, rest)
	}
	return a.report(err)
}

// usageError is a wrong call of the program: exit status 2.
type usageError struct{ message, help string }

func (e *usageError) Error() string {
	return e.message + " (`" + strings.TrimSpace(program+" help "+e.help) + "` explains)"
}

func (a *app) usage(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), a.verb.name}
}

// exitStatus ends the program with a status of its own and without a word.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// errHelped says that help was asked for and given.
var errHelped = errors.New("help was given")

// report prints an error and returns the exit status.
func (a *app) report(err error) int {
	status, ended := errors.AsType[exitStatus](err)
	switch {
	case err == nil, errors.Is(err, errHelped):
		return 0
	case ended:
		return int(status)
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprintf(a.stderr, "%s: %s\n", program, err)
	if _, wrong := errors.AsType[*usageError](err); wrong {
		return 2
	}
	return 1
}

// find returns the verb that the arguments name, and what follows its name. No name means serve.
func find(all []verb, args []string) (verb, []string, error) {
	switch {
	case len(args) == 0:
		return named(all, "serve"), nil, nil
	case isHelp(args[0]):
		return named(all, "help"), args[1:], nil
	case args[0] == "--version" || args[0] == "-version":
		return named(all, "version"), args[1:], nil
	case strings.HasPrefix(args[0], "-"):
		return named(all, "serve"), args, nil
	}
	if v := named(all, args[0]); v.run != nil {
		return v, args[1:], nil
	}
	group := members(all, args[0])
	if len(group) == 0 {
		return verb{}, nil, &usageError{fmt.Sprintf("there is no verb %.40q", args[0]), ""}
	}
	if len(args) > 1 && isHelp(args[1]) {
		return named(all, "help"), args[:1], nil
	}
	if len(args) > 1 {
		if v := named(all, args[0]+" "+args[1]); v.run != nil {
			return v, args[2:], nil
		}
	}
	return verb{}, nil, &usageError{fmt.Sprintf("after %s comes one of: %s", args[0], strings.Join(group, ", ")), args[0]}
}

func isHelp(arg string) bool { return arg == "-h" || arg == "--help" || arg == "-help" }

// named finds a verb; its run is nil where there is none.
func named(all []verb, name string) verb {
	for _, v := range all {
		if v.name == name {
			return v
		}
	}
	return verb{}
}

// members lists the second words of a group's verbs.
func members(all []verb, group string) (names []string) {
	for _, v := range all {
		if second, ok := strings.CutPrefix(v.name, group+" "); ok {
			names = append(names, second)
		}
	}
	return names
}

// flags begins the flags of the running verb.
func (a *app) flags() *flag.FlagSet {
	fs := flag.NewFlagSet(a.verb.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // parse prints, once
	return fs
}

// jsonFlag declares --json, which every verb has whose output a program may read.
func jsonFlag(fs *flag.FlagSet) *bool { return fs.Bool("json", false, "print JSON") }

// parse reads flags and arguments, in any order, and returns one value per name. After `--` all
// that follows is arguments.
func (a *app) parse(fs *flag.FlagSet, args []string, names ...string) ([]string, error) {
	values, err := a.parseAny(fs, args)
	switch {
	case err != nil:
		return nil, err
	case len(values) < len(names):
		return nil, a.usage("%s is missing", names[len(values)])
	case len(values) > len(names):
		return nil, a.usage("too many arguments: %.60q", values[len(names)])
	}
	return values, nil
}

// parseAny is parse for any number of arguments.
func (a *app) parseAny(fs *flag.FlagSet, args []string) ([]string, error) {
	var values []string
	for rest := args; ; {
		err := fs.Parse(rest)
		if errors.Is(err, flag.ErrHelp) {
			a.printUsage(fs)
			return nil, errHelped
		}
		if err != nil {
			return nil, a.usage("%s", err)
		}
		taken := len(rest) - fs.NArg()
		if fs.NArg() == 0 || taken > 0 && rest[taken-1] == "--" {
			return append(values, fs.Args()...), nil
		}
		values, rest = append(values, fs.Arg(0)), fs.Args()[1:]
	}
}

func (a *app) printUsage(fs *flag.FlagSet) {
	fmt.Fprintf(a.stdout, "usage: %s\n\n%s.\n", strings.TrimSpace(program+" "+a.verb.name+" "+a.verb.args), a.verb.summary)
	if a.verb.about != "" {
		fmt.Fprintf(a.stdout, "\n%s\n", a.verb.about)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fs.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "\n  --%s\t%s", strings.TrimSpace(f.Name+" "+value), text)
	})
	fmt.Fprintln(w)
	w.Flush() //nolint:errcheck // stdout
}

// printJSON prints one value for a program to read.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printTable prints rows in aligned columns.
func (a *app) printTable(rows [][]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}
