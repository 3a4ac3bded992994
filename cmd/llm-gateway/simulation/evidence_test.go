package simulation

import (
	"crypto/sha256"
	"time"
)

// What a run leaves behind for the auditor. It knows these forms, and nothing of what made them.

// evidence is all of it.
type evidence struct {
	ledger      [16]byte
	ledgerSeals [][]seal // by shard: what the ledger has
	topic       [][]seal // by partition: what whoever reads committed gets

	transactions [][]int // and in which of Kafka's transactions each of it was
	projection   projected
	cached       map[string]cachedRow
	kept         map[string]time.Time // when a settlement of a request was on a disk
	swept        map[string]time.Time // when a sweeper asked for the refund of a request
	outages      []span               // of Postgres
	lives        []*life              // of processes
	attempts     []*sighting
	credits      []*credited
	alarms       []alarm
	unfinished   []string // what should have ended and has not
}

// alarm is what a journal said of a command: that its money could not be booked.
type alarm struct{ request, what string }

// seal is an event as it is kept: its bytes, and the hash that chains them.
type seal struct {
	payload []byte
	hash    [sha256.Size]byte
}

// life is one process start.
type life struct {
	name   string
	owner  string // as in the events
	leases []span // when its lease was held, on Postgres's clock
	ended  bool
}

// span is a time from its first instant to before its last.
type span struct{ from, to time.Time }

// tokens is what a model reported.
type tokens struct{ Input, Cached, Output int }

// witness is what the model of one attempt saw. It stands outside: nobody else counts for it.
type witness struct {
	Calls   int
	AskedAt time.Time
	Most    int     // words it may answer with
	Handed  int     // words that it delivered
	Whole   bool    // it came to its own end
	Usage   *tokens // what it reported; nil: nothing
}

// sighting is one attempt as its client saw it.
type sighting struct {
	name, account, key string
	asks               string // the body: what is asked for
	reads              bool   // it asks for the balance
	atLeast            string // as of that position
	model              string
	words              int // of the prompt
	stream             bool
	owner              string // of the process that had it
	status             int
	header             map[string]string // those that tell of money
	got                []byte            // what reached the client
	acked              []byte            // what of that the gateway was told had left
	whole              bool              // the answer ended in order
	left               bool              // the client went before
	refused            bool              // no gateway took it
	failsWith          int               // what its model may make of the status; 0: nothing of the gateway's
	began, ended       time.Time
	witness            witness
}

// credited is an administrator's movement, as often as it was made.
type credited struct {
	account, amount, reference string
	acknowledged               bool
}

// projected is what the projections hold.
type projected struct {
	positions []int64 // by shard
	balances  map[string]balanceRow
	lines     []lineRow
	charged   map[string]statRow // by account and model
}

type balanceRow struct{ available, reserved, limit string }

type lineRow struct{ account, kind, amount string }

type statRow struct {
	requests int64
	output   int64
	amount   string
}

type cachedRow struct {
	spendable string
	seq       int64
	newest    int64 // of all that were there since it last forgot
}
