// Package embeddings is OpenAI's POST /v1/embeddings: Facts and Error for the clients that speak it, Own for
// the providers that do, and Inputs for those that take texts only.
//
// The problem: an embedding is bought with its input alone, so all that is charged is what the request holds,
// in any of four forms: a text, a list of texts, the ids of tokens, or a list of such.
//
// Invariants:
//   - Pure, as package chat: functions of the request and of the bytes that came back.
//   - There is no output: NoOutput, and a usage of input only.
//   - InputBytes bounds the tokens of all inputs together. Inputs of other forms (images and whatever a
//     server takes as an object) are Opaque.
//   - Own passes answers on byte for byte, in the encoding that was asked for; of requests it changes the
//     model's name.
//   - There are no streams.
//
// Tests: tables of requests, facts and refusals; OpenAI's recorded answers; fuzzing.
package embeddings
