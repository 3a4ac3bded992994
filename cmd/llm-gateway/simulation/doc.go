// Package simulation runs whole gateways, with everything around them, in one process and in no time,
// and lets everything go wrong that a seed says. All of it is tests.
//
// # The problem
//
// Money is lost between two instructions: the process dies after the COMMIT and before its answer, a
// frozen one goes on when another has taken over, a settlement comes twice, or late, or in another
// order. Tests that wait for such a moment meet a few of them; in production each comes once a month,
// and never again under a debugger. So the moments are made here, thousands a second, and each can be
// made again.
//
// # What runs
//
// One to three gateways, by the real gateway.Gateway, driven through its HTTP handler by clients that
// stream, repeat with an Idempotency-Key on any gateway, ask for something else under the same key,
// leave, and read their balance; administrators who credit, limit and freeze; accounts with so little
// money that whoever overspends shows. The ledger is ledger.Memory. The relay, the leases, the owners and
// the sweeper are the real ones, and in some runs the journal, on files. Around them stands what is
// simulated, each in one file:
//
//   - the way to the ledger (writer): a lane per shard, tries under one id, answers that are lost;
//   - Postgres beside the ledger (database, owners): leases, orphans, projections; a method is a
//     transaction;
//   - Kafka (broker): transactions, fencing by epochs, reading of what is committed;
//   - Redis (cache), the disk (journal), models that follow a script (provider), connections to clients
//     that break (client);
//   - the projector (projector): the protocol of package projections in a few lines, because that one
//     speaks SQL.
//
// # Actors, yields, fates
//
// Every call that crosses a boundary first parks, under a name that no other has. testing/synctest says
// when all goroutines wait; then the scheduler sorts what is parked by name, picks one by the seed, and
// decides its fate: it goes on; it fails before it happened; it happens, and its answer is lost; it
// happens twice; its answer comes late, after others; it is held up for a while; its process dies at
// this very call, which may have left it just before; its process freezes there, and goes on later like
// a zombie; or it is told to end in order. Services go away and come back. Dead processes come back too,
// with nothing but their disk. So one thing runs at a time, up to its next call.
//
// The bubble's clock moves by a little with every step, never by the same, so that timers which begin in
// different steps do not end together; and by as much as it takes when nothing can run. Ids are new in
// every run: nothing is named or ordered by them, but by the attempt that it is about, whose name is the
// id of its API key and so in the events. The trace of a run, which names everything in order, is hashed:
// TestReplay wants the same seed to give the same trace.
//
// A process that is frozen, or dead, runs on in the bubble up to its next call; that call waits, or fails
// without effect. A timer that ends while its process is frozen does so at once, and not at the thaw: so
// that there are zombies all the same, calls of a process that was frozen a moment ago may still be made,
// whatever their context says by then.
//
// # After a run
//
// All faults end, every machine gets a process, and everything has to come to rest within some minutes
// of the run's time: every client has an answer or was left by its gateway's death, no money is reserved,
// no journal holds anything, the topic and the projections are where the ledger is. Then the auditor
// (audit_*_test.go) holds what is left against the promises, by the stored bytes alone. It imports
// nothing of the gateway: it decodes events, follows the chain, adds up and multiplies by itself, and
// knows from the models and the clients, who are witnesses from outside, what each request is to be
// charged, to the last digit. The invariants and their names stand in audit_test.go.
//
// Whether it would notice is tested: bugs_test.go plants the bugs that gateways have had, each in the
// harness around the product's code and never in it, and each must be found (TestPlantedBugs). And the
// simulation has to get anywhere: TestSimulation wants every situation in its list to have occurred.
//
// # Replaying a seed
//
// A failure names its seed. To see what happened, line by line:
//
//	SEED=4711 SEEDS=1 go test -run '^TestSimulation$' -v ./cmd/llm-gateway/simulation
//
// SEEDS says how many seeds run, SEED which is the first. `make soak` goes on with new ones for SOAK
// minutes. A seed's run changes with the code, as any change of what parks changes all that follows.
//
// # What it does not cover
//
//   - Postgres itself: SQL, locks, isolation, failover to a replica, a ledger that has lost its tail.
//   - Kafka and Redis themselves: their clients, leader changes, records that are deleted.
//   - The disk: torn writes, lost fsyncs; a journal keeps what it acknowledged.
//   - HTTP: parsing, what is buffered below a flush, and the adaptors of real providers.
//   - Clocks that differ: all processes share the bubble's.
//   - Two things at the same instant within one process: the race detector and load tests look there.
//   - Rebuilding projections, spooled requests (BILLING_DEGRADED=spool), rate limits.
//
// Those have tests of their own, on real servers, with real kills.
package simulation
