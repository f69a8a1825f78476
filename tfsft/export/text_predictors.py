"""Finished runs about texts as functions from texts to answers."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfsft import data, models, training
from tfsft.data.plain_texts import PlainTexts, read_plain_texts
from tfsft.data.words import split_words
from tfsft.errors import UsageError
from tfsft.evaluation.predictions import Prediction, order, predictions
from tfsft.evaluation.tags import is_plain
from tfsft.export.predictor import Predictor, Progress, label_answers
from tfsft.training.scoring import (
    answer_text,
    character_spans,
    predict_answers,
    predict_tags,
)

BATCH_SIZE = 32


class TextPredictor(Predictor):
    """What the predictors of all text tasks have in common: tokens, and where texts come from.

    `columns` are the texts that one example consists of, `words` how they are called.
    """

    nouns = ("text", "texts")
    columns: tuple[str, ...] = ("text",)

    def __init__(self, run: Path, task: dict[str, Any]):
        super().__init__(run, task)
        self.tokenizer = models.load_tokenizer(run / task["tokenizer"])
        self.model = self.load_model()
        self.encoder = self.make_encoder()

    def make_encoder(self) -> Any:
        """Returns what makes tokens of texts."""
        raise NotImplementedError

    def plain(self, columns: dict[str, list[str]], ids: Sequence[str]) -> PlainTexts:
        """Returns unlabelled examples from their texts."""
        return PlainTexts(columns, ids, self.class_names)

    def read(self, inputs: Sequence[str], table: str | None = None) -> PlainTexts:
        """Returns the texts that are meant.

        Args:
            inputs: Texts, as many for each example as it has; or `-`, for a text in each line of
                the standard input. A text file or a folder of such stands for what is in it.
            table: A file with a column for each text.
        """
        columns: dict[str, list[str]] = {name: [] for name in self.columns}
        ids: list[str] = []
        if table is not None:
            columns, ids = read_plain_texts(table, self.columns)
        given = [text for word in inputs for text in typed_texts(word)]
        if len(given) % len(self.columns):
            raise UsageError(
                f"{len(given)} texts were given.",
                f"Each example is {len(self.columns)} texts: {' and '.join(self.columns)}.",
                f"tfsft predict {self.run} " + " ".join(f'"the {name}"' for name in self.columns),
            )
        width = len(self.columns)
        for place, name in enumerate(self.columns):
            columns[name] = [*columns[name], *(text for _, text in given[place::width])]
        ids = [*ids, *(name for name, _ in given[::width])]
        if not ids:
            raise UsageError(
                "No INPUT was given.",
                "Texts in quotes, text files, or a table with --csv.",
                f"tfsft predict {self.run} " + " ".join(f'"the {name}"' for name in self.columns),
            )
        return self.plain(columns, ids)

    def pipeline(self, source: Any) -> data.Pipeline:
        """Returns the batches of a source, which need no place in the cache."""
        feed = data.TextFeed(source, self.encoder, num_outputs=self.num_outputs)
        return feed.pipeline(BATCH_SIZE)

    @property
    def num_outputs(self) -> int | None:
        """What a label is one of."""
        return len(self.class_names)


class TextClassifier(TextPredictor):
    """Gives texts or pairs of texts classes, or a number."""

    options = ("text_column", "text_pair_column", "label_column", *TextPredictor.options)

    def __init__(self, run: Path, task: dict[str, Any]):
        self.columns = tuple(task["inputs"])
        super().__init__(run, task)

    def make_encoder(self) -> data.TextEncoder:
        """Returns what makes tokens of texts."""
        return data.TextEncoder(
            self.tokenizer,
            self.task["max_length"],
            pair="pair" in self.columns,
            truncate=self.task.get("truncate", "end"),
        )

    def answer(
        self, examples: PlainTexts, progress: Progress = None
    ) -> tuple[list[dict[str, Any]], list[data.BadExample]]:
        """Answers for each text, or pair of texts."""
        outputs, _ = training.predict(self.model, self.pipeline(examples), progress=progress)
        rows = predictions(examples.ids, None, outputs, self.class_names, kind=self.labels)
        answers = label_answers(rows, outputs, self.class_names)
        texts = (
            {name: examples.column(name)[i] for name in self.columns} for i in range(len(rows))
        )
        return [a | text for a, text in zip(answers, texts, strict=True)], []

    def load(self, given: str, **options: Any) -> data.Splits:
        """Loads labelled texts with the run's classes."""
        return data.load_texts(
            given,
            task=self.labels,
            class_names=self.class_names or None,
            validation_fraction=0.0,
            test_fraction=0.0,
            **options,
        )

    def evaluate(
        self, source: Any, progress: Progress = None
    ) -> tuple[dict[str, Any], list[Prediction]]:
        """Returns the metrics on labelled texts, and the predictions, worst mistakes first."""
        if source.has("pair") != ("pair" in self.columns):
            raise UsageError(
                f"The data has {'pairs of texts' if source.has('pair') else 'single texts'}.",
                f"The run was trained on {' and '.join(self.columns)}.",
                "Name the columns with --text-column and --text-pair-column.",
            )
        metrics, rows = training.score_labels(
            self.model,
            self.pipeline(source),
            source,
            kind=self.labels,
            class_names=self.class_names,
            progress=progress,
        )
        return metrics, order(rows)


class Tagger(TextPredictor):
    """Finds entities, or whatever words are marked with, in texts."""

    options = ("text_column", "label_column", *TextPredictor.options)

    def make_encoder(self) -> data.TagEncoder:
        """Returns what makes tokens of words."""
        return data.TagEncoder(self.tokenizer, self.task["max_length"], stride=self.task["stride"])

    @property
    def num_outputs(self) -> int:
        """Number of tags."""
        return len(self.task["tags"])

    def plain(self, columns: dict[str, list[str]], ids: Sequence[str]) -> PlainTexts:
        """Returns texts with their words."""
        words = [split_words(text) for text in columns["text"]]
        starts = [[start for start, _ in spans] for spans in words]
        ends = [[end for _, end in spans] for spans in words]
        return PlainTexts(columns | {"starts": starts, "ends": ends}, ids, self.class_names)

    def answer(
        self, examples: PlainTexts, progress: Progress = None
    ) -> tuple[list[dict[str, Any]], list[data.BadExample]]:
        """Answers for each text: its entities, with their place in characters."""
        found = predict_tags(self.model, self.pipeline(examples), progress=progress)
        columns = (examples.column(name) for name in ("text", "starts", "ends"))
        answers = []
        for name, (tags, sure), text, starts, ends in zip(
            examples.ids, found, *columns, strict=True
        ):
            tags = [self.task["tags"][tag] for tag in tags]
            words = {"tags": tags, "starts": starts, "ends": ends, "probabilities": sure}
            answers.append({"id": name} | entity_answer(text, words, self.task["tags"]))
        return answers, []

    def load(self, given: str, **options: Any) -> data.Splits:
        """Loads tagged words with the run's tags."""
        return data.load_tags(
            given,
            tags=tuple(self.task["tags"]),
            validation_fraction=0.0,
            test_fraction=0.0,
            **options,
        )

    def evaluate(
        self, source: Any, progress: Progress = None
    ) -> tuple[dict[str, Any], list[Prediction]]:
        """Returns the metrics on tagged words, and the predictions, worst mistakes first."""
        metrics, rows = training.score_tags(
            self.model,
            self.pipeline(source),
            source,
            tags=tuple(self.task["tags"]),
            class_names=self.class_names,
            progress=progress,
        )
        return metrics, order(rows)


class AnswerFinder(TextPredictor):
    """Finds the answers to questions in their contexts."""

    nouns = ("question", "questions")
    columns = ("question", "context")
    num_outputs = None

    def make_encoder(self) -> data.QuestionEncoder:
        """Returns what makes tokens of questions and contexts."""
        return data.QuestionEncoder(
            self.tokenizer, self.task["max_length"], stride=self.task["stride"]
        )

    @property
    def decoding(self) -> dict[str, Any]:
        """How answers are chosen."""
        return {name: self.task[name] for name in ("max_answer_length", "no_answer")}

    def answer(
        self, examples: PlainTexts, progress: Progress = None
    ) -> tuple[list[dict[str, Any]], list[data.BadExample]]:
        """Answers each question; `prediction` is empty where the context has no answer."""
        found = predict_answers(
            self.model,
            self.pipeline(examples),
            len(examples),
            progress=progress,
            **self.decoding,
        )
        answers = []
        contexts = examples.column("context")
        for name, question, context, answer in zip(
            examples.ids, examples.column("question"), contexts, found, strict=True
        ):
            words = split_words(context)
            inside = answer.first >= 0
            answers.append(
                {
                    "id": name,
                    "prediction": answer_text(answer, context, words),
                    "probability": answer.probability,
                    "question": question,
                    "start": words[answer.first][0] if inside else None,
                    "end": words[answer.last][1] if inside else None,
                }
            )
        return answers, []

    def load(self, given: str, **options: Any) -> data.Splits:
        """Loads questions with their answers."""
        return data.load_questions(given, validation_fraction=0.0, test_fraction=0.0, **options)

    def evaluate(
        self, source: Any, progress: Progress = None
    ) -> tuple[dict[str, Any], list[Prediction]]:
        """Returns exact match and F1, and the predictions, worst mistakes first."""
        metrics, rows = training.score_answers(
            self.model, self.pipeline(source), source, progress=progress, **self.decoding
        )
        return metrics, order(rows)


def entity_answer(
    text: str, words: Mapping[str, Sequence], tag_names: Sequence[str]
) -> dict[str, Any]:
    """Returns the entities of a text, and how sure the model is of all its tags at once.

    Args:
        text: It.
        words: Their `tags`, `starts`, `ends`, and the `probabilities` of the tags.
        tag_names: All tags that there are.
    """
    starts, ends, sure = (words[name] for name in ("starts", "ends", "probabilities"))
    entities = []
    for first, last, kind in character_spans(
        words["tags"], starts, ends, plain=is_plain(tag_names)
    ):
        inside = [p for p, start in zip(sure, starts, strict=True) if first <= start < last]
        entities.append(
            {
                "type": kind,
                "text": text[first:last],
                "start": first,
                "end": last,
                "probability": float(np.prod(inside)),
            }
        )
    return {
        "prediction": " | ".join(f"{e['type']}: {e['text']}" for e in entities),
        "probability": float(np.prod(sure, dtype=np.float64)),
        "text": text,
        "entities": entities,
    }


def typed_texts(word: str) -> list[tuple[str, str]]:
    """Returns the texts that one argument stands for, each with its name."""
    if word == "-":
        lines = [line.rstrip("\r\n") for line in sys.stdin]
        return [(line, line) for line in lines if line.strip()]
    if len(word) < 1024 and os.path.isdir(word):
        files = sorted(path for path in Path(word).rglob("*.txt") if path.is_file())
        return [(str(path), data.read_text(path)) for path in files]
    if word.lower().endswith(".txt") and os.path.isfile(word):
        return [(word, data.read_text(word))]
    return [(word, word)]
