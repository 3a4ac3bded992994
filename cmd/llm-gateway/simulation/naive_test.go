package simulation

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"llm-gateway/domain"
)

// naiveRelay publishes as many outboxes do: it looks for events whose ids are above the last that it has
// seen. Ids are minted before the commit, so what commits late is below, and never seen.
type naiveRelay struct {
	p    *process
	seen map[int32]uuid.UUID
}

const naiveEvery = 100 * time.Millisecond

func (r *naiveRelay) run(ctx context.Context) {
	r.seen = map[int32]uuid.UUID{}
	for ctx.Err() == nil {
		r.p.wait(naiveEvery)
		for shard := range int32(r.p.w.plan.shards) {
			r.round(ctx, shard)
		}
	}
}

// round publishes what is new in a shard, under the same lease as the real one.
func (r *naiveRelay) round(ctx context.Context, shard int32) {
	if _, err := r.p.enter(ctx, kindRead, fmt.Sprintf("relay reads shard %d", shard)); err != nil {
		return
	}
	if len(r.p.w.database.take([]string{fmt.Sprint("naive ", shard)}, r.p.id, time.Hour)) == 0 {
		return
	}
	var news []domain.Recorded
	for _, e := range r.p.w.eventsOf(shard) {
		if last := r.seen[shard]; bytes.Compare(e.Event.ID[:], last[:]) > 0 {
			news = append(news, e)
		}
	}
	slices.SortFunc(news, func(a, b domain.Recorded) int { return bytes.Compare(a.Event.ID[:], b.Event.ID[:]) })
	if len(news) == 0 {
		return
	}
	k := r.p.w.broker
	if epoch := k.takeOver(shard); k.produce(shard, epoch, news) == nil {
		k.commit(shard, epoch) //nolint:errcheck // it is what is wrong here
		r.seen[shard] = news[len(news)-1].Event.ID
	}
}
