"""Google's own client, against the gateway, for the models of all providers."""
import base64

from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from scenarios import (
    EXPIRED, FORECAST, GATEWAY, LIMITED, MODELS, PIXEL, PROMPT, TOKEN, UNKNOWN_MODEL, WEATHER, check, named, refused, run, slow,
)

NAME = "google-python"


class City(BaseModel):
    name: str
    inhabitants: int


def connect(key=TOKEN):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=GATEWAY))


client = connect()


def generate(model, contents, using=client, **config):
    return using.models.generate_content(model=model, contents=contents, config=types.GenerateContentConfig(**config))


def code(call):
    """The status that a call is refused with."""
    return refused(errors.ClientError, call).code


def text(provider, model):
    answer = generate(model, PROMPT, system_instruction="Be brief.")
    check(PROMPT in answer.text and answer.candidates[0].finish_reason == "STOP", answer)
    check(answer.model_version in named(provider, model) and answer.response_id, answer)
    used = answer.usage_metadata
    check(used.total_token_count == used.prompt_token_count + used.candidates_token_count and used.candidates_token_count > 0, answer)
    return 1


def stream(provider, model):
    whole = generate(model, PROMPT)
    chunks = list(client.models.generate_content_stream(model=model, contents=PROMPT))
    check("".join(c.text or "" for c in chunks) == whole.text, chunks)
    check(chunks[-1].candidates[0].finish_reason == "STOP", chunks)
    check(chunks[-1].usage_metadata.candidates_token_count == whole.usage_metadata.candidates_token_count, chunks)
    return 2


def tools(provider, model):
    declared = types.Tool(function_declarations=[{
        "name": "get_weather",
        "description": "The weather at a place.",
        "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
    }])
    asked = generate(model, WEATHER, tools=[declared])
    call = asked.function_calls[0]
    check((call.name, call.args) == ("get_weather", {"city": "Lisbon"}), asked)
    result = types.Part.from_function_response(name=call.name, response={"result": FORECAST})
    result.function_response.id = call.id
    turns = [types.UserContent(WEATHER), asked.candidates[0].content, types.UserContent([result])]
    answer = generate(model, turns, tools=[declared])
    check(FORECAST in answer.text, answer)
    return 2 if provider == "gemini" else 2 + called_by_itself(model)


def called_by_itself(model):
    """The client calls functions by itself. Google's stand-in does not read the schema that it makes of them."""
    cities = []

    def get_weather(city: str) -> str:
        """The weather at a place."""
        cities.append(city)
        return FORECAST

    config = types.GenerateContentConfig(tools=[get_weather])
    answer = client.chats.create(model=model, config=config).send_message(WEATHER).text
    streamed = "".join(c.text or "" for c in client.chats.create(model=model, config=config).send_message_stream(WEATHER))
    check(cities == ["Lisbon", "Lisbon"] and FORECAST in answer and FORECAST in streamed, (cities, answer, streamed))
    return 4


def structured(provider, model):
    answer = generate(model, '"Lisbon" has 545000 inhabitants.', response_mime_type="application/json", response_schema=City)
    check(answer.parsed == City(name="Lisbon", inhabitants=545000), answer)
    return 1


def image(provider, model):
    answer = generate(model, [types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png"), PROMPT])
    check(PROMPT in answer.text, answer)
    return 1


def error(provider, model):
    e = refused(errors.ClientError, lambda: generate(UNKNOWN_MODEL, PROMPT))
    check(e.code == 404 and e.status == "NOT_FOUND" and UNKNOWN_MODEL in e.message, e)
    e = refused(errors.ClientError, lambda: generate(model, PROMPT, candidate_count=-1))
    check(e.code == 400 and e.status == "INVALID_ARGUMENT", e)
    e = refused(errors.ClientError, lambda: generate(model, LIMITED))
    check(e.code == 429 and e.status == "RESOURCE_EXHAUSTED", e)
    check(code(lambda: list(client.models.generate_content_stream(model=model, contents=LIMITED))) == 429, "no 429")
    return 0


def abort(provider, model):
    chunks = client.models.generate_content_stream(model=model, contents=slow(provider, NAME))
    for chunk in chunks:
        if chunk.text:
            break
    chunks.close()
    return 1


def refresh(provider, model):
    e = refused(errors.ClientError, lambda: generate(model, PROMPT, connect(EXPIRED)))
    check(e.code == 401 and e.status == "UNAUTHENTICATED", e)
    check(PROMPT in generate(model, PROMPT, connect()).text, "no answer")
    return 1


def count(provider, model):
    """The stand-in of Google does not count, so its own model is left out."""
    if provider != "gemini":
        counted = client.models.count_tokens(model=model, contents=PROMPT)
        check(0 < counted.total_tokens < 100, counted)
    return 0


def embeddings():
    answer = client.models.embed_content(model="gemini-embedding-2", contents=["cas:ge-emb"])
    check(len(answer.embeddings[0].values) > 100, answer)
    answer = client.models.embed_content(model="text-embedding-3-small", contents=["cas:oa-emb-2"])
    check(len(answer.embeddings[0].values) > 100, answer)
    return 2


def models():
    listed = {m.name for m in client.models.list()}
    check(listed >= {"models/" + m for m in MODELS.values()}, listed)
    for model in MODELS.values():
        check(client.models.get(model=model).name == "models/" + model, model)
    check(code(lambda: client.models.get(model=UNKNOWN_MODEL)) == 404, "no 404")
    return 0


run(NAME, [text, stream, tools, structured, image, error, abort, refresh, count], [embeddings, models])
