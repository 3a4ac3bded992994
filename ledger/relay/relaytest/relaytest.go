// Package relaytest holds a topic against the ledger: what relays are for.
package relaytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"llm-gateway/domain"
	"llm-gateway/ledger"
	"llm-gateway/ledger/topic"
)

const (
	looks = 10 * time.Millisecond // between two looks at the tails
	page  = 1000                  // events of the ledger at a time
	bound = 60 * time.Second      // of one comparison
)

// WantEqual fails unless the topic has, read committed, exactly the ledger's events: every shard's in
// its partition, once, in order, the same bytes under the same hash, key and headers, and no command's in
// two transactions. Nobody may append meanwhile.
func WantEqual(t testing.TB, l *ledger.Reader, kafka *topic.Topic) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for shard := range int32(l.Meta().Shards) {
		if err := Compare(ctx, l, kafka, shard, 0); err != nil {
			t.Errorf("topic and ledger differ: %v", err)
		}
	}
}

// Compare holds one partition, without its first records, against the ledger.
func Compare(ctx context.Context, l *ledger.Reader, kafka *topic.Topic, shard int32, skip int) error {
	want := events{ctx: ctx, ledger: l, shard: shard}
	n := 0
	var last *topic.Record
	for r, err := range kafka.Scan(ctx, shard) {
		if err != nil {
			return err
		}
		if n++; n <= skip {
			continue
		}
		e, err := want.next()
		if err != nil {
			return err
		}
		if e == nil {
			return fmt.Errorf("shard %d: the topic goes on with seq %d at offset %d, the ledger has ended", shard, r.Seq, r.Offset)
		}
		if r.Seq != e.Event.Seq || r.Hash != e.Hash || !bytes.Equal(r.Payload, e.Payload) {
			return fmt.Errorf("shard %d: where the ledger has seq %d, the topic has seq %d at offset %d", shard, e.Event.Seq, r.Seq, r.Offset)
		}
		if err := whole(last, r); err != nil {
			return err
		}
		last = r
	}
	e, err := want.next()
	if err == nil && e != nil {
		err = fmt.Errorf("shard %d: the topic has ended, the ledger goes on with seq %d", shard, e.Event.Seq)
	}
	return err
}

// whole says whether a record and the one before it can follow each other. Behind a transaction its mark
// takes an offset: where there is one, no command may go on.
func whole(last, r *topic.Record) error {
	e, err := r.Event()
	if err != nil || last == nil || r.Offset == last.Offset+1 {
		return err
	}
	before, err := last.Event()
	if err == nil && domain.CommandID(before.Event.ID) == domain.CommandID(e.Event.ID) {
		err = fmt.Errorf("shard %d: a transaction ends at offset %d, within the command of seq %d", r.Shard, last.Offset, r.Seq)
	}
	return err
}

// events reads a shard of the ledger page by page.
type events struct {
	ctx    context.Context
	ledger *ledger.Reader
	shard  int32
	after  int64
	page   []domain.Recorded
}

// next is the next event, or nil behind the last.
func (e *events) next() (*domain.Recorded, error) {
	if len(e.page) == 0 {
		var err error
		if e.page, err = e.ledger.Events(e.ctx, e.shard, e.after, page); err != nil || len(e.page) == 0 {
			return nil, err
		}
	}
	one := &e.page[0]
	e.page = e.page[1:]
	e.after = one.Event.Seq
	return one, nil
}

// Settle waits until every partition ends with its shard's head, and fails when it has waited for
// too long.
func Settle(t testing.TB, l *ledger.Reader, kafka *topic.Topic, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(looks)
	defer tick.Stop()
	for {
		err := Settled(ctx, l, kafka)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the topic has not caught up with the ledger within %s: %v", patience, err)
		}
	}
}

// Settled says in what a partition does not end with its shard's head.
func Settled(ctx context.Context, l *ledger.Reader, kafka *topic.Topic) error {
	heads, err := l.Heads(ctx)
	if err != nil {
		return err
	}
	for _, h := range heads {
		tail, err := kafka.Tail(ctx, h.Shard)
		if err != nil {
			return err
		}
		if h.Seq == 0 && tail == nil {
			continue
		}
		if tail == nil || tail.Seq != h.Seq {
			return errors.Join(fmt.Errorf("shard %d ends with seq %d", h.Shard, h.Seq), ended(tail))
		}
	}
	return nil
}

func ended(tail *topic.Record) error {
	if tail == nil {
		return errors.New("its partition is empty")
	}
	return fmt.Errorf("its partition with seq %d", tail.Seq)
}
