"""Throughput and latency of `tfsft serve` beside a server that calls `predict` for each request.

    .venv/bin/python scripts/benchmarks/serving.py [--run RUN] [--seconds 10] [--clients 1,8,32]

RUN is a finished run of text_cls; without it, one is made of the starter minilm with an untrained
head. The load comes from wrk (`apt install wrk`), which sends texts of 3 to 60 words. Compared are

    naive      FastAPI, and model.predict for each request, one at a time
    single     tfsft serve --batch 1
    batches    tfsft serve
"""

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

WORDS = "the quick brown fox jumps over a lazy dog and nothing new is under this old sun"
LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies = {%s}
local next = 0
request = function()
  next = next %% #bodies + 1
  return wrk.format(nil, "/predict", nil, bodies[next])
end
"""


def main() -> None:
    """Starts each server in turn, loads it, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--naive", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.naive:
        serve_naively(options.run, options.naive)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt install wrk")
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or starter_run(Path(folder) / "run")
        script = Path(folder) / "load.lua"
        bodies = ", ".join(f"[[{json.dumps({'text': text})}]]" for text in texts())
        script.write_text(LUA % bodies)
        print("server    clients  requests/s       50%       90%       99%  not answered")
        tfsft = [sys.executable, "-m", "tfsft", "serve", str(run), "--queue", "1024"]
        for name, command in {
            "naive": [sys.executable, __file__, "--run", str(run), "--naive"],
            "single": [*tfsft, "--batch", "1", "--port"],
            "batches": [*tfsft, "--port"],
        }.items():
            port = free_port()
            log = (Path(folder) / f"{name}.log").open("w")
            server = subprocess.Popen([*command, str(port)], stdout=log, stderr=log)
            try:
                wait(port, server)
                for clients in map(int, options.clients.split(",")):
                    report(name, clients, load(script, port, clients, options.seconds))
            finally:
                server.terminate()
                server.wait()


def load(script: Path, port: int, clients: int, seconds: int) -> str:
    """Returns what wrk says of a server; the first seconds do not count."""
    words = [
        "wrk",
        "-t1",
        f"-c{clients}",
        "--latency",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}",
    ]
    subprocess.run([*words, "-d3s"], check=True, capture_output=True)
    words += [f"-d{seconds}s", "--timeout", "30s"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def report(name: str, clients: int, said: str) -> None:
    """Prints a row of the table."""
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    times = [re.search(rf"(?m)^\s+{share}%\s+(\S+)", said)[1] for share in (50, 90, 99)]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    cells = "".join(f"{cell:>10}" for cell in times)
    print(f"{name:<9} {clients:>7}  {rate:>10.1f}{cells}  {bad[1] if bad else 0:>12}", flush=True)


def wait(port: int, server: subprocess.Popen) -> None:
    """Waits until a server answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        json.dumps({"text": "hello"}).encode(),
        {"Content-Type": "application/json"},
    )
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"The server ended with {server.returncode}.")
        try:
            urllib.request.urlopen(request, timeout=60).close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The server does not answer.")


def serve_naively(run: Path, port: int) -> None:
    """Answers each request by itself, as a first server is often written."""
    import uvicorn
    from fastapi import FastAPI

    from tfsft.export import load_predictor

    predictor, app, lock = load_predictor(run), FastAPI(), threading.Lock()

    @app.post("/predict")
    def predict(example: dict) -> dict:
        with lock:
            chunk, *_ = predictor.encoder.encode({"text": [example["text"]]}, 0)
            tokens = chunk["token_ids"][0][None]
            inputs = {"token_ids": tokens, "padding_mask": tokens * 0 + 1}
            if predictor.tokenizer.uses_segments:
                inputs["segment_ids"] = tokens * 0
            shares = predictor.model.predict(inputs, verbose=0)[0].tolist()
        return dict(zip(predictor.class_names, shares, strict=True))

    uvicorn.run(app, port=port, log_level="warning")


def starter_run(folder: Path) -> Path:
    """Makes a run of the starter with an untrained head."""
    from tfsft import models
    from tfsft.recipes import text_cls

    folder.mkdir()
    backbone = models.load_text_backbone("minilm")
    text_cls.build_model(4, backbone).save(folder / "model.keras")
    backbone.tokenizer.save(folder / "tokenizer")
    task = {
        "task": "text_classification",
        "labels": "single",
        "inputs": ["text"],
        "class_names": list("abcd"),
        "max_length": 128,
        "tokenizer": "tokenizer",
    }
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "config.json").write_text("{}")
    return folder


def texts() -> list[str]:
    """Returns texts of very different lengths."""
    return [
        " ".join(WORDS[(i + j) % len(WORDS)] for j in range(3 + i * 37 % 58)) for i in range(64)
    ]


def free_port() -> int:
    """Returns a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    main()
