"""OpenAI's own client, against the gateway, for the models of all providers."""
import json

import openai
from pydantic import BaseModel

from scenarios import EXPIRED, FORECAST, GATEWAY, LIMITED, MODELS, PIXEL, PROMPT, TOKEN, UNKNOWN_MODEL, WEATHER, check, named, refused, run, slow

NAME = "openai-python"
TOOL = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
}


class City(BaseModel):
    name: str
    inhabitants: int


def connect(key=TOKEN):
    return openai.OpenAI(base_url=GATEWAY + "/v1", api_key=key, max_retries=0)


client = connect()


def user(text):
    return [{"role": "user", "content": text}]


def text(provider, model):
    answer = client.chat.completions.create(model=model, messages=user(PROMPT))
    check(PROMPT in answer.choices[0].message.content, answer)
    check(answer.choices[0].finish_reason == "stop" and answer.model in named(provider, model), answer)
    check(answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0, answer)
    check(answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer)
    check(answer._request_id, answer)
    return 1


def stream(provider, model):
    whole = client.chat.completions.create(model=model, messages=user(PROMPT)).choices[0].message.content
    chunks = list(client.chat.completions.create(model=model, messages=user(PROMPT), stream=True))
    check("".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole, chunks)
    check(all(c.usage is None for c in chunks), chunks)
    with client.chat.completions.stream(model=model, messages=user(PROMPT), stream_options={"include_usage": True}) as events:
        answer = events.get_final_completion()
    check(answer.choices[0].message.content == whole and answer.usage.completion_tokens > 0, answer)
    return 3


def tools(provider, model):
    messages, tool = user(WEATHER), {"type": "function", "function": TOOL}
    asked = client.chat.completions.create(model=model, messages=messages, tools=[tool])
    call = asked.choices[0].message.tool_calls[0]
    check(asked.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather", asked)
    check(json.loads(call.function.arguments) == {"city": "Lisbon"}, asked)
    with client.chat.completions.stream(model=model, messages=messages, tools=[tool]) as events:
        streamed = events.get_final_completion().choices[0].message.tool_calls[0]
    check(json.loads(streamed.function.arguments) == {"city": "Lisbon"}, streamed)
    messages += [asked.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": FORECAST}]
    answer = client.chat.completions.create(model=model, messages=messages, tools=[tool])
    check(FORECAST in answer.choices[0].message.content, answer)
    return 3


def structured(provider, model):
    answer = client.chat.completions.parse(model=model, messages=user('"Lisbon" has 545000 inhabitants.'), response_format=City)
    check(answer.choices[0].message.parsed == City(name="Lisbon", inhabitants=545000), answer)
    return 1


def image(provider, model):
    parts = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}]
    answer = client.chat.completions.create(model=model, messages=user(parts))
    check(PROMPT in answer.choices[0].message.content, answer)
    return 1


def error(provider, model):
    e = refused(openai.NotFoundError, lambda: client.chat.completions.create(model=UNKNOWN_MODEL, messages=user(PROMPT)))
    check(e.code == "model_not_found" and e.request_id, e)
    e = refused(openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=[]))
    check(e.type == "invalid_request_error", e)
    e = refused(openai.RateLimitError, lambda: client.chat.completions.create(model=model, messages=user(LIMITED)))
    check(e.response.headers["retry-after"] == "1", e.response.headers)
    refused(openai.RateLimitError, lambda: client.chat.completions.create(model=model, messages=user(LIMITED), stream=True))
    return 0


def abort(provider, model):
    chunks = client.chat.completions.create(model=model, messages=user(slow(provider, NAME)), stream=True)
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    chunks.close()
    return 1


def refresh(provider, model):
    refused(openai.AuthenticationError, lambda: connect(EXPIRED).chat.completions.create(model=model, messages=user(PROMPT)))
    keys = iter([EXPIRED, TOKEN])
    renewing = connect(lambda: next(keys))
    refused(openai.AuthenticationError, lambda: renewing.chat.completions.create(model=model, messages=user(PROMPT)))
    answer = renewing.chat.completions.create(model=model, messages=user(PROMPT))
    check(PROMPT in answer.choices[0].message.content, answer)
    return 1


def responses(provider, model):
    """OpenAI's own models are asked by their own API, which the stand-in knows only from recordings."""
    own = provider == "openai"
    answer = client.responses.create(model=model, input="cas:oa-resp-tool" + " word" * 400 if own else PROMPT)
    check(answer.status == "completed" and answer.usage.output_tokens > 0, answer)
    check(any(item.type == "function_call" for item in answer.output) if own else PROMPT in answer.output_text, answer)
    with client.responses.stream(model=model, input="cas:oas-resp-2" if own else PROMPT) as events:
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        final = events.get_final_response()
    check(deltas and final.output_text == deltas and final.usage.output_tokens > 0, final)
    if own:
        return 2
    tool = {"type": "function", "strict": True, **TOOL}
    asked = client.responses.create(model=model, input=WEATHER, tools=[tool])
    call = asked.output[-1]
    check(call.type == "function_call" and json.loads(call.arguments) == {"city": "Lisbon"}, asked)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": FORECAST}
    answer = client.responses.create(model=model, input=[{"role": "user", "content": WEATHER}, *asked.output, result], tools=[tool])
    check(FORECAST in answer.output_text, answer)
    parsed = client.responses.parse(model=model, input='"Lisbon" has 545000 inhabitants.', text_format=City)
    check(parsed.output_parsed == City(name="Lisbon", inhabitants=545000), parsed)
    return 5


def completions(provider, model):
    if provider == "openai":
        answer = client.completions.create(model="babbage-002", prompt="cas:oa-cmpl" + " word" * 100, max_tokens=100)
        check(answer.choices[0].text and answer.usage.completion_tokens == 57, answer)
        return 1
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=100)
    check(PROMPT in answer.choices[0].text and answer.usage.completion_tokens > 0, answer)
    chunks = client.completions.create(model=model, prompt=PROMPT, max_tokens=100, stream=True)
    check("".join(c.choices[0].text for c in chunks if c.choices) == answer.choices[0].text, answer)
    return 2


def embeddings():
    """The client asks for base64 by itself, and for floats where it is told to; both are the same numbers."""
    asked = {"model": "text-embedding-3-small", "input": "cas:oa-emb-2 and some words more"}
    encoded, floats = client.embeddings.create(**asked), client.embeddings.create(**asked, encoding_format="float")
    check(len(floats.data[0].embedding) > 100 and encoded.usage.prompt_tokens > 0, floats)
    check(all(abs(a - b) < 1e-6 for a, b in zip(encoded.data[0].embedding, floats.data[0].embedding, strict=True)), floats)
    return 2


def models():
    listed = {m.id for m in client.models.list()}
    check(listed >= set(MODELS.values()), listed)
    for model in MODELS.values():
        check(client.models.retrieve(model).id == model, model)
    refused(openai.NotFoundError, lambda: client.models.retrieve(UNKNOWN_MODEL))
    return 0


run(NAME, [text, stream, tools, structured, image, error, abort, refresh, responses, completions], [embeddings, models])
