"""How a model does on labelled examples, for the end of a run and for `tfsft evaluate`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft import evaluation
from tfsft.data.pipeline import Pipeline
from tfsft.data.text_feed import TextPipeline
from tfsft.evaluation.decoding import Answer, AnswerDecoder, TagDecoder
from tfsft.evaluation.predictions import (
    Prediction,
    answer_predictions,
    predictions,
    tag_predictions,
)
from tfsft.evaluation.questions import question_metrics
from tfsft.evaluation.tags import is_plain, tag_metrics, tag_spans
from tfsft.training.forward import predict, run_batches

Progress = Callable[[int, int], None] | None


def score_labels(
    model: keras.Model,
    pipeline: Pipeline,
    source: Any = None,
    *,
    kind: str,
    class_names: tuple[str, ...] = (),
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = None,
) -> tuple[dict, list[Prediction]]:
    """Scores a model that gives each example a class, several classes, or a number.

    Args:
        model: From a pipeline's inputs to probabilities `[batch, classes]`, or numbers.
        pipeline: The examples, with their labels.
        source: Where they come from, for their names; texts also for the texts themselves.
        kind: "single", "multi" or "regression".
        class_names: By class number.
        strategy: Computes on all of its replicas.
        progress: Called with (done, total) examples.

    Returns:
        The metrics, and what was said of each readable example.
    """
    outputs, ok = predict(model, pipeline, strategy, progress)
    good = np.flatnonzero(ok)
    labels = pipeline.labels[good]
    if kind == "regression":
        labels = labels.reshape(-1)
    names = source.ids if source is not None else range(len(ok))
    metrics = evaluation.evaluate(kind, labels, outputs[good], class_names)
    ids = [str(names[i]) for i in good]
    texts = texts_of(source, good)
    rows = predictions(ids, labels, outputs[good], class_names, kind=kind, texts=texts)
    return metrics, rows


def score_tags(
    model: keras.Model,
    pipeline: TextPipeline,
    source: Any,
    *,
    tags: tuple[str, ...],
    class_names: tuple[str, ...] = (),
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = None,
) -> tuple[dict, list[Prediction]]:
    """Scores a model that tags words; entities count as wholes.

    Args:
        model: From tokens to probabilities `[batch, width, tags]`.
        pipeline: From a `TagEncoder`.
        source: The tagged texts.
        tags: By tag number.
        class_names: The types of entities.
        strategy, progress: As for `score_labels`.
    """
    found = predict_tags(model, pipeline, strategy, progress)
    true = [[tags[tag] for tag in row] for row in source.column("tags")]
    said = [[tags[tag] for tag in row] for row, _ in found]
    metrics = tag_metrics(true, said, class_names)
    starts, ends = source.column("starts"), source.column("ends")
    plain = is_plain(tags)
    spans = [
        [
            character_spans(row, *words, plain=plain)
            for row, *words in zip(rows, starts, ends, strict=True)
        ]
        for rows in (true, said)
    ]
    sure = [float(np.prod(probabilities, dtype=np.float64)) for _, probabilities in found]
    rows = tag_predictions(list(source.ids), source.column("text"), *spans, sure)
    return metrics, rows


def score_answers(
    model: keras.Model,
    pipeline: TextPipeline,
    source: Any,
    *,
    max_answer_length: int = 30,
    no_answer: bool = True,
    threshold: float = 0.0,
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = None,
) -> tuple[dict, list[Prediction]]:
    """Scores a model that answers questions from their contexts, as SQuAD's script does.

    Args:
        model: From tokens to logits `[batch, 2, width]` of the ends of the answer.
        pipeline: From a `QuestionEncoder`.
        source: The questions.
        max_answer_length, no_answer, threshold: As for `AnswerDecoder`.
        strategy, progress: As for `score_labels`.
    """
    found = predict_answers(
        model,
        pipeline,
        len(source),
        strategy,
        progress,
        max_answer_length=max_answer_length,
        no_answer=no_answer,
        threshold=threshold,
    )
    contexts, questions = source.column("context"), source.column("question")
    right = [[answer["text"] for answer in answers] for answers in source.column("answers")]
    words = [pipeline.feed.encoder.words(context) for context in contexts]
    said, candidates = (
        [answer_text(*parts, best=best) for parts in zip(found, contexts, words, strict=True)]
        for best in (False, True)
    )
    none = [answer.no_answer_score for answer in found]
    metrics = question_metrics(right, said, none, candidates)
    rows = answer_predictions(
        list(source.ids),
        list(zip(questions, contexts, strict=True)),
        right,
        said,
        [answer.probability for answer in found],
        starts=[answers[0]["start"] if answers else None for answers in source.column("answers")],
        predicted_starts=[
            spans[answer.first][0] if answer.first >= 0 else None
            for answer, spans in zip(found, words, strict=True)
        ],
    )
    return metrics, rows


def predict_tags(
    model: keras.Model,
    pipeline: TextPipeline,
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns for each text the tags of its words and their probabilities, `[words]` each."""
    starts = pipeline.feed.source.column("starts")
    decoder = TagDecoder(np.array([len(words) for words in starts], np.int64))
    _fill(decoder, model, pipeline, strategy, progress, token_axis=1)
    return list(decoder.texts())


def predict_answers(
    model: keras.Model,
    pipeline: TextPipeline,
    examples: int,
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = None,
    **options: Any,
) -> list[Answer]:
    """Returns the best answer to each question; `options` are those of `AnswerDecoder`."""
    decoder = AnswerDecoder(examples, **options)
    _fill(decoder, model, pipeline, strategy, progress, token_axis=2)
    return decoder.answers()


def _fill(
    decoder: TagDecoder | AnswerDecoder,
    model: keras.Model,
    pipeline: TextPipeline,
    strategy: tf.distribute.Strategy | None,
    progress: Progress,
    *,
    token_axis: int,
) -> None:
    """Runs a model over all windows and hands what it says of their words to a decoder."""
    table, done = pipeline.feed.table, 0
    for rows, (*_, outputs), _ in run_batches(model, pipeline, strategy):
        words = table.padded("words", rows, outputs.shape[token_axis], -1)
        decoder.add(table.rows["example"][rows], outputs, words)
        done += len(rows)
        if progress is not None:
            progress(done, pipeline.plan.size)


def character_spans(
    tags: list[str], starts: list[int], ends: list[int], *, plain: bool
) -> list[tuple[int, int, str]]:
    """Returns the entities of a tagged text as (start, end, type), in characters of the text.

    Args:
        tags: One a word.
        starts, ends: Where the words begin and end.
        plain: Whether tags are types without a prefix, see `evaluation.tags.is_plain`.
    """
    return [(starts[first], ends[last], kind) for kind, first, last in tag_spans(tags, plain)]


def answer_text(
    answer: Answer, context: str, words: list[tuple[int, int]], *, best: bool = False
) -> str:
    """Returns the words of an answer; empty for "no answer".

    Args:
        answer: First and last word.
        context: The text it is in.
        words: Where its words begin and end, in characters.
        best: The best span, even where "no answer" is better.
    """
    span = answer.span if best else (answer.first, answer.last)
    if span is None or span[0] < 0:
        return ""
    return context[words[span[0]][0] : words[span[1]][1]]


def texts_of(source: Any, rows: np.ndarray) -> list[str] | list[tuple[str, str]] | None:
    """Returns some texts or pairs of texts; None for what is no text."""
    if not hasattr(source, "column"):
        return None
    texts = source.column("text", rows)
    if not source.has("pair"):
        return texts
    return list(zip(texts, source.column("pair", rows), strict=True))
