"""How long it takes to the end of the first step, and to the first line of help.

    python scripts/benchmarks/start.py ours
    python scripts/benchmarks/start.py bare
    python scripts/benchmarks/start.py help

`bare` is the least that a script of KerasHub does: imports, the same model, one step of `fit`.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXTS = [f"this is text number {number}, and it is quite short" for number in range(64)]


def main() -> None:
    """Measures one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["ours", "bare", "help"])
    args = parser.parse_args()
    print(
        json.dumps({"first_step_seconds": {"ours": ours, "bare": bare, "help": help_}[args.step]()})
    )


def ours() -> float:
    """`tfsft run` until it says that its first step is done."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "texts.csv"
        with open(table, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((text, "ab"[number % 2]) for number, text in enumerate(TEXTS))
        command = ["tfsft", "run", "recipes/text_cls.py", "--data", str(table), "--max-steps", "1"]
        command += ["--backbone", "minilm", "--precision", "float32", "--epochs", "1"]
        run = Path(folder) / "run"
        start = time.perf_counter()
        process = subprocess.Popen([*command, "--run-dir", str(run)], stdout=subprocess.DEVNULL)
        while not run.exists() and process.poll() is None:
            time.sleep(0.005)
        began = time.perf_counter() - start  # from where the run counts
        if process.wait():
            raise SystemExit("tfsft run failed")
        timing = json.loads((run / "metrics.json").read_text())["timing"]
        return round(began + timing["first_step_seconds"], 2)


def bare() -> float:
    """Imports, the same model, one step."""
    start = time.perf_counter()
    code = """
import sys
import keras, keras_hub, numpy as np
from tfsft.models.starters import starter_path
preset = str(starter_path("minilm"))
model = keras_hub.models.BertTextClassifier.from_preset(preset, num_classes=2)
model.preprocessor.sequence_length = 16
model.fit(sys.argv[1:17], np.arange(16) % 2, batch_size=16, verbose=0)
"""
    subprocess.run([sys.executable, "-c", code, *TEXTS[:16]], check=True, capture_output=True)
    return round(time.perf_counter() - start, 2)


def help_() -> float:
    """`tfsft --help`, the best of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(["tfsft", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(min(times), 3)


if __name__ == "__main__":
    main()
