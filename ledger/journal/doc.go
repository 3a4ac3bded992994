// Package journal keeps commands that the ledger cannot take because Postgres is away, until it can.
//
// # The problem
//
// A model call that has been delivered costs money, whether Postgres is there to book it or not. What
// is kept in memory until it is back dies with the process; what is refused is given away. A file is
// durable only if every step says so: a write that no fsync followed, a file whose directory was not
// synced, an fsync that failed once and "succeeds" when it is asked again, a last record that is half
// there. And who books from a file after a crash books twice, unless the ledger knows what it has.
//
// # The protocol
//
// A journal is a directory of one process (ErrLocked for the second). Put answers nil when the command
// is on the disk: the record's file was fsynced, and the directory since the file was made. While one
// fsync runs, Puts queue; the next one covers all of them.
//
// Run hands what waits to the ledger's Append, in the order of the Puts: the commands of one account one
// after the other, those of different accounts up to inFlight at once. What the ledger has decided on
// leaves the journal; anything else (it is away, overloaded, a try took too long, an error that nobody
// foresaw) is tried again after pauses that grow to longPause, for ever: nothing is skipped, and other
// accounts go on. How far it came is not written down: a command keeps its id, and a ledger that has it
// already answers with its first outcome. A rejection is a decision too, but of money that could not be
// booked: it is kept in the file `refused`, logged as an error, and told to Hooks.Refused; unless it is of
// a release that had nothing to give back, as after an outage in which a reserve did not happen.
//
// # The files
//
// Commands stand in segments, NUMBER.journal, in the order of their numbers. A segment begins with a
// header of 40 bytes:
//
//	magic "LLMGWJNL" | version uint32 | number uint64 | previous uint64 | size uint64 | CRC-32C uint32
//
// `previous` is the last segment before it that has records, and `size` how much of that one counts. It
// is durable before any record is written to the new one. Then come the records:
//
//	length uint32 | CRC-32C uint32 | synced uint64 | payload: the command as JSON (codec.go)
//
// All numbers are big-endian. A record's CRC covers the segment's number, length, synced and payload, so
// that what a disk mixes up, old blocks of deleted segments too, is not read as a record. `synced` is
// how much of the segment had been fsynced when the record was written: all records of one write say
// the same. Close ends a segment with a record of length 0.
//
// So a bad record (short, or with a wrong CRC) tells whether it may have been acknowledged. If an intact
// record behind it says that its place had been synced, or the next segment's header does, it was: that
// is damage, and ErrDamaged names the file and the byte. Otherwise it belongs to the last write, which was
// not finished when the process or the machine died: Open cuts it off, says so in the log, and counts the
// bytes in TornBytes.
//
// A segment whose commands have all left is deleted, the oldest first; with the last command that
// waits, the last segment goes too. The directory is synced between two deletions, so that what is left
// is always the end of the journal. A deletion that does not last is no harm: what comes back is repeated.
//
// `refused` is one JSON object a line, without the answers that were to be kept. At refusedBytes it
// becomes `refused.old`, whose earlier content is dropped: so the last refusedBytes at least are there.
//
// # What can go wrong, and what happens
//
//   - The process is killed: what was acknowledged is there. A Put that got no answer, or an error from
//     its context, may be there, at its place in the order.
//   - A write or an fsync fails: the Puts that it was for fail. The file is not trusted any more, since
//     an fsync that failed may have dropped what it should have written: the next Put begins a new
//     segment, whose header cuts off what was not acknowledged. If the process ends before that, Puts
//     that failed may be there, behind all that were acknowledged; booking them is no harm, for a caller
//     that tries again keeps the id.
//   - Power is lost: as when the process is killed, in whatever order the disk wrote the last write.
//   - The disk is full: Put fails, and works again when there is room.
//   - The journal is full (MaxBytes): ErrFull, until segments have drained.
//   - A bit flips in a record that is known to have been synced: ErrDamaged at Open. Read lists what can be
//     read. The rest can be drained by hand: first from a directory with the segments up to the damaged
//     one, which is cut at the byte that the error names, then from one with those behind it. In the last
//     write of a process that did not Close, a flip cannot be told from a torn write, and is cut off.
//   - A record cannot be read while draining: it stays, holds up its account, and is logged.
//   - The ledger refuses one account or shard for ever: its commands wait, and so does the deletion of
//     their segments and of all later ones; the commands of others are booked.
//   - An older release meets records of a newer one: ErrTooNew, and nothing is touched.
//   - The ledger has answered and the process dies before the segment is deleted: the command is handed
//     over again, and changes nothing. One that was refused is not kept or told twice.
//   - `refused` cannot be written: the command stays, and is handed over again.
//   - Somebody deletes a segment between others: ErrDamaged. The first or the last: not noticed.
//
// # How it is tested
//
// On files in memory that can fail at any call and lose power at any call, with every sector and every name
// that was not synced kept or lost by chance: after each failure, and in random histories of several
// lives, exactly what was acknowledged is there (disk_test.go, faults_test.go, power_test.go). The tail is
// torn at every byte, bits are flipped everywhere, hostile bytes are read (torn_test.go). On real files, a
// child process is killed amid concurrent Puts, again and again (kill_test.go). The codec, by random
// commands that must lead to the same events, byte for byte. Draining, on a clock of its own, by ledgers
// that fail, hang, and answer too late (drain_test.go); and by a real ledger in memory, whose books must
// be right to the digit after any number of repeats (ledger_test.go).
package journal
