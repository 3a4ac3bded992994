package projections

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisPause is how long a Redis that failed is left alone.
const redisPause = 500 * time.Millisecond

// ErrRedisAway answers at once what would otherwise wait for a Redis that has just failed.
var ErrRedisAway = errors.New("Redis was away a moment ago, and is left alone for now")

// circuit keeps a Redis that is away from costing every request its time-outs: after a failure it
// answers ErrRedisAway for redisPause, then lets one command through to see, and everything again
// once one is answered. It is a hook of a client for one server.
type circuit struct {
	clock func() time.Duration // only goes forward
	// until is when the pause ends, on that clock; 0: Redis is there.
	until atomic.Int64
}

func newCircuit() *circuit {
	began := time.Now()
	return &circuit{clock: func() time.Duration { return time.Since(began) }}
}

// scout marks the context of the one command that goes to see whether Redis is back.
type scout struct{}

// allow says whether a command may go to Redis. Of those that come after the pause one may: it moves
// the end of the pause for the others. Making a connection takes commands of its own, which pass the
// hooks too, on the context of the command that it is made for: what the scout needs may go as well.
func (c *circuit) allow(ctx context.Context) (context.Context, bool) {
	until := c.until.Load()
	if until == 0 || ctx.Value(scout{}) == c {
		return ctx, true
	}
	now := c.clock()
	if now < time.Duration(until) || !c.until.CompareAndSwap(until, int64(now+redisPause)) {
		return ctx, false
	}
	return context.WithValue(ctx, scout{}, c), true
}

// report says how a command ended that was allowed.
func (c *circuit) report(ctx context.Context, err error) {
	switch {
	case errors.Is(err, ErrRedisAway):
		// Its connection was refused here: that is known already.
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		// The caller went away: that says nothing about Redis.
	case isAway(err):
		c.until.Store(int64(c.clock() + redisPause))
	case c.until.Load() != 0:
		c.until.Store(0)
	}
}

// awayReplies begin the answers of a Redis that answers and yet is of no use, to any command.
var awayReplies = []string{
	"LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY ", "NOAUTH", "WRONGPASS", "ERR invalid password",
	"ERR max number of clients", "ERR AUTH",
}

// isAway tells a Redis that does not work from one that refuses a command.
func isAway(err error) bool {
	if err == nil {
		return false
	}
	if reply := redis.Error(nil); errors.As(err, &reply) {
		return slices.ContainsFunc(awayReplies, func(p string) bool { return strings.HasPrefix(reply.Error(), p) })
	}
	return true
}

// DialHook implements redis.Hook.
func (c *circuit) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook implements redis.Hook.
func (c *circuit) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		ctx, ok := c.allow(ctx)
		if !ok {
			cmd.SetErr(ErrRedisAway)
			return ErrRedisAway
		}
		err := next(ctx, cmd)
		c.report(ctx, err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (c *circuit) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		ctx, ok := c.allow(ctx)
		if !ok {
			for _, cmd := range cmds {
				cmd.SetErr(ErrRedisAway)
			}
			return ErrRedisAway
		}
		err := next(ctx, cmds)
		c.report(ctx, err)
		return err
	}
}
