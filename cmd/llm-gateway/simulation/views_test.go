package simulation

import (
	"context"
	"time"

	"llm-gateway/domain"
)

const (
	viewTime = time.Second // how long a read waits for the projection
	viewTick = 100 * time.Millisecond
)

// views is how a process's gateway reads projections.
type views struct{ p *process }

// Balance implements gateway.Projections.
func (v *views) Balance(ctx context.Context, account string, atLeast domain.Position) (*domain.Account, domain.Reading, error) {
	shard := domain.ShardOf(account, v.p.w.plan.shards)
	if _, err := v.p.enter(ctx, kindRead, callerOf(ctx)+" reads its balance"); err != nil {
		return nil, domain.Reading{}, unavailable(err)
	}
	row, at := v.p.w.database.tables.balance(account, shard)
	for waited := time.Duration(0); atLeast.Shard == shard && at.seq < atLeast.Seq && waited < viewTime && ctx.Err() == nil; waited += viewTick {
		v.p.wait(viewTick)
		row, at = v.p.w.database.tables.balance(account, shard)
	}
	heads, err := v.p.w.store.Heads(ctx)
	if err != nil {
		return nil, domain.Reading{}, err
	}
	if v.p.w.bug == bugBoastfulReading {
		at.seq = heads[shard].Seq
	}
	return row, domain.Reading{Position: domain.Position{Shard: shard, Seq: at.seq}, AsOf: time.Now(), Behind: heads[shard].Seq - at.seq}, nil
}

// Transactions implements gateway.Projections. No client asks for them here.
func (v *views) Transactions(context.Context, string, int, int, domain.Position) ([]domain.Transaction, domain.Reading, error) {
	return nil, domain.Reading{}, nil
}

// Stats implements gateway.Projections. No client asks for them here.
func (v *views) Stats(context.Context, string, domain.StatsQuery, domain.Position) ([]domain.StatsRow, domain.Reading, error) {
	return nil, domain.Reading{}, nil
}

// Margins implements gateway.Projections. No administrator asks for them here.
func (v *views) Margins(context.Context, domain.MarginQuery) (domain.Margins, error) {
	return domain.Margins{}, nil
}
