"""What a run and an export of it say of held-out examples, to be compared."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfsft import evaluation, training
from tfsft.errors import UserError
from tfsft.evaluation.decoding import AnswerDecoder
from tfsft.export.predictor import Predictor
from tfsft.training.forward import run_batches
from tfsft.training.scoring import answer_text

Outputs = Sequence[np.ndarray]
FIGURES = {"single": "accuracy", "multi": "accuracy", "regression": "r2"}
FIGURES |= {"tags": "f1", "answers": "exact"}


class Judge:
    """Compares outputs of examples: `[classes]`, `[words, tags]` or `[2, tokens]` of each.

    Args:
        predictor: Of the run.
        source: Labelled examples.
    """

    def __init__(self, predictor: Predictor, source: Any):
        self.predictor = predictor
        self.source = source

    def ours(self) -> list[np.ndarray]:
        """Returns what the run says."""
        return run_outputs(self.predictor, self.source)

    def theirs(self, ours: Outputs, replayed: Outputs) -> list[np.ndarray]:
        """Returns what the export says as `ours` has it.

        Args:
            ours: What the run says.
            replayed: What came from the export's process.
        """
        return list(replayed)

    def answers(self, outputs: Outputs) -> list[Any]:
        """Returns what outputs say of each example: something to compare, and to read."""
        predictor = self.predictor
        if predictor.labels == "tags":
            return [[predictor.task["tags"][tag] for tag in of.argmax(axis=1)] for of in outputs]
        if predictor.labels == "answers":
            return self._found_answers(outputs)
        rows = evaluation.predictions.predictions(
            list(self.source.ids),
            None,
            np.stack(outputs),
            predictor.class_names,
            kind=predictor.labels,
        )
        return [row.prediction for row in rows]

    def score(self, outputs: Outputs, answers: Sequence[Any]) -> float | None:
        """Returns the figure of `FIGURES` that outputs reach; None where it is not defined.

        Args:
            outputs: Of the examples.
            answers: What `answers` says of these.
        """
        kind, names = self.predictor.labels, self.predictor.class_names
        if kind == "tags":
            metrics = evaluation.tag_metrics(self.true_tags(), answers, names)
        elif kind == "answers":
            metrics = evaluation.question_metrics(self.true_answers(), answers)
        else:
            labels = np.asarray(self.source.labels)
            with warnings.catch_warnings():  # probabilities of 8 bits do not sum to one
                warnings.simplefilter("ignore", UserWarning)
                metrics = evaluation.evaluate(kind, labels, np.stack(outputs), names)
        return metrics.get(FIGURES[kind])

    def true_tags(self) -> list[list[str]]:
        """Returns the labels of words."""
        tags = self.predictor.task["tags"]
        return [[tags[tag] for tag in row] for row in self.source.column("tags")]

    def true_answers(self) -> list[list[str]]:
        """Returns the right answers to questions."""
        return [[answer["text"] for answer in found] for found in self.source.column("answers")]

    def _found_answers(self, outputs: Outputs) -> list[str]:
        found = answer_decoder(self.predictor, self.source, outputs).answers()
        contexts = self.source.column("context")
        spans = [self.predictor.encoder.words(context) for context in contexts]
        return [answer_text(*parts) for parts in zip(found, contexts, spans, strict=True)]


def run_outputs(predictor: Predictor, source: Any) -> list[np.ndarray]:
    """Returns what the run says of labelled examples."""
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


def answer_decoder(predictor: Predictor, source: Any, outputs: Outputs) -> AnswerDecoder:
    """Returns what knows the answers to questions, of the logits `[2, tokens]` of each."""
    table = predictor.pipeline(source).feed.table
    decoder = AnswerDecoder(len(source), **predictor.decoding)
    used = np.zeros(len(source), np.int64)
    for row, example in enumerate(table.rows["example"]):
        length = int(table.lengths[row])
        window = outputs[example][:, used[example] : used[example] + length]
        used[example] += length
        words = table.padded("words", np.array([row]), length, -1)
        decoder.add(np.array([example]), window[None], words)
    return decoder


def differences(ours: Outputs, theirs: Outputs) -> np.ndarray:
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
