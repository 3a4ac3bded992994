package topic_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"

	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

const (
	killedDir   = "TOPIC_TEST_KILLED_DIR" // set in the process that is killed: its kfake's data
	killedRuns  = 4
	killedAfter = 50 // transactions of a run, at most
)

var killedLedger = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

// kept is a bench of one shard on a kfake that keeps its data in a directory, in this process.
func kept(t *testing.T, dir string) (*bench, func()) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SyncWrites())
	if err != nil {
		t.Fatal(err)
	}
	config := topic.Config{Brokers: cluster.ListenAddrs(), Name: "kept", Ledger: killedLedger, Shards: 1}
	b := &bench{Topic: topictest.Open(t, config), config: config, chain: topictest.NewChain(t, killedLedger, "somebody", 1)}
	return b, cluster.Close
}

// TestKilled: Kafka and its producer in one process, as by default, which is killed again and again
// in the midst of transactions. What was published is there afterwards, and nothing in part.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range killedRuns {
		killed(t, dir, 1+rand.IntN(killedAfter))
		said := killed(t, dir, 1+rand.IntN(killedAfter))
		b, stop := kept(t, dir)
		p := b.producer(t)
		b.chain.Seq = b.tail(t)
		if b.chain.Seq < said || b.chain.Seq%3 != 0 {
			t.Errorf("%d events were published in threes, and the tail is %d", said, b.chain.Seq)
		}
		b.publish(t, p, 3)
		b.want(t, 1, b.chain.Seq)
		p.Close()
		b.Close()
		stop()
	}
}

// killed runs a process on a directory until it has published so many transactions, kills it, and
// returns the last seq that it said was published.
func killed(t *testing.T, dir string, transactions int) (said int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
	cmd.Env = append(os.Environ(), killedDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range transactions {
		if !lines.Scan() {
			break
		}
		if said, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Errorf("the process said %q", lines.Text())
		}
	}
	time.AfterFunc(time.Duration(rand.Int64N(int64(3*time.Millisecond))), func() { cmd.Process.Kill() })
	for lines.Scan() { // what it says until it is dead was published too
		if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
			said = n
		}
	}
	if err := cmd.Wait(); err == nil || said == 0 {
		t.Fatalf("it ended by itself, or published nothing: %v, %d", err, said)
	}
	return said
}

// TestKilledProcess is the process that is killed: it publishes for ever, three events at a time.
func TestKilledProcess(t *testing.T) {
	dir := os.Getenv(killedDir)
	if dir == "" {
		t.Skip("it is run by TestKilled")
	}
	b, _ := kept(t, dir)
	p := b.producer(t)
	b.chain.Seq = b.tail(t)
	for {
		b.publish(t, p, 3)
		fmt.Println(b.chain.Seq)
	}
}
