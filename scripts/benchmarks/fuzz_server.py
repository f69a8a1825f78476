"""Thousands of requests made by schemathesis from the OpenAPI page, to servers of all kinds.

    python scripts/benchmarks/fuzz_server.py --requests 10000
    python scripts/benchmarks/fuzz_server.py --kinds chat --requests 2000

Each kind of run is made in small and with random weights, and served by `tfsft serve` in a process
of its own. A tenth of the requests comes first, so that what is made once is there. All are counted
that are answered with 5xx (503 aside, which says that there is no room); memory, open files and
threads of the server are compared after that tenth and at the end. It needs schemathesis.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "tools"))
KINDS = ("pictures", "texts", "pairs", "numbers", "tags", "questions", "chat")
LIMITS = ["--max-text", "1000", "--max-new-tokens", "4"]
MOST_MEMORY = 50 << 20  # that may be added after the first tenth
FUZZ = """
import collections, json, schemathesis, sys
from schemathesis.cli import schemathesis as command
seen = collections.Counter()
@schemathesis.hook
def after_call(context, case, response):
    seen[f"{response.status_code} {case.operation.label}"] += 1
    if response.status_code >= 500 and response.status_code != 503:
        print("FAULT", case.operation.label, case.as_curl_command()[:2000], file=sys.stderr)
try:
    command(standalone_mode=False)
finally:
    print("SEEN " + json.dumps(seen))
"""


def make_run(kind: str, folder: Path) -> Path:
    """Makes a finished run of a kind in small, with random weights."""
    import text_families
    import text_runs
    from chat_families import tiny_causal_lm
    from chat_runs import write_chat_run

    if kind == "chat":
        return write_chat_run(folder / "run", tiny_causal_lm(folder / "llama"))
    run = folder / "run"
    run.mkdir()
    if kind == "pictures":
        _write_pictures(run)
        return run
    encoder = folder / "encoder"
    text_families.save_tiny("bert", encoder, max_sequence_length=text_runs.POSITIONS)
    text_runs.write_run(run, kind, encoder)
    return run


def _write_pictures(run: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3), dtype="uint8", name="pictures")
    x = keras.layers.Resizing(16, 16, antialias=True, dtype="uint8", name="resize")(inputs)
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(x)
    outputs = keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(x))
    keras.Model(inputs, outputs).save(run / "model.keras")
    (run / "config.json").write_text("{}")
    task = {"task": "image_classification", "labels": "single", "image_size": 16}
    (run / "task.json").write_text(json.dumps(task | {"class_names": ["a", "b", "c"]}))


class Server:
    """`tfsft serve` in a process of its own; used as a context manager."""

    def __init__(self, run: Path, folder: Path):
        self.log = folder / "server.log"
        command = [
            sys.executable,
            "-m",
            "tfsft",
            "serve",
            str(run),
            "--port",
            "0",
            "--name",
            "model",
        ]
        command += ["--feedback", str(folder / "feedback.jsonl"), *LIMITS]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> "Server":
        until = time.monotonic() + 300
        while not (found := re.search(r"Ready: (http://\S+?)/? ", self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"The server did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)
        self.url = found[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def sizes(self) -> dict[str, int]:
        """Returns what must not grow."""
        process = psutil.Process(self.process.pid)
        return {
            "memory": process.memory_info().rss,
            "files": process.num_fds(),
            "threads": process.num_threads(),
        }


def write_schema(url: str, path: Path) -> int:
    """Writes the OpenAPI page, with the model that there is; returns how many operations it has."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=60) as answer:
        schema = json.load(answer)
    operations = [part for methods in schema["paths"].values() for part in methods.values()]
    for operation in operations:
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "name":
                parameter["schema"] = {"enum": ["model"]}
    chat = schema.get("components", {}).get("schemas", {}).get("ChatRequest")
    if chat is not None:
        chat["properties"]["model"] = {"enum": ["model"]}
    path.write_text(json.dumps(schema))
    return len(operations)


def fuzz(url: str, folder: Path, examples: int, seed: int) -> collections.Counter:
    """Sends up to so many requests for each operation; returns how often each status came."""
    options = ["--checks", "not_a_server_error", "--phases", "fuzzing", "--seed", str(seed)]
    options += ["--max-examples", str(examples), "--url", url, "--continue-on-failure"]
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, "run", str(folder / "openapi.json"), *options],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"^SEEN (.*)$", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    for line in done.stderr.splitlines():
        if line.startswith("FAULT"):
            print(line, flush=True)
    return collections.Counter(json.loads(found[1]))


def measure(kind: str, requests: int) -> dict:
    """Returns what became of the requests to one kind of server."""
    with tempfile.TemporaryDirectory(prefix="tfsft-fuzz-") as name:
        folder = Path(name)
        os.environ["TFSFT_CACHE"] = str(folder / "cache")
        with Server(make_run(kind, folder), folder) as server:
            operations = write_schema(server.url, folder / "openapi.json")
            seen = fuzz(server.url, folder, max(1, requests // 10 // operations), 1)
            before, start, seed = server.sizes(), time.monotonic(), 2
            while seen.total() < requests:
                left = requests - seen.total()
                seen += fuzz(server.url, folder, max(5, left // operations), seed)
                seed += 1
            after = server.sizes()
            seconds = time.monotonic() - start
            faults = (folder / "server.log").read_text(errors="replace").count("Traceback")
    statuses: collections.Counter = collections.Counter()
    for what, count in seen.items():
        statuses[what.split()[0]] += count
    failed = sum(n for status, n in statuses.items() if status[0] == "5" and status != "503")
    grown = after["memory"] - before["memory"]
    return {
        "kind": kind,
        "requests": seen.total(),
        "statuses": dict(sorted(statuses.items())),
        "explained": seen["200 POST /explain"],
        "faults": failed,
        "tracebacks": faults,
        "memory": [round(sizes["memory"] / 2**20) for sizes in (before, after)],
        "files": [before["files"], after["files"]],
        "threads": [before["threads"], after["threads"]],
        "seconds": round(seconds),
        "good": not failed and not faults and grown < MOST_MEMORY
        and after["files"] <= before["files"] + 3 and after["threads"] <= before["threads"] + 2,
    }  # fmt: skip


def main() -> int:
    """Prints a line of JSON for each kind; the exit code is 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000, help="to all kinds together")
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    found = []
    for kind in kinds:
        found.append(measure(kind, -(-given.requests // len(kinds))))
        print(json.dumps(found[-1]), flush=True)
    print(f"{sum(one['requests'] for one in found):,} requests")
    return 0 if all(one["good"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
