package chatschema

// Place is one field of one object of the description, by their names in openai.json.
type Place struct{ Object, Field, Why string }

// Nulls are all the places where a null may stand.
var Nulls = []Place{
	// The description says so.
	{"message", "content", "there is none beside tool calls or a refusal"},
	{"message", "refusal", "the model did not refuse"},
	{"choice", "logprobs", "they were not asked for"},
	{"logprobs", "content", "they are of the refusal"},
	{"logprobs", "refusal", "they are of the content"},
	{"token_logprob", "bytes", "the token stands for no bytes"},
	{"top_logprob", "bytes", "the token stands for no bytes"},
	{"completion", "service_tier", "the answer does not say which"},
	{"chunk", "service_tier", "the answer does not say which"},
	{"chunk_choice", "finish_reason", "the choice goes on"},
	{"chunk_choice", "logprobs", "they were not asked for"},
	{"delta", "content", "the first delta of tool calls has it"},
	{"delta", "refusal", "the first delta of an answer has it"},
	{"chunk", "usage", "in words: null in every chunk but the last, once a usage was asked for"},
	{"error", "param", "no field of the request is to blame"},
	{"error", "code", "the error has none"},
	// OpenAI sends it, and the description has no null there.
	{"completion", "system_fingerprint", "reasoning models have none"},
	{"chunk", "system_fingerprint", "reasoning models have none"},
}

// Omissions are required fields that OpenAI leaves out. What this product makes has them.
var Omissions = []Place{
	{"choice", "logprobs", "reasoning models and searches leave it out instead of a null"},
}
