package domain

import "time"

// Decide says which events a command leads to on these books, or why it may not happen. at is the time
// that the events will have. It changes nothing. No events and no error means that there is nothing to
// do.
func (b *Books) Decide(c Command, at time.Time) ([]Draft, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if o, ok := c.Op.(Open); ok {
		return b.decideOpen(c, o), nil
	}
	if o, ok := c.Op.(RecordPrices); ok {
		return b.decidePrices(c, o)
	}
	a := b.Accounts[c.Account]
	if a == nil {
		return nil, reject(c, RejectAccountUnknown, "")
	}
	switch o := c.Op.(type) {
	case Credit:
		o.Data.debit = false
		return b.decideMovement(c, a, o.Amount, &o.Data)
	case Debit:
		o.Data.debit = true
		drafts, err := b.decideMovement(c, a, o.Amount, &o.Data)
		if err == nil && !o.Force && a.Available.Less(o.Amount) {
			return nil, insufficient(c, o.Amount, a.Available)
		}
		return drafts, err
	case Configure:
		o.Data.Reason = CleanText(o.Data.Reason, MaxReference)
		return []Draft{{Kind: KindAccount, Data: &o.Data}}, nil
	case Reserve:
		return b.decideReserve(c, a, o, at)
	case Spooled:
		return b.decideSpooled(c, a, o)
	case Settle:
		return b.decideSettle(c, a, o)
	default:
		return b.decideRelease(c, c.Op.(Release)) // Validate knows no other
	}
}

func reject(c Command, r Reject, detail string) *Rejection {
	return &Rejection{Reason: r, Account: CleanText(c.Account, maxAccountName), Detail: detail}
}

func insufficient(c Command, needed, available Amount) *Rejection {
	return &Rejection{Reason: RejectInsufficientFunds, Account: c.Account, Needed: needed, Available: available}
}

// OpeningReference is the reference of every account's opening credit; no other may use it.
const OpeningReference = "opening"

func (b *Books) decideOpen(c Command, o Open) []Draft {
	if b.Accounts[c.Account] != nil {
		return nil
	}
	grant := &MovementData{Reference: OpeningReference, Reason: "opening balance", Actor: o.Actor}
	return []Draft{
		{Kind: KindAccount, Data: &AccountData{Opened: true, Actor: o.Actor}},
		{Kind: KindCredit, Amount: o.Grant, Data: grant},
	}
}

// overflows says whether adding change to available would leave what a balance column holds, now or
// when all that is reserved comes back.
func overflows(a *Account, change Amount) bool {
	available := a.Available.Add(change)
	return !available.InRange() || !available.Add(a.Reserved).InRange()
}

func outOfRange(c Command) *Rejection {
	return reject(c, RejectInvalid, "the balance would leave the range of amounts")
}

func (b *Books) decideMovement(c Command, a *Account, amount Amount, d *MovementData) ([]Draft, error) {
	if _, used := b.References[Reference{c.Account, d.Reference}]; used {
		return nil, reject(c, RejectReferenceReused, d.Reference)
	}
	change := amount
	if d.debit {
		change = amount.Neg()
	}
	if overflows(a, change) {
		return nil, outOfRange(c)
	}
	d.Reason = CleanText(d.Reason, MaxReference)
	return []Draft{{Kind: d.kind(), Amount: amount, Data: d}}, nil
}

// FirstUse finds the movement that a command repeats under another id: the same reference, kind and
// amount. Its outcome is the first one's. A reference used for something else is no repeat.
func (b *Books) FirstUse(c Command) (Use, bool) {
	u, used := b.References[Reference{c.Account, c.Op.Key()}]
	if !used || c.Op.Key() == OpeningReference {
		return Use{}, false
	}
	switch o := c.Op.(type) {
	case Credit:
		return u, u.Kind == KindCredit && u.Amount.Equal(o.Amount)
	case Debit:
		return u, u.Kind == KindDebit && u.Amount.Equal(o.Amount)
	}
	return Use{}, false
}

// MayRepeat says whether the books show signs that a command has happened before: what it makes is
// there already, or what it ends has ended. Only then is its earlier outcome worth looking for.
func (b *Books) MayRepeat(c Command) bool {
	switch c.Op.(type) {
	case Open:
		return b.Accounts[c.Account] != nil
	case Credit, Debit:
		_, used := b.References[Reference{c.Account, c.Op.Key()}]
		return used
	case Reserve, Spooled:
		return b.Reservations[c.Op.Request()] != nil
	case Settle, Release:
		r := b.Reservations[c.Op.Request()]
		return r != nil && r.State != ReservationOpen
	}
	return true // Configure and RecordPrices leave no other trace than its event
}

// decideReserve is the promise that nobody overspends: available never goes below the credit limit
// by a reserve. A reserve of 0 (a free model) needs no money.
//
// A key that another request has comes before the money: its answer costs nothing.
func (b *Books) decideReserve(c Command, a *Account, o Reserve, at time.Time) ([]Draft, error) {
	if b.Reservations[o.RequestID] != nil {
		return nil, reject(c, RejectReservationExists, o.RequestID.String())
	}
	if err := b.decideKey(c, &o.Data, at); err != nil {
		return nil, err
	}
	switch {
	case a.Frozen:
		return nil, reject(c, RejectAccountFrozen, "")
	case !o.Amount.IsZero() && a.Spendable().Less(o.Amount):
		return nil, insufficient(c, o.Amount, a.Spendable())
	case !a.Reserved.Add(o.Amount).InRange(): // a credit limit lets it exceed what was ever credited
		return nil, outOfRange(c)
	}
	return []Draft{{Kind: KindReserve, RequestID: o.RequestID, Amount: o.Amount, Data: &o.Data}}, nil
}

// open finds the open reservation that a command settles.
func (b *Books) open(c Command) (*Reservation, error) {
	r := b.Reservations[c.Op.Request()]
	switch {
	case r == nil || r.Account != c.Account:
		return nil, reject(c, RejectReservationUnknown, c.Op.Request().String())
	case r.State != ReservationOpen:
		return nil, reject(c, RejectAlreadySettled, string(r.State))
	}
	return r, nil
}

func (b *Books) decideSettle(c Command, a *Account, o Settle) ([]Draft, error) {
	if r := b.Reservations[o.RequestID]; r != nil && r.Account == c.Account && r.State == ReservationExpired {
		return overage(c, a, o, o.Charge, OverageLate)
	}
	r, err := b.open(c)
	if err != nil {
		return nil, err
	}
	return settlement(c, a, o, r.Amount)
}

// settlement is what a settlement of so much reserved money leads to.
func settlement(c Command, a *Account, o Settle, reserved Amount) ([]Draft, error) {
	charged := o.Charge
	if reserved.Less(charged) {
		charged = reserved
	}
	drafts := []Draft{{Kind: KindCommit, RequestID: o.RequestID, Amount: charged, Data: &o.Data}}
	if rest := reserved.Sub(charged); rest.Sign() > 0 {
		drafts = append(drafts, Draft{Kind: KindRefund, RequestID: o.RequestID, Amount: rest,
			Data: &RefundData{Reason: RefundRemainder}})
	}
	if excess := o.Charge.Sub(charged); excess.Sign() > 0 {
		more, err := overage(c, a, o, excess, OverageBeyondBound)
		if err != nil {
			return nil, err
		}
		drafts = append(drafts, more...)
	}
	return drafts, nil
}

// overage takes money beyond what is reserved. Nobody asks whether it is there: it has been spent.
func overage(c Command, a *Account, o Settle, amount Amount, reason OverageReason) ([]Draft, error) {
	if overflows(a, amount.Neg()) {
		return nil, outOfRange(c)
	}
	return []Draft{{Kind: KindOverage, RequestID: o.RequestID, Amount: amount, Data: &OverageData{Reason: reason, CommitData: o.Data}}}, nil
}

// decideSpooled books a request that ran while the ledger was away: as it would have been, where the
// account can still reserve for it; else its charge is an overage, since it has been delivered.
func (b *Books) decideSpooled(c Command, a *Account, o Spooled) ([]Draft, error) {
	if b.Reservations[o.RequestID] != nil {
		return nil, reject(c, RejectReservationExists, o.RequestID.String())
	}
	settle := Settle{RequestID: o.RequestID, Charge: o.Charge, Data: o.Commit}
	affords := o.Amount.IsZero() || !a.Spendable().Less(o.Amount)
	if a.Frozen || !affords || !a.Reserved.Add(o.Amount).InRange() {
		return overage(c, a, settle, o.Charge, OverageSpooled)
	}
	rest, err := settlement(c, a, settle, o.Amount)
	if err != nil {
		return nil, err
	}
	reserve := Draft{Kind: KindReserve, RequestID: o.RequestID, Amount: o.Amount, Data: &o.Reserve}
	return append([]Draft{reserve}, rest...), nil
}

func (b *Books) decideRelease(c Command, o Release) ([]Draft, error) {
	r, err := b.open(c)
	if err != nil {
		return nil, err
	}
	return []Draft{{Kind: KindRefund, RequestID: o.RequestID, Amount: r.Amount,
		Data: &RefundData{Reason: o.Reason}}}, nil
}
