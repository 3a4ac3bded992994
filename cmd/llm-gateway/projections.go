package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"llm-gateway/ledger"
	"llm-gateway/projections"
)

var (
	projectionsRebuildVerb = verb{
		name: "projections rebuild", args: "NAME [--from topic|ledger] [--json]",
		summary: "make a projection anew from the events, beside the live one, and put it in its place",
		about: `NAME is balances, transactions or stats. The gateways go on serving: a fresh table is filled, compared
with the live one at the same position, and swapped in. Differences are listed; the swap mends them.`,
		run: runProjectionsRebuild,
	}
	projectionsVerifyVerb = verb{
		name: "projections verify", args: "[NAME...] [--from topic|ledger] [--json]",
		summary: "compare projections with what the events make; exit status 1 if they differ",
		about:   `It makes each of them anew beside the live one, lists the differences, and changes nothing.`,
		run:     runProjectionsVerify,
	}
	projectionsStatusVerb = verb{
		name: "projections status", args: "[--json]", summary: "show how far each projection has come", run: runProjectionsStatus,
	}
)

// rebuildOut is the JSON of `projections rebuild`, and of each projection of `projections verify`.
type rebuildOut struct {
	*projections.Result
	Equal           bool  `json:"equal"` // compared, and without a difference
	EventsPerSecond int64 `json:"events_per_second"`
}

func rebuildView(r *projections.Result) rebuildOut {
	return rebuildOut{r, r.Compared && r.Differences.Count() == 0, r.EventsPerSecond()}
}

// sourceFlag reads --from.
func sourceFlag(from string) error {
	if from != projections.SourceTopic && from != projections.SourceLedger {
		return errors.New("--from must be topic or ledger")
	}
	return nil
}

// inOneLine is all of joined errors.
func inOneLine(joined error) string { return strings.ReplaceAll(joined.Error(), "\n", "; ") }

func runProjectionsRebuild(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	from := fs.String("from", projections.SourceLedger, "the `SOURCE`: topic or ledger")
	asJSON := jsonFlag(fs)
	names, err := a.parse(fs, args, "NAME")
	if err != nil {
		return err
	}
	if err := errors.Join(projections.CheckName(names[0]), sourceFlag(*from)); err != nil {
		return a.usage("%s", inOneLine(err))
	}
	return withRebuild(ctx, a, *from, "rebuilding "+names[0], func(c projections.RebuildConfig, clear func()) error {
		result, err := projections.Rebuild(ctx, c, names[0])
		clear()
		if err != nil {
			return err
		}
		if *asJSON {
			return a.printJSON(rebuildView(result))
		}
		a.printRebuilt(result)
		return nil
	})
}

func runProjectionsVerify(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	from := fs.String("from", projections.SourceLedger, "the `SOURCE`: topic or ledger")
	asJSON := jsonFlag(fs)
	names, err := a.parseAny(fs, args)
	if err != nil {
		return err
	}
	wrong := sourceFlag(*from)
	for _, name := range names {
		wrong = errors.Join(wrong, projections.CheckName(name))
	}
	if wrong != nil {
		return a.usage("%s", inOneLine(wrong))
	}
	return withRebuild(ctx, a, *from, "verifying", func(c projections.RebuildConfig, clear func()) error {
		results, err := projections.Verify(ctx, c, names...)
		clear()
		if err != nil {
			return err
		}
		return a.reportVerified(results, *asJSON)
	})
}

// reportVerified prints what was compared; anything that was not equal is an error.
func (a *app) reportVerified(results []*projections.Result, asJSON bool) error {
	equal := true
	views := make([]rebuildOut, len(results))
	for i, r := range results {
		views[i] = rebuildView(r)
		equal = equal && views[i].Equal
	}
	if asJSON {
		if err := a.printJSON(views); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			a.printRebuilt(r)
		}
	}
	if !equal {
		return errors.New("the projections are not what the events make; `projections rebuild` mends them")
	}
	return nil
}

// withRebuild runs what makes tables anew: as their owner, from the ledger or the topic.
func withRebuild(ctx context.Context, a *app, from, what string, run func(c projections.RebuildConfig, clear func()) error) error {
	use := topicNone
	if from == projections.SourceTopic {
		use = topicSource
	}
	return withTopic(ctx, a, use, ledger.OpenReader, func(r *ledger.Reader, b *opened) error {
		owner, err := ledger.ConnConfig(string(b.OwnerURL), "", b.ownerPooled())
		if err != nil {
			return err
		}
		if from == projections.SourceTopic && b.topic == nil {
			return errors.New("there is no Kafka with a topic: set KAFKA_BROKERS, or use --from ledger")
		}
		line := newProgressLine(a.stderr, what)
		c := projections.RebuildConfig{Owner: owner, Meta: r.Meta(), Ledger: r, Progress: line.shard}
		if from == projections.SourceTopic {
			c.Topic = b.topic
		}
		return run(c, line.clear)
	})
}

// printRebuilt tells one result to a person.
func (a *app) printRebuilt(r *projections.Result) {
	fmt.Fprintf(a.stdout, "%s from the %s: %d events, %d rows, in %s (%d events/s)\n", r.Projection, r.Source, r.Events, r.Rows,
		r.Took.Round(time.Millisecond), r.EventsPerSecond())
	if r.FilledFromLedger > 0 {
		fmt.Fprintf(a.stdout, "  the topic did not have %d of them yet: they are from the ledger\n", r.FilledFromLedger)
	}
	switch n := r.Differences.Count(); {
	case !r.Compared:
		fmt.Fprintf(a.stdout, "  not compared: %s\n", r.NotCompared)
	case n == 0:
		fmt.Fprintln(a.stdout, "  EQUAL to the live one at the same position")
	default:
		fmt.Fprintf(a.stdout, "  DIFFERENT from the live one: %d rows missing, %d extra, %d with other values\n",
			r.Differences.Missing, r.Differences.Extra, r.Differences.Different)
		for _, d := range r.Differences.List {
			fmt.Fprintf(a.stdout, "  %s %s\n    live    %s\n    events  %s\n", d.Kind, d.Key, d.Live, d.Fresh)
		}
	}
	if r.Swapped {
		fmt.Fprintln(a.stdout, "  it is live now")
	}
}

// statusOut is the JSON of `projections status`.
type statusOut struct {
	Projection string                  `json:"projection"`
	Exists     bool                    `json:"exists"`
	Behind     int64                   `json:"behind"` // events, all shards
	Shards     []projections.StatusRow `json:"shards"`
}

func runProjectionsStatus(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		rows, err := projections.NewReader(r.Pool(), r.Meta()).Status(ctx)
		if err != nil {
			return err
		}
		var all []statusOut
		for _, row := range rows {
			if len(all) == 0 || all[len(all)-1].Projection != row.Projection {
				all = append(all, statusOut{Projection: row.Projection, Exists: row.Exists})
			}
			last := &all[len(all)-1]
			last.Behind += row.Behind
			last.Shards = append(last.Shards, row)
		}
		if *asJSON {
			return a.printJSON(all)
		}
		return a.printStatus(all)
	})
}

func (a *app) printStatus(all []statusOut) error {
	rows := [][]string{{"projection", "shard", "seq", "ledger", "behind", "as of"}}
	for _, p := range all {
		for _, s := range p.Shards {
			asOf := s.AsOf.UTC().Format(time.RFC3339)
			if !p.Exists {
				asOf = "the table is gone: projections rebuild " + p.Projection
			}
			rows = append(rows, []string{p.Projection, strconv.Itoa(int(s.Shard)), strconv.FormatInt(s.Seq, 10),
				strconv.FormatInt(s.Head, 10), strconv.FormatInt(s.Behind, 10), asOf})
		}
	}
	return a.printTable(rows)
}
