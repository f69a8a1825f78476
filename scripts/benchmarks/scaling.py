"""How the time of a step grows with the number of workers: computed, and measured on this machine.

    python scripts/benchmarks/scaling.py                        # measures 1, 2 and 4 processes
    python scripts/benchmarks/scaling.py --workers 2,4,8,16,32 \
        --step-seconds 0.25 --megabytes 438 --gigabits 10       # computes only

Each worker computes a batch of the same size; then the gradients of all are added up around a ring.
docs/scaling.md has the formula and what came out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = ("image_cls", "--data", "digits", "--backbone", "efficientnet_lite0", "--limit", "400")
SETTINGS = ("--image-size", "96", "--unfreeze", "all", "--epochs", "1", "--augment", "flip")
PHASE = "unfrozen"
EACH = 8  # examples of one worker in a step


def step_seconds(
    compute: float, megabytes: float, workers: int, gigabits: float, microseconds: float
) -> float:
    """Returns the time of a step by the model of a ring.

    Args:
        compute: Seconds of one worker alone.
        megabytes: Size of all gradients.
        workers: Their number.
        gigabits: A second, over the slowest link between two neighbours.
        microseconds: Until a message arrives, besides the time for its bytes.
    """
    sent = 2 * (workers - 1) / workers * megabytes * 1e6
    messages = 2 * (workers - 1)
    return compute + sent * 8 / (gigabits * 1e9) + messages * microseconds * 1e-6


def compute_table(compute: float, args: argparse.Namespace) -> None:
    """Prints time and efficiency by the model."""
    print("workers  seconds a step  efficiency  as fast as")
    for workers in args.workers:
        seconds = step_seconds(compute, args.megabytes, workers, args.gigabits, args.microseconds)
        share = compute / seconds
        print(f"{workers:7} {seconds:15.3f} {share:10.0%} {share * workers:11.1f}")


def measure(workers: int, steps: int, folder: Path) -> tuple[float, float]:
    """Returns the seconds of a step of several local processes, and the megabytes of gradients."""
    run = folder / str(workers)
    words = ["--batch-size", str(EACH * workers), "--max-steps", str(steps), "--run-dir", str(run)]
    command = ["launch", "--workers", str(workers), "--", "run", *RECIPE, *SETTINGS, *words]
    one_core = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "tfsft", *command],
        env=os.environ | one_core,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    metrics = json.loads((run / "metrics.json").read_text())
    examples_a_second = metrics["timing"]["learned_per_second"][PHASE]
    return EACH * workers / examples_a_second, metrics["parameters"]["trained"] * 4 / 1e6


def measured_table(args: argparse.Namespace) -> None:
    """Prints what was measured, and the link speed that the model needs for two workers."""
    with tempfile.TemporaryDirectory() as folder:
        found = {w: measure(w, args.steps, Path(folder)) for w in args.workers}
    alone, megabytes = found[args.workers[0]]
    cores = len(os.sched_getaffinity(0))
    print(f"{megabytes:.1f} MB of gradients; {cores} cores, one for each worker")
    print("workers  seconds a step  efficiency")
    for workers, (seconds, _) in found.items():
        print(f"{workers:7} {seconds:15.3f} {alone / seconds:10.0%}")
    if 2 in found and found[2][0] > alone:
        gigabits = megabytes * 8 / 1000 / (found[2][0] - alone)
        print(f"Two workers are as slow as the model says for a link of {gigabits:.2f} Gbit/s.")


def main() -> None:
    """Measures, or computes where a measured step is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workers", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4]
    )
    parser.add_argument("--steps", type=int, default=15, help="of a measurement")
    parser.add_argument("--step-seconds", type=float, help="measured with one worker")
    parser.add_argument("--megabytes", type=float, default=100.0, help="of gradients")
    parser.add_argument("--gigabits", type=float, default=10.0, help="a second, of the link")
    parser.add_argument("--microseconds", type=float, default=50.0, help="latency of the link")
    args = parser.parse_args()
    if args.step_seconds:
        compute_table(args.step_seconds, args)
    else:
        measured_table(args)


if __name__ == "__main__":
    main()
