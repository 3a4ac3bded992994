// Package anthropic translates chat completions into Anthropic's Messages API, and its answers back.
//
// The problem: the two APIs differ in more than names. Anthropic has no system role, wants every result
// of a round of tools in one message, demands a maximum of output and a signature on reasoning that is
// sent back, counts cached tokens beside the input instead of in it, and tells usage twice in a stream.
//
// Invariants:
//   - Pure, as everything in package chat: a function of the request, the target and the bytes.
//   - What Anthropic has no equal of, and what would change the answer, is refused by name. Dropped is
//     what changes no answer, what is neutral (n of 1, penalties of 0, temperature or top_p of 1), and
//     what is only a hint: a participant's name, the detail of an image, the size of a search's context,
//     strict on models that do not know it. What only some models take, as temperature, is theirs to
//     refuse: the provider's own words are clearer than a list that ages.
//   - An answer in a JSON schema comes from output_config.format, or, from models before that, from a
//     forced tool whose input then is the content.
//   - Thinking is asked for by reasoning_effort or `thinking`; it is left off where it could only fail:
//     no room under max_tokens, or a round of tools whose thinking the client did not send back.
//   - Thinking blocks and citations of a stream come whole, in one chunk just before the last:
//     official clients join lists of objects only by an index.
//   - A message_start in the middle of a stream begins the answer again. Calls that the client has
//     already seen must come again as they were: then they go on where they stopped. Otherwise the stream
//     fails, because nothing can take back a call that somebody may run.
//   - A stream ends with message_stop. Without it, it was cut.
//   - Usage is Anthropic's or nil. The client's usage object is the answer's headline; Report.Usage is what
//     all iterations came to, which is more where several models served.
//
// Tests: testdata/requests.txt and refusals.txt hold requests and what becomes of them; recorded answers
// are read whole, event by event, and cut anywhere; fuzzing of requests and of events.
package anthropic
