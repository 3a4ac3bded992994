"""What the replaying server served, out of its own log.

    served.py DIRECTORY-OF-THE-SERVER < its /__log

prints a JSON array with an object for each call that reached it: endpoint, status, cassette and step (null where
the answer was made by rule), nonce, disconnected, image (a picture was in the request), and for an answer by rule
the tokens that it claimed, as input and output. Answers by rule are a function of the request, so they are
made again here, and their usage is read off.
"""
import json
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])

INPUT = rb'"(?:prompt_tokens|input_tokens|promptTokenCount)": (\d+)'
OUTPUT = rb'"(?:completion_tokens|output_tokens|candidatesTokenCount)": (\d+)'


def claimed(call):
    """The last input and output tokens that an answer by rule says."""
    import smart

    _, chunks = smart.answer(call["shape"], call["endpoint"], call["body"])
    answer = b"".join(chunks)
    return {name: int(re.findall(pattern, answer)[-1]) for name, pattern in (("input", INPUT), ("output", OUTPUT))}


def embedded(recording):
    """The tokens of recorded embeddings of Google's, which the recordings' index has only as they were sent."""
    with open(f"{sys.argv[1]}/recordings/index.json") as index:
        step = next(r for r in json.load(index) if r["id"] == recording)["steps"][0]
    return {"input": step["usage_raw"]["promptTokenCount"]}


def served(call):
    out = {name: call.get(name) for name in ("endpoint", "status", "cassette", "step", "nonce", "disconnected")}
    out["image"] = "iVBORw0KGgo" in json.dumps(call["body"])
    if "smart" in call["notes"]:
        out.update(claimed(call))
    elif call["shape"] == "gemini" and call["endpoint"] == "embeddings" and call["cassette"]:
        out.update(embedded(call["cassette"]))
    return out


json.dump([served(call) for call in json.load(sys.stdin)], sys.stdout)
