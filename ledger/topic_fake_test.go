package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"llm-gateway/domain"
	"llm-gateway/ledger/topic"
)

// fakeTopic is a topic in memory.
type fakeTopic struct {
	mu      sync.Mutex
	source  string
	records map[int32][]*topic.Record
	away    error          // what every call fails with
	hangs   map[int32]bool // shards whose Tail waits for its context to end
	asked   map[int32]int  // calls of Tail
}

func newFakeTopic(m Meta) *fakeTopic {
	return &fakeTopic{source: m.source(), records: map[int32][]*topic.Record{}, hangs: map[int32]bool{}, asked: map[int32]int{}}
}

var errAway = errors.New("the brokers are away")

func (f *fakeTopic) leave(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = err
}

// fill publishes what the ledger has and the topic has not, as the relay does.
func (f *fakeTopic) fill(t testing.TB, r *Reader) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for shard := range int32(testShards) {
		for {
			events, err := r.Events(context.Background(), shard, int64(len(f.records[shard])), MaxEvents)
			if err != nil {
				t.Fatal(err)
			}
			f.publish(events)
			if len(events) == 0 {
				break
			}
		}
	}
}

func (f *fakeTopic) publish(events []domain.Recorded) {
	for _, e := range events {
		shard := e.Event.Shard
		f.records[shard] = append(f.records[shard], &topic.Record{
			Shard: shard, Offset: 10 + int64(len(f.records[shard])), Key: e.Event.Account, Seq: e.Event.Seq,
			Hash: e.Hash, Source: f.source, Payload: e.Payload,
		})
	}
}

func (f *fakeTopic) Tail(ctx context.Context, shard int32) (*topic.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[shard]++
	if f.hangs[shard] {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return nil, ctx.Err()
	}
	records := f.records[shard]
	if f.away != nil || len(records) == 0 {
		return nil, f.away
	}
	return records[len(records)-1], nil
}

// Scan reads what is there when it begins.
func (f *fakeTopic) Scan(_ context.Context, shard int32) iter.Seq2[*topic.Record, error] {
	return func(yield func(*topic.Record, error) bool) {
		f.mu.Lock()
		records, away := f.records[shard], f.away
		f.mu.Unlock()
		if away != nil {
			yield(nil, away)
			return
		}
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// refusals is what Hooks.Refused and Hooks.Lost said.
type refusals struct {
	mu   sync.Mutex
	said []string
}

func (r *refusals) hooks() Hooks {
	say := func(format string, args ...any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said = append(r.said, fmt.Sprintf(format, args...))
	}
	return Hooks{
		Refused: func(shard int32, err error) {
			switch {
			case errors.Is(err, ErrTailLost):
				say("%d lost", shard)
			case errors.Is(err, ErrTailUnknown):
				say("%d unknown", shard)
			default:
				say("%d %v", shard, err)
			}
		},
		Lost: func(err error) { say("gone") },
	}
}

func (r *refusals) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.said)
}

// history is a ledger with a witness, and the hands that restore it to the past.
type history struct {
	*testing.T
	ledger *Postgres
	topic  *fakeTopic
	conn   *pgx.Conn // the owner's
	url    string
	said   refusals
}

// ledgerTables are what a restore brings back.
var ledgerTables = []string{"ledger_shards", "ledger_events", "ledger_accounts", "ledger_reservations", "ledger_idempotency"}

// The accounts that histories are about, and the shard of the first.
const (
	inLost  = "alice"
	inOther = "bob"
)

var lostShard = domain.ShardOf(inLost, testShards)

// newHistory makes a ledger in which alice's shard has six events and bob's four. The first four and two
// of them are in the copy that restore brings back, and all are in the topic.
func newHistory(t *testing.T, url string, c Config) *history {
	t.Helper()
	h := &history{T: t, url: url, conn: owner(t, url)}
	init := openAt(t, url)
	h.topic = newFakeTopic(init.Meta())
	mustOpen(h, init, inLost, "100")
	mustOpen(h, init, inOther, "100")
	must(h, init, command(inLost, credit("1", "one")))
	must(h, init, command(inLost, credit("2", "two")))
	for _, table := range ledgerTables {
		mustExec(h, h.conn, `CREATE TABLE saved_`+table+` AS SELECT * FROM `+table)
	}
	h.topic.fill(h, init.Reader)
	init.Close()
	c.Witness, c.Hooks = h.topic, h.said.hooks()
	if c.URL == "" {
		c.URL = url
	}
	h.ledger = open(t, c)
	must(h, h.ledger, command(inLost, credit("3", "three")))
	must(h, h.ledger, command(inLost, credit("4", "four")))
	must(h, h.ledger, command(inOther, credit("3", "three")))
	must(h, h.ledger, command(inOther, credit("4", "four")))
	h.topic.fill(h, h.ledger.Reader)
	return h
}

// restore brings a shard back to where it was, as if to the past of the whole server.
func (h *history) restore(shard int32) {
	h.Helper()
	mustExec(h, h.conn, "BEGIN")
	mustExec(h, h.conn, `ALTER TABLE ledger_events DISABLE TRIGGER USER`)
	for _, table := range ledgerTables {
		mustExec(h, h.conn, `DELETE FROM `+table+` WHERE shard = $1`, shard)
		mustExec(h, h.conn, `INSERT INTO `+table+` SELECT * FROM saved_`+table+` WHERE shard = $1`, shard)
	}
	mustExec(h, h.conn, `ALTER TABLE ledger_events ENABLE TRIGGER USER`)
	mustExec(h, h.conn, "COMMIT")
}

// anotherServer makes the server look like another one: the events get another file.
func (h *history) anotherServer() {
	h.Helper()
	mustExec(h, h.conn, `VACUUM FULL ledger_events`)
}

// wantRefused appends to alice's shard and wants to hear at once why not.
func (h *history) wantRefused(p *Postgres, want error) {
	h.Helper()
	began := time.Now()
	_, err := p.Append(h.Context(), command(inLost, credit("9", "nine")))
	if !errors.Is(err, want) || !errors.Is(err, domain.ErrUnavailable) {
		h.Fatalf("%v, not %v", err, want)
	}
	if took := time.Since(began); took > tailTime+2*time.Second {
		h.Fatalf("the refusal took %s", took)
	}
	refused := p.Refused()
	for _, r := range refused {
		if r.Shard == lostShard && errors.Is(r.Err, want) {
			return
		}
	}
	h.Fatalf("refused: %v", refused)
}

// eventually waits until what is asked for is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// wantGoesOn wants the ledger to append to alice's shard again by itself, and the whole to be clean.
func (h *history) wantGoesOn(p *Postgres) {
	h.Helper()
	c := command(inLost, credit("5", "five"))
	eventually(h, "the shard goes on", func() bool {
		_, err := p.Append(h.Context(), c)
		if err != nil && !errors.Is(err, domain.ErrUnavailable) {
			h.Fatal(err)
		}
		return err == nil
	})
	for _, r := range p.Refused() {
		if r.Shard == lostShard {
			h.Fatalf("still refused: %v", r.Err)
		}
	}
	h.wantClean()
}

// wantClean fails on anything that Verify finds, the topic asked.
func (h *history) wantClean() {
	h.Helper()
	r, err := OpenReader(h.Context(), Config{URL: h.url, Role: testRole})
	if err != nil {
		h.Fatal(err)
	}
	defer r.Close()
	report, err := r.Verify(h.Context(), VerifyOptions{Topic: h.topic})
	if err != nil || !report.Clean {
		h.Fatalf("%v, %v", err, report)
	}
}

func (h *history) head(shard int32) (seq, epoch int64) {
	h.Helper()
	err := h.conn.QueryRow(h.Context(), `SELECT last_seq, epoch FROM ledger_shards WHERE shard = $1`, shard).Scan(&seq, &epoch)
	if err != nil {
		h.Fatal(err)
	}
	return seq, epoch
}

func (h *history) wantHead(seq, epoch int64) {
	h.Helper()
	if s, e := h.head(lostShard); s != seq || e != epoch {
		h.Fatalf("the head is %d in epoch %d, not %d in %d", s, e, seq, epoch)
	}
}
