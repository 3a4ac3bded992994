// Package generate is the client's side of Google's Gemini API: what the meter must know of a request
// (Facts), the request as a chat completion for providers that do not speak this API (Foreign), and answers,
// streams and errors in Google's form.
//
// The problem: clients that were written for Google's models shall reach all models, and pay for what they
// use. Google's requests name every field in two spellings, bring files and server-side tools that cost what
// the body does not show, and know functions by their names where chat completions know calls by their ids.
//
// Invariants:
//   - Pure: functions of the request, and of the bytes that came back.
//   - Facts are lenient about meaning and strict about money. What could bring input that the body does not
//     show, and whatever is unknown, makes the input Opaque; a count that is none, a kind of output that
//     is unknown, a field in two spellings and a model beside that of the path are refused.
//   - Foreign refuses by name what it cannot carry. Dropped are safetySettings, which are Google's own
//     filters, labels and store, what functions are declared to return, and whether thoughts are shown.
//   - Calls have the same ids in every request of a conversation: their own, or by their position.
//   - Thinking that another provider signed leaves as thought parts and returns to that provider: its
//     signature is in their thoughtSignature (signature.go). Signatures of Google's stay where they are.
//   - A stream's events are whole responses. Calls come whole; finish reasons and usage come in the last
//     event alone, which goes out when the charge is durable. Every content has a part, because the
//     official clients take a turn with an empty one for failed and leave it out of their history.
//
// Tests: tables in testdata; the requests and answers of recorded traffic, there and back again; every
// answer taken in piece by piece; fuzzing of all that reads.
package generate
