"""Anthropic's own client, against the gateway, for the models of all providers."""
import anthropic
from anthropic.lib.credentials import AccessToken
from pydantic import BaseModel

from scenarios import (
    EXPIRED, FORECAST, GATEWAY, LIMITED, MODELS, PIXEL, PROMPT, TOKEN, UNKNOWN_MODEL, WEATHER, check, named, refused, run, slow,
)

NAME = "anthropic-python"
TOOL = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class City(BaseModel):
    name: str
    inhabitants: int


def connect(key=TOKEN):
    return anthropic.Anthropic(base_url=GATEWAY, api_key=key, max_retries=0)


client = connect()


def user(content):
    return {"max_tokens": 300, "messages": [{"role": "user", "content": content}]}


def text(provider, model):
    answer = client.messages.create(model=model, system="Be brief.", **user(PROMPT))
    check(PROMPT in answer.content[0].text and answer.stop_reason == "end_turn", answer)
    check(answer.type == "message" and answer.role == "assistant" and answer.model in named(provider, model), answer)
    check(answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0 and answer._request_id, answer)
    return 1


def stream(provider, model):
    whole = client.messages.create(model=model, **user(PROMPT))
    with client.messages.stream(model=model, **user(PROMPT)) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    check(text == whole.content[0].text == final.content[0].text, final)
    check(final.stop_reason == "end_turn" and final.usage.output_tokens == whole.usage.output_tokens, final)
    kinds = [event.type for event in client.messages.create(model=model, stream=True, **user(PROMPT))]
    check(kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds)
    return 3


def tools(provider, model):
    asked = client.messages.create(model=model, tools=[TOOL], **user(WEATHER))
    call = asked.content[-1]
    check(asked.stop_reason == "tool_use" and (call.name, call.input) == ("get_weather", {"city": "Lisbon"}), asked)
    with client.messages.stream(model=model, tools=[TOOL], **user(WEATHER)) as events:
        streamed = events.get_final_message()
    check(streamed.stop_reason == "tool_use" and streamed.content[-1].input == {"city": "Lisbon"}, streamed)
    turns = [
        {"role": "user", "content": WEATHER},
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": FORECAST}]},
    ]
    answer = client.messages.create(model=model, max_tokens=300, tools=[TOOL], messages=turns)
    check(FORECAST in answer.content[0].text, answer)
    return 3


def structured(provider, model):
    answer = client.messages.parse(model=model, output_format=City, **user('"Lisbon" has 545000 inhabitants.'))
    check(answer.parsed_output == City(name="Lisbon", inhabitants=545000), answer)
    return 1


def image(provider, model):
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    answer = client.messages.create(model=model, **user([{"type": "image", "source": source}, {"type": "text", "text": PROMPT}]))
    check(PROMPT in answer.content[0].text, answer)
    return 1


def error(provider, model):
    e = refused(anthropic.NotFoundError, lambda: client.messages.create(model=UNKNOWN_MODEL, **user(PROMPT)))
    check(e.body["error"]["type"] == "not_found_error" and e.request_id, e.body)
    e = refused(anthropic.BadRequestError, lambda: client.messages.create(model=model, max_tokens=10, messages=[]))
    check(e.body["error"]["type"] == "invalid_request_error", e.body)
    e = refused(anthropic.RateLimitError, lambda: client.messages.create(model=model, **user(LIMITED)))
    check(e.body["error"]["type"] == "rate_limit_error" and e.response.headers["retry-after"] == "1", e.body)
    refused(anthropic.RateLimitError, lambda: client.messages.create(model=model, stream=True, **user(LIMITED)))
    return 0


def abort(provider, model):
    with client.messages.stream(model=model, **user(slow(provider, NAME))) as events:
        check(next(iter(events.text_stream)), "no text")
    return 1


def refresh(provider, model):
    refused(anthropic.AuthenticationError, lambda: connect(EXPIRED).messages.create(model=model, **user(PROMPT)))
    keys = iter([EXPIRED, TOKEN])
    renewing = anthropic.Anthropic(base_url=GATEWAY, credentials=lambda **_: AccessToken(next(keys), expires_at=0), max_retries=0)
    refused(anthropic.AuthenticationError, lambda: renewing.messages.create(model=model, **user(PROMPT)))
    answer = renewing.messages.create(model=model, **user(PROMPT))
    check(PROMPT in answer.content[0].text, answer)
    return 1


def beta(provider, model):
    answer = client.beta.messages.create(model=model, betas=["context-management-2025-06-27"], **user(PROMPT))
    check(PROMPT in answer.content[0].text, answer)
    return 1


def count(provider, model):
    """The stand-in of Anthropic does not count, so its own model is left out."""
    if provider != "anthropic":
        asked = client.messages.count_tokens(model=model, messages=user(PROMPT)["messages"])
        check(0 < asked.input_tokens < 100, asked)
    return 0


def models():
    listed = {m.id for m in client.models.list(limit=1000)}
    check(listed >= set(MODELS.values()), listed)
    for model in MODELS.values():
        check(client.models.retrieve(model).id == model, model)
    refused(anthropic.NotFoundError, lambda: client.models.retrieve(UNKNOWN_MODEL))
    return 0


run(NAME, [text, stream, tools, structured, image, error, abort, refresh, beta, count], [models])
