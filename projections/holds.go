package projections

import (
	"context"
	_ "embed" // for the script
	"errors"
	"fmt"
	"math/big"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"llm-gateway/domain"
)

// Holds are money that is set aside in Redis, by gateways that go on while Postgres is away: what a
// request may cost, then what it did cost, until the ledger has booked it. They are in a hash beside the
// account's balance, `llmgw:<ledger>:{<account>}:holds`: one slot of a cluster, one script, one decision.
// Nobody looks at them while Postgres is there.
//
// What the balance says includes what was reserved in Postgres, as far as the projection had come. So the
// bound is what Redis knew: what goes beyond what the ledger has becomes an overage there.

// The bounds of holds.
const (
	// holdsLife is how long an account's holds stay after the last of them was taken or charged, so that
	// those of a gateway that died leave Redis by themselves. It is not less than the balance's life: what
	// was spent must not come back while the balance from before that is still believed.
	holdsLife = cacheLife
	// maxHolds bounds the holds of an account, those of requests that wait to be booked among them.
	maxHolds = 20_000
)

//go:embed hold.lua
var holdText string

// changeHold takes, changes or drops a hold.
var changeHold = redis.NewScript(integersText + holdText)

// What the script is asked for.
const (
	wantHold   = "hold"
	wantCharge = "charge"
)

func (c *Cache) holdsKey(account string) string { return c.prefix + "{" + account + "}:holds" }

// Hold sets money aside for a request, if what Redis knows of the account's balance affords it beside all
// other holds; one of 0 is afforded by any. Of the same request and amount there is one hold, however
// often it is asked for. It fails with a *domain.Rejection (insufficient_funds, account_frozen),
// domain.ErrBalanceUnknown, or domain.ErrOverloaded where the account has too many: then nothing is held.
// After any other error (ErrRedisAway, a time-out) it is not known whether it is: Drop the hold.
func (c *Cache) Hold(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error {
	if amount.Sign() < 0 {
		return fmt.Errorf("a hold of %s", amount)
	}
	answer, err := c.changeHold(ctx, account, wantHold, request, amount)
	if err != nil {
		return err
	}
	switch answer[0] {
	case "held":
		return nil
	case "unknown":
		return domain.ErrBalanceUnknown
	case "frozen":
		return &domain.Rejection{Reason: domain.RejectAccountFrozen, Account: account}
	case "many":
		return fmt.Errorf("%w: %s has %d holds", domain.ErrOverloaded, account, maxHolds)
	}
	return insufficient(account, amount, answer)
}

// insufficient says what was needed and what there is: what may be spent, less what others hold.
func insufficient(account string, needed domain.Amount, answer []string) error {
	spendable, ok := new(big.Int).SetString(answer[1], 10)
	rest, ok2 := new(big.Int).SetString(answer[2], 10)
	if !ok || !ok2 {
		return fmt.Errorf("Redis answered a hold with %.60q", answer)
	}
	available, ok := unitsOf(spendable.Sub(spendable, rest), spendableScale)
	if !ok {
		available = domain.Zero // far below it
	}
	return &domain.Rejection{Reason: domain.RejectInsufficientFunds, Account: account, Needed: needed, Available: available}
}

// Charge turns a request's hold into what the request cost. Where there is none (it was booked and dropped
// meanwhile) it does nothing.
func (c *Cache) Charge(ctx context.Context, account string, request uuid.UUID, amount domain.Amount) error {
	_, err := c.changeHold(ctx, account, wantCharge, request, amount)
	return err
}

// Drop lets a request's hold go, if there is one.
func (c *Cache) Drop(ctx context.Context, account string, request uuid.UUID) error {
	return c.Charge(ctx, account, request, domain.Zero)
}

// changeHold runs the script, in one round trip where Redis knows it.
func (c *Cache) changeHold(ctx context.Context, account, want string, request uuid.UUID, amount domain.Amount) ([]string, error) {
	if domain.CheckAccount(account) != nil {
		return []string{"unknown"}, nil //nolint:nilerr // there is no such account, and nothing of it
	}
	answer, err := changeHold.Run(ctx, c.client, []string{c.key(account), c.holdsKey(account)}, want, request.String(),
		ceilUnits(amount), maxHolds, holdsLife.Milliseconds()).StringSlice()
	if err == nil && (len(answer) == 0 || answer[0] == "poor" && len(answer) != 3) {
		err = errors.New("the script's answer is not one")
	}
	if err != nil {
		return nil, fmt.Errorf("asking Redis for a hold: %w", err)
	}
	return answer, nil
}

// ceilUnits is an amount in units of 1e-9, rounded up: what is set aside is never less than what is due.
func ceilUnits(a domain.Amount) string {
	up := floorUnits(a.Neg(), spendableScale)
	return up.Neg(up).String()
}
