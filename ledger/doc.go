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
// and a busy one shares each fsync among many. The events of a batch that became durable are handed
// to Hooks.Appended before its callers are answered: that feeds the relay, which reads in the ledger what
// it was not handed.
//
// # A Postgres that has lost its tail
//
// A server that was restored to the past, or a stale replica that was promoted, must not be appended
// to: the history would fork. Two things know better, and neither costs the normal path more than a
// map look-up (tail.go):
//
//   - Heads only rise. A writer remembers the highest head of each shard that it has seen committed. A
//     locked head that cannot have become of it by appending is not decided on.
//   - The topic. Before a connection first appends to a shard, the topic's last record (Config.Witness) is
//     compared, by hash, with the ledger's event at that seq: the topic is asked first, the ledger after,
//     outside of any dbtx, all shards of a batch at once.
//
// Where the ledger is behind or differs, the shard refuses with ErrTailLost, which callers hear at once;
// the other shards of the same batch go on. Where the topic does not answer, a shard goes on if it last
// agreed with the topic on this very server and in this epoch, and else refuses with ErrTailUnknown. A
// server is known by when its process began, its address, and its database and events' file
// (selectServer); a standby is refused when it is connected to. A shard that refuses is looked at
// again at most once a second, when somebody appends or asks for Refused.
//
// Recover appends what is missing from the topic's own bytes, through the same statements, and raises the
// shard's epoch; writers find that when they look again, and go on. A higher epoch overrules what was
// remembered of a lower one. What a writer had seen and the recovered ledger does not have (it was
// never published) is gone, and Hooks.Lost names it.
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
//   - A server comes back without its tail: its shards refuse until `ledger recover` (above). What is not
//     seen: events of other writers that were lost while the topic is away, by a server that looks the
//     same, with its rows set back in place.
//   - A recovery dies half-way: what it committed is whole commands, and continues the chain. The topic's
//     tail is still missing, so writers go on refusing, and the next run goes on.
//   - The ledger and the topic have different events at one seq: recovery refuses (ErrFork) and names the
//     place. It is for a person to say which is true.
//   - The topic ends within a command. No relay leaves it so (package relay publishes whole commands), but
//     a release before that may have, and a broker that lost a part of a transaction. Of a settlement,
//     recovery adds what must follow the commit. It cannot add the credit that opens an account.
//   - A writer freezes with the lock in hand: Postgres ends its session after a few seconds
//     (idle_in_transaction_session_timeout); lock_timeout keeps the others from queueing for ever.
//
// # Two stores, one contract
//
// Postgres and Memory implement the same store; conformance_test.go runs on both. Verify replays
// the events with the same domain.Books and compares everything that is derived from them, and, where
// it is asked, the topic: each record is held against the event of its place, records behind the end of
// the state that is verified against what is committed now, so that a relay that goes on is no crime.
//
// Audit calculates every charge again by its price version (domain.PastCharge), and reads of each event only
// what that needs (auditscan.go, held against encoding/json on damaged payloads). BalanceAt and Witnessed
// (history.go) add up an account's events: exact, and as long as the account's history.
//
// # How it is tested
//
// On a real Postgres, as the service's role: the conformance suite directly and as behind a pooler;
// a proxy that breaks the connection at every step of an append, COMMIT's answer included
// (postgres_faults_test.go); for Verify, lists of crimes that the tables' owner, or the topic's, could
// commit, each of which must be found at its place (verify_crimes_test.go, verify_topic_test.go); for
// lost tails, restores to the past under running writers (tail_test.go), and recoveries that are broken
// at every statement, run at once, read hostile records, and must bring back every row as it was
// (recover_test.go, recover_hostile_test.go).
package ledger
