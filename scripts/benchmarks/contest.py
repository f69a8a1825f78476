"""Runs contestants in turn, each as a whole process, and writes docs/benchmarks.md; see `run`.

Every contestant is a command that a person could type. It prints its own figures as one JSON object
in its last line; seconds and peak memory are those of its process, from start to end.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
OTHERS = ROOT / ".venv-benchmarks" / "bin" / "python"


@dataclass
class Contestant:
    """What runs: a script of this folder with its options, in our or in the others' environment.

    Those whose name begins with tfsft are what the others are compared with.
    """

    name: str
    script: str
    options: list[str]
    ours: bool = False

    def command(self) -> list[str]:
        """Returns the words of the command."""
        python = sys.executable if self.ours else str(OTHERS)
        return [python, str(HERE / self.script), *self.options]


@dataclass
class Work:
    """One table: contestants, and the name of the figure that decides, if there is one."""

    title: str
    contestants: list[Contestant]
    decides: str | None = None
    more_is_better: bool = False
    prepare: list[str] = field(default_factory=list)


def main() -> None:
    """Runs the works that were named and writes their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", nargs="*", help=f"of {', '.join(WORKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="each contestant runs so often")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every contestant")
    parser.add_argument("--rows", type=int, default=8056, help="training texts of the work text")
    parser.add_argument("--pictures", type=int, default=1000, help="of the work image-head")
    parser.add_argument("--only", default="", help="contestants that match; no table is written")
    parser.add_argument("--folder", type=Path, help="for data; a temporary one by default")
    args = parser.parse_args()
    unknown = set(args.work) - set(WORKS)
    if unknown:
        parser.error(f"unknown work {', '.join(unknown)}; there are {', '.join(WORKS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for name in args.work or WORKS:
            work = WORKS[name](folder / name, args)
            work.contestants = [c for c in work.contestants if re.search(args.only, c.name)]
            table = contest(work, args)
            print(f"\n{table}\n", flush=True)
            if not args.only:
                write(name, table)


def contest(work: Work, args: argparse.Namespace) -> str:
    """Runs every contestant `--rounds` times, in turn; returns a table of medians."""
    if work.prepare:
        subprocess.run([sys.executable, *work.prepare], check=True)
    measured: dict[str, list[dict]] = {c.name: [] for c in work.contestants}
    for number in range(args.rounds):
        for contestant in work.contestants:
            figures = run(contestant, args.threads)
            measured[contestant.name].append(figures)
            print(f"round {number + 1} {contestant.name:30} {json.dumps(figures)}", flush=True)
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in measured.items()
    }
    return as_table(work, medians, args)


def run(contestant: Contestant, threads: int) -> dict[str, float]:
    """Runs one process; returns its figures, with seconds and peak memory."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TOKENIZERS_PARALLELISM": "false",
        "KERAS_BACKEND": "tensorflow",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # for `tfsft`
    }
    os.sync()  # or who syncs a file first waits for what was written before it began
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            contestant.command(), stdout=out, stderr=errors, env=environment, cwd=ROOT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        said, complaint = out.read().decode(), errors.read().decode()
    if process.returncode:
        sys.exit(f"{' '.join(contestant.command())} failed:\n{said[-2000:]}\n{complaint[-4000:]}")
    figures = json.loads(said.strip().splitlines()[-1])
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": usage.ru_maxrss // 1024,
        **figures,
    }


def as_table(work: Work, medians: dict[str, dict], args: argparse.Namespace) -> str:
    """Returns a table in Markdown; ratios are those of the figure that decides."""
    keys = list(dict.fromkeys(key for figures in medians.values() for key in figures))
    best = None
    ours = [
        f[work.decides] for name, f in medians.items() if work.decides and name.startswith("tfsft")
    ]
    if ours:
        best = (max if work.more_is_better else min)(ours)
        keys.append("tfsft is")
    lines = [f"{work.title} {machine(args)}", ""]
    lines.append("| | " + " | ".join(key.replace("_", " ") for key in keys) + " |")
    lines.append("|---|" + "---|" * len(keys))
    for name, figures in medians.items():
        cells = {key: shown(figures.get(key)) for key in keys}
        if best is not None:
            value = figures[work.decides]
            ratio = best / value if work.more_is_better else value / best
            cells["tfsft is"] = f"{ratio:.2f} x"
        lines.append(f"| {name} | " + " | ".join(cells.values()) + " |")
    return "\n".join(lines)


def shown(value: float | None) -> str:
    """Returns a number with three or four digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def machine(args: argparse.Namespace) -> str:
    """Returns a sentence about what was measured on."""
    model = platform.processor() or platform.machine()
    flags = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        found = re.search(r"model name\s*: (.*)", text)
        model = found.group(1) if found else model
        flags = " with AMX" if "amx_bf16" in text else ""
    rounds = "one round" if args.rounds == 1 else f"medians of {args.rounds} rounds"
    threads = "one thread" if args.threads == 1 else f"{args.threads} threads"
    return f"({date.today()}, {model}{flags}, {threads}, {rounds}.)"


def write(name: str, table: str) -> None:
    """Puts a table between its marks on the page, for there is more on it than tables."""
    begin, end = f"<!-- {name}: written by scripts/benchmarks/run -->", f"<!-- end of {name} -->"
    page = PAGE.read_text(encoding="utf-8")
    if begin not in page:
        sys.exit(f"{PAGE} has no line {begin}")
    before, rest = page.split(begin, 1)
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def text(folder: Path, args: argparse.Namespace) -> Work:
    """Texts, 3 epochs."""
    script = "text_against_transformers.py"
    shared = ["--folder", str(folder), "--seeds", "0", "--epochs", "3"]
    options = [*shared, "--rows", str(args.rows)]

    def by(name: str, step: str, precision: str, *more: str, ours: bool = False) -> Contestant:
        return Contestant(name, script, [step, *options, "--precision", precision, *more], ours)

    return Work(
        f"MiniLM on {args.rows:,} sentences of movie reviews, 3 epochs, whole command.",
        [
            by("tfsft", "ours", "auto", ours=True),
            by("tfsft --no-suspects", "ours", "auto", "--no-suspects", ours=True),
            by("tfsft, float32", "ours", "float32", ours=True),
            by("Hugging Face Trainer, float32", "baseline", "float32"),
            by("Hugging Face Trainer, bf16", "baseline", "mixed_bfloat16"),
            Contestant("Keras and KerasHub", script, ["keras", *options], ours=True),
        ],
        "seconds",
        prepare=[str(HERE / script), "prepare", *options],
    )


def image_head(folder: Path, args: argparse.Namespace) -> Work:
    """A head on a frozen network."""
    return _images(folder, "head", args.pictures, 10, args.threads)


def image_full(folder: Path, args: argparse.Namespace) -> Work:
    """A whole network."""
    return _images(folder, "full", 200, 1, args.threads)


def _images(folder: Path, what: str, pictures: int, epochs: int, threads: int) -> Work:
    script = "images_against_others.py"
    shared = ["--folder", str(folder), "--pictures", str(pictures), "--epochs", str(epochs)]

    def by(name: str, *words: str, ours: bool = False) -> Contestant:
        return Contestant(name, script, [*words, what, *shared, "--threads", str(threads)], ours)

    contestants = [
        by("tfsft", "ours", ours=True),
        by("tfsft --no-suspects", "ours", "--no-suspects", ours=True),
        by("tfsft, float32", "ours", "--precision", "float32", ours=True),
        by("Keras, the guides' script", "keras", ours=True),
        by("torch, float32", "torch"),
        by("torch, bf16", "torch", "--precision", "mixed_bfloat16"),
    ]
    if what == "head":
        contestants += [
            by("torch, features cached by hand", "cached"),
            by("the same, bf16", "cached", "--precision", "mixed_bfloat16"),
        ]
    trained = "its head of 256 units trained" if what == "head" else "trained whole"
    return Work(
        f"ResNet50 at 224 pixels with random weights, {trained}: {pictures:,} pictures, "
        f"{epochs} epochs, whole command.",
        contestants,
        "seconds",
        prepare=[str(HERE / script), "prepare", what, *shared],
    )


def chat(folder: Path, args: argparse.Namespace) -> Work:
    """LoRA of a language model."""
    script = "chat_against_trl.py"
    shared = ["--folder", str(folder)]

    def by(name: str, *words: str, ours: bool = False) -> Contestant:
        return Contestant(name, script, [*words, *shared], ours)

    return Work(
        "SmolLM2-135M, LoRA of rank 8, 100 updates of 8 conversations, each seen once.",
        [
            by("tfsft", "ours", ours=True),
            by("tfsft, float32", "ours", "--precision", "float32", ours=True),
            by("TRL, float32", "trl", "--precision", "float32"),
            by("TRL, bf16", "trl", "--precision", "mixed_bfloat16"),
            by("TRL, bf16, packed", "trl", "--precision", "mixed_bfloat16", "--packing"),
        ],
        "trained_tokens_per_second",
        more_is_better=True,
        prepare=[str(HERE / script), "prepare", *shared],
    )


def input_(folder: Path, args: argparse.Namespace) -> Work:
    """Pictures and texts on their way to the network."""
    script = "input_against_others.py"
    shared = ["--folder", str(folder), "--threads", str(args.threads)]

    def by(name: str, *words: str, ours: bool = False) -> Contestant:
        return Contestant(name, script, [*words, *shared], ours)

    return Work(
        "JPEGs of 500 x 375 pixels decoded, resized to 224, flipped, cropped and coloured.",
        [
            by("tfsft", "ours", ours=True),
            by("tf.data", "tfdata", ours=True),
            by("torch, 2 workers", "torch"),
        ],
        "pictures_per_second",
        more_is_better=True,
        prepare=[str(HERE / script), "prepare", *shared],
    )


def tokens(folder: Path, args: argparse.Namespace) -> Work:
    """Texts to tokens."""
    script = "input_against_others.py"
    shared = ["--folder", str(folder), "--threads", str(args.threads)]
    return Work(
        "8,056 sentences to the tokens of MiniLM, from memory to memory.",
        [
            Contestant("tfsft", script, ["tokens", *shared], True),
            Contestant("transformers' tokenizer", script, ["tokenizers", *shared]),
        ],
        "rows_per_second",
        more_is_better=True,
        prepare=[str(HERE / script), "prepare", *shared],
    )


def start(folder: Path, args: argparse.Namespace) -> Work:
    """From the command to the first step."""
    script = "start.py"
    return Work(
        "From the command to the end of the first step, MiniLM on 16 texts.",
        [
            Contestant("tfsft run", script, ["ours"], True),
            Contestant("imports, model and one step of Keras", script, ["bare"], True),
            Contestant("the help of tfsft", script, ["help"], True),
        ],
        "first_step_seconds",
    )


def scale(folder: Path, args: argparse.Namespace) -> Work:
    """What more rows cost."""
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    return Work(
        "A table of texts read, tokenised, planned and cut into batches, by its number of rows.",
        [Contestant(f"{rows:,} rows", "scale.py", ["--rows", str(rows)], True) for rows in sizes],
    )


WORKS: dict[str, Callable[[Path, argparse.Namespace], Work]] = {
    "text": text,
    "image-head": image_head,
    "image-full": image_full,
    "chat": chat,
    "input": input_,
    "tokens": tokens,
    "start": start,
    "scale": scale,
}

if __name__ == "__main__":
    main()
