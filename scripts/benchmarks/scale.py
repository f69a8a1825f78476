"""What a table of many texts costs before training: reading, tokens, plan, first batch, memory.

python scripts/benchmarks/scale.py --rows 1000000
"""

import argparse
import json
import os
import random
import re
import resource
import tempfile
import threading
import time
from pathlib import Path

WORDS = [
    "the",
    "a",
    "film",
    "plot",
    "is",
    "not",
    "very",
    "good",
    "bad",
    "long",
    "and",
    "with",
    "of",
    "in",
    "this",
]


def main() -> None:
    """Writes a table of so many rows and times what happens to it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "texts.csv"
        write(table, args.rows)
        figures = measure(table, Path(folder) / "cache")
    print(json.dumps(figures))


def write(table: Path, rows: int) -> None:
    """Writes texts of 3 to 30 words, no two alike."""
    rng = random.Random(0)
    with open(table, "w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(rows):
            words = " ".join(rng.choices(WORDS, k=rng.randint(2, 29)))
            file.write(f"{words} {number},{'ab'[number % 2]}\n")


def measure(table: Path, folder: Path) -> dict:
    """Returns seconds of each step, and memory beyond that of the imports: what the process holds
    at the end, what it held at most, and with the pages of mapped files, which the system takes
    back where it needs them.
    """
    from tfsft import data, models

    backbone = models.load_text_backbone("minilm:random")
    os.environ["TFSFT_CACHE"] = str(folder)  # an empty one
    before, peak_before = own_mib(), peak_mib()
    most = MostMemory()
    clock = Clock()
    splits = data.load_texts(str(table))
    clock.lap("read_seconds")
    encoder = data.TextEncoder(backbone.tokenizer, 128)
    feed = data.TextFeed(splits.train, encoder, num_outputs=2)
    clock.lap("tokens_seconds")
    pipeline = feed.pipeline(32, seed=0, shuffle=True)
    clock.lap("plan_seconds")
    batches = iter(pipeline.epoch(0))
    next(batches)
    clock.lap("first_batch_seconds")
    for _ in range(200):
        next(batches, None)
    clock.lap("next_200_batches_seconds")
    return {
        **clock.laps,
        "memory_held_mib": own_mib() - before,
        "memory_at_most_mib": most.mib - before,
        "with_files_mib": peak_mib() - peak_before,
    }


class Clock:
    """Seconds between one lap and the next."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a lap."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


class MostMemory:
    """The most memory of its own this process has held, looked at every few milliseconds."""

    def __init__(self):
        self.mib = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self.mib = max(self.mib, own_mib())
            time.sleep(0.003)


def own_mib() -> int:
    """Returns the memory of this process that no file stands behind."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) // 1024


def peak_mib() -> int:
    """Returns the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
