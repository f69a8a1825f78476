"""Thousands of wrong requests: none is answered with a fault of the server, and nothing leaks.

The half that schemathesis makes from the OpenAPI page is left out where it is not installed:
`pip install schemathesis`.
"""

import base64
import copy
import importlib.util
import io
import json
import os
import random
import subprocess
import sys

import psutil
import pytest
import requests
from PIL import Image

pytestmark = pytest.mark.slow
REQUESTS = int(os.environ.get("TFSFT_FUZZ", "10000"))
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
TENSOR = {"name": "texts", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
FILE = io.BytesIO()
Image.new("RGB", (3, 2), "red").save(FILE, "PNG")
PICTURE = {"b64": base64.b64encode(FILE.getvalue()).decode()}
PIXELS = {"name": "pictures", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 3]}
SHORT = {"model": "model", "messages": HELLO, "max_tokens": 2}
SPAN = {"start": 0, "end": 1, "label": "x"}
PREDICT, INFER = "/v1/models/model:predict", "/v2/models/model/infer"
GOOD = [
    ("/predict", {"text": "a"}),
    ("/predict", [{"text": "a"}, {"text": "b"}]),
    ("/predict", {"picture": PICTURE["b64"]}),
    (PREDICT, {"instances": ["a", {"b64": "YQ=="}], "signature_name": "serve"}),
    (PREDICT, {"inputs": {"texts": ["a", "b"]}}),
    (PREDICT, {"instances": [PICTURE, [[[1, 2, 3]], [[4, 5, 6]]]]}),
    (INFER, {"id": "1", "inputs": [TENSOR], "outputs": [{"name": "label"}]}),
    (INFER, {"inputs": [PIXELS]}),
    (CHAT, SHORT | {"stream": True, "stop": ["x"]}),
    (CHAT, SHORT | {"temperature": 0.5, "top_p": 0.5, "seed": 1}),
    ("/feedback", {"text": "a", "label": "weather", "spans": [SPAN]}),
    ("/feedback", {"messages": [*HELLO, {"role": "assistant", "content": "x"}]}),
    ("/feedback", {"picture": PICTURE["b64"], "label": "a"}),
]
ODD = [
    None, True, False, 0, -1, 1e308, -1e-308, 2**63, 10**30, float("nan"), float("inf"), "", " ",
    "\0", "\ud800", "e\u0301" * 50, "../../etc/passwd", "http://127.0.0.1/", "[SEP] <|im_end|>",
    "𝟙٣", "a" * 5000, "AAAA", [], {}, [[]], [None], [[[[]]]], [0.1, 2], [[1, 2], [3]],
    {"b64": "AA=="}, {"b64": 5}, {"b64": []},
]  # fmt: skip


def mutated(value, draw):
    """A JSON value with a part of it exchanged, left out, repeated or renamed."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        place, parent = value, None
        while isinstance(place, (dict, list)) and place and draw.random() < 0.8:
            parent = place
            key = (
                draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
            )
            place = place[key]
        if parent is None:
            if draw.random() < 0.05:
                value = draw.choice(ODD)
            continue
        match draw.randrange(5):
            case 0 | 1:
                parent[key] = copy.deepcopy(draw.choice(ODD))
            case 2:
                del parent[key]
            case 3 if isinstance(parent, list):
                parent.extend([copy.deepcopy(place)] * draw.choice([1, 100]))
            case _ if isinstance(parent, dict):
                parent[draw.choice(["", "text", "inputs", "name", "b64", "é"])] = place
    return value


def body_of(value, draw):
    """It as bytes, sometimes damaged."""
    body = bytearray(
        json.dumps(value, ensure_ascii=draw.random() < 0.8).encode("utf-8", "surrogatepass")
    )
    if draw.random() < 0.2:
        for _ in range(draw.randrange(1, 4)):
            place = draw.randrange(len(body) + 1)
            body[place : place + draw.randrange(3)] = bytes(
                draw.randrange(256) for _ in range(draw.randrange(3))
            )
    return bytes(body)


def send(session, url, draw):
    path, good = draw.choice(GOOD)
    kind = draw.choice(
        ["application/json"] * 6
        + ["text/plain", "image/png", "multipart/form-data; boundary=x", "x"]
    )
    headers = {"Content-Type": kind}
    if draw.random() < 0.05:
        headers[draw.choice(["Host", "Origin", "X-Request-Id", "Accept"])] = draw.choice(
            ["", "x y", "[::1", "a" * 300, "é".encode().decode("latin-1")]
        )
    if draw.random() < 0.05:
        path = draw.choice(
            [
                path + "/",
                path.replace("model", "%2e%2e"),
                path + "?a=%00",
                "/" + path,
                path.replace("model", "é"),
            ]
        )
    answer = session.post(
        url + path, data=body_of(mutated(good, draw), draw), headers=headers, timeout=60
    )
    if answer.status_code not in (408, 413) or not answer.content:
        assert answer.content
    return answer


@pytest.mark.parametrize("name", ["texts", "pictures", "chat"])
def test_mutated_requests(serving, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "feedback.jsonl"
    running = serving(name, feedback=path, max_text=1000, max_new_tokens=4)
    draw, session, process = random.Random(0), requests.Session(), psutil.Process()
    statuses = {}
    for number in range(REQUESTS // 3):
        answer = send(session, running.url, draw)
        assert answer.status_code < 500, (
            number,
            answer.request.url,
            answer.request.body,
            answer.text,
        )
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        if number == REQUESTS // 6:
            before = process.memory_info().rss, process.num_fds(), process.num_threads()
    after = process.memory_info().rss, process.num_fds(), process.num_threads()
    print(name, statuses, before, after)
    assert statuses.get(200, 0) > REQUESTS // 200
    assert statuses.get(400, 0) > REQUESTS // 30
    assert after[0] - before[0] < 50 << 20
    assert after[1] <= before[1] + 3
    assert after[2] <= before[2] + 2
    assert running.service._streams == 0
    assert len(running.service._batcher) == 0
    rows = path.read_text(encoding="utf-8").splitlines()
    assert all(isinstance(json.loads(row), dict) for row in rows)


@pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed"
)
@pytest.mark.parametrize("name", ["texts", "chat"])
def test_requests_made_from_the_openapi_page(serving, name, tmp_path):
    running = serving(name, feedback=tmp_path / "feedback.jsonl", max_text=1000, max_new_tokens=4)
    schema = requests.get(f"{running.url}/openapi.json", timeout=30).json()
    for operations in schema["paths"].values():  # mostly the model that there is
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "name":
                    parameter["schema"] = {"enum": ["model"]}
    if name == "chat":
        schema["components"]["schemas"]["ChatRequest"]["properties"]["model"] = {"enum": ["model"]}
    (tmp_path / "openapi.json").write_text(json.dumps(schema))
    process = psutil.Process()
    before = process.num_fds(), process.num_threads()
    code = "from schemathesis.cli import schemathesis; schemathesis()"
    options = ["--checks", "not_a_server_error", "--phases", "fuzzing", "--seed", "1"]
    options += ["--max-examples", str(REQUESTS // 40), "--url", running.url]
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(tmp_path / "openapi.json"), *options],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    print(done.stdout[-1500:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert process.num_fds() <= before[0] + 3
    assert process.num_threads() <= before[1] + 2
