// Package relay copies the ledger's events to the topic: all of them, once, in order.
//
// # The problem
//
// An event is a fact when its database transaction has committed. To tell Kafka of it then, from the
// same process, loses it if the process dies in between; an outbox that is swept by time or by a
// sequence of its own skips what committed late; a cursor beside the topic disagrees with it after
// every crash, and after a restore of either. And at any moment another gateway may believe that the
// work is its own.
//
// # The protocol
//
// Partition p of the topic is shard p of the ledger. For each shard:
//
//  1. A lease says who should publish it (package lease), so that processes do not fence each other
//     for nothing. It is a hint: Kafka decides who can.
//  2. The producer is taken over first: from then on no earlier one can publish, and what they left
//     unfinished has been aborted. Only then is the partition's last committed record read. That is
//     where this relay goes on: there is no other cursor.
//  3. That record is held against the ledger's event of the same seq, hash and bytes. Where they
//     differ, or the ledger does not have it, nothing is published.
//  4. Events are published in transactions, whole commands in each: the topic never ends within one, which
//     is what a recovery from it needs. What Feed hands over and what a dbtx commits are whole commands;
//     where a bound cuts in, the command that it cuts waits for the next transaction. The next event is the
//     one with the next seq, and its hash must extend the one before; anything else is not published.
//  5. After any error the producer is thrown away, and all begins again with 2.
//
// What was published is never asked of the answer to a Publish: after an error it is not known, and
// the tail tells.
//
// # Finding out about events
//
// Feed hands over what this process has just appended. Where it is what comes next, it is published
// without being read again; otherwise it only wakes. What other gateways append, one look at all
// heads tells, every PollBusy while something happens and every PollIdle at least. What is missing is
// read from the ledger in pages. An idle shard publishes at once; a busy one begins a transaction
// every Interval, and so gathers, unless a full one waits already.
//
// # What can go wrong, and what happens
//
//   - The process dies, freezes, or loses its lease: another takes over within the lease's time. What
//     the first still sends when it thaws is refused by Kafka.
//   - Kafka is away: transactions fail, takeovers are tried with growing pauses. Nobody waits for that
//     but Drain. A process that keeps failing leaves its shards to others for a while.
//   - Postgres is away: what was fed is published as long as the lease lasts; then nothing is.
//   - The topic is deleted: publishing fails, or a look at the topic (every CheckEvery) finds that it
//     has another id or none. It is made again, and filled from seq 1. Its transactions never commit
//     into a topic that is not the one whose tail was read: package topic sees to that.
//   - The records are deleted: the same look finds that the partition now begins behind what was its
//     end. It is filled again from seq 1. Where others appended meanwhile, the few records that were
//     published behind the deletion come before that, and so twice: they cannot be taken back, and
//     consumers go by seq. A process that dies before it has noticed leaves a topic whose beginning is
//     missing, and that the next one goes on with. So do records that were deleted from the beginning
//     only: an error is logged, and consumers read what they miss from the ledger.
//   - The topic ends before where it ended (a broker lost what it had acknowledged): what is missing
//     is published again, from the tail on, be it the rest of a command.
//   - The ledger has lost its tail, or tells another history than the topic: ErrDiverged. It has a
//     gap: ErrGap. The topic is not as it must be: topic.ErrMismatch. The shard stops loudly, and is
//     tried again after HaltPause; what to do is `ledger recover`, or a person's decision. The other
//     shards go on.
//   - Kafka becomes another cluster: the leases are named after the cluster, and are taken anew.
//   - Memory: at most feedEvents a shard and feedBytes in all wait; beyond that Feed drops, and the
//     ledger is read.
//
// # How it is tested
//
// With a real ledger on Postgres, and on kfake or the Kafka at KAFKA_BROKERS, read committed, byte by
// byte, and no command in two transactions (relaytest.WantEqual). Publishing and taking over are cut and
// frozen at every step that they take on the network, until nothing happens any more; a child process is
// stopped by SIGSTOP at every step of publishing; processes die without giving anything up. The ledger is
// damaged in each way that must stop a shard. Random schedules do all of it in any order.
package relay
