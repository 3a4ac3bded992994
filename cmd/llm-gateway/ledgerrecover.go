package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"llm-gateway/ledger"
)

var ledgerRecoverVerb = verb{
	name: "ledger recover", args: "--from-topic [--dry-run] [--give-up] [--json]",
	summary: "bring back from the topic what Postgres has lost of the ledger",
	about: `After Postgres was restored to the past, or a stale replica was promoted, its gateways refuse appends.
This appends the missing events, the topic's own bytes, after checking that their hashes continue the
ledger's. It can run beside the gateways, which then go on by themselves, and any number of times.
--give-up goes on without what gateways have seen committed and the topic does not have: that is lost.`,
	run: runLedgerRecover,
}

func runLedgerRecover(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	fromTopic := fs.Bool("from-topic", false, "the topic is where the events come from (mandatory)")
	dry := fs.Bool("dry-run", false, "check everything and write nothing")
	giveUp := fs.Bool("give-up", false, "go on without events that the topic does not have either")
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	if !*fromTopic {
		return a.usage("--from-topic is mandatory: there is no other place to recover from")
	}
	return withTopic(ctx, a, topicSource, ledger.Open, func(l *ledger.Postgres, o *opened) error {
		if o.topic == nil {
			return errors.New("there is no Kafka to recover from: set KAFKA_BROKERS, or run this with the DATA_DIR that has the embedded one")
		}
		line := newProgressLine(a.stderr, "recovering")
		done, err := recoverShards(ctx, l, o, ledger.RecoverOptions{Dry: *dry, GiveUp: *giveUp, Progress: line.shard})
		line.clear()
		if *asJSON {
			return errors.Join(a.printJSON(done), err)
		}
		return errors.Join(a.printRecovered(done), err)
	})
}

// recoveredOut is one shard in the JSON of `ledger recover`.
type recoveredOut struct {
	ledger.Recovered
	Error string `json:"error,omitempty"` // why it went no further
}

// recoverShards recovers every shard; one that cannot be does not keep the others from it. The error is
// the first one's.
func recoverShards(ctx context.Context, l *ledger.Postgres, o *opened, options ledger.RecoverOptions) (done []recoveredOut, first error) {
	failed := 0
	for shard := range int32(l.Meta().Shards) {
		r, err := l.Recover(ctx, shard, o.topic, options)
		out := recoveredOut{Recovered: r}
		if err != nil {
			err = kafkaError(databaseError(err, o.URL), o.brokers)
			out.Error = oneLine(err.Error())
			failed++
		}
		if first == nil {
			first = err
		}
		done = append(done, out)
	}
	if first != nil {
		first = fmt.Errorf("%d of %d shards cannot be recovered: %w", failed, len(done), first)
	}
	return done, first
}

func (a *app) printRecovered(done []recoveredOut) error {
	rows := [][]string{{"shard", "ledger", "topic", "appended", "head", "epoch"}}
	var failed []string
	for _, r := range done {
		appended := strconv.FormatInt(r.Appended, 10)
		if r.Dry {
			appended = "would be " + appended
		}
		rows = append(rows, []string{strconv.Itoa(int(r.Shard)), strconv.FormatInt(r.Before, 10), strconv.FormatInt(r.Topic, 10),
			appended, strconv.FormatInt(r.Head, 10), strconv.FormatInt(r.Epoch, 10)})
		if r.Error != "" {
			failed = append(failed, fmt.Sprintf("shard %d: %s\n", r.Shard, r.Error))
		}
	}
	err := a.printTable(rows)
	fmt.Fprint(a.stdout, strings.Join(failed, ""))
	return err
}
