// Package gemini translates between OpenAI's chat completions and Google's generateContent (Gemini
// API, v1beta): a request that package chat has parsed becomes Google's, and Google's answers, whole or
// streamed, become OpenAI's.
//
// The problem: the two APIs agree on little. Google names the function where OpenAI names the call,
// reports thinking beside the output and not in it, says STOP where a client waits for tool_calls,
// repeats the whole response in every event of a stream and sends no [DONE]. And since Gemini 3 a
// conversation with tools only goes on if the signatures of its thoughts come back where they were.
//
// Invariants:
//   - Pure, as package chat wants it. The same request gives the same bytes, the same answer the same ids.
//   - What Google has no equal of is refused by name. Dropped is only what changes no answer: who asks,
//     caching marks, the service tier that was asked for, a participant's `name`, and the hint `detail`
//     of an image, which Google decides by the image itself. parallel_tool_calls of false is taken only where
//     tool_choice demands one function.
//   - Once tokens may have been bought nothing that is merely unknown is an error: unknown finish
//     reasons are stop, unknown parts and fields are passed over.
//   - A stream is complete when every candidate that was seen has a finish reason, or the prompt was
//     blocked. Until then its report is partial.
//   - A signature (thoughtSignature) leaves as extra_content.google.thought_signature of the call or
//     message it came with and returns to the same place.
//
// Tests: tables of requests and what they become, and of refusals, in testdata; every recorded answer of
// Google's, whole, streamed and cut after every event; a conversation sent back; partial arguments,
// citations and usage in tables; fuzzing of Translate and of the stream's reader.
package gemini
