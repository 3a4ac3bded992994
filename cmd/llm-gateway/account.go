package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger"
)

// actor is who the events of these verbs name: events hold no person's name.
const actor = "cli"

// appendWait bounds how long a verb waits for the ledger to answer.
const appendWait = 20 * time.Second

var (
	accountShowVerb = verb{
		name: "account show", args: "NAME [--at TIME] [--json]", summary: "show an account's balances, now or at a past moment", run: runAccountShow,
	}
	accountCreditVerb = verb{
		name: "account credit", args: "NAME AMOUNT --reference TEXT [--reason TEXT] [--corrects POSITION] [--open] [--json]",
		summary: "add money to an account", about: referenceHelp, run: runAccountCredit,
	}
	accountDebitVerb = verb{
		name: "account debit", args: "NAME AMOUNT --reference TEXT [--reason TEXT] [--corrects POSITION] [--force] [--json]",
		summary: "take money out of an account", about: referenceHelp, run: runAccountDebit,
	}
	accountFreezeVerb = verb{
		name: "account freeze", args: "NAME [--reason TEXT] [--json]", summary: "refuse an account's new requests; all else goes on",
		run: func(ctx context.Context, a *app, args []string) error { return runFreeze(ctx, a, args, true) },
	}
	accountUnfreezeVerb = verb{
		name: "account unfreeze", args: "NAME [--reason TEXT] [--json]", summary: "take a frozen account's requests again",
		run: func(ctx context.Context, a *app, args []string) error { return runFreeze(ctx, a, args, false) },
	}
	accountLimitVerb = verb{
		name: "account limit", args: "NAME AMOUNT [--reason TEXT] [--json]", summary: "set how far below zero an account may go", run: runAccountLimit,
	}
)

const referenceHelp = `The reference (an invoice's number, a ticket) makes the movement happen once per account: the same
call again changes nothing and says so. After an error of which you do not know whether the money
moved, call the same again. A mistake is corrected by a new movement, which --corrects names the
position of.`

// balances are those of an account at one moment.
type balances struct {
	Available domain.Amount `json:"available"`
	Reserved  domain.Amount `json:"reserved"`
}

func balancesOf(a domain.Account) balances { return balances{a.Available, a.Reserved} }

// accountOut is the JSON of `account show`.
type accountOut struct {
	Account string `json:"account"`
	balances
	CreditLimit domain.Amount `json:"credit_limit"`
	Frozen      bool          `json:"frozen"`
	Currency    string        `json:"currency"`
	Position    string        `json:"position"` // of the account's last event
}

func accountView(a domain.Account, m ledger.Meta) accountOut {
	return accountOut{Account: a.Name, balances: balancesOf(a), CreditLimit: a.CreditLimit, Frozen: a.Frozen, Currency: m.Currency,
		Position: domain.Position{Shard: domain.ShardOf(a.Name, m.Shards), Seq: a.LastSeq}.String()}
}

func errNotOpen(name string) error {
	return fmt.Errorf("account %s is not open: its first valid token or key opens it, or `account credit --open`", name)
}

// parseName reads the one argument of a verb that is about an account.
func (a *app) parseName(fs *flag.FlagSet, args []string) (string, error) {
	names, err := a.parse(fs, args, "NAME")
	if err != nil {
		return "", err
	}
	if err := domain.CheckOwner(names[0]); err != nil {
		return "", a.usage("%s", err)
	}
	return names[0], nil
}

// openedAccount is the account of a name, which must be open.
func openedAccount(ctx context.Context, r *ledger.Reader, name string) (*domain.Account, error) {
	account, err := r.Account(ctx, name)
	if err == nil && account == nil {
		err = errNotOpen(name)
	}
	return account, err
}

func runAccountShow(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	moment := fs.String("at", "", "the balances as of `TIME` (RFC 3339), from the events")
	asJSON := jsonFlag(fs)
	name, err := a.parseName(fs, args)
	if err != nil {
		return err
	}
	var at time.Time
	if *moment != "" {
		if at, err = a.parsePast(*moment); err != nil {
			return err
		}
	}
	return withReader(ctx, a, func(r *ledger.Reader) error {
		if *moment != "" {
			return a.showPast(ctx, r, name, at, *asJSON)
		}
		account, err := openedAccount(ctx, r, name)
		if err != nil {
			return err
		}
		return a.printAccount(accountView(*account, r.Meta()), *asJSON)
	})
}

func (a *app) printAccount(v accountOut, asJSON bool) error {
	if asJSON {
		return a.printJSON(v)
	}
	return a.printTable([][]string{
		{"account", v.Account},
		{"available", v.Available.String() + " " + v.Currency},
		{"reserved", v.Reserved.String() + " " + v.Currency},
		{"credit limit", v.CreditLimit.String() + " " + v.Currency},
		{"frozen", map[bool]string{true: "yes", false: "no"}[v.Frozen]},
		{"last event", v.Position},
	})
}

// movement is what `account credit` and `account debit` are called with.
type movement struct {
	account string
	amount  domain.Amount
	data    domain.MovementData
	open    bool // open the account first
	asJSON  bool
	debit   bool
	force   bool
}

// op is the ledger's operation.
func (m *movement) op() domain.Op {
	if m.debit {
		return domain.Debit{Amount: m.amount, Data: m.data, Force: m.force}
	}
	return domain.Credit{Amount: m.amount, Data: m.data}
}

// before undoes the movement on the balances that it led to.
func (m *movement) before(after balances) balances {
	if m.debit {
		after.Available = after.Available.Add(m.amount)
	} else {
		after.Available = after.Available.Sub(m.amount)
	}
	return after
}

func (a *app) parseMovement(args []string, debit bool) (*movement, error) {
	m := &movement{debit: debit, data: domain.MovementData{Actor: actor}}
	fs := a.flags()
	fs.StringVar(&m.data.Reference, "reference", "", "`TEXT` that makes it happen once: an invoice, a ticket (mandatory)")
	fs.StringVar(&m.data.Reason, "reason", "", "`TEXT` that says why")
	fs.StringVar(&m.data.Corrects, "corrects", "", "the `POSITION` (shard:seq) of the event that this corrects")
	if debit {
		fs.BoolVar(&m.force, "force", false, "also beyond what is available")
	} else {
		fs.BoolVar(&m.open, "open", false, "open the account first, with BILLING_DEFAULT_BALANCE, if it is not open")
	}
	fs.BoolVar(&m.asJSON, "json", false, "print JSON")
	values, err := a.parse(fs, args, "NAME", "AMOUNT")
	if err != nil {
		return nil, err
	}
	m.account = values[0]
	if m.data.Reference == "" {
		return nil, a.usage("--reference is mandatory: it makes the movement happen once")
	}
	if m.amount, err = domain.ParseAmount(values[1]); err != nil || m.amount.Sign() <= 0 {
		return nil, a.usage("AMOUNT must be more than 0 with at most %d decimals, such as 25.00, not %.40q", domain.AmountScale, values[1])
	}
	if err := (domain.Command{ID: newCommandID(), Account: m.account, Op: m.op()}).Validate(); err != nil {
		return nil, a.usage("%s", err)
	}
	return m, nil
}

func runAccountCredit(ctx context.Context, a *app, args []string) error {
	m, err := a.parseMovement(args, false)
	if err != nil {
		return err
	}
	return runMovement(ctx, a, m)
}

func runAccountDebit(ctx context.Context, a *app, args []string) error {
	m, err := a.parseMovement(args, true)
	if err != nil {
		return err
	}
	return runMovement(ctx, a, m)
}

// movementOut is the JSON of `account credit` and `account debit`.
type movementOut struct {
	Account   string        `json:"account"`
	Kind      domain.Kind   `json:"kind"`
	Amount    domain.Amount `json:"amount"`
	Currency  string        `json:"currency"`
	Reference string        `json:"reference"`
	Position  string        `json:"position"`
	Repeated  bool          `json:"repeated"` // it had happened before, at that position; nothing happened now
	Opened    bool          `json:"opened"`   // the account was opened by this call
	Before    balances      `json:"before"`
	After     balances      `json:"after"`
}

func runMovement(ctx context.Context, a *app, m *movement) error {
	return withLedger(ctx, a, func(l *ledger.Postgres) error {
		opened := false
		if m.open {
			var err error
			if opened, err = openAccount(ctx, a, l, m.account); err != nil {
				return err
			}
		}
		out, err := appendOne(ctx, l, m.account, m.op())
		if err != nil {
			return movementError(err, m)
		}
		after := balancesOf(out.Account)
		v := movementOut{Account: m.account, Kind: domain.KindCredit, Amount: m.amount, Currency: l.Meta().Currency,
			Reference: m.data.Reference, Position: out.Position().String(), Repeated: out.Repeated, Opened: opened,
			Before: after, After: after}
		if m.debit {
			v.Kind = domain.KindDebit
		}
		if !out.Repeated {
			v.Before = m.before(after)
		}
		return a.printMovement(v, m.asJSON)
	})
}

func (a *app) printMovement(v movementOut, asJSON bool) error {
	if asJSON {
		return a.printJSON(v)
	}
	if v.Opened {
		fmt.Fprintf(a.stdout, "account %s opened\n", v.Account)
	}
	if v.Repeated {
		fmt.Fprintf(a.stdout, "%s %s: already happened at %s, nothing charged twice; available %s %s\n",
			v.Kind, v.Reference, v.Position, v.After.Available, v.Currency)
		return nil
	}
	fmt.Fprintf(a.stdout, "%s of %s %s at %s: available %s -> %s\n",
		v.Kind, v.Amount, v.Currency, v.Position, v.Before.Available, v.After.Available)
	return nil
}

// movementError says what to do about a rejection.
func movementError(err error, m *movement) error {
	rejected := new(domain.Rejection)
	if !errors.As(err, &rejected) {
		return err
	}
	switch rejected.Reason {
	case domain.RejectAccountUnknown:
		return errNotOpen(m.account)
	case domain.RejectReferenceReused:
		return fmt.Errorf("the reference %q was used on %s for another movement; nothing happened", m.data.Reference, m.account)
	case domain.RejectInsufficientFunds:
		return fmt.Errorf("%s has %s available, less than %s; --force takes it all the same; nothing happened",
			m.account, rejected.Available, rejected.Needed)
	}
	return err
}

// openAccount opens an account with its default balance; on an open one it does nothing.
func openAccount(ctx context.Context, a *app, l *ledger.Postgres, name string) (opened bool, err error) {
	s, err := a.settings()
	if err != nil {
		return false, err
	}
	out, err := appendOne(ctx, l, name, domain.Open{Grant: s.DefaultBalance, Actor: actor})
	return err == nil && !out.Repeated, err
}

func newCommandID() uuid.UUID { return domain.CommandID(uuid.Must(uuid.NewV7())) }

// appendOne makes one thing happen.
func appendOne(ctx context.Context, l *ledger.Postgres, account string, op domain.Op) (domain.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	out, err := l.Append(ctx, domain.Command{ID: newCommandID(), Account: account, Op: op})
	if errors.Is(err, domain.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		return out, fmt.Errorf("the ledger did not answer, so it is not known whether this happened: %w", err)
	}
	return out, err
}

// runFreeze freezes or unfreezes.
func runFreeze(ctx context.Context, a *app, args []string, frozen bool) error {
	fs := a.flags()
	reason := fs.String("reason", "", "`TEXT` that says why")
	asJSON := jsonFlag(fs)
	name, err := a.parseName(fs, args)
	if err != nil {
		return err
	}
	data := domain.AccountData{Frozen: &frozen, Reason: *reason, Actor: actor}
	return a.configure(ctx, name, data, *asJSON, func(account *domain.Account) bool { return account.Frozen == frozen })
}

// runAccountLimit sets the credit limit.
func runAccountLimit(ctx context.Context, a *app, args []string) error {
	fs := a.flags()
	reason := fs.String("reason", "", "`TEXT` that says why")
	asJSON := jsonFlag(fs)
	values, err := a.parse(fs, args, "NAME", "AMOUNT")
	if err != nil {
		return err
	}
	limit, err := domain.ParseAmount(values[1])
	if err != nil || limit.Sign() < 0 {
		return a.usage("AMOUNT must be 0 or more with at most %d decimals, such as 25.00, not %.40q", domain.AmountScale, values[1])
	}
	data := domain.AccountData{CreditLimit: &limit, Reason: *reason, Actor: actor}
	if err := (domain.Command{ID: newCommandID(), Account: values[0], Op: domain.Configure{Data: data}}).Validate(); err != nil {
		return a.usage("%s", err)
	}
	return a.configure(ctx, values[0], data, *asJSON, func(account *domain.Account) bool { return account.CreditLimit.Equal(limit) })
}

// configure sets something of an account, and prints what it then is; what is so already is left alone.
func (a *app) configure(ctx context.Context, name string, data domain.AccountData, asJSON bool, so func(*domain.Account) bool) error {
	return withLedger(ctx, a, func(l *ledger.Postgres) error {
		account, err := openedAccount(ctx, l.Reader, name)
		if err != nil {
			return err
		}
		if !so(account) {
			out, err := appendOne(ctx, l, name, domain.Configure{Data: data})
			if err != nil {
				return err
			}
			account = &out.Account
		}
		return a.printAccount(accountView(*account, l.Meta()), asJSON)
	})
}
