"""samples.json: what a language model answered to the same prompts in the course of a run."""

import json
from collections.abc import Sequence
from pathlib import Path

from tfsft.evaluation.atomic_write import atomic_write

FORMAT = 1
FILE = "samples.json"


def add_samples(
    run_dir: Path,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    step: int,
    epoch: int,
    phase: str,
) -> None:
    """Adds the answers of one moment; those of the same step, and of later ones, are replaced.

    So a run that goes on from a checkpoint leaves what an uninterrupted one would have left.

    Args:
        run_dir: Of the run.
        prompts: [n]; other ones than before begin anew.
        answers: [n].
        step: Updates made before; 0 is the pretrained model.
        epoch, phase: Where in the training that is, for people to read.
    """
    found = read_samples(run_dir)
    if found.get("prompts") != list(prompts):
        found = {"format": FORMAT, "prompts": list(prompts), "answers": []}
    # The pretrained model may be asked at the end, with the updates taken off.
    earlier = [row for row in found["answers"] if row["step"] < step or (step == 0 < row["step"])]
    row = {"step": step, "epoch": epoch, "phase": phase, "answers": list(answers)}
    found["answers"] = sorted([*earlier, row], key=lambda row: row["step"])
    text = json.dumps(found, indent=1, ensure_ascii=False)
    atomic_write(Path(run_dir) / FILE, text + "\n")


def read_samples(run_dir: Path) -> dict:
    """Returns what `add_samples` wrote; empty where there is nothing."""
    path = Path(run_dir) / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def samples_as_markdown(prompts: Sequence[str], answers: Sequence[str]) -> str:
    """Returns prompts and answers as a table for TensorBoard."""

    def cell(text: str) -> str:
        for letter in "\\`*_[]<>#|~":
            text = text.replace(letter, f"\\{letter}")
        return "<br>".join(text.split("\n"))

    rows = [f"| {cell(p)} | {cell(a)} |" for p, a in zip(prompts, answers, strict=True)]
    return "\n".join(["| prompt | answer |", "| --- | --- |", *rows])
