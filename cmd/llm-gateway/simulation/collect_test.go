package simulation

import (
	"fmt"

	"llm-gateway/domain"
)

// collect puts down what a run leaves behind, in the auditor's forms.
func (w *world) collect() *evidence {
	meta := w.store.Meta()
	e := &evidence{ledger: meta.ID, lives: w.lives, credits: w.credits, cached: map[string]cachedRow{}}
	for shard := range int32(meta.Shards) {
		e.ledgerSeals = append(e.ledgerSeals, sealsOf(w.eventsOf(shard)))
		records, _ := w.broker.read(shard, 0, 1<<30)
		e.topic = append(e.topic, sealsOf(records))
		e.transactions = append(e.transactions, w.broker.transactionsOf(shard))
	}
	for _, a := range w.order {
		if !a.began.IsZero() {
			e.attempts = append(e.attempts, &a.sighting)
		}
	}
	e.kept, e.swept, e.alarms, e.outages = w.kept, w.swept, w.alarms, w.outages
	e.unfinished = w.leaks
	if why := w.atRest(); why != "" {
		e.unfinished = append(e.unfinished, why)
	}
	w.collectTables(e)
	return e
}

func sealsOf(events []domain.Recorded) (out []seal) {
	for _, r := range events {
		out = append(out, seal{r.Payload, r.Hash})
	}
	return out
}

func (w *world) collectTables(e *evidence) {
	t := w.database.tables
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &e.projection
	p.balances, p.charged = map[string]balanceRow{}, map[string]statRow{}
	for _, at := range t.positions {
		p.positions = append(p.positions, at.seq)
	}
	for name, a := range t.balances {
		p.balances[name] = balanceRow{a.Available.String(), a.Reserved.String(), a.CreditLimit.String()}
	}
	for _, l := range t.lines {
		p.lines = append(p.lines, lineRow{l.account, string(l.Kind), l.Amount.String()})
	}
	for key, c := range t.stats {
		p.charged[key.account+" "+key.model] = statRow{c.Requests, c.Meters[domain.Output], c.Amount.String()}
	}
	w.cache.mu.Lock()
	defer w.cache.mu.Unlock()
	for name, row := range w.cache.rows {
		e.cached[name] = cachedRow{row.Spendable.String(), row.Position.Seq, w.cache.newest[name]}
	}
}

// note puts what came of everything into the trace, so that two runs are the same only if that is.
func (e *evidence) note(t *trace) {
	for _, a := range e.attempts {
		t.notef("%s saw %d, whole %t, left %t, %d bytes, %s", a.name, a.status, a.whole, a.left, len(a.got), a.header["x-billing-cost"])
	}
	t.notef("unfinished: %s", fmt.Sprint(e.unfinished))
}
