package topic_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// TestTail: what the last committed record is, whatever lies behind it.
func TestTail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		do    func(t *testing.T, b *bench)
		first int64 // of the seqs that are committed; the last is that of the tail
		last  int64
	}{
		{"nothing", func(*testing.T, *bench) {}, 1, 0},
		{"one record", func(t *testing.T, b *bench) { b.publish(t, b.producer(t), 1) }, 1, 1},
		{"one transaction", func(t *testing.T, b *bench) { b.publish(t, b.producer(t), 10) }, 1, 10},
		{"transactions of one record", func(t *testing.T, b *bench) {
			p := b.producer(t)
			for range 20 {
				b.publish(t, p, 1)
			}
		}, 1, 20},
		{"an aborted tail", func(t *testing.T, b *bench) {
			b.publish(t, b.producer(t), 3)
			b.abandon(t, 1)
		}, 1, 3},
		{"a long aborted tail", func(t *testing.T, b *bench) {
			b.publish(t, b.producer(t), 3)
			b.abandon(t, 100)
		}, 1, 3},
		{"aborted between committed", func(t *testing.T, b *bench) {
			b.publish(t, b.producer(t), 3)
			b.abandon(t, 5)
			b.publish(t, b.producer(t), 2)
		}, 1, 5},
		{"nothing but aborted", func(t *testing.T, b *bench) { b.abandon(t, 50) }, 1, 0},
		{"nothing but marks of takeovers", func(t *testing.T, b *bench) {
			for range 5 {
				b.producer(t).Close()
			}
		}, 1, 0},
		{"an open transaction", func(t *testing.T, b *bench) {
			b.publish(t, b.producer(t), 3)
			b.predecessor(t, b.chain.Next(t, 2))
		}, 1, 3},
		{"nothing but an open transaction", func(t *testing.T, b *bench) { b.predecessor(t, b.chain.Next(t, 2)) }, 1, 0},
		{"emptied", func(t *testing.T, b *bench) {
			b.publish(t, b.producer(t), 3)
			b.empty(t, -1)
		}, 1, 0},
		{"emptied, then more", func(t *testing.T, b *bench) {
			p := b.producer(t)
			b.publish(t, p, 3)
			b.empty(t, -1)
			b.publish(t, p, 2)
		}, 4, 5},
		{"emptied up to the mark of the last commit", func(t *testing.T, b *bench) {
			_, last := b.publish(t, b.producer(t), 3)
			b.empty(t, last+1)
		}, 1, 0},
		{"emptied to the midst of a transaction", func(t *testing.T, b *bench) {
			_, last := b.publish(t, b.producer(t), 10)
			b.empty(t, last-3)
		}, 7, 10},
		{"re-created", func(t *testing.T, b *bench) {
			b.publish(t, b.producer(t), 3)
			b.recreate(t)
		}, 1, 0},
		{"re-created, then filled", func(t *testing.T, b *bench) {
			b.publish(t, b.producer(t), 3)
			b.recreate(t)
			b.publish(t, b.producer(t), 2)
		}, 4, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			c.do(t, b)
			b.want(t, c.first, c.last)
		})
	}
}

// TestTailOfOthers: a tail is one shard's.
func TestTailOfOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish(t, b.producer(t), 3)
	b.shard = 1
	b.want(t, 1, 0)
	for _, shard := range []int32{-1, shards} {
		if _, err := b.Tail(t.Context(), shard); err == nil {
			t.Errorf("there is a tail of shard %d", shard)
		}
		if _, err := b.Producer(t.Context(), shard); err == nil {
			t.Errorf("there is a producer of shard %d", shard)
		}
	}
}

// TestScan: what is read is what was published, to the byte, over many fetches.
func TestScan(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.chain.Pad = string(bytes.Repeat([]byte("x"), 40_000))
	p := b.producer(t)
	var all []domain.Recorded
	for range 5 {
		events, _ := b.publish(t, p, 20)
		all = append(all, events...)
	}
	b.abandon(t, 3)
	var read []domain.Recorded
	for r, err := range b.Scan(t.Context(), b.shard) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.Event()
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, e)
	}
	if !slices.EqualFunc(all, read, same) {
		t.Fatalf("%d events were published, and %d others read", len(all), len(read))
	}
}

func same(a, b domain.Recorded) bool {
	return bytes.Equal(a.Payload, b.Payload) && a.Hash == b.Hash && a.Event.Position() == b.Event.Position() &&
		a.Event.ID == b.Event.ID && a.Event.OccurredAt.Equal(b.Event.OccurredAt)
}

// TestScanEnds: what comes while it reads is not read, and who stops early is not called again.
func TestScanEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.producer(t)
	for range 4 {
		last, err := p.Publish(t.Context(), b.noisy(t, 15, 50_000)) // more than one fetch brings
		if err != nil {
			t.Fatal(err)
		}
		b.readable(t, last)
	}
	var read int
	for _, err := range b.Scan(t.Context(), b.shard) {
		if err != nil {
			t.Fatal(err)
		}
		b.publish(t, p, 1)
		read++
	}
	if read != 60 {
		t.Errorf("60 records were there, and %d were read", read)
	}
	for range b.Scan(t.Context(), b.shard) {
		break
	}
	b.want(t, 1, 120)
}

// TestTailReadsLittle: the tail of a long shard is found without reading all of it.
func TestTailReadsLittle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.producer(t)
	for range 60 {
		if _, err := p.Publish(t.Context(), b.noisy(t, 1, 50_000)); err != nil {
			t.Fatal(err)
		}
	}
	b.abandon(t, 2)
	s := &saboteur{left: -1}
	counted := b.sabotaged(t, s)
	if r, err := counted.Tail(t.Context(), b.shard); err != nil || r.Seq != 60 {
		t.Fatalf("the tail is %+v, %v", r, err)
	}
	if got := s.read.Load(); got > 200_000 {
		t.Errorf("it took %d bytes to find a tail of 50,000", got)
	}
}

// TestReadCut breaks the connection at every read and write of a Tail and a Scan: they try again.
func TestReadCut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish(t, b.producer(t), 5)
	for name, call := range map[string]func(*topic.Topic) int64{
		"tail": func(tp *topic.Topic) int64 {
			r, err := tp.Tail(t.Context(), b.shard)
			if err != nil {
				t.Fatal(err)
			}
			return r.Seq
		},
		"scan": func(tp *topic.Topic) (last int64) {
			for r, err := range tp.Scan(t.Context(), b.shard) {
				if err != nil {
					t.Fatal(err)
				}
				last = r.Seq
			}
			return last
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, late := range []bool{false, true} {
				everyMoment(t, func(n int) bool {
					s := &saboteur{late: late, left: -1}
					tp := b.sabotaged(t, s)
					if _, err := tp.Cluster(t.Context()); err != nil { // what breaks with the first answer is taken for good
						t.Fatal(err)
					}
					s.arm(n, nil)
					if last := call(tp); last != 5 {
						t.Fatalf("cut at %d: the last is %d", n, last)
					}
					return s.calm()
				})
			}
		})
	}
}

// TestForeignRecords: others' records are read as they are, with nothing that could be taken for an
// event's, compressed in whatever way.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		client := b.raw(t, kgo.ProducerBatchCompression(codec))
		record := &kgo.Record{Partition: b.shard, Key: []byte("somebody"), Value: bytes.Repeat([]byte("word "), 100)}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var read int
	for r, err := range b.Scan(t.Context(), b.shard) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Event(); err == nil {
			t.Errorf("a foreign record is an event: %q", r.Payload)
		}
		if r.Seq != 0 || r.Key != "somebody" {
			t.Errorf("a foreign record of %s has seq %d", r.Key, r.Seq)
		}
		read++
	}
	if read != 4 {
		t.Errorf("%d foreign records were read, want 4", read)
	}
	if tail, err := b.Tail(t.Context(), b.shard); err != nil || tail == nil || tail.Offset != 3 {
		t.Errorf("the tail is %+v, %v", tail, err)
	}
	wantError(t, b.Ensure(t.Context()), topic.ErrMismatch)
}
