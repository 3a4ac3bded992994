package projections

import (
	"context"
	_ "embed" // for the script
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"llm-gateway/domain"
)

// The bounds of the cache.
const (
	// cacheLife is how long a balance stays that is not put again: the accounts of a ledger that is
	// gone, and those that nobody uses, leave Redis by themselves.
	cacheLife = 24 * time.Hour
	// cacheBatch is how many balances one pipeline puts. All their answers must come within redisIOTime,
	// also from the embedded Redis, which starts a Lua for each.
	cacheBatch = 32
	// spendableScale: what may be spent is kept in units of 1e-9, rounded down, as an integer.
	spendableScale = 9
	// spendableDigits are enough for the sum of two amounts, each below 10^26; integers.lua knows them too.
	spendableDigits = 36
	// exactDigits are enough for any amount in units of 1e-12, in which nothing is rounded; so does it know
	// these.
	exactDigits = domain.AmountScale + 26
)

// cacheFields are those of the hash that a balance is kept in, all of them decimal integers: spendable in
// units of 1e-9, available and reserved in units of 1e-12. An entry that lacks one, of an earlier release,
// is none.
var cacheFields = []string{"epoch", "seq", "spendable", "frozen", "available", "reserved"}

// Cache keeps accounts' projected balances in Redis, where gateways look before they ask Postgres. It
// is a copy that may be lost, late or gone at any time: it makes a no cheap, and never makes a yes.
//
// Each account is a hash at `llmgw:<ledger>:{<account>}:balance`; the braces put all that is kept of
// an account into one slot of a cluster. Puts may come in any order, twice, and from several
// processes: what is there gives way only to an (epoch, seq) that is not lower. What is there and
// cannot be read as a balance is nothing, to both Put and Balance. It is safe for concurrent use.
type Cache struct {
	client redis.UniversalClient // not closed by the cache
	prefix string
	shards int
}

// NewCache makes the cache of a ledger's balances; client is one of OpenRedis.
func NewCache(client redis.UniversalClient, ledger uuid.UUID, shards int) *Cache {
	return &Cache{client: client, prefix: "llmgw:" + ledger.String()[:8] + ":", shards: shards}
}

func (c *Cache) key(account string) string { return c.prefix + "{" + account + "}:balance" }

// integersText is what the scripts share; it comes before each.
//
//go:embed integers.lua
var integersText string

//go:embed putbalance.lua
var putBalanceText string

// putBalance writes a balance where it is not older than what is there.
var putBalance = redis.NewScript(integersText + putBalanceText)

// Put hands balances over, in one round trip for every cacheBatch of them. A balance that is not
// newer than what is there changes nothing. It may be repeated; after an error some may not have
// been put, and gateways go on with what they had.
func (c *Cache) Put(ctx context.Context, balances []Balance) error {
	var failed error
	for batch := range slices.Chunk(balances, cacheBatch) {
		if err := c.put(ctx, batch); err != nil {
			failed = errors.Join(failed, err)
			if errors.Is(err, ErrRedisAway) || ctx.Err() != nil {
				break
			}
		}
	}
	return failed
}

// put tries the short form first, and repeats in full what a server did not know the script of.
func (c *Cache) put(ctx context.Context, batch []Balance) error {
	var failed error
	puts := make([]*redis.Cmd, 0, len(batch))
	args := make([][]any, 0, len(batch))
	keys := make([]string, 0, len(batch))
	pipe := c.client.Pipeline()
	for i := range batch {
		values, err := cacheValues(&batch[i])
		if err != nil {
			failed = err
			continue
		}
		key := c.key(batch[i].Account)
		puts = append(puts, putBalance.EvalSha(ctx, pipe, []string{key}, values...))
		args, keys = append(args, values), append(keys, key)
	}
	pipe.Exec(ctx) //nolint:errcheck // each command has its own error
	pipe = c.client.Pipeline()
	for i, put := range puts {
		if redis.HasErrorPrefix(put.Err(), "NOSCRIPT") {
			puts[i] = putBalance.Eval(ctx, pipe, []string{keys[i]}, args[i]...)
		}
	}
	if pipe.Len() > 0 {
		pipe.Exec(ctx) //nolint:errcheck // each command has its own error
	}
	for _, put := range puts {
		if err := put.Err(); err != nil {
			return fmt.Errorf("putting balances into Redis: %w", err)
		}
	}
	return failed
}

// cacheValues are the arguments of putBalance.
func cacheValues(b *Balance) ([]any, error) {
	if err := domain.CheckAccount(b.Account); err != nil {
		return nil, err
	}
	spendable := floorUnits(b.Available.Add(b.CreditLimit), spendableScale).String()
	if b.Epoch < 0 || b.Position.Seq < 0 || len(strings.TrimPrefix(spendable, "-")) > spendableDigits ||
		!b.Available.InRange() || !b.Reserved.InRange() {
		return nil, fmt.Errorf("a balance of %s at %s in epoch %d cannot be cached", b.Account, b.Position, b.Epoch)
	}
	frozen := "0"
	if b.Frozen {
		frozen = "1"
	}
	return []any{
		strconv.FormatInt(b.Epoch, 10), strconv.FormatInt(b.Position.Seq, 10), spendable, frozen,
		floorUnits(b.Available, domain.AmountScale).String(), floorUnits(b.Reserved, domain.AmountScale).String(),
		strconv.FormatInt(cacheLife.Milliseconds(), 10),
	}, nil
}

// floorUnits is an amount in units of 10^-scale, rounded down: of two amounts that are told apart by less
// than that, Redis knows the lower one.
func floorUnits(a domain.Amount, scale int64) *big.Int {
	units, shift := a.Coefficient(), int64(a.Exponent())+scale
	if shift >= 0 {
		return units.Mul(units, power(shift))
	}
	return units.Div(units, power(-shift)) // towards minus infinity, the divisor being positive
}

func power(n int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil) }

// Balance is what is known of an account, in one round trip; false where that is nothing. After an
// error (ErrRedisAway, or another) it is not known whether anything is.
func (c *Cache) Balance(ctx context.Context, account string) (domain.CachedBalance, bool, error) {
	if domain.CheckAccount(account) != nil {
		return domain.CachedBalance{}, false, nil //nolint:nilerr // there is no such account: nothing is known of it
	}
	return c.balanceOf(account, c.client.HMGet(ctx, c.key(account), cacheFields...))
}

// balanceOf reads the answer to a question for cacheFields.
func (c *Cache) balanceOf(account string, answer *redis.SliceCmd) (domain.CachedBalance, bool, error) {
	fields, err := answer.Result()
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return domain.CachedBalance{}, false, fmt.Errorf("asking Redis for a balance: %w", err)
	}
	b, ok := parseBalance(fields)
	b.Position.Shard = domain.ShardOf(account, c.shards)
	return b, ok, nil
}

// parseBalance accepts what the scripts take for a balance, and nothing else: what only one of them
// accepted would stay, and never be found.
func parseBalance(fields []any) (b domain.CachedBalance, ok bool) {
	if len(fields) != len(cacheFields) {
		return domain.CachedBalance{}, false
	}
	var text [6]string
	for i, f := range fields {
		if text[i], ok = f.(string); !ok {
			return domain.CachedBalance{}, false
		}
	}
	var known [5]bool
	b.Epoch, known[0] = parseCount(text[0])
	b.Position.Seq, known[1] = parseCount(text[1])
	b.Spendable, known[2] = parseUnits(text[2], spendableDigits, spendableScale)
	b.Available, known[3] = parseUnits(text[4], exactDigits, domain.AmountScale)
	b.Reserved, known[4] = parseUnits(text[5], exactDigits, domain.AmountScale)
	b.Frozen = text[3] == "1"
	if known != [5]bool{true, true, true, true, true} || !b.Frozen && text[3] != "0" {
		return domain.CachedBalance{}, false
	}
	return b, true
}

func parseCount(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

// parseUnits reads so many units of 10^-scale, of at most so many digits.
func parseUnits(s string, digits int, scale int32) (domain.Amount, bool) {
	if len(s) > digits+1 {
		return domain.Amount{}, false
	}
	units, ok := new(big.Int).SetString(s, 10)
	if !ok || units.String() != s || len(strings.TrimPrefix(s, "-")) > digits {
		return domain.Amount{}, false
	}
	return unitsOf(units, scale)
}

// unitsOf is so many units of 10^-scale. The sum of two amounts may be beyond what one may be: where
// there is room for it, it is made some decimals further down, and so many times.
func unitsOf(units *big.Int, scale int32) (domain.Amount, bool) {
	further := min(2, domain.AmountScale-scale)
	a, err := domain.AmountOf(units, -scale-further)
	return a.Times(power(int64(further)).Int64()), err == nil
}
