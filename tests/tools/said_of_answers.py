"""Small data of each recipe, and people who use a served run and say what is right."""

import base64
import io
import json

import numpy as np
import requests
from tiny_pictures import COLOURS, picture

ENCODER = {"max-length": 32, "epochs": 2, "batch-size": 8}
OPTIONS = {
    "image_cls": {"epochs": 1, "batch-size": 8, "image-size": 32},
    "text_cls": ENCODER,
    "token_cls": ENCODER | {"stride": 8},
    "extractive_qa": ENCODER | {"max-length": 64, "stride": 6},
    "chat_sft": {"epochs": 1, "learning-rate": 1e-2, "answers": 2, "max-new-tokens": 4,
                 "retain": "", "lora-rank": 0},
}  # fmt: skip


def row(recipe, i):
    """An example of a recipe as `tfsft serve --feedback` keeps it; no two are the same."""
    a, b = ("the", "one", "new", "was", "over")[i % 5], ("few", "old", "what", "is")[i % 4]
    match recipe:
        case "text_cls":
            word, label = (("fox", "animals"), ("sun", "weather"))[i % 2]
            return {"text": f"{a} {b} {word} {i}", "label": label}
        case "token_cls":
            text = f"{a} {b} {i} fox"
            start = len(text) - 3
            return {"text": text, "spans": [{"start": start, "end": len(text), "label": "ANI"}]}
        case "extractive_qa":
            context = f"{a} {b} fox {i}"
            answers = {"text": ["fox"], "answer_start": [context.index("fox")]}
            return {"question": "what was it?", "context": context, "answers": answers}
        case "chat_sft":
            return {"messages": [{"role": "user", "content": f"Who is {a} {b} {i}?"},
                                 {"role": "assistant", "content": f"{a} is {b}."}]}  # fmt: skip
        case "seq2seq":
            return {"source": f"{a} {b} {i}", "target": a}


def write(path, recipe, numbers):
    """Writes such rows to a file; returns its path."""
    path.write_text("".join(json.dumps(row(recipe, i)) + "\n" for i in numbers))
    return str(path)


def use(url, recipe, count):
    """Uses a server: of three answers, one is called right, one corrected, one called wrong.

    What is right is learned from the example that is asked about; a person who calls an answer
    wrong does not know it.

    Returns:
        How many lines the file of feedback, and the one beside, should have.
    """
    said = [0, 0]
    for i in range(count):
        asked, answer, right = _ask(url, recipe, 1000 + i)
        verdict = {0: answer, 1: right, 2: answer | {"wrong": True}}[i % 3]
        posted = requests.post(f"{url}/feedback", json=asked | verdict, timeout=60)
        assert posted.status_code == 201, posted.text
        said[i % 3 == 2] += 1
    return said


def _ask(url, recipe, i):
    """Returns what was asked, what the model answered and what is right, as the page sends them."""
    if recipe == "image_cls":
        colour = list(COLOURS)[i % len(COLOURS)]
        file = io.BytesIO()
        picture(colour, np.random.default_rng(i)).save(file, "PNG")
        sent = {"files": {"file": file.getvalue()}}
        answer = _post(f"{url}/predict", **sent)["answers"][0]
        content = base64.b64encode(file.getvalue()).decode()
        return {"picture": content}, {"label": answer["prediction"]}, {"label": colour}
    example = row(recipe, i)
    if recipe == "chat_sft":
        asked = example["messages"][:1]
        body = {"model": "model", "messages": asked}
        answer = _post(f"{url}/v1/chat/completions", json=body)["choices"][0]["message"]
        answer = {"role": "assistant", "content": answer["content"]}
        return {}, {"messages": [*asked, answer]}, example
    names = {"text_cls": ["text"], "token_cls": ["text"], "extractive_qa": ["question", "context"]}
    asked = {name: example[name] for name in names[recipe]}
    answer = _post(f"{url}/predict", json=asked)["answers"][0]
    match recipe:
        case "text_cls":
            return asked, {"label": answer["prediction"]}, {"label": example["label"]}
        case "token_cls":
            found = [{"start": e["start"], "end": e["end"], "label": e["type"]}
                     for e in answer["entities"]]  # fmt: skip
            return asked, {"spans": found}, {"spans": example["spans"]}
        case "extractive_qa":
            said = {"answer": answer["prediction"], "start": answer["start"]}
            return asked, said, {"answer": "fox", "start": None}


def _post(url, **content):
    answer = requests.post(url, timeout=60, **content)
    assert answer.status_code == 200, answer.text
    return answer.json()
