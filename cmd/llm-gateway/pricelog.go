package main

import (
	"context"
	"fmt"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

var priceLogVerb = verb{
	name: "price log", args: "[--model GLOB] [--json]",
	summary: "list the changes of prices that the ledger has recorded: who, when, which version instead of which",
	about: `Gateways record the prices in force when they start and when they read them again (SIGHUP), and so does
price set. The first record of a ledger is of all prices, and is told in one line unless --model or --json is given.`,
	run: runPriceLog,
}

// loggedOut is one line of `price log --json`.
type loggedOut struct {
	Position      string `json:"position"` // of the event
	RecordedAt    string `json:"recorded_at"`
	Actor         string `json:"actor"`
	Reason        string `json:"reason,omitempty"`
	Book          string `json:"book"` // cost or sell
	Model         string `json:"model"`
	EffectiveFrom string `json:"effective_from,omitempty"` // "": since launch
	From          string `json:"from,omitempty"`           // a price version; "": there was none
	To            string `json:"to,omitempty"`             // "": it is no longer in the book
}

func loggedView(e *domain.Event, d *domain.AccountData, c *domain.VersionChange) loggedOut {
	return loggedOut{e.Position().String(), e.OccurredAt.Format(time.RFC3339Nano), d.Actor, d.Reason, d.Prices.Book, c.Model, c.EffectiveFrom, c.From, c.To}
}

func runPriceLog(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	model := fs.String("model", "", "only models that `GLOB` names, by provider/model; * stands for any text")
	asJSON := jsonFlag(fs)
	if _, err := a.parse(fs, args); err != nil {
		return err
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		out := []loggedOut{}
		rows := [][]string{{"POSITION", "RECORDED", "BY", "BOOK", "MODEL", "FROM", "OLD", "NEW"}}
		err := r.EachPrices(ctx, 0, func(e *domain.Event) error {
			d, ok := e.Data.(*domain.AccountData)
			if !ok || d.Prices == nil {
				return nil
			}
			whole := d.Prices.From == "" && *model == ""
			for i := range d.Prices.Changes {
				c := &d.Prices.Changes[i]
				if *model != "" && !domain.MatchText(*model, c.Model) {
					continue
				}
				v := loggedView(e, d, c)
				if out = append(out, v); !whole {
					rows = append(rows, v.row())
				}
			}
			if whole {
				first := loggedView(e, d, &domain.VersionChange{Model: fmt.Sprintf("%d versions", len(d.Prices.Changes))})
				rows = append(rows, first.row())
			}
			return nil
		})
		if err != nil || *asJSON {
			return orPrint(err, a, struct {
				Changes []loggedOut `json:"changes"`
			}{out})
		}
		if len(out) == 0 {
			fmt.Fprintln(a.stdout, "no change of prices has been recorded")
			return nil
		}
		return a.printTable(rows)
	})
}

// orPrint prints JSON where there was no error.
func orPrint(err error, a *app, v any) error {
	if err != nil {
		return err
	}
	return a.printJSON(v)
}

func (v *loggedOut) row() []string {
	some := func(text string) string {
		if text == "" {
			return "-"
		}
		return text
	}
	from := v.EffectiveFrom
	if from == "" {
		from = "launch"
	}
	return []string{v.Position, v.RecordedAt, v.Actor, v.Book, v.Model, from, some(v.From), some(v.To)}
}
