"""`tfsft serve` as a person types it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests
import text_families
import text_runs

from tfsft.cli import main
from tfsft.models import load_tokenizer  # noqa: F401  (imports TensorFlow once for all tests)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    text_families.save_tiny("bert", folder / "bert")
    (folder / "my run").mkdir()
    text_runs.write_run(folder / "my run", "texts", folder / "bert")
    return folder / "my run"


def test_a_server_from_its_start_to_its_end(run, tmp_path):
    command = [sys.executable, "-m", "tfsft", "serve", run, "--port", "0", "--feedback", "f.jsonl"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"TFSFT_TOKEN": "secret"},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []

    def read():
        for line in process.stderr:
            lines.append(line.rstrip("\n"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until = time.monotonic() + 120
        while not any(line.startswith("Ready") for line in lines):
            assert process.poll() is None, lines
            assert time.monotonic() < until
            time.sleep(0.05)
        url = re.search(r"http://\S+", lines[-1])[0]
        headers = {"Authorization": "Bearer secret"}
        answer = requests.post(
            f"{url}/predict", json={"text": "the fox"}, headers=headers, timeout=30
        )
        assert answer.json()["answers"][0]["prediction"] in text_runs.TASKS["texts"]["class_names"]
        assert requests.get(f"{url}/about", timeout=30).status_code == 401
        about = requests.get(f"{url}/about", headers=headers, timeout=30).json()
        assert about["name"] == "my-run"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        reader.join()
    assert lines[0] == f"Loading {run} for {url} ..."
    assert lines[-1] == "Stopped; what was under way is finished."
    for line in lines[2:-1]:
        assert json.loads(line)["message"] == "request"
    assert "secret" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "there is no token"),
        (["--host", "0.0.0.0", "--token", "a b"], "has a space"),
        (["--host", "203.0.113.7", "--token", "x"], "An address of this machine"),
        (["--name", "a/b"], "Letters, digits"),
        (["--feedback", "/nowhere/f.jsonl"], "/nowhere/f.jsonl cannot be written"),
        (["--port", "70000"], "70000"),
        (["--max-text", "0"], "0 is not in the range"),
    ],
)
def test_options_that_cannot_be(run, words, message, capsys, monkeypatch):
    monkeypatch.delenv("TFSFT_TOKEN", raising=False)
    assert main(["serve", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use(run, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(run), "--port", str(port)]) == 2
    assert f"Port {port} of 127.0.0.1 is in use." in capsys.readouterr().err


def test_what_is_no_finished_run(run, tmp_path, capsys):
    assert main(["serve", str(tmp_path / "no")]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert main(["serve", str(tmp_path)]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_a_model_that_does_not_load_ends_the_server(run, tmp_path, capsys):
    for name in ("config.json", "task.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "model.keras").write_bytes(b"no model")
    assert main(["serve", str(tmp_path), "--port", "0"]) == 1
    assert "Ready" not in capsys.readouterr().err
