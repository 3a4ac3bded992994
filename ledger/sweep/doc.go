// Package sweep gives back what gateways that have gone left reserved.
//
// # The problem
//
// A reservation is open from before the provider is called until the request is settled. A gateway that
// is killed in between settles nothing, and nobody else knows what became of its requests: the money
// would stay reserved for ever. How old a reservation is says nothing, for a stream may be long. Whoever
// gives it back too early takes it from a request that goes on; and after an outage of Postgres every
// gateway looks as if it were dead.
//
// # The protocol
//
// An owner is one process start. It has a lease (package lease) named `owner:<uuid>`, of OwnerTerm,
// renewed every OwnerEvery, and each reservation names its owner. A gateway takes its lease before it
// reserves anything, and reserves only while Held says so; it gives the lease up when all that it
// reserved has been settled.
//
// An orphan is an open reservation whose owner's lease has run out or was given up. One process at a
// time sweeps, by the lease `sweeper`. Every two seconds one statement looks for orphans, at most
// LookLimit of them, for when the server began, and for what time it has. The sweeper acts only when it
// has seen Postgres for a whole OwnerTerm without a break (watch.go). The count starts anew at
//
//   - a look or an append that failed, or a look that took longer than lookTime;
//   - more than lookGap between two times that Postgres was seen: this process was frozen, or starved;
//   - another time at which the server began: it was restarted, or is another one;
//   - a server's clock that got ahead of ours by more than clockJump: it was set, or a machine slept;
//   - a new hold of the sweeper's lease.
//
// So after an outage an owner that is alive has a whole term to renew its lease, which it tries every
// ownerRetry: owners renew first. Then each orphan is released (reason `expired`) through the ledger's
// one door, up to inFlight at once, so that the ledger's batches fill. A reservation ends once: where
// somebody was faster, the ledger rejects the release, and that is fine. What a look found is acted on
// for actTime and no longer, since an owner may come back. Where there is more, the next look follows
// at once.
//
// In between it tidies up, so many rows at a time: answers that were kept for an idempotency key
// (ledger_responses) for longer than keys are kept, and the leases of owners that are long gone.
//
// # What can go wrong, and what happens
//
//   - A gateway dies: its lease runs out, and where another process sweeps, its orphans are refunded
//     within OwnerTerm and Every. If it was the sweeper, another takes that lease first, and has to see
//     Postgres for a whole term: within about 20 seconds.
//   - A gateway freezes, or cannot reach Postgres while others can: it is taken for dead. A tenth of a
//     term before that, by its own clock, it stops reserving, also where it thaws in between: Held looks
//     at the clock itself. What it settles after its reservation was refunded, the ledger charges as an
//     overage (`late`), once.
//   - A reserve that was under way when the lease ran out is committed afterwards: the same.
//   - Postgres is away for longer than a lease: nobody holds anything. When it is back, owners renew
//     first.
//   - Postgres answers reads and takes no writes (a disk that is full or stalls, a standby that must
//     confirm): looks go on, and see that owners cannot renew. But the sweeper cannot, either: its own
//     lease ends before any owner's can, and its count with it.
//   - The sweeper freezes between a look and its releases: before each it sees at the clock that its
//     lease, or actTime, is over. A release that the ledger has been handed by then is made.
//   - Two sweep at once: each orphan ends once.
//   - A shard of the ledger refuses (ErrTailLost), or one orphan cannot be released: the others are,
//     and Hooks.Failed is told. LookLimit of them that all stay would hide the others.
//   - A whole machine sleeps, and this process's monotonic clock with it: Held stays true for up to
//     nine tenths of a term, though the lease has run out elsewhere. A renewal comes within OwnerEvery;
//     what is refunded before that is charged late.
//   - A gateway ends in order while requests of it wait in a journal: they are orphans at once, and are
//     charged late unless the journal drains before a sweeper sees them.
//
// # How it is tested
//
// The deciding part (Rounds, and watch in it) has no clock, no goroutine that outlives a step, and no
// SQL of its own. rounds_test.go drives it on a fake clock, against a ledger in memory and a server that
// is away, restarts, freezes and gets its clock wrong; sim_test.go lets whole gateways live and die
// there at random. On a real Postgres: sweepers and owners over pools that are taken away, writes that
// stall while reads go on, settlements that race with two sweepers, after which the ledger must verify;
// a child process that is stopped by SIGSTOP; the plan of the look over many settled reservations.
package sweep
