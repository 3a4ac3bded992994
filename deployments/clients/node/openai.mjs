// OpenAI's client for Node with the models of all providers.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { counted, expired, gateway, pixel, refused, run, token, weather } from "./harness.mjs";

const connect = (apiKey) => new OpenAI({ baseURL: `${gateway}/v1`, apiKey, maxRetries: 0, fetch: counted });
const client = connect(token);
const user = (content) => [{ role: "user", content }];
const tools = [{ type: "function", function: { name: weather.name, description: weather.description, parameters: weather.schema } }];
const City = z.object({ city: z.string(), population: z.number() });

async function text({ model }) {
  const answer = await client.chat.completions.create({ model, messages: user("Say hello to Ada") });
  assert.equal(answer.object, "chat.completion");
  assert.match(answer.choices[0].message.content, /hello to Ada/);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.ok(answer.usage.prompt_tokens > 0 && answer.usage.completion_tokens > 0);
  assert.ok(answer._request_id);
}

async function stream({ model }) {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({
    model, messages: user("Say hello to Ada"), stream: true, stream_options: { include_usage: true } })) chunks.push(chunk);
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.match(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), /hello to Ada/);
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
  assert.deepEqual(chunks.at(-1).choices, []);
}

async function accumulated({ model }) {
  const running = client.chat.completions.stream({ model, messages: user("Say hello to Ada") });
  let deltas = "";
  running.on("content", (delta) => (deltas += delta));
  const answer = await running.finalChatCompletion();
  assert.match(deltas, /hello to Ada/);
  assert.equal(answer.choices[0].message.content, deltas);
  assert.equal(answer.choices[0].finish_reason, "stop");
}

async function toolCalls({ model }) {
  const messages = user("What is the weather in 'Oslo'?");
  const first = await client.chat.completions.create({ model, messages, tools });
  assert.equal(first.choices[0].finish_reason, "tool_calls");
  const call = first.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, weather.name);
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
  messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "sunny, 21 degrees" });
  const second = await client.chat.completions.create({ model, messages, tools });
  assert.match(second.choices[0].message.content, /sunny, 21 degrees/);
}

async function toolRunner({ model }) {
  const asked = [];
  const look = (args) => {
    asked.push(args);
    return "sunny, 21 degrees";
  };
  const runner = client.chat.completions.runTools({ model, stream: true, messages: user("What is the weather in 'Oslo'?"),
    tools: [{ type: "function", function: { ...tools[0].function, function: look, parse: JSON.parse } }] });
  assert.match(await runner.finalContent(), /sunny, 21 degrees/);
  assert.deepEqual(asked, [{ city: "Oslo" }]);
}

async function structured({ model }) {
  const answer = await client.chat.completions.parse({ model, messages: user("How many live in 'Oslo'? 700000"),
    response_format: zodResponseFormat(City, "city") });
  assert.deepEqual(answer.choices[0].message.parsed, { city: "Oslo", population: 700000 });
}

async function image({ model }) {
  const answer = await client.chat.completions.create({ model, messages: user([
    { type: "text", text: "Describe the pixel" },
    { type: "image_url", image_url: { url: `data:image/png;base64,${pixel}` } }]) });
  assert.match(answer.choices[0].message.content, /Describe the pixel/);
}

// response is Responses; OpenAI's own answers are recorded ones.
async function response({ model, provider }) {
  const marker = provider === "openai" ? "cas:flow-oaresp-tool " : "";
  const offered = [{ type: "function", name: weather.name, description: weather.description, parameters: weather.schema, strict: true }];
  const input = user(`${marker}What is the weather in 'Oslo'?`);
  const first = await client.responses.create({ model, input, tools: offered });
  const call = first.output.find((item) => item.type === "function_call");
  assert.ok(JSON.parse(call.arguments));
  assert.equal(first.status, "completed");
  assert.ok(first.usage.total_tokens > 0);
  input.push(...first.output, { type: "function_call_output", call_id: call.call_id, output: "sunny, 40 degrees" });
  const second = await client.responses.create({ model, input, tools: offered });
  assert.match(second.output_text, /40/);
}

async function responseStream({ model, provider }) {
  const input = provider === "openai" ? "cas:oas-resp-2" : "Say nine to Ada";
  const running = client.responses.stream({ model, input });
  let deltas = "";
  let completed = 0;
  for await (const event of running) {
    if (event.type === "response.output_text.delta") deltas += event.delta;
    if (event.type === "response.completed") completed++;
  }
  const final = await running.finalResponse();
  assert.match(final.output_text, /nine/);
  assert.equal(final.output_text, deltas);
  assert.equal(completed, 1);
}

async function responseStructured({ model }) {
  const answer = await client.responses.parse({ model, input: "How many live in 'Oslo'? 700000",
    text: { format: zodTextFormat(City, "city") } });
  assert.deepEqual(answer.output_parsed, { city: "Oslo", population: 700000 });
}

// The client asks for base64 by itself, and decodes it.
async function embeddings({ provider }) {
  const asked = { openai: ["text-embedding-3-small", "cas:oa-emb-3"], gemini: ["gemini-embedding-001", "cas:ge-emb"] }[provider];
  const answer = await client.embeddings.create({ model: asked[0], input: asked[1] });
  const vector = answer.data[0].embedding;
  assert.ok(Array.isArray(vector) && vector.length > 100, `${typeof vector} of ${vector.length}`);
  assert.ok(vector.every((x) => Math.abs(x) <= 1) && vector.some((x) => x !== 0));
}

async function modelList({ model }) {
  const ids = [];
  for await (const listed of client.models.list()) ids.push(listed.id);
  assert.ok(ids.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
}

async function error({ model, fault }) {
  const ask = (model, content) => client.chat.completions.create({ model, messages: user(content) });
  const unknown = await refused(OpenAI.NotFoundError, () => ask("no-such-model", "hi"));
  assert.equal(unknown.code, "model_not_found");
  assert.ok(unknown.requestID);
  await refused(OpenAI.RateLimitError, () => ask(model, fault));
  await refused(OpenAI.NotFoundError, () => client.models.retrieve("no-such-model"));
}

async function abort({ model, slow }) {
  const controller = new AbortController();
  const stream = await client.chat.completions.create({ model, messages: user(slow), stream: true }, { signal: controller.signal });
  let read = 0;
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.content) read++;
    if (read === 1) controller.abort();
  }
  assert.equal(read, 1);
}

async function refresh({ model }) {
  const ask = (key) => connect(key).chat.completions.create({ model, messages: user("Say hello to Ada") });
  const late = await refused(OpenAI.AuthenticationError, () => ask(expired));
  assert.equal(late.code, "token_expired");
  // A key may be a function, which is asked before each request.
  const fresh = await ask(async () => token);
  assert.match(fresh.choices[0].message.content, /hello to Ada/);
}

await run("openai-node", {
  text, stream, accumulated, tools: toolCalls, "tool runner": toolRunner, structured, image,
  responses: response, "responses stream": responseStream,
  "responses structured": { providers: ["anthropic", "gemini"], play: responseStructured },
  embeddings: { providers: ["openai", "gemini"], play: embeddings },
  models: modelList, error, abort, refresh,
});
