// Package responses is OpenAI's Responses API, on both of its sides: Facts, Foreign and Error for the
// clients that speak it, Own for the provider that does.
//
// The problem: one request can ask its provider for more than one answer. It can run tools there that bill
// by the call, go on from conversations that only the provider knows, and let the model be asked again
// after each search. The body bounds none of that, and what is not bounded cannot be reserved. And most
// providers do not speak this API at all: its requests reach them as chat completions, and what comes
// back must look as if it had never been anything else.
//
// Invariants:
//   - Pure, as package chat: functions of the request and of the bytes that came back.
//   - What a request can cost is bounded, or refused by name: tools that bill by what no usage tells (code
//     interpreter, file search, image generation, MCP), answers that are fetched later (background).
//     Tools that ask the model again are bounded by max_tool_calls, which is put in where it is absent.
//   - Own passes answers and events on byte for byte. Of requests it changes the model's name, a missing
//     max_tool_calls, and takes out reasoning that was made here, which OpenAI could not read.
//   - What only OpenAI could carry is refused by name on the way to other providers. Dropped is what changes
//     no answer: storing, caching, obfuscation, OpenAI's own encrypted reasoning, what earlier searches were
//     called.
//   - Reasoning of other providers goes out as a reasoning item, its signatures in encrypted_content in the
//     form of carried: a client that sends its items back sends them back too.
//   - A stream is what the SDKs of OpenAI put together again: items one after another, but for function
//     calls, which are closed at the end. Signatures come last of all, so a stream has a second reasoning
//     item for them.
//
// Tests: tables of requests, facts and translations; recorded traffic of OpenAI whole, event by event and
// cut anywhere; recorded answers of Anthropic and Google by way of their translators, whole and streamed;
// fuzzing of both sides.
package responses
