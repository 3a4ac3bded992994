// Package chat is OpenAI's chat completion as the translators of other APIs see it: the request as
// values (Request), the answer as JSON (Completion, Chunk), and what is known of an answer (Report).
//
// The problem: applications speak one API, the providers speak three, and money and meaning must
// survive the way there and back. So every translator reads the same checked Request, writes the same
// answers, and reports usage in the same terms; what it cannot carry it refuses by name (Unsupported),
// before anything is reserved.
//
// Invariants:
//   - Pure: no I/O, no clock, no goroutines. A translator is a function of its request and of the bytes
//     that came back.
//   - What would change the answer is carried or refused, never dropped. What only nobody here knows is
//     refused by name.
//   - A usage is the provider's or nil: nothing here makes one up.
//   - What money depends on is read strictly, and in one place for all: requests by Strict, usages by Counts.
//   - What a client sends back to go on with a conversation (reasoning signatures, ids of tool calls,
//     cache marks) survives the round trip.
//
// Tests: tables of requests and their translations in testdata of each translator; real recorded traffic
// of the providers, whole, byte by byte and cut anywhere; fuzzing of Parse; every answer held against
// OpenAI's schema.
package chat
