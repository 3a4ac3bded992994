// Package projections is the read side: tables that are made out of the ledger's events.
//
// # The problem
//
// Whoever asks for a balance, a statement or statistics must not be in the way of those who move money,
// and must not be told anything that the events do not say. A counter that is kept beside the events
// drifts from them: an update is lost, a message comes twice, a worker that was thought dead goes on.
//
// # The protocol
//
// A projection is one file and one table. It folds events into statements, set by set, from nothing but
// the events; live and rebuild use the same function. A table has a position in every shard: the last
// event that it includes, and that event's hash. apply moves both in one database transaction (dbtx):
//
//   - Before anything is sent, the events must follow the position, seq by seq and hash by hash.
//   - The position is moved first, and only from where the events begin. Whoever comes second finds it
//     elsewhere, and its dbtx is rolled back: nothing is applied twice, by whomever.
//   - A table that has no position yet must be empty; a balance that includes an event already is not
//     touched, and missed in the count; a line of a statement is there once, by its key.
//
// The Projector follows the topic (read committed) by a lease, one process at a time, and brings all
// projections forward in all shards in one dbtx: at once after a silence, and every 20 ms under load.
// The offset that a position remembers is a hint, and so is the lease. What counts is seq:
//
//   - What is at or below a position is skipped.
//   - What the topic did not bring is read from the ledger, in pages, as is what a projection missed
//     that was gone or halted for a while. A round reads so much and no more, so that one that is far
//     behind does not hold up the others.
//   - The last record of each partition is read at every start, whatever the offset says: then nothing
//     that lies before it can be missed.
//
// # What can go wrong, and what happens
//
//   - The process dies, or its connection breaks, COMMIT's answer among what is lost: it or the next one
//     goes on from the positions as they are.
//   - It freezes: its lease ends, and Postgres ends its dbtx after a few seconds. When it thaws, it
//     finds that the positions have moved.
//   - A projection fails where others do not (its table is gone, its rows or its hash are not what they
//     must be): it stops alone, in that shard, is told of (Hooks.Halted), and is tried again every
//     second. Once it was rebuilt it catches up from the ledger.
//   - A record is not the event that must stand there (another hash, another ledger, a newer release's
//     schema), or the ledger lacks an event: the shard stops, for all projections. What is in a
//     topic does not mend: it goes on when the topic was made anew, or the projections were rebuilt from
//     the ledger past it, or another release reads it.
//   - The topic is away, or was re-created: reading begins again from the positions, after a pause that
//     grows. Nobody waits for a projection; its lag is told every second.
//   - Postgres crashes: it may lose the last of these dbtx, which do not wait for the disk, but never a
//     table without its position. The events are applied again.
//   - Numbers add up beyond what a column holds: Postgres refuses, and the projection stops. Texts are
//     cleaned and cut.
//   - The cache is away, slow or full: nothing waits for it. A balance that could not be put is put
//     later, as it is then; one that was forgotten stays as it was until the account's next event.
//     A cache may be behind: what it allows is decided by Postgres. Only while that is away do gateways
//     that were told to go on take it for the bound, by holds beside the balance (holds.go).
//
// # How it is tested
//
// On a real Postgres, directly and as behind a pooler, on a topic in memory that lies, vanishes and is
// made anew, and on Kafka: random histories in random batches make the same tables, which are what the
// ledger says (apply_test.go); the connection breaks at every message, projectors freeze at the worst
// moments and thaw (faults_test.go); every kind of wrong record, table and position stops what it must
// and nothing else (halts_test.go); every offset that could be remembered leads to all events
// (kafka_test.go).
package projections
