package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/lease"
)

const (
	// rerateLease is held by the one run that corrects: a second one begins when it has ended, and meets what
	// it corrected.
	rerateLease = "price-rerate"
	// rerateWait is how long a run waits for the lease: one that died is gone by then.
	rerateWait = lease.Term + lease.Every
	// correctAtOnce is how many corrections are appended at a time.
	correctAtOnce = 16
	// maxCorrectFailures is how many corrections that were refused are listed. All are counted.
	maxCorrectFailures = 1000
)

// correctedOut is what the corrections of a run came to.
type correctedOut struct {
	domain.ReratePlan
	Repeated int64           `json:"repeated"` // that had happened before
	Failed   int64           `json:"failed"`
	Failures []correctFailed `json:"failures"` // the first, up to maxCorrectFailures
}

// correctFailed is a charge that the ledger refused to correct.
type correctFailed struct {
	Position string        `json:"position"`
	Account  string        `json:"account"`
	Kind     domain.Kind   `json:"kind"`
	Amount   domain.Amount `json:"amount"`
	Problem  string        `json:"problem"`
}

// correct prints the plan, and appends what it asks for.
func (a *app) correct(ctx context.Context, l *ledger.Postgres, r *rerating, tariff domain.Tariff) error {
	out, spans, err := a.rerate(ctx, l.Reader, r, tariff)
	if err != nil {
		return err
	}
	if !r.asJSON {
		if err := a.printRerate(out, false); err != nil {
			return err
		}
	}
	done := &corrector{ledger: l, rerating: r, rerater: domain.NewRerater(tariff), out: correctedOut{Failures: []correctFailed{}}}
	if out.Plan.Credits+out.Plan.Debits > 0 {
		if err := a.confirm(r, &out.Plan, out.Currency); err != nil {
			return err
		}
		s, err := a.settings()
		if err != nil {
			return err
		}
		keeper := &lease.Keeper{Pool: l.Pool(), Owner: uuid.New(), Log: a.logger(s)}
		err = keeper.Alone(ctx, rerateLease, rerateWait, func(ctx context.Context) error { return done.run(ctx, a, spans) })
		if errors.Is(err, lease.ErrTaken) {
			return errors.New("another `price rerate --correct` is at it; nothing was corrected")
		}
		if err != nil {
			return fmt.Errorf("%w: call the same again, what was corrected is not corrected twice", err)
		}
	}
	out.Corrected = &done.out
	return a.printCorrected(out, r.asJSON)
}

func (a *app) printCorrected(out *rerateOut, asJSON bool) error {
	c := out.Corrected
	if asJSON {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else {
		for _, f := range c.Failures {
			fmt.Fprintf(a.stdout, "not corrected: %s of %s: a %s of %s: %s\n", f.Position, f.Account, f.Kind, f.Amount, f.Problem)
		}
		fmt.Fprintf(a.stdout, "corrected: %d credits of %s and %d debits of %s %s\n", c.Credits, c.Credited, c.Debits, c.Debited, out.Currency)
	}
	if c.Failed > 0 {
		return fmt.Errorf("%d charges could not be corrected", c.Failed)
	}
	return nil
}

// corrector appends the corrections of some spans, as they are read: the plan is not kept.
type corrector struct {
	ledger   *ledger.Postgres
	rerating *rerating
	rerater  *domain.Rerater

	mu     sync.Mutex // guards what follows
	out    correctedOut
	broken error // the first failure that is not about one charge
}

// correction is one charge with what corrects it.
type correction struct {
	charge *domain.Charged
	op     domain.Op
}

func (c *corrector) run(ctx context.Context, a *app, spans []ledger.Span) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	line := newProgressLine(a.stderr, "correcting")
	defer line.clear()
	work := make(chan correction)
	var all sync.WaitGroup
	for range correctAtOnce {
		all.Go(func() {
			for one := range work {
				if err := c.append(ctx, one); err != nil {
					c.fail(err)
					stop()
				}
			}
		})
	}
	err := c.feed(ctx, work, spans, line.shard)
	close(work)
	all.Wait()
	if c.broken != nil {
		return c.broken
	}
	return err
}

// feed reads the charges again, and hands on what corrects each.
func (c *corrector) feed(ctx context.Context, work chan<- correction, spans []ledger.Span, progress ledger.Progress) error {
	for _, s := range spans {
		err := c.ledger.EachCharged(ctx, c.rerating.account, s, progress, func(charge *domain.Charged) error {
			again, priced := c.rerater.Add(charge)
			if !priced {
				return nil
			}
			op, differs := charge.Correction(again, c.rerating.reason, c.rerating.actor, c.rerating.force)
			if !differs {
				return nil
			}
			select {
			case work <- correction{charge, op}:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *corrector) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
}

// append makes one correction happen. What the ledger refuses is counted; other errors end the run.
func (c *corrector) append(ctx context.Context, one correction) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	out, err := appendOne(ctx, c.ledger, one.charge.Account, one.op)
	kind, amount := domain.KindCredit, domain.Zero
	switch o := one.op.(type) {
	case domain.Credit:
		amount = o.Amount
	case domain.Debit:
		kind, amount = domain.KindDebit, o.Amount
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	rejected := new(domain.Rejection)
	switch {
	case errors.As(err, &rejected):
		c.refused(correctFailed{one.charge.Position.String(), one.charge.Account, kind, amount, rejected.Error()})
	case err != nil:
		return err
	case out.Repeated:
		c.out.Repeated++
	case kind == domain.KindCredit:
		c.out.Credits, c.out.Credited = c.out.Credits+1, c.out.Credited.Add(amount)
	default:
		c.out.Debits, c.out.Debited = c.out.Debits+1, c.out.Debited.Add(amount)
	}
	return nil
}

func (c *corrector) refused(f correctFailed) {
	if c.out.Failed++; len(c.out.Failures) < maxCorrectFailures {
		c.out.Failures = append(c.out.Failures, f)
	}
}
