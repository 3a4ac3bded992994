package main

import (
	"context"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// pastOut is the JSON of `account show --at`.
type pastOut struct {
	Account string    `json:"account"`
	At      time.Time `json:"at"`
	balances
	Currency   string     `json:"currency"`
	Position   string     `json:"position,omitempty"` // of the account's last event by then; "": it had none
	OccurredAt *time.Time `json:"occurred_at,omitempty"`
}

// parsePast reads a moment that is not in the future.
func (a *app) parsePast(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, a.usage("--at is a time such as 2026-07-31T23:59:59Z or 2026-08-01T00:00:00+02:00, not %.60q", text)
	}
	if at.After(a.now()) {
		return at, a.usage("--at is in the future: what the balance will be then is not known")
	}
	return at.UTC(), nil
}

// showPast prints an account's balances at a past moment, from its events.
func (a *app) showPast(ctx context.Context, r *ledger.Reader, name string, at time.Time, asJSON bool) error {
	if _, err := openedAccount(ctx, r, name); err != nil {
		return err
	}
	past, err := r.BalanceAt(ctx, name, at)
	if err != nil {
		return err
	}
	out := pastOut{Account: name, At: at, balances: balances{past.Available, past.Reserved}, Currency: r.Meta().Currency}
	if past.Position.Seq > 0 {
		out.Position, out.OccurredAt = past.Position.String(), &past.OccurredAt
	}
	if asJSON {
		return a.printJSON(out)
	}
	return a.printPast(out)
}

func (a *app) printPast(out pastOut) error {
	last := "none: the account was not open yet"
	if out.OccurredAt != nil {
		last = out.Position + " at " + out.OccurredAt.Format(time.RFC3339Nano)
	}
	money := func(m domain.Amount) string { return m.String() + " " + out.Currency }
	return a.printTable([][]string{{"account", out.Account}, {"at", out.At.Format(time.RFC3339Nano)},
		{"available", money(out.Available)}, {"reserved", money(out.Reserved)}, {"last event by then", last}})
}
