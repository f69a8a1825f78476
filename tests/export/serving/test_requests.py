"""What a server refuses, and what it writes down."""

import base64
import io
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import requests
from PIL import Image
from running_server import Running

from tfsft.errors import UsageError
from tfsft.export.serving import Settings
from tfsft.export.serving.monitoring import LOG

PREDICT = "/v1/models/model:predict"
INFER = "/v2/models/model/infer"


@pytest.fixture(scope="module")
def running(serving):
    return serving("texts", max_body=200_000, max_text=1000, timeout=3.0)


def tensor(**changes):
    return {
        "inputs": [{"name": "texts", "shape": [1], "datatype": "BYTES", "data": ["a"]} | changes]
    }


def big_png(size):
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/predict", b"{", 400, "no JSON"),
        ("/predict", b"[" * 100_000, 400, "no JSON"),
        ("/predict", b"\xff\xfe", 400, "no JSON"),
        ("/predict", [], 400, "'text'"),
        ("/predict", {"text": 3}, 400, "is a int"),
        ("/predict", {"texts": "a"}, 400, "'text'"),
        ("/predict", {"text": "a", "path": "/etc/passwd"}, 400, "'text'"),
        ("/predict", b'{"text": "\\ud83d"}', 400, "UTF-8"),
        ("/predict", {"text": "a" * 1001}, 413, "at most 1,000"),
        ("/predict", [{"text": "a"}] * 65, 413, "at most 64"),
        ("/predict", b"x" * 200_001, 413, "200,000 bytes"),
        (PREDICT, {}, 400, "'instances' or 'inputs'"),
        (PREDICT, {"instances": ["a"], "inputs": ["a"]}, 400, "'instances' or 'inputs'"),
        (PREDICT, {"instances": [{"text": "a"}]}, 400, "'texts'"),
        (PREDICT, {"instances": [{"b64": "?"}]}, 400, "base64"),
        (PREDICT, {"instances": [{"b64": "/w=="}]}, 400, "UTF-8"),
        (PREDICT, {"instances": [["a"]]}, 400, "is a list"),
        (PREDICT, {"inputs": {"texts": "a"}}, 400, "a list"),
        (PREDICT, {"instances": ["a"], "signature_name": "x"}, 400, "serving_default"),
        (PREDICT, b"5", 400, "the body"),
        (PREDICT.replace("model:", "other:"), {"instances": ["a"]}, 404, "this server has 'model'"),
        (PREDICT.replace(":", "/versions/2:"), {"instances": ["a"]}, 404, "version 2"),
        (INFER, tensor(name="x"), 400, "'texts'"),
        (INFER, tensor(shape=[2]), 400, "one element"),
        (INFER, tensor(shape=[]), 400, "begins with"),
        (INFER, tensor(shape=[-1]), 400, "begins with"),
        (INFER, tensor(datatype="FP32", data=[1.0]), 400, "BYTES"),
        (INFER, tensor(data=[1]), 400, "is a int"),
        (INFER, tensor() | {"outputs": [{"name": "x"}]}, 400, "outputs are"),
        (INFER, {"inputs": tensor()["inputs"] * 2}, 400, "each once"),
        ("/v2/repository/models/x/load", {}, 404, "Not Found"),
        ("/nothing", {}, 404, "Not Found"),
    ],
)
def test_one_message_each(running, path, body, status, message):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = requests.post(running.url + path, data=data, timeout=30)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]
    assert requests.post(f"{running.url}/predict", json={"text": "a"}, timeout=30).ok


def test_no_answer_to_no_example(running):
    body = {"instances": []}
    answer = requests.post(running.url + PREDICT, json=body, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"predictions": []})


def test_bad_pictures(serving):
    running = serving("pictures", max_pixels=1_000_000)
    bad = {
        b"": (400, "is empty"),
        b"hello": (400, "it seems to be text"),
        big_png((100, 100))[:-20]: (400, "ends early"),
        big_png((1001, 1000)): (413, "1,001,000 pixels"),
        big_png((14_000, 14_000)): (400, "million pixels"),
    }
    for file, (status, message) in bad.items():
        for answer in (
            requests.post(f"{running.url}/predict", files={"file": file}, timeout=30),
            requests.post(
                running.url + PREDICT,
                json={"instances": [{"b64": base64.b64encode(file).decode()}]},
                timeout=30,
            ),
        ):
            assert answer.status_code == status, answer.text
            assert message in answer.json()["error"]
    for pixels, message in (
        ([[[256, 0, 0]]], "0 to 255"),
        ([[[0.5, 0, 0]]], "0 to 255"),
        ([[0, 0, 0]], "height, width"),
        ([[[1, 2, 3]], [[1, 2]]], "same length"),
        ("a text", "0 to 255"),
        (None, "0 to 255"),
        ([[[]]], "0 to 255"),
    ):
        answer = requests.post(running.url + PREDICT, json={"instances": [pixels]}, timeout=30)
        assert answer.status_code == 400, (pixels, answer.text)
        assert message in answer.json()["error"], (pixels, answer.text)


def test_the_page_is_told_that_the_model_loads(running, monkeypatch):
    monkeypatch.setattr(running.service, "ready", False)
    answer = requests.get(f"{running.url}/about", timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"ready": False, "name": "model"})
    assert (
        requests.post(f"{running.url}/predict", json={"text": "a"}, timeout=30).status_code == 503
    )


def test_only_this_machine_by_its_own_name(running):
    def status(**headers):
        return requests.get(f"{running.url}/about", headers=headers, timeout=30).status_code

    port = running.url.rsplit(":", 1)[1]
    for host in ("localhost", f"localhost:{port}", "127.0.0.1", "[::1]:80", "LOCALHOST."):
        assert status(Host=host) == 200, host
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.7",
        "",
        "a b",
        "@localhost",
        "[::1",
        "::1",
    ):
        assert status(Host=host) == 403, host
    assert status(Origin=running.url) == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{port}", "http://127.0.0.1"):
        assert status(Origin=origin) == 403, origin
    answer = requests.options(
        f"{running.url}/predict",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        timeout=30,
    )
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_names_of_a_server_that_others_reach():
    settings = Settings(name="m", host="0.0.0.0", token="x", allowed_hosts=("Box.example",))
    for name in ("10.0.0.7", "2001:db8::1", "box.example", "localhost", socket.gethostname()):
        assert settings.knows_host(name), name
    assert not settings.knows_host("evil.example")
    with pytest.raises(UsageError, match="there is no token"):
        Settings(name="m", host="::")


def test_a_token_is_asked_for_everywhere_but_where_nothing_is_said(running, monkeypatch):
    guard = running.server.config.app
    other = replace(guard._settings, token="s3cret-u", allowed_hosts=("box.example",))
    monkeypatch.setattr(guard, "_settings", other)

    def status(path, token=None, host=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Host": host} if host else {}
        return requests.get(running.url + path, headers=headers, timeout=30)

    for path in ("/about", "/metrics", "/v1/models/model", "/v2", "/v2/models/model", "/nothing"):
        for token in (None, "s3cret", "s3cret-u-", "S3CRET-U", "s3cret-\xfc"):
            answer = status(path, token)
            assert answer.status_code == 401, (path, token)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert status("/about", "s3cret-u").ok
    assert status("/about", "s3cret-u", "box.example:1").ok
    for path in (
        "/",
        "/page.js",
        "/answers.js",
        "/page.css",
        "/docs",
        "/openapi.json",
        "/v2/health/ready",
    ):
        answer = status(path)
        assert answer.ok
        assert "weather" not in answer.text  # a class of the run


def test_pages_load_nothing_from_elsewhere_and_are_in_no_frame(running):
    for path in ("/", "/docs"):
        answer = requests.get(running.url + path, timeout=30)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "https://" not in answer.text
    for path in ("/page.js", "/answers.js"):
        script = requests.get(running.url + path, timeout=30).text
        assert "innerHTML" not in script
        assert "http:" not in script
        assert "https:" not in script


def test_a_body_in_chunks_ends_at_the_limit(running):
    def chunks():
        for _ in range(50):
            yield b"x" * 10_000

    answer = requests.post(f"{running.url}/predict", data=chunks(), timeout=30)
    assert answer.status_code == 413


def test_a_body_that_does_not_come_ends_the_request(running):
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n"
        client.sendall(head.encode() + b"{")
        start = time.monotonic()
        assert b" 408 " in client.recv(1000)
        assert 2 < time.monotonic() - start < 8


def test_lines_and_figures_say_what_happened_and_nothing_that_was_said(running):
    lines = []

    class Keep:
        level = 0

        def handle(self, record):
            lines.append((record.getMessage(), record.facts))

    keep = Keep()
    LOG.addHandler(keep)
    LOG.setLevel("INFO")
    try:
        given = {"X-Request-Id": "mine-1"}
        url = running.url
        answer = requests.post(
            f"{url}/predict?q=hidden", json={"text": "hidden"}, headers=given, timeout=30
        )
        assert answer.headers["X-Request-Id"] == "mine-1"
        for wrong in ("a b", "x" * 65, 'a"b'):
            answer = requests.get(f"{url}/v2", headers={"X-Request-Id": wrong}, timeout=30)
            assert len(answer.headers["X-Request-Id"]) == 32
    finally:
        LOG.removeHandler(keep)
    # A request of an earlier test may still be noted.
    [(message, facts)] = [line for line in lines if line[1]["request_id"] == "mine-1"]
    assert message == "request"
    assert (facts["method"], facts["path"]) == ("POST", "/predict")
    assert facts["status"] == 200
    assert facts["seconds"] > 0
    assert "hidden" not in str(lines)

    before = requests.get(f"{url}/metrics", timeout=30).text
    requests.post(f"{url}/predict", json=[{"text": "a"}] * 3, timeout=30)
    requests.get(f"{url}/what/ever", timeout=30)
    after = requests.get(f"{url}/metrics", timeout=30).text

    def rise(name):
        old, new = (
            sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))
            for text in (before, after)
        )
        return new - old

    assert rise('tfsft_requests_total{route="/predict",status="200"}') == 1
    assert rise('tfsft_requests_total{route="other",status="404"}') == 1
    assert rise("tfsft_batch_examples_sum") == 3
    assert "tfsft_ready 1.0" in after
    assert "what/ever" not in after


def test_many_clients_share_batches_and_too_many_are_told_to_come_again(running, monkeypatch):
    batcher, batches = running.service._batcher, []
    run = batcher._run

    def slow(rows):
        batches.append(len(rows))
        time.sleep(0.05)
        return run(rows)

    for name, value in {"_run": slow, "_queue": 8, "_batch": 4}.items():
        monkeypatch.setattr(batcher, name, value)

    def ask(number):
        body = {"instances": [f"text {number}"]}
        return requests.post(running.url + PREDICT, json=body, timeout=60)

    with ThreadPoolExecutor(32) as clients:
        answers = list(clients.map(ask, range(64)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert max(batches) == 4
    assert sum(batches) == statuses.count(200)
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
        else:
            assert len(answer.json()["predictions"]) == 1
    assert requests.get(f"{running.url}/v2/health/ready", timeout=30).ok


def test_what_is_under_way_is_finished_at_the_end(make_run):
    running = Running(make_run("texts"))
    assert requests.get(f"{running.url}/v2/health/live", timeout=30).ok
    early = requests.get(f"{running.url}/v2/health/ready", timeout=30)
    if early.status_code == 503:  # it is still loading
        assert early.json() == {"ready": False}
        answer = requests.post(f"{running.url}/predict", json={"text": "a"}, timeout=30)
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
    running.wait()
    run = running.service._batcher._run
    running.service._batcher._run = lambda rows: time.sleep(1) or run(rows)
    with ThreadPoolExecutor(1) as client:
        asked = client.submit(
            requests.post, f"{running.url}/predict", json={"text": "a"}, timeout=30
        )
        time.sleep(0.3)
        running.stop()
        assert asked.result().status_code == 200
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{running.url}/v2/health/live", timeout=5)
