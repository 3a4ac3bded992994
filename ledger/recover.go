package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// TopicCopy is the topic as what a lost tail comes back from.
type TopicCopy interface {
	TailWitness
	Copy
}

var _ TopicCopy = (*topic.Topic)(nil)

// RecoverOptions say how to recover.
type RecoverOptions struct {
	// Dry reads and checks everything and writes nothing. What only Postgres can say (an id that is there
	// already, a balance beyond its column) is found in earnest only.
	Dry bool
	// GiveUp raises the epoch also where the topic has no more than the ledger. Writers that have seen
	// more committed then go on without it (Hooks.Lost names it) instead of refusing.
	GiveUp   bool
	Progress Progress // may be nil
}

// Recovered is what a recovery of a shard did, or what it would do (Dry).
type Recovered struct {
	Shard    int32                 `json:"shard"`
	Dry      bool                  `json:"dry"`
	Before   int64                 `json:"before"`   // seq of the ledger's head before
	Topic    int64                 `json:"topic"`    // seq of the topic's last record; 0: it has none
	Compared int64                 `json:"compared"` // records that the ledger had, all with the same hash
	Appended int64                 `json:"appended"` // events of the topic that the ledger had not
	Kinds    map[domain.Kind]int64 `json:"kinds"`    // how many of each
	// Completed are events (0 or 1) that the topic did not have and that follow from its last one: the
	// remainder of a settlement, or its overage.
	Completed int64 `json:"completed"`
	Head      int64 `json:"head"`  // seq of the ledger's head afterwards
	Epoch     int64 `json:"epoch"` // of the shard afterwards
}

// Why a shard cannot be recovered. Nothing of the batch in which it was found has been written.
var (
	// ErrFork says that the topic and the ledger have different events at one position. Which history is
	// the true one only a person can say.
	ErrFork = errors.New("the ledger and the topic have forked")
	// ErrRecord says that a record of the topic is no event that could follow here.
	ErrRecord = errors.New("a record of the topic cannot be appended")
	// ErrMoved says that the ledger's head went back while it was recovered.
	ErrMoved = errors.New("the ledger's head went back")
)

// Recover appends to a shard what the topic has and the ledger has lost: the topic's own bytes, as they
// are, after checking that their hashes continue the ledger's and that the books allow them. It may run
// beside gateways that refuse, beside another Recover, and again after it was killed: each database
// transaction locks the head, compares what is there already, and goes on behind it. The first one that
// writes raises the shard's epoch by one. After an error, what it returns says how far it had come.
//
// A database transaction holds whole commands: the tables know no settlement that has given back nothing
// yet. Where the topic itself ends within a settlement, what must follow is determined, and is appended.
//
// The topic is believed as far as its hash chain goes. Verify afterwards.
func (p *Postgres) Recover(ctx context.Context, shard int32, from TopicCopy, o RecoverOptions) (Recovered, error) {
	s := p.appends
	out := &Recovered{Shard: shard, Dry: o.Dry, Kinds: map[domain.Kind]int64{}}
	if shard < 0 || int(shard) >= s.meta.Shards {
		return *out, fmt.Errorf("this ledger has no shard %d", shard)
	}
	tail, err := from.Tail(ctx, shard)
	if err != nil {
		return *out, fmt.Errorf("shard %d: asking for the topic's last record: %w", shard, err)
	}
	l, err := s.connect(ctx)
	if err != nil {
		return *out, fmt.Errorf("shard %d: %w", shard, err)
	}
	defer l.drop()
	r := &recovery{store: s, lane: l, shard: shard, options: o, out: out, books: domain.NewBooks()}
	if err := r.run(ctx, from, tail); err != nil {
		return *out, fmt.Errorf("recovering shard %d: %w", shard, err)
	}
	return *out, nil
}

// recovery is one run of Recover.
type recovery struct {
	store   *postgresStore
	lane    *laneConn
	shard   int32
	options RecoverOptions
	out     *Recovered
	raised  bool // the epoch, by this run
	ended   bool // the topic has been read to its end

	head  head   // the ledger's, as last seen; in a dry run, as it would have become
	last  linked // the record before
	topic int64  // seq of the topic's last record, as far as known

	compare []linked      // records that the ledger must have
	news    []written     // and those that it has not
	books   *domain.Books // of a dry run: what was loaded, and what became of it
}

// linked is a place in the chain and its hash.
type linked struct {
	seq    int64
	offset int64
	hash   domain.Hash
}

func (r *recovery) at(seq int64) domain.Position { return domain.Position{Shard: r.shard, Seq: seq} }

func (r *recovery) run(ctx context.Context, from Copy, tail *topic.Record) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if tail != nil {
		r.topic = tail.Seq
	}
	for record, err := range from.Scan(ctx, r.shard) {
		if err == nil {
			err = r.add(ctx, record)
		}
		if err != nil {
			return err
		}
	}
	if r.last.seq < r.topic {
		return fmt.Errorf("the topic ended at %s, before its last record, %s", r.at(r.last.seq), r.at(r.topic))
	}
	r.ended = true
	if err := r.flush(ctx); err != nil {
		return err
	}
	if r.options.GiveUp && !r.options.Dry && !r.raised {
		return r.giveUp(ctx)
	}
	return nil
}

// begin reads the head, without a lock: whoever writes locks it again.
func (r *recovery) begin(ctx context.Context) error {
	var hash []byte
	h := &r.head
	err := r.lane.conn.QueryRow(ctx, `SELECT last_seq, last_hash, last_time, epoch FROM ledger_shards WHERE shard = $1`, r.shard).
		Scan(&h.Seq, &hash, &h.Time, &h.Epoch)
	if err != nil {
		return fmt.Errorf("reading the head: %w", err)
	}
	h.Hash = domain.Hash(hash)
	r.out.Before, r.out.Head, r.out.Epoch = h.Seq, h.Seq, h.Epoch
	return nil
}

// add takes the next record: to compare, where the ledger has its place, or else to append.
func (r *recovery) add(ctx context.Context, record *topic.Record) error {
	if err := r.follows(record); err != nil {
		return err
	}
	here := linked{record.Seq, record.Offset, record.Hash}
	r.last, r.out.Topic, r.topic = here, record.Seq, max(r.topic, record.Seq)
	if record.Seq <= r.head.Seq {
		return r.known(ctx, here)
	}
	e, err := decodeRecord(record, r.store.meta)
	if err != nil {
		return r.bad(record, err)
	}
	if n := len(r.news); n >= MaxBatch && domain.CommandID(r.news[n-1].event.ID) != domain.CommandID(e.ID) || n >= 2*MaxBatch {
		if err := r.flush(ctx); err != nil {
			return err
		}
		if record.Seq <= r.head.Seq { // another recovery is ahead
			return r.known(ctx, here)
		}
	}
	r.news = append(r.news, written{*e, record.Payload, record.Hash})
	return nil
}

// known takes a record whose event the ledger has.
func (r *recovery) known(ctx context.Context, record linked) error {
	r.compare = append(r.compare, record)
	if len(r.compare) < verifyPage {
		return nil
	}
	return r.flush(ctx)
}

func (r *recovery) bad(record *topic.Record, why error) error {
	return fmt.Errorf("%w: %s at offset %d: %w", ErrRecord, r.at(record.Seq), record.Offset, why)
}

// follows checks a record's place in the topic: its shard, ledger and seq, and that its hash is that of
// its bytes behind the record before. Before the first one stands what the ledger has there.
func (r *recovery) follows(record *topic.Record) error {
	prev, known := r.last.hash, true
	switch {
	case record.Shard != r.shard || record.Source != r.store.meta.source():
		return r.bad(record, fmt.Errorf("it is of shard %d of %.80q", record.Shard, record.Source))
	case r.last.seq > 0 && record.Seq != r.last.seq+1:
		return r.bad(record, fmt.Errorf("it comes after %s", r.at(r.last.seq)))
	case record.Seq < 1 || record.Seq > r.head.Seq+1 && r.last.seq == 0:
		return r.bad(record, fmt.Errorf("the topic begins with it, the ledger ends at %d", r.head.Seq))
	case r.last.seq > 0:
	case record.Seq == 1:
		prev = domain.GenesisHash(r.store.meta.ID, r.shard)
	case record.Seq == r.head.Seq+1:
		prev = r.head.Hash
	default:
		known = false // it is compared with the ledger's
	}
	if known && domain.ChainHash(prev, record.Payload) != record.Hash {
		return r.bad(record, errors.New("its hash is not that of its bytes after the event before"))
	}
	return nil
}

// decodeRecord reads the event of a record that belongs to a ledger, and holds it against the record.
func decodeRecord(r *topic.Record, m Meta) (*domain.Event, error) {
	e, err := domain.Decode(r.Payload)
	switch {
	case err != nil:
		return nil, err
	case len(r.Payload) > domain.MaxPayload:
		return nil, fmt.Errorf("%d bytes are more than an event has", len(r.Payload))
	case e.Shard != r.Shard || e.Seq != r.Seq:
		return nil, fmt.Errorf("its event says %s", e.Position())
	case domain.ShardOf(e.Account, m.Shards) != r.Shard:
		return nil, fmt.Errorf("the account %s belongs to shard %d", e.Account, domain.ShardOf(e.Account, m.Shards))
	case r.Key != e.Account:
		return nil, fmt.Errorf("its key is %.140q, its account %s", r.Key, e.Account)
	case e.Currency != m.Currency:
		return nil, fmt.Errorf("the ledger is kept in %s, not %s", m.Currency, e.Currency)
	}
	return e, nil
}

// wantEvents is what must be loaded to apply events of one shard.
func wantEvents(shard int32, events []written) *wanted {
	w := &wanted{shards: []int32{shard}, shardOf: map[string]int32{}, requestAt: map[uuid.UUID]int32{}}
	for i := range events {
		e := &events[i].event
		if _, seen := w.shardOf[e.Account]; !seen {
			w.shardOf[e.Account] = shard
			w.accounts = append(w.accounts, e.Account)
		}
		if _, seen := w.requestAt[e.RequestID]; !seen && e.RequestID != uuid.Nil {
			w.requestAt[e.RequestID] = shard
			w.requests = append(w.requests, e.RequestID)
		}
		if m, ok := e.Data.(*domain.MovementData); ok {
			w.references = append(w.references, domain.Reference{Account: e.Account, Key: m.Reference})
		}
		if key, _, ok := domain.KeyOf(e); ok {
			w.keys = append(w.keys, key)
		}
	}
	return w
}
