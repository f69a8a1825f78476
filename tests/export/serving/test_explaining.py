"""`POST /explain` gives what `tfsft explain` finds, under the rules of `POST /predict`."""

import base64
import io

import numpy as np
import pytest
import requests
from PIL import Image

from tfsft.export.explainer import load_explainer


def explained(running, body, **options):
    answer = requests.post(f"{running.url}/explain", json=body, timeout=60, **options)
    return answer.status_code, answer.json()


def test_texts_are_explained_as_by_the_command(serving):
    running = serving("texts")
    text = "the fox 😀 <b>jumps</b>"
    status, found = explained(running, {"text": text})
    assert status == 200
    explainer = load_explainer(running.run)
    (own,) = explainer.explain(explainer.read([text])[0])
    assert found["prediction"] == own.prediction
    (reason,), (own_reason,) = found["reasons"], own.reasons
    assert reason["title"] == own_reason.title
    pieces = [(p["text"], p["weight"]) for part in reason["passages"] for p in part["pieces"]]
    own_pieces = [piece for _, part in own_reason.passages for piece in part]
    assert [words for words, _ in pieces] == [words for words, _ in own_pieces]
    np.testing.assert_allclose(*([w or 0 for _, w in part] for part in (pieces, own_pieces)),
                               atol=1e-6)  # fmt: skip
    assert "".join(words for words, _ in pieces) == text
    gain = reason["output"] - reason["baseline"]
    parts = sum(weight or 0 for _, weight in pieces)
    assert abs(parts - gain) <= (reason["missing"] + 0.01) * abs(gain) + 1e-6


def test_it_is_made_ready_before_it_is_asked(serving):
    running = serving("texts")
    asked = requests.post(f"{running.url}/explain/ready", timeout=60)
    assert (asked.status_code, asked.text) == (204, "")
    explainer = running.service._explanations._run.__self__._explainer
    assert explainer.slopes._look.experimental_get_tracing_count() == 1
    assert explained(running, {"text": "the fox"})[0] == 200
    assert explained(running, {"text": "the fox and a dog"})[0] == 200
    assert explainer.slopes._look.experimental_get_tracing_count() == 1


def test_pictures_are_seen_as_files(serving):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    running = serving("pictures")
    picture = base64.b64encode(file.getvalue()).decode()
    status, found = explained(running, {"picture": picture})
    assert status == 200
    captions = [view["caption"] for view in found["reasons"][0]["pictures"]]
    assert captions[0] == "what the model sees"
    assert "integrated gradients" in captions
    for view in found["reasons"][0]["pictures"]:
        with Image.open(io.BytesIO(base64.b64decode(view["png"]))) as image:
            assert image.format == "PNG"
    first = found["reasons"][0]["pictures"][0]["png"]
    with Image.open(io.BytesIO(base64.b64decode(first))) as image:
        np.testing.assert_array_equal(np.asarray(image)[100, 100], [255, 0, 0])
    as_file = requests.post(f"{running.url}/explain", files={"file": file.getvalue()}, timeout=60)
    assert as_file.json() == found


def test_conversations_by_the_tokens_of_their_prompt(serving):
    running = serving("chat", max_new_tokens=4)
    messages = [{"role": "user", "content": "the fox"}, {"role": "assistant", "content": "a dog"}]
    status, found = explained(running, {"messages": messages})
    assert status == 200
    (reason,) = found["reasons"]
    words = "".join(piece["text"] for piece in reason["passages"][0]["pieces"])
    assert "the fox" in words
    assert "a dog" not in words
    for wrong in ({"messages": messages[:1]}, {"messages": [messages[1], messages[1]]},
                  {"messages": [messages[0], messages[0]]}, {"text": "a"}, [], "x",
                  {"messages": [messages[0], {"role": "assistant", "content": ""}]}):  # fmt: skip
        assert explained(running, wrong)[0] == 400, wrong


def test_the_rules_of_predict_hold(serving):
    running = serving("texts", max_text=1000, token="secret")
    bearer = {"Authorization": "Bearer secret"}
    assert explained(running, {"text": "a"})[0] == 401
    assert explained(running, {"text": "a" * 1001}, headers=bearer)[0] == 413
    for wrong in ({"text": 3}, {"texts": "a"}, [], [{"text": "a"}] * 2, {"text": "\ud800"}):
        assert explained(running, wrong, headers=bearer)[0] == 400, wrong
    other = bearer | {"Origin": "http://evil.example"}
    assert explained(running, {"text": "a"}, headers=other)[0] == 403


@pytest.mark.parametrize("name", ["tags", "questions"])
def test_spans_and_answers(serving, name):
    body = {
        "tags": {"text": "the fox jumps"},
        "questions": {"question": "who jumps", "context": "the fox jumps over the dog"},
    }[name]
    status, found = explained(serving(name), body)
    assert status == 200
    for reason in found["reasons"]:
        shown = {part["name"]: "".join(p["text"] for p in part["pieces"])
                 for part in reason["passages"]}  # fmt: skip
        assert shown == ({"": body["text"]} if name == "tags" else body)


def test_so_many_wait_and_no_more(serving):
    """One is explained, some wait, and others come again; predictions go on meanwhile."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from tfsft.export.serving import service as module

    running = serving("texts", max_text=999)
    explained(running, {"text": "a"})
    batcher, free, begun = running.service._explanations, threading.Event(), threading.Event()
    usual = batcher._run

    def slow(rows):
        begun.set()
        free.wait(30)
        return usual(rows)

    batcher._run = slow
    with ThreadPoolExecutor(module.EXPLANATIONS + 3) as pool:
        first = pool.submit(explained, running, {"text": "a"})
        assert begun.wait(30)
        others = [pool.submit(explained, running, {"text": "a"})
                  for _ in range(module.EXPLANATIONS + 2)]  # fmt: skip
        refused = [found for found in others if _soon(found) == 503]
        predicted = requests.post(f"{running.url}/predict", json={"text": "a"}, timeout=30)
        assert predicted.status_code == 200
        free.set()
        assert first.result()[0] == 200
        assert (
            sorted(found.result()[0] for found in others) == [200] * module.EXPLANATIONS + [503] * 2
        )
        assert len(refused) == 2
    batcher._run = usual


def _soon(found):
    try:
        return found.result(1.0)[0]
    except TimeoutError:
        return None
