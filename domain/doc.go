// Package domain holds the rules of the ledger as pure functions: no I/O, no clock, no context.
//
// The problem: money that is decided in many places is decided differently in each. So every
// decision about money is made here, on values, and everything else (Postgres, memory, HTTP)
// loads values, asks, and stores the answer.
//
//   - Amount is exact money; Meters are what a provider bills by; PriceBook, Charge and Bound turn
//     meters into amounts. SellBook derives what customers pay from what providers charge.
//   - Event is one immutable movement of money. It is encoded once (Encode), and those bytes are
//     what is stored, published and hashed (ChainHash).
//   - Books is the state that events add up to. Books.Decide says which events a Command leads to,
//     or a typed Rejection; Books.Apply adds one event. Writing, replaying and verifying all use
//     the same Apply, so a balance cannot mean two things.
//
// Invariants: amounts are never negative, never floats, and never rounded but for the
// unit prices of a SellBook, once, when it is made; available + credit limit is
// never made negative by a reserve; reserved is the sum of open reservations and never negative; a
// reservation is settled or released at most once; the order of events is their position.
//
// Tested by text tables (testdata/*.txt: a line per command with its answer and the balances after
// it), by properties over random command sequences, by golden bytes for the encoding, and by
// fuzzing everything that reads foreign text.
package domain
