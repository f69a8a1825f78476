"""Whatever the protocol, the answers are those of `tfsft predict`."""

import base64
import io

import numpy as np
import pytest
import requests
from answers import numbers
from PIL import Image
from text_runs import TEXTS

from tfsft.export import load_predictor
from tfsft.export.serving.served_model import alike

INPUTS = {  # by run: what programs call the inputs, and what people do
    "texts": (["texts"], ["text"]),
    "numbers": (["texts"], ["text"]),
    "pairs": (["text", "pair"], ["text", "pair"]),
    "tags": (["texts"], ["text"]),
    "questions": (["question", "context"], ["question", "context"]),
}


def words(answer):
    if isinstance(answer, dict):
        return {key: words(value) for key, value in answer.items() if not isinstance(value, float)}
    return [words(item) for item in answer] if isinstance(answer, list) else answer


def columns_of(name):
    return [TEXTS, [*TEXTS[3:], *TEXTS[:3]]][-len(INPUTS[name][0]) :]


def post(running, path, body, status=200, **options):
    answer = requests.post(running.url + path, json=body, timeout=60, **options)
    assert answer.status_code == status, answer.text
    return answer.json()


SOME = [
    pytest.param(name, marks=pytest.mark.slow) if name in ("numbers", "pairs") else name
    for name in INPUTS
]


@pytest.mark.parametrize("name", SOME)
def test_plain_answers_are_those_of_the_predictor(serving, name):
    running = serving(name)
    predictor = running.service.model.predictor
    columns = columns_of(name)
    rows = [dict(zip(INPUTS[name][1], row, strict=True)) for row in zip(*columns, strict=True)]
    examples = predictor.plain(dict(zip(predictor.columns, columns, strict=True)), TEXTS)
    expected, _ = predictor.answer(examples)
    found = post(running, "/predict", rows)["answers"]
    assert len(found) == len(expected) == len(TEXTS)
    spread = []
    for said, answer in zip(found, expected, strict=True):
        answer = {key: value for key, value in answer.items() if key in said}
        assert set(said) >= {"prediction"} | ({"probability"} if name != "numbers" else set())
        assert words(said) == words(answer)
        np.testing.assert_allclose(numbers(said), numbers(answer), atol=1e-5, rtol=1e-5)
        spread.append(numbers(said)[-1])
    assert np.ptp(spread) > 1e-3


@pytest.mark.parametrize("name", SOME)
def test_tensorflow_serving_and_open_inference_say_the_same(serving, name):
    running = serving(name)
    inputs, people = INPUTS[name]
    columns = columns_of(name)
    named = dict(zip(inputs, columns, strict=True))
    instances = [dict(zip(inputs, row, strict=True)) for row in zip(*columns, strict=True)]
    predict = "/v1/models/model:predict"
    rows = post(running, predict, {"instances": instances})["predictions"]
    if len(inputs) == 1:
        assert post(running, predict, {"instances": columns[0]})["predictions"] == rows
        hidden = [{"b64": base64.b64encode(text.encode()).decode()} for text in columns[0]]
        assert post(running, predict, {"instances": hidden})["predictions"] == rows
    versioned = "/v1/models/model/versions/1:predict"
    outputs = post(running, versioned, {"inputs": named})["outputs"]
    tensors = [
        {"name": key, "shape": [len(value)], "datatype": "BYTES", "data": value}
        for key, value in named.items()
    ]
    answer = post(running, "/v2/models/model/infer", {"id": "7", "inputs": tensors})
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "model", "1")

    described = requests.get(f"{running.url}/v2/models/model", timeout=60).json()
    assert [tensor["name"] for tensor in described["inputs"]] == inputs
    if len(described["outputs"]) == 1:  # the only output stands alone
        key = described["outputs"][0]["name"]
        rows, outputs = [{key: row} for row in rows], {key: outputs}
    assert [t["name"] for t in answer["outputs"]] == [t["name"] for t in described["outputs"]]
    for tensor in answer["outputs"]:
        column = outputs[tensor["name"]]
        kept = np.array(column).reshape(tensor["shape"])
        assert kept.flatten().tolist() == tensor["data"]
        for row, value in zip(rows, column, strict=True):
            own = row[tensor["name"]]
            padding = value[len(own) :] if isinstance(own, list) else []
            assert own == (value[: len(own)] if isinstance(own, list) else value)
            assert set(padding) <= {"", -1, 0.0}
    said = post(
        running, "/predict", [dict(zip(people, row.values(), strict=True)) for row in instances]
    )
    check_against_plain(name, rows, said["answers"])


def check_against_plain(name, rows, answers):
    for row, answer in zip(rows, answers, strict=True):
        if name == "numbers":
            assert row["value"] == pytest.approx(answer["prediction"])
        elif name == "questions":
            assert row["answer"] == answer["prediction"]
            assert (None if row["start"] < 0 else row["start"]) == answer["start"]
        elif name == "tags":
            assert np.prod(row["probabilities"]) == pytest.approx(answer["probability"], abs=1e-5)
        else:
            assert row["probabilities"] == list(answer["probabilities"].values())


def test_examples_of_alike_sizes_go_together():
    assert alike([]) == []
    assert alike([0, 0, 0]) == [[0, 1, 2]]
    assert alike([300, 10, 2000, 50, 20, 2500, 90]) == [[1, 4, 3], [6], [0], [2, 5]]


def test_metadata_as_tensorflow_serving_writes_it(serving):
    url = f"{serving('questions').url}/v1/models/model"
    status = requests.get(url, timeout=60).json()["model_version_status"]
    assert [(s["version"], s["state"]) for s in status] == [("1", "AVAILABLE")]
    found = requests.get(f"{url}/metadata", timeout=60).json()
    assert found["model_spec"]["name"] == "model"
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert set(signature["inputs"]) == {"question", "context"}
    assert signature["inputs"]["context"]["dtype"] == "DT_STRING"
    assert set(signature["outputs"]) == {"answer", "start", "end", "probability"}
    assert signature["outputs"]["start"]["dtype"] == "DT_INT64"
    described = requests.get(f"{serving('texts').url}/v2/models/model", timeout=60).json()
    assert described["outputs"][0] == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [-1, 3],
    }


def picture(kind="PNG", size=(40, 30)):
    random = np.random.default_rng(0)
    file = io.BytesIO()
    image = Image.fromarray(random.integers(0, 256, (*size[::-1], 3), np.uint8))
    image.save(file, kind)
    return file.getvalue(), np.asarray(image)


def test_pictures_in_every_way(serving, tmp_path):
    running = serving("pictures")
    file, pixels = picture()
    (tmp_path / "a.png").write_bytes(file)
    (expected,), _ = load_predictor(running.run).answer([str(tmp_path / "a.png")])
    shares = list(expected["probabilities"].values())
    coded = base64.b64encode(file).decode()
    url = running.url
    uploads = {"files": [("file", ("a.png", file)), ("file", ("b.png", file))]}
    plain = requests.post(f"{url}/predict", timeout=60, **uploads).json()["answers"]
    kind = {"Content-Type": "image/png"}
    plain += requests.post(f"{url}/predict", data=file, headers=kind, timeout=60).json()["answers"]
    plain += post(running, "/predict", {"picture": coded})["answers"]
    assert len(plain) == 4
    for answer in plain:
        assert answer["prediction"] == expected["prediction"]
        assert list(answer["probabilities"].values()) == pytest.approx(shares, abs=1e-6)
    instances = [{"b64": coded}, {"pictures": {"b64": coded}}, pixels.tolist()]
    rows = post(running, "/v1/models/model:predict", {"instances": instances})["predictions"]
    for row in rows:
        assert row["probabilities"] == pytest.approx(shares, abs=1e-6)
        assert row["label"] == expected["prediction"]
    tensors = (
        {"datatype": "UINT8", "shape": [1, 30, 40, 3], "data": pixels.flatten().tolist()},
        {"datatype": "BYTES", "shape": [1], "data": [coded]},
    )
    for tensor in tensors:
        body = {"inputs": [{"name": "pictures"} | tensor], "outputs": [{"name": "probabilities"}]}
        (output,) = post(running, "/v2/models/model/infer", body)["outputs"]
        assert output["data"] == pytest.approx(shares, abs=1e-6)


def test_texts_as_files_and_fields(serving):
    running = serving("texts")
    text = TEXTS[1]
    expected = post(running, "/predict", {"text": text})["answers"][0]
    url = f"{running.url}/predict"
    kind = {"Content-Type": "text/plain; charset=utf-8"}
    for options in (
        {"files": {"file": ("a.txt", text.encode())}},
        {"files": {"text": (None, text)}},
        {"data": text.encode(), "headers": kind},
    ):
        answer = requests.post(url, timeout=60, **options).json()["answers"][0]
        assert words(answer) == words(expected)
        np.testing.assert_allclose(numbers(answer), numbers(expected), rtol=1e-5)
    running = serving("questions")
    form = {"question": (None, "Who?"), "context": ("c.txt", b"the fox")}
    answer = requests.post(f"{running.url}/predict", files=form, timeout=60).json()["answers"][0]
    assert (
        answer
        == post(running, "/predict", {"question": "Who?", "context": "the fox"})["answers"][0]
    )
