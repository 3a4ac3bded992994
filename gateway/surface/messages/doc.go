// Package messages is Anthropic's Messages API as the gateway's own surface: what a request of it can cost,
// the request as a chat completion for providers that do not speak it, and their answers in its form.
//
// The problem: clients of this API (Anthropic's SDKs, Claude Code) shall reach every model. A request that
// goes to Anthropic itself passes as it came, and must be bounded all the same; one that goes elsewhere has
// to be told in OpenAI's words, and what comes back has to be exactly the blocks and events that the SDKs
// gather, whatever pieces the provider sends.
//
// Invariants:
//   - Pure: no I/O, no clock, no goroutines.
//   - Facts is strict about money and lenient about meaning. What may cost more than the body's own bytes
//     is counted, refused by name, or makes the input opaque; what is not known makes it opaque. Refused are
//     other models that Anthropic may ask by itself (fallbacks, advisors), other prices (speed, geography),
//     and tools of a kind that nobody here knows.
//   - Foreign carries what would change the answer, or refuses it by name. Dropped are hints: marks of how
//     to stream and to load tools, examples of their input, diagnostics, rules for clearing old tool results
//     and thinking from a context that is too long, what is only for Anthropic's caches and its accounting
//     (the line x-anthropic-billing-header with which Claude Code begins: it changes with every request,
//     and would spoil all caches), and thinking that is switched off, for which providers have no common word.
//   - A thought signature of Google's travels through the client as the signature of a thinking block
//     without text: "llm-gateway:google-thought-signature:call:" and the signature, just before the tool_use
//     that it belongs to; "...:message:" where it belongs to the text. Clients send thinking blocks back
//     as they are, and Foreign puts the signatures where they were. Reasoning that nobody signed is a
//     thinking block whose signature is empty. Anthropic would refuse both: its own side (package anthropic,
//     Own) takes them out.
//   - Blocks of a stream stand one after the other. Calls of tools that come interleaved wait for their turn.
//   - A Writer takes whatever chunks come, and what it writes is always a whole message.
//
// Tests: tables of requests and their facts and translations in testdata; recorded requests and answers
// there and back, whole and streamed; streams of any chunks against the rules that SDKs rely on; fuzzing.
package messages
