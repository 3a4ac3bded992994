// Package lease says which of many processes does what only one at a time should do.
//
// # The problem
//
// Every gateway can publish every shard and move every projection; one at a time is enough, and two
// would only fence each other. Advisory locks belong to a session, and behind a transaction pooler
// nobody has one. A lock that is never given up survives the process that held it.
//
// # The protocol
//
// A lease is a row of ledger_leases: a name, the owner (one process start), and until when. All times
// are Postgres's. A Keeper takes what is free or its own and renews what it holds, by one plain
// statement for all names, every Every; a lease lasts Term from its last renewal.
//
// What is done under a lease runs on a context that ends when the lease was lost, and also when it
// might be soon: nine tenths of a Term after the beginning of the last renewal that Postgres
// confirmed, by this process's monotonic clock. Postgres counts from when it got the statement, which
// is later: whatever became of the answers, nobody else can take the lease before, and what runs has
// the last tenth to end. The context's Err looks at the clock itself: a process that was stopped and
// goes on sees at its first look that its time is over, before any timer has run. Keeper.Renewed is told of
// the same end, for what must know more often, and more cheaply, whether a lease is held.
//
// # What can go wrong, and what happens
//
//   - The process dies: its leases run out, and another takes them within Term + Every.
//   - It ends cleanly: it gives them up when all that ran under them has ended; another takes them in
//     its next round.
//   - Postgres is away: whoever holds a lease stops before it ends. Nobody holds it until Postgres is
//     back.
//   - What runs under a lease fails: it is started again after a pause that grows. One that fails
//     patience times in a row gives its lease up for a Term: another process may reach what this one
//     does not.
//   - The whole machine is suspended, or a process is stopped between its look at the context and what
//     it then does: no lease can help. A lease is a hint; what it is about is fenced elsewhere (the
//     relay by Kafka, a projection by its position).
//
// # How it is tested
//
// On a real Postgres, directly and as behind a pooler: many keepers that die, freeze, are cut off and
// end, while a referee in the same process sees that no two of them hold the same lease at once; and
// a child process that is stopped by SIGSTOP and goes on.
package lease
