// Google's client for Node with the models of all providers.

import assert from "node:assert/strict";
import { ApiError, GoogleGenAI } from "@google/genai";
import { counted, expired, gateway, pixel, refused, run, token, weather } from "./harness.mjs";

// One attempt: the client repeats what is refused for a while otherwise.
const connect = (apiKey) => new GoogleGenAI({ apiKey,
  httpOptions: { baseUrl: gateway, fetch: counted, retryOptions: { attempts: 1 } } });
const client = connect(token);
const tools = [{ functionDeclarations: [{ name: weather.name, description: weather.description, parametersJsonSchema: weather.schema }] }];

async function text({ model }) {
  const answer = await client.models.generateContent({ model, contents: "Say hello to Ada", config: { systemInstruction: "Be brief." } });
  assert.match(answer.text, /hello to Ada/);
  assert.equal(answer.candidates[0].finishReason, "STOP");
  assert.ok(answer.usageMetadata.promptTokenCount > 0 && answer.usageMetadata.totalTokenCount > answer.usageMetadata.promptTokenCount);
}

async function stream({ model }) {
  const chunks = [];
  for await (const chunk of await client.models.generateContentStream({ model, contents: "Say hello to Ada" })) chunks.push(chunk);
  assert.match(chunks.map((chunk) => chunk.text ?? "").join(""), /hello to Ada/);
  assert.equal(chunks.at(-1).candidates[0].finishReason, "STOP");
  assert.ok(chunks.at(-1).usageMetadata.totalTokenCount > 0);
}

async function chat({ model }) {
  const talk = client.chats.create({ model });
  assert.match((await talk.sendMessage({ message: "Say hello to Ada" })).text, /hello to Ada/);
  let second = "";
  for await (const chunk of await talk.sendMessageStream({ message: "And to Grace" })) second += chunk.text ?? "";
  assert.match(second, /to Grace/);
  assert.ok(talk.getHistory().length >= 4); // each chunk of a streamed answer is one
}

async function toolCalls({ model }) {
  const contents = [{ role: "user", parts: [{ text: "What is the weather in 'Oslo'?" }] }];
  const first = await client.models.generateContent({ model, contents, config: { tools } });
  const call = first.functionCalls[0];
  assert.equal(call.name, weather.name);
  assert.deepEqual(call.args, { city: "Oslo" });
  contents.push(first.candidates[0].content,
    { role: "user", parts: [{ functionResponse: { id: call.id, name: call.name, response: { output: "sunny, 21 degrees" } } }] });
  const second = await client.models.generateContent({ model, contents, config: { tools } });
  assert.match(second.text, /sunny, 21 degrees/);
}

async function structured({ model }) {
  const schema = { type: "object", properties: { city: { type: "string" }, population: { type: "number" } }, required: ["city", "population"], additionalProperties: false };
  const answer = await client.models.generateContent({ model, contents: "How many live in 'Oslo'? 700000",
    config: { responseMimeType: "application/json", responseJsonSchema: schema } });
  assert.deepEqual(JSON.parse(answer.text), { city: "Oslo", population: 700000 });
}

async function image({ model }) {
  const parts = [{ inlineData: { mimeType: "image/png", data: pixel } }, { text: "Describe the pixel" }];
  const answer = await client.models.generateContent({ model, contents: [{ role: "user", parts }] });
  assert.match(answer.text, /Describe the pixel/);
}

async function embeddings({ provider }) {
  const asked = { openai: ["text-embedding-3-small", "cas:oa-emb-3"], gemini: ["gemini-embedding-001", "cas:ge-emb"] }[provider];
  const answer = await client.models.embedContent({ model: asked[0], contents: asked[1] });
  assert.ok(answer.embeddings[0].values.length > 100);
}

// Of Google's own count there is no recorded answer.
async function countTokens({ model }) {
  const { totalTokens } = await client.models.countTokens({ model, contents: "Say hello to Ada" });
  assert.ok(totalTokens > 0);
}

async function modelList({ model }) {
  const names = [];
  for await (const listed of await client.models.list()) names.push(listed.name);
  assert.ok(names.includes(`models/${model}`));
  assert.equal((await client.models.get({ model })).name, `models/${model}`);
}

async function error({ model, fault }) {
  const ask = (model, contents) => client.models.generateContent({ model, contents });
  assert.equal((await refused(ApiError, () => ask("no-such-model", "hi"))).status, 404);
  assert.equal((await refused(ApiError, () => ask(model, fault))).status, 429);
}

async function abort({ model, slow }) {
  const controller = new AbortController();
  const stream = await client.models.generateContentStream({ model, contents: slow, config: { abortSignal: controller.signal } });
  let read = 0;
  await refused(Error, async () => {
    for await (const chunk of stream) {
      if (chunk.text && ++read === 1) controller.abort();
    }
  });
  assert.equal(read, 1);
}

async function refresh({ model }) {
  const ask = (key) => connect(key).models.generateContent({ model, contents: "Say hello to Ada" });
  assert.equal((await refused(ApiError, () => ask(expired))).status, 401);
  assert.match((await ask(token)).text, /hello to Ada/);
}

await run("google-node", {
  text, stream, chat, tools: toolCalls, structured, image,
  embeddings: { providers: ["openai", "gemini"], play: embeddings },
  "count tokens": { providers: ["openai", "anthropic"], play: countTokens }, models: modelList, error, abort, refresh,
});
