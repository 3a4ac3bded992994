// Package ledger is the write side: the one door through which money moves.
//
// # The problem
//
// Many gateways decide about the same balances at the same time, and any of them may die between
// two instructions. A balance that is read, decided on and written back loses updates; a counter
// in a cache loses money; an outbox that is written after the fact loses events.
//
// # The protocol
//
// Postgres is the commit point. A batch of commands is one database transaction (dbtx), READ
// COMMITTED:
//
//  1. One statement locks the heads of the shards that the batch touches, in ascending order. The
//     lock serialises all writers of a shard, in all processes, and so makes seq gapless.
//  2. Later statements load the accounts, reservations, references and earlier outcomes that the
//     batch needs. They are separate statements, because a statement that waits for a lock and
//     joins other tables may return the new locked row beside rows from before the wait.
//  3. domain.Books decides command after command, each on the state that the ones before it left.
//     A rejection writes nothing and costs no other command.
//  4. The events are inserted, the heads moved. Every statement must report exactly the rows
//     expected before COMMIT is sent, and COMMIT must answer COMMIT: in a failed transaction it
//     answers ROLLBACK, without an error.
//
// # Batching
//
// A Ledger has a few lanes; a shard belongs to one lane. While a lane's batch commits, commands
// queue; the next batch takes what has queued, up to MaxBatch. So an idle ledger answers at once,
// and a busy one shares each fsync among many.
//
// # What can go wrong, and what happens
//
//   - The connection breaks, COMMIT's answer among what is lost: the same batch is tried again on a
//     new connection. Command ids were minted before the first try; under the shard's lock, step 2
//     finds what had been committed, and the command is answered with its first outcome.
//   - A command that Postgres cannot store (a data error) fails the dbtx: the batch is split in
//     halves, again and again, until the guilty command stands alone and fails alone.
//   - Postgres stays away: after RetryWindow the commands are answered domain.ErrUnavailable. Whether such
//     a command happened is not known; asking again with the same id tells.
//   - A caller that no longer waits changes nothing: an append never runs on a request's context.
//   - A writer freezes with the lock in hand: Postgres ends its session after a few seconds
//     (idle_in_transaction_session_timeout); lock_timeout keeps the others from queueing for ever.
//
// # Two stores, one contract
//
// Postgres and Memory implement the same store; conformance_test.go runs on both. Verify replays
// the events with the same domain.Books and compares everything that is derived from them.
//
// # How it is tested
//
// On a real Postgres, as the service's role: the conformance suite directly and as behind a pooler;
// a proxy that breaks the connection at every step of an append, COMMIT's answer included
// (postgres_faults_test.go); and, for Verify, a list of crimes that the tables' owner could commit,
// each of which must be found at its place (verify_crimes_test.go).
package ledger
