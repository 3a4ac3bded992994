"""What the scripts of all clients share: where the gateway is, what is asked, and how what was seen is told.

A script gives `run` a function for each scenario. A scenario says how many model calls it made that were
answered, and raises where it saw something else than it should. The providers behind the gateway are stand-ins
that answer by rule: a prompt comes back in the answer, a tool that may be called is called with arguments
that are in the prompt, and the result of a tool comes back too. A prompt with `cas:` in it picks a recorded answer,
or a fault.
"""
import json
import os
import traceback

GATEWAY = os.environ["GATEWAY_URL"]
TOKEN = os.environ["TOKEN"]
EXPIRED = os.environ["EXPIRED_TOKEN"]
MODELS = json.loads(os.environ["MODELS"])

PROMPT = "Tell me of the sea."
WEATHER = 'What is the weather in "Lisbon"?'
FORECAST = "21 degrees and sunny"
UNKNOWN_MODEL = "no-such-model"
LIMITED = "cas:oa-chat-toolres;fault=429;ra=1"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def slow(provider, client):
    """A prompt whose answer is streamed over seconds, for who does not wait for its end."""
    recorded = {"openai": "oas-chat-usage-1", "anthropic": "ans-cache", "gemini": "ges-image"}[provider]
    return "word " * 1500 + f"cas:{recorded};d=250;n=abort-{client}"


def named(provider, model):
    """What an answer may say the model was. Google's name it nowhere in a request, so its stand-in says m."""
    return ("m",) if provider == "gemini" else (model,)


def check(what, seen):
    if not what:
        raise AssertionError(f"unexpected: {seen!r}")


def refused(kind, call):
    """Makes a call that must fail with an error of a kind, and returns it."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r}")


def run(client, scenarios, once=()):
    """Runs the scenarios with each provider's model, then those that need none in particular."""
    rounds = [(provider, scenario, (provider, model)) for provider, model in MODELS.items() for scenario in scenarios]
    rounds += [("all", scenario, ()) for scenario in once]
    answered = 0
    for provider, scenario, arguments in rounds:
        try:
            answered += scenario(*arguments)
        except Exception:
            traceback.print_exc()
            raise SystemExit(f"FAILED {client} {provider} {scenario.__name__}")
        print(f"ok {client} {provider} {scenario.__name__}", flush=True)
    print(f"calls {answered}")
