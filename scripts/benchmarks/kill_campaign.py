"""Kills a training again and again and compares what it leaves with one that ran through.

    python scripts/benchmarks/kill_campaign.py
    python scripts/benchmarks/kill_campaign.py --kills 50 --seed 7

SIGKILL comes from outside, at drawn moments: after so many seconds of training, while a checkpoint
is being written, and between two phases. Each run is the recipe `image_cls` on handwritten digits
with shuffling, augmentation, dropout, a schedule, accumulation, a moving average, early stopping
and class weights. When one has come to its end, the hashes of its weights and optimizer state, its
history.csv and its predictions.csv are compared, and the next one begins, until there were enough
kills.

With --seed 7, on one core: 50 kills, 18 of them inside of a write, in 6 runs, all of them equal to
the uninterrupted one; 33 minutes.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SETTINGS = [
    "--backbone", "efficientnet_lite0", "--limit", "240", "--image-size", "48", "--batch-size",
    "16", "--epochs", "6", "--augment", "flip,crop,mixup", "--schedule", "cosine", "--accumulate",
    "2", "--ema", "0.9", "--patience", "5", "--class-weight", "balanced", "--hidden-units", "32",
]  # fmt: skip
MOMENTS = ("time", "time", "write", "write", "phase")


def start(folder: Path) -> subprocess.Popen:
    """Starts the run in a folder, or goes on with it."""
    there = (folder / "config.json").exists()
    words = ["--resume" if there else "--run-dir", str(folder), "--checkpoint-steps", "3"]
    command = [sys.executable, "-m", "tfsft", "run", "image_cls", *SETTINGS, *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(process: subprocess.Popen, condition, seconds: float = 300) -> bool:  # noqa: ANN001
    """Waits until a condition holds; returns False if the process ended before."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.0005)
    return False


def kill_at(process: subprocess.Popen, folder: Path, moment: str, draw: random.Random) -> bool:
    """Kills a run at a moment; returns False if it ended before."""
    checkpoints = folder / "checkpoints"

    def newest() -> str:
        return max((path.name for path in checkpoints.glob("0*")), default="")

    def phase_ended() -> bool:
        with_end = newest()
        if with_end == first:
            return False
        try:
            manifest = json.loads((checkpoints / with_end / "manifest.json").read_text())
        except OSError:  # it was removed meanwhile
            return False
        return manifest["facts"]["phase"] is None

    first = newest()
    if moment == "phase":
        there = wait_for(process, phase_ended)
    else:
        there = wait_for(process, lambda: newest() != first)  # it trains
        if moment == "write":
            for _ in range(draw.randint(1, 6)):
                there = there and wait_for(process, lambda: not any(checkpoints.glob(".writing-*")))
                there = there and wait_for(process, lambda: any(checkpoints.glob(".writing-*")))
            time.sleep(draw.uniform(0, 0.02))
        else:
            time.sleep(draw.uniform(0, 6))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def result(folder: Path) -> dict[str, str]:
    """Returns hashes of all that two equal runs share."""
    found = {}
    for path in sorted((folder / "checkpoints").glob("0*"))[-2:]:
        files = json.loads((path / "manifest.json").read_text())["files"]
        state = files.pop("state.safetensors")["sha256"]
        found[f"state {len(found)}"] = state
        found |= {name: file["sha256"] for name, file in files.items()}
    for name in ("history.csv", "predictions.csv"):
        found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found


def main() -> None:
    """Kills, compares, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--minutes", type=float, default=0, help="begin no further kill after these"
    )
    args = parser.parse_args()
    draw, began = random.Random(args.seed), time.monotonic()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    kills, inside, runs, wrong = Counter(), 0, 0, []
    with tempfile.TemporaryDirectory(prefix="kills-") as parent:
        whole = Path(parent, "whole")
        process = start(whole)
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"The run that is not killed failed:\n{errors.decode()}")
        expected = result(whole)

        def goes_on() -> bool:
            late = args.minutes and time.monotonic() - began > args.minutes * 60
            return kills.total() < args.kills and not late

        while goes_on():
            folder = Path(parent, f"run-{runs}")
            runs += 1
            ended = False
            while not ended and goes_on():
                moment = draw.choice(MOMENTS)
                process = start(folder)
                killed = kill_at(process, folder, moment, draw)
                _, errors = process.communicate()
                ended = not killed
                if killed:
                    kills[moment] += 1
                    inside += any((folder / "checkpoints").glob(".writing-*"))
                    print(f"{kills.total()} of {args.kills} kills", file=sys.stderr, flush=True)
                elif process.returncode:
                    wrong.append(f"run {runs}: exit code {process.returncode}: {errors.decode()}")
            if not ended:  # enough kills
                process = start(folder)
                _, errors = process.communicate()
                if process.returncode:
                    wrong.append(f"run {runs}: exit code {process.returncode}: {errors.decode()}")
            found = result(folder)
            if found != expected:
                names = [name for name in expected if found.get(name) != expected[name]]
                wrong.append(f"run {runs}: other {', '.join(names)}")

    print(f"{'moment':24} kills")
    for name, count in sorted(kills.items()):
        print(f"{name:24} {count:5}")
    print(f"{'all':24} {kills.total():5}, {inside} of them inside of a write")
    print(f"{runs} runs brought to their end, {runs - len(wrong)} equal to the uninterrupted one")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, seed {args.seed}")
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
