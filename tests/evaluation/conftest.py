"""Run folders as a finished training leaves them, around figures that the caller made."""

import csv
import json

import numpy as np
import pytest

from tfsft.evaluation import evaluate, write_predictions


@pytest.fixture(name="write_run")
def _write_run():
    return write_run


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
):
    """Writes config, task, metrics, history and predictions of a run; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = ids or [f"{i}.png" for i in range(len(labels))]
    metrics = {"format": 1, "validation": None, "test": None}
    metrics[split] = evaluate(kind, labels, outputs, class_names)
    metrics["timing"] = {"total_seconds": 214.2, "phases": {"head": 61.0, "unfreeze": 131.5}}
    metrics["parameters"] = {"total": 3_700_458, "trained": 1_254_618}
    config = {
        "format": 1,
        "recipe": "image_cls",
        "settings": {"data": "digits", "epochs": 8, "learning_rate": 1e-3, "resume": None}
        | (settings or {}),
        "seed": 0,
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1"},
        "device": {"name": "CPU", "count": 1, "precision": "float32"},
        "data": {"fingerprint": "9f2c41d07a", "train": 1257, "validation": 270, "test": 270}
        | (data or {}),
    }
    task = {
        "format": 1,
        "task": "image_regression" if kind == "regression" else "image_classification",
        "labels": kind,
        "class_names": list(class_names),
        "image_size": 96,
        "backbone": {
            "name": "efficientnet_lite0",
            "source": "starter",
            "reason": "the weights of resnet50 could not be downloaded",
        },
    }
    for name, content in (("config", config), ("task", task), ("metrics", metrics)):
        (folder / f"{name}.json").write_text(json.dumps(content, allow_nan=False))
    write_predictions(folder / "predictions.csv", ids, labels, outputs, class_names, kind=kind)
    write_history(folder / "history.csv", "mae" if kind == "regression" else "accuracy")
    return folder


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
