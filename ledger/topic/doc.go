// Package topic is the ledger's Kafka topic: what relays publish to, and projections and everybody
// else read. It is the only package that speaks Kafka.
//
// # The problem
//
// Every event of the ledger must be in the topic once, in order, whoever publishes and whenever it
// dies: a second gateway may publish the same shard in the same moment, a commit's answer may be lost,
// a batch may arrive after its sender is dead. And the topic may be deleted, emptied, made again, or
// belong to somebody else.
//
// # The form
//
// Partition = shard, key = account, value = the event's payload, byte for byte; headers are those of
// CloudEvents 1.0 in binary mode, and ledger_seq and ledger_hash. Record.Event holds all of them
// against the payload: whatever is in a topic, it is an error or the event that was published.
//
// # The protocol
//
//   - Ensure makes the topic, or refuses one whose partitions, retention, timestamps or first records
//     are not this ledger's. Nothing else ever makes one.
//   - Producer takes a shard over under the transactional id <topic>-<shard>: Kafka fences who had it
//     before, and what that one left is committed or aborted, for good, when Producer returns.
//   - Tail is the last committed record of a shard then; it says where to go on. There is no cursor.
//   - Publish is one transaction. Its records' offsets must rise from where the shard ended when it was
//     taken over. After any error the producer is of no use: the next one finds out by Tail whether the
//     transaction is in the topic, and it is there whole or not at all. What went well is there for the
//     next producer, and can be read a moment later: Kafka answers a commit before it has marked it.
//   - Consumer and Scan read committed records only: one live and without end, the other to where the
//     shard ended when it began.
//
// # What can go wrong, and what happens
//
//   - Kafka is away: every call fails within seconds (callTime, takeoverTime, publishTime), or as soon
//     as its context ends; Poll waits for it to come back, and goes on where it was.
//   - The topic is deleted or made again: Publish and Poll return an error within seconds. Kafka's ids
//     of topics tell (for reading from Kafka 3.1 on, for producing from 4.0), before that the offsets.
//   - A producer is taken over in the midst of a transaction: ErrFenced, and nothing of it is visible.
//     Kafka says the same to one that was idle for so long (7 days) that it was forgotten.
//   - A producer dies in the midst of a transaction, and nobody takes over: consumers of the shard wait
//     at its beginning until Kafka aborts it (transactionTime).
//   - An offset that a consumer asks for is not there: it begins with the first record that is.
//
// # Faults of others that this package goes round
//
// Tests fail without these detours (without the first one, now and then: it is a race); the comments at
// the detours tell more.
//
//   - kgo reports a commit that it has turned into an abort as a success, if a client's first
//     transaction ends before it has noted the topic's partitions: Producer.settled.
//   - kfake leaves out which records were aborted when it cuts an answer at the limit for the whole
//     answer: Config.fetchBytes, reader.request.
//   - kfake, killed in the midst of a transaction, aborts it without a mark, and consumers skip what
//     is committed after it: reader.marked, Topic.mark.
//
// # How it is tested
//
// On the Kafka that KAFKA_BROKERS names, or else on kfake over real connections (topictest, which other
// packages' tests use too): every tail a shard can have; takeovers at random moments of a publishing
// producer; connections that break at every single read and write of a Publish, a takeover, a Tail;
// a process with kfake and producer in it that is killed again and again; hostile records; and, in a
// bubble of testing/synctest with kfake inside, whatever takes hours or seconds: Kafka away, producers
// idle for days, transactions that nobody ends.
package topic
