"""Run folders as a finished training leaves them, around figures that the caller made."""

import csv
import json

import numpy as np
import pytest

from tfsft.evaluation import (
    answer_predictions,
    evaluate,
    order,
    question_metrics,
    tag_metrics,
    tag_predictions,
    write_predictions,
    write_rows,
)


@pytest.fixture(name="write_run")
def _write_run():
    return write_run


@pytest.fixture(name="write_tag_run")
def _write_tag_run():
    return write_tag_run


@pytest.fixture(name="write_answer_run")
def _write_answer_run():
    return write_answer_run


def write_run(
    folder,
    kind,
    labels,
    outputs,
    class_names=(),
    *,
    ids=None,
    split="test",
    data=None,
    settings=None,
    texts=None,
):
    """Writes config, task, metrics, history and predictions of a run; returns the folder."""
    ids = ids or [f"{i}.png" for i in range(len(labels))]
    about = "text" if texts else "image"
    task = f"{about}_regression" if kind == "regression" else f"{about}_classification"
    metrics = evaluate(kind, labels, outputs, class_names)
    write_folder(folder, task, kind, class_names, metrics, split, data, settings)
    write_predictions(
        folder / "predictions.csv", ids, labels, outputs, class_names, kind=kind, texts=texts
    )
    return folder


def write_tag_run(folder, examples, class_names=(), **more):
    """The same of (text, true spans, predicted spans, probability), a tag a character."""

    def tags(text, spans):
        tags = ["O"] * len(text)
        for start, end, kind in spans:
            tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
        return tags

    texts, *columns = zip(*examples, strict=True)
    true, said = (
        [tags(text, spans) for text, spans in zip(texts, column, strict=True)]
        for column in columns[:2]
    )
    metrics = tag_metrics(true, said, class_names)
    write_folder(folder, "token_classification", "tags", class_names, metrics, **more)
    ids = [f"news.conll:{i + 1}" for i in range(len(texts))]
    rows = order(tag_predictions(ids, texts, *columns))
    write_rows(folder / "predictions.csv", rows, kind="tags")
    return folder


def write_answer_run(folder, examples, scores=None, **more):
    """The same of (question, context, right answers, answer, probability)."""
    questions, contexts, answers, said, sure = zip(*examples, strict=True)
    metrics = question_metrics(answers, said, scores)
    write_folder(folder, "question_answering", "answers", (), metrics, **more)
    texts = list(zip(questions, contexts, strict=True))
    ids = [f"q{i + 1}" for i in range(len(texts))]
    rows = order(answer_predictions(ids, texts, answers, said, sure))
    write_rows(folder / "predictions.csv", rows, kind="answers")
    return folder


def write_folder(folder, task, kind, class_names, scores, split="test", data=None, settings=None):
    """Writes all but the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"format": 1, "validation": None, "test": None}
    metrics[split] = scores
    metrics["timing"] = {"total_seconds": 214.2, "phases": {"head": 61.0, "unfreeze": 131.5}}
    metrics["parameters"] = {"total": 3_700_458, "trained": 1_254_618}
    config = {
        "format": 1,
        "recipe": "a recipe",
        "settings": {"data": "digits", "epochs": 8, "learning_rate": 1e-3, "resume": None}
        | (settings or {}),
        "seed": 0,
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1"},
        "device": {"name": "CPU", "count": 1, "precision": "float32"},
        "data": {"fingerprint": "9f2c41d07a", "train": 1257, "validation": 270, "test": 270}
        | (data or {}),
    }
    about = {
        "format": 1,
        "task": task,
        "labels": kind,
        "class_names": list(class_names),
        "image_size": 96,
        "backbone": {
            "name": "efficientnet_lite0",
            "source": "starter",
            "reason": "the weights of resnet50 could not be downloaded",
        },
    }
    for name, content in (("config", config), ("task", about), ("metrics", metrics)):
        (folder / f"{name}.json").write_text(json.dumps(content, allow_nan=False))
    write_history(folder / "history.csv", "mae" if kind == "regression" else "accuracy")


def write_history(path, metric, epochs=(3, 5)):
    rows, t = [], 0
    for phase, count in zip(("head", "unfreeze"), epochs, strict=True):
        for _ in range(count):
            t += 1
            fall = float(np.exp(-t / 2))
            value, seen = (
                (1 - 0.6 * fall, 1 - 0.5 * fall) if metric == "accuracy" else (9 * fall,) * 2
            )
            rows.append([phase, t, 1e-3 / t, fall, seen, 1.2 * fall, value])
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["phase", "epoch", "learning_rate", "loss", metric, "val_loss", f"val_{metric}"]
        )
        writer.writerows(rows)
