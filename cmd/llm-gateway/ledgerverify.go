package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"

	"llm-gateway/ledger"
)

var ledgerVerifyVerb = verb{
	name: "ledger verify", args: "[--json]",
	summary: "check the whole ledger: chain, gaps, heads, balances, reservations, columns, topic; exit status 1 if it is not clean",
	about: `It reads one state of the whole ledger beside whoever is writing, and, where there is a Kafka, holds the
topic against it. It changes nothing.`,
	run: runLedgerVerify,
}

func runLedgerVerify(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	return withTopic(ctx, a, topicCopy, ledger.OpenReader, func(r *ledger.Reader, o *opened) error {
		line := newProgressLine(a.stderr, "verifying")
		options := ledger.VerifyOptions{Progress: line.shard}
		if o.topic != nil {
			options.Topic = o.topic
		}
		report, err := r.Verify(ctx, options)
		line.clear()
		if err != nil {
			return err
		}
		if *asJSON {
			err = a.printJSON(report)
		} else {
			err = report.WriteText(a.stdout)
		}
		if err == nil && !report.Clean {
			err = errors.New("the ledger is not clean")
		}
		return err
	})
}

// progressPause is the least time between two drawings of a progress line.
const progressPause = 100 * time.Millisecond

// progressLine is one line that is drawn again and again, on a terminal only.
type progressLine struct {
	w     io.Writer // nil: nobody watches
	what  string
	drawn time.Time
	wide  int
}

func newProgressLine(w io.Writer, what string) *progressLine {
	if isTerminal(w) {
		return &progressLine{w: w, what: what}
	}
	return &progressLine{}
}

// isTerminal says whether a person watches what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// shard draws how far a shard has been read.
func (p *progressLine) shard(shard int32, seq, last int64) {
	if p.w == nil || time.Since(p.drawn) < progressPause && seq < last {
		return
	}
	text := fmt.Sprintf("%s shard %d: %d of %d events", p.what, shard, seq, last)
	p.drawn = time.Now()
	fmt.Fprintf(p.w, "\r%-*s", p.wide, text)
	p.wide = len(text)
}

// clear takes the line away.
func (p *progressLine) clear() {
	if p.w != nil && p.wide > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.wide, "")
	}
}
