// Package chatschema holds answers of chat completions against OpenAI's published description. Only
// tests import it.
//
// The problem: clients are written against that description, and each of them trips over something
// else: a missing field, a null, a tool call's delta without its index. Tests that look at what they
// thought of find none of it, so every answer that this product makes, and every one that it passes
// on, goes through one schema.
//
// What is in it:
//   - openai.json: the facts of OpenAI's OpenAPI description in JSON Schema, without any null: fields,
//     which of them must be there, types, closed lists.
//   - Nulls: each place where a null may stand, and why. There is no other.
//   - Omissions: each required field that OpenAI itself leaves out, accepted from upstreams alone.
//   - extensions.json: each field that this product adds to the description.
//
// Two modes. Completion, Chunk and Stream are for what is passed through: a field that is nowhere
// described is the upstream's own affair. StrictCompletion, StrictChunk and StrictStream are for what
// this product makes: there a field is described, or an extension with a name, or a mistake.
//
// Tests: every field of a full answer and a full chunk is taken away, made null and given another type
// in turn; a table of single mistakes; a table of broken streams; the encoded values of package chat;
// and all recorded answers of OpenAI and Azure, where those that break a rule are listed with why.
package chatschema
