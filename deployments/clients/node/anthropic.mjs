// Anthropic's client for Node with the models of all providers.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { counted, expired, gateway, pixel, refused, run, token, weather } from "./harness.mjs";

const connect = (apiKey) => new Anthropic({ baseURL: gateway, apiKey, maxRetries: 0, fetch: counted });
const client = connect(token);
const user = (content) => [{ role: "user", content }];
const tools = [{ name: weather.name, description: weather.description, input_schema: weather.schema }];
const City = z.object({ city: z.string(), population: z.number() });
const max_tokens = 500;

const textOf = (message) => message.content.filter((block) => block.type === "text").map((block) => block.text).join("");

async function text({ model }) {
  const message = await client.messages.create({ model, max_tokens, system: "Be brief.", messages: user("Say hello to Ada") });
  assert.equal(message.type, "message");
  assert.equal(message.role, "assistant");
  assert.match(textOf(message), /hello to Ada/);
  assert.equal(message.stop_reason, "end_turn");
  assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
  assert.ok(message._request_id);
}

async function stream({ model }) {
  const events = [];
  for await (const event of await client.messages.create({ model, max_tokens, messages: user("Say hello to Ada"), stream: true })) events.push(event);
  assert.equal(events[0].type, "message_start");
  assert.equal(events.at(-1).type, "message_stop");
  const deltas = events.filter((event) => event.type === "content_block_delta").map((event) => event.delta.text);
  assert.match(deltas.join(""), /hello to Ada/);
  const ends = events.filter((event) => event.type === "message_delta");
  assert.equal(ends.at(-1).delta.stop_reason, "end_turn");
  assert.ok(ends.at(-1).usage.output_tokens > 0);
}

async function accumulated({ model }) {
  const running = client.messages.stream({ model, max_tokens, messages: user("Say hello to Ada") });
  let deltas = "";
  running.on("text", (delta) => (deltas += delta));
  const message = await running.finalMessage();
  assert.match(deltas, /hello to Ada/);
  assert.equal(textOf(message), deltas);
  assert.equal(message.stop_reason, "end_turn");
  assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
}

async function toolCalls({ model }) {
  const messages = user("What is the weather in 'Oslo'?");
  const first = await client.messages.create({ model, max_tokens, messages, tools });
  assert.equal(first.stop_reason, "tool_use");
  const call = first.content.find((block) => block.type === "tool_use");
  assert.equal(call.name, weather.name);
  assert.deepEqual(call.input, { city: "Oslo" });
  messages.push({ role: "assistant", content: first.content },
    ...user([{ type: "tool_result", tool_use_id: call.id, content: "sunny, 21 degrees" }]));
  const second = await client.messages.create({ model, max_tokens, messages, tools });
  assert.match(textOf(second), /sunny, 21 degrees/);
}

async function toolStream({ model }) {
  const running = client.messages.stream({ model, max_tokens, messages: user("What is the weather in 'Oslo'?"), tools });
  let json = "";
  running.on("inputJson", (delta) => (json += delta));
  const message = await running.finalMessage();
  assert.equal(message.stop_reason, "tool_use");
  assert.deepEqual(message.content.find((block) => block.type === "tool_use").input, { city: "Oslo" });
  assert.deepEqual(JSON.parse(json), { city: "Oslo" });
}

async function toolRunner({ model }) {
  const asked = [];
  const look = (input) => {
    asked.push(input);
    return "sunny, 21 degrees";
  };
  const message = await client.beta.messages.toolRunner({ model, max_tokens, stream: true, messages: user("What is the weather in 'Oslo'?"),
    tools: [betaTool({ name: weather.name, description: weather.description, inputSchema: weather.schema, run: look })] });
  assert.match(textOf(message), /sunny, 21 degrees/);
  assert.deepEqual(asked, [{ city: "Oslo" }]);
}

async function structured({ model }) {
  const message = await client.messages.parse({ model, max_tokens, messages: user("How many live in 'Oslo'? 700000"),
    output_config: { format: zodOutputFormat(City) } });
  assert.deepEqual(message.parsed_output, { city: "Oslo", population: 700000 });
}

async function image({ model }) {
  const message = await client.messages.create({ model, max_tokens, messages: user([
    { type: "image", source: { type: "base64", media_type: "image/png", data: pixel } },
    { type: "text", text: "Describe the pixel" }]) });
  assert.match(textOf(message), /Describe the pixel/);
}

// Of Anthropic's own count there is no recorded answer.
async function countTokens({ model }) {
  const few = await client.messages.countTokens({ model, messages: user("Say hello to Ada") });
  const many = await client.messages.countTokens({ model, messages: user("Say hello to Ada. ".repeat(50)) });
  assert.ok(few.input_tokens > 0 && many.input_tokens > few.input_tokens + 100);
}

async function modelList({ model }) {
  const ids = [];
  for await (const listed of client.models.list()) ids.push(listed.id);
  assert.ok(ids.includes(model));
  const found = await client.models.retrieve(model);
  assert.equal(found.id, model);
  assert.equal(found.type, "model");
}

async function error({ model, fault }) {
  const ask = (model, content) => client.messages.create({ model, max_tokens, messages: user(content) });
  const unknown = await refused(Anthropic.NotFoundError, () => ask("no-such-model", "hi"));
  assert.equal(unknown.error.type, "error");
  assert.equal(unknown.error.error.type, "not_found_error");
  assert.ok(unknown.requestID);
  const limited = await refused(Anthropic.RateLimitError, () => ask(model, fault));
  assert.equal(limited.error.error.type, "rate_limit_error");
  await refused(Anthropic.NotFoundError, () => client.models.retrieve("no-such-model"));
  await refused(Anthropic.BadRequestError, () => client.messages.create({ model, max_tokens: -1, messages: user("hi") }));
}

async function abort({ model, slow }) {
  const controller = new AbortController();
  const running = client.messages.stream({ model, max_tokens, messages: user(slow) }, { signal: controller.signal });
  let read = 0;
  running.on("text", () => {
    if (++read === 1) controller.abort();
  });
  await refused(Anthropic.APIUserAbortError, () => running.finalMessage());
  assert.equal(read, 1);
}

async function refresh({ model }) {
  const ask = (with_) => with_.messages.create({ model, max_tokens, messages: user("Say hello to Ada") });
  const late = await refused(Anthropic.AuthenticationError, () => ask(connect(expired)));
  assert.equal(late.error.error.type, "authentication_error");
  // A key may be a function, which is asked before each request; a token goes as a bearer's.
  assert.match(textOf(await ask(connect(async () => token))), /hello to Ada/);
  assert.match(textOf(await ask(new Anthropic({ baseURL: gateway, apiKey: null, authToken: token, maxRetries: 0, fetch: counted }))), /hello to Ada/);
}

await run("anthropic-node", {
  text, stream, accumulated, tools: toolCalls, "tool stream": toolStream, "tool runner": toolRunner, structured, image,
  "count tokens": { providers: ["openai", "gemini"], play: countTokens }, models: modelList, error, abort, refresh,
});
