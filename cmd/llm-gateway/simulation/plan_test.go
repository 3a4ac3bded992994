package simulation

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// kind is which boundary a call crosses.
type kind uint8

const (
	kindArrive     kind = iota // a request reaches a gateway
	kindAppend                 // a command at the ledger
	kindAnswer                 // the answers of a batch of the ledger
	kindRead                   // reading in Postgres
	kindLease                  // a lease in Postgres
	kindApply                  // a step of the projections in Postgres
	kindJournal                // the disk
	kindCacheRead              // Redis
	kindCacheWrite             // Redis
	kindProduce                // Kafka: taking over, producing, committing
	kindFetch                  // Kafka: reading
	kindProvider               // a model
	kindDeliver                // bytes on their way to a client
	kindOutside                // what clients and administrators do
	kinds
)

var kindNames = [kinds]string{"a request's arrival", "an append", "an answer of the ledger", "a read", "a lease", "a step of a projection",
	"the journal", "reading the cache", "writing the cache", "producing", "fetching", "a model", "a part of an answer", "something outside"}

// service is what may be away.
type service uint8

const (
	noService service = iota
	postgres
	kafka
	redis
	services
)

var serviceNames = [services]string{"nothing", "Postgres", "Kafka", "Redis"}

// boundaries say of each kind which service it needs, and what may become of a call but that it goes on.
var boundaries = [kinds]struct {
	needs  service
	faults []fate
}{
	kindArrive:     {noService, []fate{failBefore}},
	kindAppend:     {postgres, []fate{failBefore, failAfter, twice, refused, slow}},
	kindAnswer:     {postgres, nil},
	kindRead:       {postgres, []fate{failBefore}},
	kindLease:      {postgres, []fate{failBefore, failAfter}},
	kindApply:      {postgres, []fate{failBefore, failAfter}},
	kindJournal:    {noService, []fate{failBefore, failAfter}},
	kindCacheRead:  {redis, []fate{failBefore}},
	kindCacheWrite: {redis, []fate{failBefore, failAfter, twice}},
	kindProduce:    {kafka, []fate{failBefore, failAfter}},
	kindFetch:      {kafka, []fate{failBefore, twice}},
	kindProvider:   {noService, nil}, // its script says it
	kindDeliver:    {noService, []fate{failBefore, failAfter}},
	kindOutside:    {noService, nil},
}

// beginTime is how long a process needs until it may reserve.
const beginTime = 50 * time.Millisecond

// plan is what a seed makes of a run before it begins: who takes part, what they ask for, and how much
// goes wrong. Seeds differ in all of it, so that some runs are all crashes and some have none.
type plan struct {
	gateways, shards int
	balance          string // of a new account
	policy           string
	hurry            bool       // clients do not think between their calls
	realDisk         bool       // the journals are package journal's, on files
	stick            int        // how often the same actor goes on, in percent
	faults           [kinds]int // how often a call of a kind goes wrong, per thousand
	delays           int        // how often a call is held up, per thousand
	longDelays       bool
	crashes          int // how often a process dies at a call, per ten thousand
	freezes          int
	stops            int // ordered to end
	outages          int
	drops            int // the topic is deleted
	clients          []clientPlan
	credits          []creditPlan
}

// clientPlan is one client: its requests, one after the other.
type clientPlan struct {
	name  string
	calls []*callPlan
}

// callPlan is one request, with its repeats.
type callPlan struct {
	account  string
	key      string
	think    time.Duration // before it
	stream   bool
	usage    bool // the client asks for the usage chunk
	model    string
	words    int // of the prompt
	most     int // max_completion_tokens; 0 = not named
	attempts []*attemptPlan
	again    bool         // the key is used again though there was an answer
	together bool         // all attempts at once
	reads    *attemptPlan // the balance, afterwards; nil: not
}

// attemptPlan is one attempt: where it goes, what its model does, and whether its client leaves.
type attemptPlan struct {
	name    string
	gateway int
	pause   time.Duration // after it
	leaves  bool
	other   bool // it asks for something else under the same key
	reads   bool // it asks for the balance
	script  script
}

// creditPlan is money from an administrator, or another change of an account.
type creditPlan struct {
	after     time.Duration
	account   string
	amount    string
	reference string
	repeats   int // under new command ids
	freeze    bool
	limit     string
}

func makePlan(rng *rand.Rand) *plan {
	p := &plan{
		gateways: 1 + rng.IntN(3), shards: 1 + rng.IntN(2), realDisk: rng.IntN(8) == 0, stick: rng.IntN(3) * 40,
		balance: oneOf(rng, "0.0001", "0.0003", "0.001", "0.05"), policy: oneOf(rng, "cap", "cap", "refuse"),
		hurry: rng.IntN(2) == 0, longDelays: rng.IntN(3) == 0, delays: oneOf(rng, 0, 20, 100, 250),
		crashes: oneOf(rng, 0, 0, 20, 100), freezes: oneOf(rng, 0, 0, 20, 60),
		stops: oneOf(rng, 0, 0, 20), outages: oneOf(rng, 0, 0, 20, 60),
		drops: oneOf(rng, 0, 0, 0, 20),
	}
	for k := range p.faults {
		p.faults[k] = oneOf(rng, 0, 0, 10, 50, 200)
	}
	p.faults[kindArrive] /= 4 // a request that does not arrive is none, and a gateway without a lease takes none
	p.faults[kindLease] /= 2
	for i := range 2 + rng.IntN(4) {
		p.clients = append(p.clients, p.makeClient(rng, fmt.Sprintf("c%d", i)))
	}
	for i := range rng.IntN(4) {
		p.credits = append(p.credits, makeCredit(rng, i))
	}
	return p
}

func oneOf[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func somebody(rng *rand.Rand) string { return oneOf(rng, "ann", "ann", "ann", "bob", "cid") }

func (p *plan) makeClient(rng *rand.Rand, name string) clientPlan {
	c := clientPlan{name: name}
	account := somebody(rng)
	for i := range 1 + rng.IntN(4) {
		c.calls = append(c.calls, p.makeCall(rng, account, fmt.Sprintf("%s.%d", name, i)))
	}
	return c
}

func (p *plan) makeCall(rng *rand.Rand, account, name string) *callPlan {
	c := &callPlan{
		account: account, think: p.think(rng), stream: rng.IntN(3) > 0,
		usage: rng.IntN(2) == 0, model: oneOf(rng, "sim-small", "sim-small", "sim-small", "sim-flat", "sim-free"),
		words: 1 + rng.IntN(20), most: oneOf(rng, 0, 8, 40), again: rng.IntN(2) == 0, together: rng.IntN(4) == 0,
	}
	attempts := 1
	if rng.IntN(2) == 0 {
		attempts += 1 + rng.IntN(3)
		c.key = "key " + name
		if rng.IntN(4) == 0 { // others use it too
			c.key = "a shared key"
		}
	}
	for i := range attempts {
		c.attempts = append(c.attempts, &attemptPlan{
			name: name + string(rune('a'+i)), gateway: rng.IntN(p.gateways), leaves: rng.IntN(5) == 0,
			pause: time.Duration(rng.IntN(3)) * time.Duration(rng.IntN(2_000_000_000)), other: i > 0 && rng.IntN(8) == 0, script: makeScript(rng),
		})
	}
	if rng.IntN(3) == 0 {
		c.reads = &attemptPlan{name: name + "r", gateway: rng.IntN(p.gateways), reads: true}
	}
	return c
}

// think is how long a client waits before a call.
func (p *plan) think(rng *rand.Rand) time.Duration {
	if p.hurry {
		return beginTime
	}
	return beginTime + time.Duration(rng.IntN(4))*time.Duration(rng.IntN(2_000_000_000))
}

func makeCredit(rng *rand.Rand, i int) creditPlan {
	return creditPlan{
		after: time.Duration(rng.IntN(20_000)) * time.Millisecond, account: somebody(rng),
		amount: oneOf(rng, "0.00002", "0.0001", "0.001"), reference: fmt.Sprintf("top-up %d", i), repeats: rng.IntN(3),
		freeze: rng.IntN(6) == 0, limit: oneOf(rng, "", "", "", "0.00005", "0"),
	}
}

// word is one token of every vocabulary in use, with the blank before it.
const word = " the"

// body is what an attempt sends.
func (c *callPlan) body(a *attemptPlan) string {
	words := c.words
	if a.other {
		words++
	}
	body := `{"model":"` + c.model + `","messages":[{"role":"user","content":"` + strings.Repeat(word, words) + `"}]`
	if c.stream {
		body += `,"stream":true`
	}
	if c.stream && c.usage {
		body += `,"stream_options":{"include_usage":true}`
	}
	if c.most > 0 {
		body += fmt.Sprintf(`,"max_completion_tokens":%d`, c.most)
	}
	return body + "}"
}
