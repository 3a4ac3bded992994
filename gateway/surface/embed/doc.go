// Package embed translates embeddings between OpenAI's API and Google's, in both directions: requests of
// either for the other's models, and the answers back.
//
// The problem: OpenAI takes a text or a list of them, and counts; Google takes contents of parts, one to a
// request and many to a batch, and older models of its do not count. Clients of OpenAI's ask for vectors in
// base64 without their user's knowledge.
//
// Invariants:
//   - Pure. Numbers of a vector go through as they were written, unless base64 is asked for: then they are
//     float32, little-endian, as OpenAI has them.
//   - Vectors come back in the order of the texts.
//   - What the other API has no equal of is refused by name: lists of tokens, images, sizes that differ
//     within a batch. Dropped are user, and taskType, title and autoTruncate, which tune Google's own models
//     and mean nothing to others.
//   - Usage is the provider's, or what the caller counted: none is made up here.
//
// Tests: tables, a recorded answer, base64 there and back against the numbers, and fuzzing.
package embed
