"""LangChain's ChatOpenAI, against the gateway, for the models of all providers."""
import openai
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from scenarios import EXPIRED, FORECAST, GATEWAY, LIMITED, PIXEL, PROMPT, TOKEN, UNKNOWN_MODEL, WEATHER, check, named, refused, run, slow

NAME = "langchain-python"


class City(BaseModel):
    name: str
    inhabitants: int


@tool
def get_weather(city: str) -> str:
    """The weather at a place."""
    return FORECAST if city == "Lisbon" else "unknown"


def chat(model, key=TOKEN):
    return ChatOpenAI(base_url=GATEWAY + "/v1", api_key=key, model=model, max_retries=0, stream_usage=True)


def text(provider, model):
    answer = chat(model).invoke(PROMPT)
    check(PROMPT in answer.content and answer.usage_metadata["output_tokens"] > 0, answer)
    check(answer.response_metadata["model_name"] in named(provider, model), answer)
    return 1


def stream(provider, model):
    whole, chunks = chat(model).invoke(PROMPT), list(chat(model).stream(PROMPT))
    check("".join(chunk.content for chunk in chunks) == whole.content, chunks)
    used = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    check(len(used) == 1 and used[0]["output_tokens"] == whole.usage_metadata["output_tokens"], chunks)
    return 2


def tools(provider, model):
    bound = chat(model).bind_tools([get_weather])
    asked = bound.invoke(WEATHER)
    call = asked.tool_calls[0]
    check(call["args"] == {"city": "Lisbon"}, asked)
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    answer = bound.invoke([("user", WEATHER), asked, result])
    check(FORECAST in answer.content, answer)
    return 2


def structured(provider, model):
    for method in ("json_schema", "function_calling"):
        city = chat(model).with_structured_output(City, method=method).invoke('"Lisbon" has 545000 inhabitants.')
        check(city == City(name="Lisbon", inhabitants=545000), (method, city))
    return 2


def image(provider, model):
    parts = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}]
    answer = chat(model).invoke([("user", parts)])
    check(PROMPT in answer.content, answer)
    return 1


def error(provider, model):
    refused(openai.NotFoundError, lambda: chat(UNKNOWN_MODEL).invoke(PROMPT))
    refused(openai.RateLimitError, lambda: chat(model).invoke(LIMITED))
    refused(openai.RateLimitError, lambda: list(chat(model).stream(LIMITED)))
    return 0


def abort(provider, model):
    chunks = chat(model).stream(slow(provider, NAME))
    for chunk in chunks:
        if chunk.content:
            break
    chunks.close()
    return 1


def refresh(provider, model):
    refused(openai.AuthenticationError, lambda: chat(model, EXPIRED).invoke(PROMPT))
    keys = iter([EXPIRED, TOKEN])
    renewing = chat(model, lambda: next(keys))
    refused(openai.AuthenticationError, lambda: renewing.invoke(PROMPT))
    check(PROMPT in renewing.invoke(PROMPT).content, "no answer")
    return 1


run(NAME, [text, stream, tools, structured, image, error, abort, refresh])
