package topic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
)

// appearPause is the time between two looks for a topic that has just been made.
const appearPause = 50 * time.Millisecond

// setting is one of the topic's settings: what it is made with, and what may not differ.
type setting struct{ name, value string }

// settings keep every record for ever. Records are stamped when they are appended, so that no rule
// about age can go by the events' own time.
var settings = [...]setting{
	{"cleanup.policy", "delete"},
	{"retention.ms", "-1"},
	{"retention.bytes", "-1"},
	{"message.timestamp.type", "LogAppendTime"},
}

// The size of batches is a setting too, but a topic may take greater ones than it needs to.
const (
	settingBatch = "max.message.bytes"
	defaultBatch = 1_048_588 // Kafka's own default
)

// Ensure creates the topic where it is not there, and refuses (ErrMismatch) one that is not as it must be.
func (t *Topic) Ensure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if _, err := promptly(ctx, func() (struct{}, error) { return struct{}{}, t.ensure(ctx) }); err != nil {
		return fmt.Errorf("making sure of topic %s: %w", t.config.Name, err)
	}
	return nil
}

// Check is Ensure without making anything: kerr.UnknownTopicOrPartition where there is no topic. Whose records
// it has is checked where the ledger is known.
func (t *Topic) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := promptly(ctx, func() (struct{}, error) { return struct{}{}, t.check(ctx) })
	return err
}

func (t *Topic) check(ctx context.Context) error {
	l, err := t.layout(ctx)
	switch {
	case err != nil:
		return err
	case !l.led():
		return errors.New("it has not all its leaders")
	}
	if err := t.checkSettings(ctx); err != nil || t.config.Ledger == uuid.Nil {
		return err
	}
	return t.checkOwner(ctx)
}

func (t *Topic) ensure(ctx context.Context) error {
	_, err := t.layout(ctx)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = t.create(ctx)
	}
	if err != nil && !kerr.IsRetriable(err) {
		return err
	}
	if err := t.appear(ctx); err != nil {
		return err
	}
	if err := t.checkSettings(ctx); err != nil {
		return err
	}
	return t.checkOwner(ctx)
}

// create makes the topic. Who else makes it in the same moment makes the same one.
func (t *Topic) create(ctx context.Context) error {
	configs := map[string]*string{settingBatch: new(strconv.Itoa(defaultBatch))}
	for _, s := range settings {
		configs[s.name] = new(s.value)
	}
	var err error
	for _, replicas := range []int16{-1, 1} { // the broker's default; a broker before 2.4 knows no such word
		_, err = t.admin.CreateTopic(ctx, int32(t.config.Shards), replicas, configs, t.config.Name)
		if !errors.Is(err, kerr.InvalidReplicationFactor) {
			break
		}
	}
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	return err
}

// appear waits until the brokers know the topic and who leads its partitions.
func (t *Topic) appear(ctx context.Context) error {
	ticker := time.NewTicker(appearPause)
	defer ticker.Stop()
	for {
		l, err := t.layout(ctx)
		if err == nil && l.led() {
			return nil
		}
		if err != nil && !kerr.IsRetriable(err) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("it has not all its leaders: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// led says whether every partition has a leader.
func (l layout) led() bool {
	for _, leader := range l.leaders {
		if leader < 0 {
			return false
		}
	}
	return true
}

// checkSettings names everything that is not as it must be, so that it can be mended in one go.
func (t *Topic) checkSettings(ctx context.Context) error {
	configs, err := t.admin.DescribeTopicConfigs(ctx, t.config.Name)
	if err != nil {
		return err
	}
	found, err := configs.On(t.config.Name, nil)
	if err == nil {
		err = found.Err
	}
	if err != nil {
		return err
	}
	values := make(map[string]string)
	for _, c := range found.Configs {
		values[c.Key] = c.MaybeValue()
	}
	var wrong []error
	for _, s := range settings {
		if values[s.name] != s.value {
			wrong = append(wrong, fmt.Errorf("%w: %s is %q, and must be %q", ErrMismatch, s.name, values[s.name], s.value))
		}
	}
	if n, err := strconv.Atoi(values[settingBatch]); err != nil || n < maxBatchBytes {
		wrong = append(wrong, fmt.Errorf("%w: %s is %q, and must be at least %d", ErrMismatch, settingBatch, values[settingBatch], maxBatchBytes))
	}
	return errors.Join(wrong...)
}

// checkOwner refuses a topic whose partitions begin with another ledger's records.
func (t *Topic) checkOwner(ctx context.Context) error {
	for shard := range t.config.Shards {
		for r, err := range t.Scan(ctx, int32(shard)) {
			if err != nil {
				return err
			}
			if want := Source(t.config.Ledger); r.Source != want {
				return fmt.Errorf("%w: partition %d begins with a record of %.80q, and must be of %s", ErrMismatch, shard, r.Source, want)
			}
			break
		}
	}
	return nil
}
