package topic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
)

// callTime bounds a call that asks Kafka for something. With Kafka away it has failed by then.
const callTime = 10 * time.Second

// Config says where the topic is and which ledger it belongs to.
type Config struct {
	Brokers []string  // host:port
	Name    string    // KAFKA_USAGE_TOPIC
	Ledger  uuid.UUID // ledger.Meta.ID
	Shards  int
	TLS     *tls.Config                                                          // nil = plain
	SASL    sasl.Mechanism                                                       // nil = none
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // nil = net.Dialer; tests break connections with it
	Log     *slog.Logger
}

// ErrMismatch says that the topic is not as it must be: other partitions, other retention, another
// ledger's records. Waiting does not mend it.
var ErrMismatch = errors.New("topic mismatch")

// ErrFenced says that Kafka no longer takes this producer: another has taken over, or its
// transaction took too long and was ended for it.
var ErrFenced = errors.New("fenced by a newer producer")

// Topic is a connection to the ledger's topic. It is safe for concurrent use; Close ends it, but not
// the producers and consumers that it made: they have connections of their own.
type Topic struct {
	config Config
	client *kgo.Client
	admin  *kadm.Client
}

// Open makes a client; it connects when it is first used.
func Open(c Config) (*Topic, error) {
	switch {
	case len(c.Brokers) == 0 || c.Name == "":
		return nil, errors.New("a topic needs brokers and a name")
	case c.Shards < 1:
		return nil, fmt.Errorf("a topic of %d shards", c.Shards)
	}
	client, err := kgo.NewClient(c.options()...)
	if err != nil {
		return nil, fmt.Errorf("the Kafka settings cannot be used: %w", err)
	}
	admin := kadm.NewClient(client)
	admin.SetTimeoutMillis(int32(requestTime.Milliseconds()))
	return &Topic{config: c, client: client, admin: admin}, nil
}

// Close ends the connections.
func (t *Topic) Close() { t.client.Close() }

// Cluster is the Kafka cluster's own id.
func (t *Topic) Cluster(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	metadata, err := promptly(ctx, func() (kadm.Metadata, error) { return t.admin.BrokerMetadata(ctx) })
	if err != nil {
		return "", fmt.Errorf("asking Kafka for its cluster: %w", err)
	}
	return metadata.Cluster, nil
}

// State is the topic's identity and extent.
type State struct {
	ID     [16]byte
	Starts []int64 // by shard: the first offset that is there
	Ends   []int64 // by shard: the last stable offset: where read-committed reading ends now
}

// State asks for the topic's identity and extent; kerr.UnknownTopicOrPartition where there is none.
func (t *Topic) State(ctx context.Context) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	s, err := promptly(ctx, func() (State, error) { return t.state(ctx) })
	if err != nil {
		return State{}, fmt.Errorf("asking for the state of topic %s: %w", t.config.Name, err)
	}
	return s, nil
}

// state brackets the offsets, which Kafka tells by name, with the id, so that they belong to it.
func (t *Topic) state(ctx context.Context) (State, error) {
	l, err := t.layout(ctx)
	if err != nil {
		return State{}, err
	}
	starts, ends, err := t.offsets(ctx)
	if err != nil {
		return State{}, err
	}
	s := State{ID: l.id}
	for shard := range int32(t.config.Shards) {
		e, err := t.extentOf(shard, starts, ends)
		if err != nil {
			return State{}, err
		}
		s.Starts, s.Ends = append(s.Starts, e.start), append(s.Ends, e.end)
	}
	return s, t.still(ctx, l.id)
}

// extent is what there is to be read of a shard now: [start, end).
type extent struct {
	id         [16]byte
	start, end int64
}

// extent is the state of one shard; the others may have no leader.
func (t *Topic) extent(ctx context.Context, shard int32) (extent, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return promptly(ctx, func() (extent, error) { return t.askExtent(ctx, shard) })
}

func (t *Topic) askExtent(ctx context.Context, shard int32) (extent, error) {
	l, err := t.layout(ctx)
	if err != nil {
		return extent{}, err
	}
	starts, ends, err := t.offsets(ctx)
	if err != nil {
		return extent{}, err
	}
	e, err := t.extentOf(shard, starts, ends)
	if err != nil {
		return extent{}, err
	}
	e.id = l.id
	return e, t.still(ctx, l.id)
}

// offsets lists where partitions begin and where committed reading of them ends.
func (t *Topic) offsets(ctx context.Context) (starts, ends kadm.ListedOffsets, err error) {
	some := new(kadm.ShardErrors) // some leaders did not answer: extentOf sees which partitions lack
	if starts, err = t.admin.ListStartOffsets(ctx, t.config.Name); err != nil && !errors.As(err, &some) {
		return nil, nil, err
	}
	if ends, err = t.admin.ListCommittedOffsets(ctx, t.config.Name); err != nil && !errors.As(err, &some) {
		return nil, nil, err
	}
	return starts, ends, nil
}

func (t *Topic) extentOf(shard int32, starts, ends kadm.ListedOffsets) (e extent, err error) {
	if e.start, err = t.offsetOf(shard, starts); err != nil {
		return extent{}, err
	}
	e.end, err = t.offsetOf(shard, ends)
	return e, err
}

func (t *Topic) offsetOf(shard int32, listed kadm.ListedOffsets) (int64, error) {
	o, ok := listed.Lookup(t.config.Name, shard)
	switch {
	case ok && o.Err != nil:
		return 0, o.Err
	case !ok || o.Offset < 0:
		return 0, errors.Join(fmt.Errorf("no offset of partition %d was told", shard), listed.Error())
	}
	return o.Offset, nil
}

// still checks that the topic is the one that it was.
func (t *Topic) still(ctx context.Context, id [16]byte) error {
	l, err := t.layout(ctx)
	if err == nil && l.id != id {
		err = errRecreated
	}
	return err
}

// errRecreated says that the topic is another one than it was, under the same name.
var errRecreated = errors.New("the topic has been re-created")

// layout is what Kafka's metadata say about the topic now.
type layout struct {
	id      [16]byte
	leaders []int32 // by shard; negative where there is none
}

// layout asks for the metadata, past the client's cache. It refuses another number of partitions
// than shards.
func (t *Topic) layout(ctx context.Context) (layout, error) {
	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = new(t.config.Name)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, t.client)
	switch {
	case err != nil:
		return layout{}, err
	case len(resp.Topics) != 1:
		return layout{}, fmt.Errorf("metadata of %d topics instead of one", len(resp.Topics))
	}
	found := resp.Topics[0]
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil {
		return layout{}, err
	}
	if len(found.Partitions) != t.config.Shards {
		return layout{}, fmt.Errorf("%w: topic %s has %d partitions, and must have %d (LEDGER_SHARDS)",
			ErrMismatch, t.config.Name, len(found.Partitions), t.config.Shards)
	}
	l := layout{id: found.TopicID, leaders: make([]int32, t.config.Shards)}
	for _, p := range found.Partitions {
		if p.Partition < 0 || int(p.Partition) >= t.config.Shards {
			return layout{}, fmt.Errorf("metadata of a partition %d", p.Partition)
		}
		l.leaders[p.Partition] = p.Leader
	}
	return l, nil
}

// checkShard refuses a shard that the topic does not have.
func (t *Topic) checkShard(shard int32) error {
	if shard < 0 || int(shard) >= t.config.Shards {
		return fmt.Errorf("topic %s has no shard %d", t.config.Name, shard)
	}
	return nil
}
