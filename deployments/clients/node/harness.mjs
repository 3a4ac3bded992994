// What the scripts share: the surroundings, the provider behind each model, and the count of what was answered.

import assert from "node:assert/strict";

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

export const gateway = setting("GATEWAY_URL");
export const token = setting("TOKEN");
export const expired = setting("EXPIRED_TOKEN");

const models = JSON.parse(setting("MODELS"));

// A prompt may pick a recorded answer of the replaying provider: here a refusal, and a stream that takes its
// time. The latter's recorded input is long, and so is the prompt; the provider's log tells by its nonce that it
// was to be aborted.
const slow = (recording) => `${"word ".repeat(1500)}cas:${recording};d=250;n=abort`;
const prompts = {
  openai: { fault: "cas:oa-chat-basic-1;fault=429", slow: slow("oas-chat-usage-1") },
  anthropic: { fault: "cas:an-basic-2;fault=429", slow: slow("ans-cache") },
  gemini: { fault: "cas:ge-basic-1;fault=429", slow: slow("ges-image") },
};

export const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

// weather is the tool that the models are offered.
export const weather = {
  name: "get_weather",
  description: "The weather in a city.",
  schema: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

let answered = 0;

// Counting a token costs nothing and is no call of a model; a stream counts as soon as it begins.
const called = /\/(chat\/completions|completions|embeddings|responses|messages)$|:(generateContent|streamGenerateContent|embedContent|batchEmbedContents)$/;

// counted is fetch, as the clients are given it.
export async function counted(url, init) {
  const response = await fetch(url, init);
  const path = new URL(url instanceof Request ? url.url : url).pathname;
  if (response.ok && called.test(path)) answered++;
  return response;
}

// refused runs what must fail with an error of a class, and returns the error.
export async function refused(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.ok(error instanceof kind, `${error.constructor.name} instead of ${kind.name}: ${error.message}`);
    return error;
  }
  assert.fail(`an answer instead of ${kind.name}`);
}

// run goes through a table of scenarios with the model of each provider. A scenario that names its providers
// is for those only.
export async function run(client, scenarios) {
  for (const [provider, model] of Object.entries(models)) {
    for (const [name, scenario] of Object.entries(scenarios)) {
      if (scenario.providers && !scenario.providers.includes(provider)) continue;
      try {
        await (scenario.play ?? scenario)({ provider, model, ...prompts[provider] });
      } catch (error) {
        console.error(`failed ${client} ${provider} ${name}:`, error);
        process.exit(1);
      }
      console.log(`ok ${client} ${provider} ${name}`);
    }
  }
  console.log(`calls ${answered}`);
}
