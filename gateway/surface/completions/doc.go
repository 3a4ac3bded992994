// Package completions is OpenAI's older POST /v1/completions, on both of its sides: Facts, Foreign and Error
// for the clients that speak it, Own for the providers that do (OpenAI, and servers like vLLM).
//
// The problem: one request can ask for many completions. Each prompt of an array is completed by itself,
// `n` times, and `best_of` makes the provider write and bill more than it gives back. `echo` puts the
// prompt into the answer, where it looks like output and is none. And without `max_tokens` OpenAI stops
// after 16 tokens, while other servers fill the context window.
//
// Invariants:
//   - Pure, as package chat: functions of the request and of the bytes that came back.
//   - Choices is everything that may be written: prompts, times the greater of `n` and `best_of`.
//   - Every request has a maximum of output, for everybody the same: where the client names none it is
//     DefaultMaxTokens, and is written into what is sent.
//   - Own passes answers and events on byte for byte. Of requests it changes the model's name, a missing
//     max_tokens, and asks streams for their usage.
//   - An echoed prompt is not counted as output, where it is text.
//   - On the way to other providers there is one prompt, and it is a user's message. What chat completions
//     have no equal of is refused by name: several prompts, token ids, echo, suffix, best_of, logprobs.
//
// Tests: tables of requests, facts and translations; recorded traffic of OpenAI, whole and cut after
// every event; recorded chat completions by way of Foreign; fuzzing of both sides.
package completions
