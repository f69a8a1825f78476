"""Held-out examples through the model of a run and through what was exported of it."""

import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfsft import evaluation, training
from tfsft.errors import UserError
from tfsft.evaluation.decoding import AnswerDecoder
from tfsft.export.portable_folder import HERE, write_portable
from tfsft.export.predictor import Predictor
from tfsft.training.features import run_batches
from tfsft.training.scoring import answer_text

TIMED = 30  # examples that Keras is timed with, one at a time
FIGURES = {"single": "accuracy", "multi": "accuracy", "regression": "r2"}
FIGURES |= {"tags": "f1", "answers": "exact"}
# What must not be imported, by format
_BLOCKED = {"keras": ("tfsft",), "saved_model": ("tfsft", "keras_hub")}
_ALL_BLOCKED = ("tfsft", "keras", "keras_hub", "tensorflow", "tensorflow_text", "tf_keras")


@dataclass(frozen=True)
class Replay:
    """What a model said of examples in a process of its own, one after another.

    Args:
        outputs: Of each example, `[classes]`, `[words, tags]` or `[2, tokens]`.
        seconds: The median time of one call of the model.
        loaded: Seconds until the model was ready.
        memory: The most that the process had, in bytes.
    """

    outputs: list[np.ndarray]
    seconds: float
    loaded: float
    memory: int


def replay(folder: Path, examples: Sequence[Sequence[Any]], format: str) -> Replay:
    """Answers examples by the files of an export.

    Args:
        folder: The export.
        examples: Raw inputs.
        format: Of the export; what it must do without is not to be imported.

    Raises:
        UserError: It does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="tfsft-replay-") as place:
        job, out = Path(place, "job.json"), Path(place, "out.npz")
        said = {"folder": str(folder.absolute()), "examples": examples, "out": str(out)}
        said["blocked"] = _BLOCKED.get(format, _ALL_BLOCKED)
        job.write_text(json.dumps(said), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-I", "-B", str(HERE / "replay.py"), str(job)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise UserError(
                f"The export does not answer: {lines[-1][:300]}",
                "Every held-out example is answered in the format's own runtime.",
                "It was removed. Use another --format or --quantize, or report this.",
            )
        with np.load(out) as found:
            outputs = [found[f"output{i}"] for i in range(len(examples))]
            return Replay(
                outputs,
                float(np.median(found["seconds"])),
                float(found["loaded"]),
                int(found["memory"]),
            )


def replay_keras(predictor: Predictor, examples: Sequence[Sequence[Any]]) -> Replay:
    """Answers a few examples by plain Keras, for the time and the memory that it takes."""
    with tempfile.TemporaryDirectory(prefix="tfsft-keras-") as place:
        folder = Path(place)
        write_portable(predictor, folder, "keras")
        shutil.copyfile(predictor.run / "model.keras", folder / "model.keras")
        return replay(folder, examples[:TIMED], "keras")


def run_outputs(predictor: Predictor, source: Any) -> list[np.ndarray]:
    """Returns what the run says of labelled examples, as `Replay.outputs` has it."""
    pipeline = predictor.pipeline(source)
    if predictor.labels not in ("tags", "answers"):
        outputs, ok = training.predict(predictor.model, pipeline)
        if not ok.all():
            names = [source.ids[place] for place in np.flatnonzero(~ok)[:3]]
            raise UserError(
                f"{(~ok).sum()} pictures cannot be decoded: {', '.join(names)}.",
                "Every held-out example is replayed.",
                "Repair or remove these files, or name other data with --data.",
            )
        return list(outputs)
    table, rows = pipeline.feed.table, {}
    for places, (outputs,), _ in run_batches(predictor.model, pipeline):
        rows |= dict(zip(places.tolist(), outputs, strict=True))
    of_example: list[list[int]] = [[] for _ in range(len(source))]
    for row, example in enumerate(table.rows["example"]):
        of_example[example].append(row)
    if predictor.labels == "answers":
        return [
            np.concatenate([rows[row][:, : table.lengths[row]] for row in mine], axis=1)
            for mine in of_example
        ]
    found = []
    for mine, words in zip(of_example, source.column("starts"), strict=True):
        said = np.zeros([len(words), predictor.num_outputs], np.float32)
        for row in mine:
            word = table.padded("words", np.array([row]), len(rows[row]), -1)[0]
            said[word[word >= 0]] = rows[row][word >= 0]
        found.append(said)
    return found


def answers(predictor: Predictor, source: Any, outputs: Sequence[np.ndarray]) -> list[Any]:
    """Returns what outputs say of each example: something to compare, and to read."""
    kind = predictor.labels
    if kind == "tags":
        return [[predictor.task["tags"][tag] for tag in of.argmax(axis=1)] for of in outputs]
    if kind == "answers":
        return _found_answers(predictor, source, outputs)[0]
    rows = evaluation.predictions.predictions(
        list(source.ids), None, np.stack(outputs), predictor.class_names, kind=kind
    )
    return [row.prediction for row in rows]


def score(predictor: Predictor, source: Any, outputs: Sequence[np.ndarray]) -> float | None:
    """Returns the figure of `FIGURES` that outputs reach; None where it is not defined."""
    kind, names = predictor.labels, predictor.class_names
    if kind == "tags":
        true = [[predictor.task["tags"][tag] for tag in row] for row in source.column("tags")]
        metrics = evaluation.tag_metrics(true, answers(predictor, source, outputs), names)
    elif kind == "answers":
        right = [[answer["text"] for answer in found] for found in source.column("answers")]
        said, none, candidates = _found_answers(predictor, source, outputs)
        metrics = evaluation.question_metrics(right, said, none, candidates)
    else:
        labels = np.asarray(source.labels)
        with warnings.catch_warnings():  # probabilities of 8 bits do not sum to one
            warnings.simplefilter("ignore", UserWarning)
            metrics = evaluation.evaluate(kind, labels, np.stack(outputs), names)
    return metrics.get(FIGURES[kind])


def _found_answers(
    predictor: Predictor, source: Any, outputs: Sequence[np.ndarray]
) -> tuple[list[str], list[float], list[str]]:
    """Returns the answers, how much speaks for none, and the best spans, by `AnswerDecoder`."""
    table = predictor.pipeline(source).feed.table
    decoder = AnswerDecoder(len(source), **predictor.decoding)
    used = np.zeros(len(source), np.int64)
    for row, example in enumerate(table.rows["example"]):
        length = int(table.lengths[row])
        window = outputs[example][:, used[example] : used[example] + length]
        used[example] += length
        words = table.padded("words", np.array([row]), length, -1)
        decoder.add(np.array([example]), window[None], words)
    found, contexts = decoder.answers(), source.column("context")
    spans = [predictor.encoder.words(context) for context in contexts]
    said, best = (
        [answer_text(*parts, best=widest) for parts in zip(found, contexts, spans, strict=True)]
        for widest in (False, True)
    )
    return said, [answer.no_answer_score for answer in found], best


def differences(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the largest difference of outputs of each example, of numbers beyond 1 relative.

    It is infinite where there are not as many outputs, as of other tokens.
    """
    found = []
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            found.append(np.inf)
        else:
            apart = np.abs(a - b) / np.maximum(1.0, np.abs(a))
            found.append(float(np.max(apart, initial=0.0)))  # NaN stays NaN
    return np.array(found)
