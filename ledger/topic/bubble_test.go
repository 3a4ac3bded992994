package topic_test

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"

	"llm-gateway/ledger/topic"
	"llm-gateway/ledger/topic/topictest"
)

// wire connects clients with a kfake in the same process without the machine's network, so that both
// can live in a bubble of testing/synctest, where waiting takes no time.
type wire struct {
	mu        sync.Mutex
	listeners map[string]*wireListener
}

// listen implements kfake's ListenFn.
func (w *wire) listen(string, string) (net.Listener, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := &wireListener{accept: make(chan net.Conn), closed: make(chan struct{})}
	l.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(9000+len(w.listeners)))
	w.listeners[l.address] = l
	return l, nil
}

// dial implements topic.Config's Dial.
func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	l := w.listeners[address]
	w.mu.Unlock()
	near, far := net.Pipe()
	select {
	case l.accept <- far:
		return near, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type wireListener struct {
	address string
	accept  chan net.Conn
	closing sync.Once
	closed  chan struct{}
}

func (l *wireListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accept:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *wireListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return nil
}

func (l *wireListener) Addr() net.Addr {
	address, _ := net.ResolveTCPAddr("tcp", l.address)
	return address
}

// bubbleBench is a bench on a kfake in the test's own bubble.
func bubbleBench(t *testing.T, wrap func(topic.Config) topic.Config) *bench {
	t.Helper()
	w := &wire{listeners: make(map[string]*wireListener)}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(w.listen))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	config := topic.Config{Brokers: cluster.ListenAddrs(), Name: "test", Ledger: uuid.New(), Shards: shards, Dial: w.dial}
	return &bench{
		cluster: cluster, Topic: topictest.Open(t, wrap(config)), config: config, shard: 2,
		chain: topictest.ChainOf(t, config.Ledger, 2, shards),
	}
}
