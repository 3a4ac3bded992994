package embedded

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	killPartitions = 3
	killUndone     = "undone" // a record that must never be seen
)

var kafkaKills = flag.Int("kafkakills", 10, "how often TestKafkaKilled kills")

// helperPublishKafka starts Kafka and publishes, until it is killed, the numbers 1, 2, 3... to each
// partition as the relay does: it takes the partition over, looks where it ends, and goes on from
// there. Of what was committed it says "partition number"; some transactions it aborts, and some it
// leaves open and takes the partition over again.
func helperPublishKafka() {
	ctx := context.Background()
	k, err := StartKafka(ctx, Options{DataDir: os.Getenv(helperDataDir)})
	if err == nil {
		err = makeTopic(ctx, k.Brokers(), killPartitions)
	}
	var all sync.WaitGroup
	for p := range int32(killPartitions) {
		if err == nil {
			all.Go(func() {
				if err := publishNumbers(ctx, k.Brokers(), p); err != nil {
					fmt.Println("error", err)
				}
			})
		}
	}
	all.Wait()
	fmt.Println("error", err)
}

func publishNumbers(ctx context.Context, brokers []string, partition int32) error {
	for {
		p, err := newProducer(brokers, partition)
		if err != nil {
			return err
		}
		// The first abort ends what a predecessor left open, before anybody looks.
		if err := p.transaction(ctx, kgo.TryAbort, killUndone); err != nil {
			return err
		}
		there, err := committed(ctx, brokers, partition)
		if err != nil {
			return err
		}
		if err := p.publish(ctx, len(there)); err != nil {
			return err
		}
		if err := p.client.BeginTransaction(); err != nil {
			return err
		}
		if err := p.produce(ctx, killUndone); err != nil {
			return err
		}
		go p.client.Close()
	}
}

// publish goes on after last for a few transactions.
func (p *producer) publish(ctx context.Context, last int) error {
	for range 5 + rand.IntN(20) {
		var values []string
		for range 1 + rand.IntN(4) {
			values = append(values, strconv.Itoa(last+len(values)+1))
		}
		if rand.IntN(5) == 0 {
			if err := p.transaction(ctx, kgo.TryAbort, killUndone, killUndone); err != nil {
				return err
			}
		}
		if err := p.transaction(ctx, kgo.TryCommit, values...); err != nil {
			return err
		}
		last += len(values)
		fmt.Println(p.partition, last)
	}
	return nil
}

// TestKafkaKilled: a kill -9 at any moment loses nothing that was committed, repeats nothing, and
// shows nothing that was not committed. The same directory is killed again and again, and each time a
// copy of it is looked at.
func TestKafkaKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := make([]int, killPartitions)
	for kill := range *kafkaKills {
		h := startHelper(t, helperPublish, nil, Options{DataDir: dir})
		life := time.AfterFunc(time.Duration(50+rand.IntN(300))*time.Millisecond, func() { h.cmd.Process.Kill() }) //nolint:errcheck // then the pipe ends
		h.readAcknowledged(acknowledged)
		life.Stop()
		h.kill()
		k := startBroker(t, crashed(t, dir))
		for p, least := range acknowledged {
			values, err := committed(t.Context(), k.Brokers(), int32(p))
			if err != nil && strings.Contains(err.Error(), "UNKNOWN_TOPIC") && least == 0 {
				continue // killed before it was made
			}
			if err != nil || len(values) < least {
				t.Fatalf("kill %d, partition %d: %d records, %d were acknowledged (%v)", kill, p, len(values), least, err)
			}
			for i, v := range values {
				if v != strconv.Itoa(i+1) {
					t.Fatalf("kill %d, partition %d: record %d is %q: ...%v", kill, p, i+1, v, values[max(0, i-5):min(len(values), i+5)])
				}
			}
		}
		stopBroker(t, k)
	}
	t.Logf("%d kills, acknowledged %v", *kafkaKills, acknowledged)
	for _, n := range acknowledged {
		if n == 0 {
			t.Error("a partition never got anywhere")
		}
	}
}

// readAcknowledged reads what a publishing helper says, to its end.
func (h *helper) readAcknowledged(numbers []int) {
	h.t.Helper()
	for {
		line, err := h.out.ReadString('\n')
		if err != nil {
			return
		}
		var p, n int
		if _, err := fmt.Sscan(line, &p, &n); err != nil {
			h.t.Fatalf("the helper says %s", line)
		}
		numbers[p] = n
	}
}
