"""Examples whose label is likely wrong, and examples that are there twice: suspicious.csv."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tfsft.evaluation.atomic_write import atomic_write

FILE = "suspicious.csv"
NEIGHBOURS = 10
SAME = 0.13  # of the usual distance to the nearest neighbour, as cleanlab has it
ROUNDING = 1e-6  # cosine distances of equal vectors in float32
BLOCK = 1024


@dataclass(frozen=True)
class Suspect:
    """An example to look at.

    Args:
        why: `label`, or `near duplicate`.
        split: Where it is.
        id: How a person finds it.
        label: What it is said to be.
        suggestion: What it looks like, of a label that is likely wrong.
        label_probability: How likely its label is by examples like it, or by the model.
        twin: The id of what it is nearly a duplicate of.
        twin_split, twin_label: Of that.
        text: What it says, if it is a text.
    """

    why: str
    split: str
    id: str
    label: str
    suggestion: str = ""
    label_probability: float | None = None
    twin: str = ""
    twin_split: str = ""
    twin_label: str = ""
    text: str = ""


def likely_mislabelled(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns which labels are likely wrong, by confident learning (Northcutt 2021).

    A class counts for an example if its probability is at least what it is on average for the
    examples with that label; of several such classes the likeliest. Where that is another than the
    label, and a class is likelier than the label, the label is suspicious.

    Args:
        labels: int `[n]`.
        probabilities: `[n, classes]`, of examples that the model has not been trained on.

    Returns:
        bool `[n]`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    classes = np.arange(probabilities.shape[1])
    there = np.isin(classes, labels)
    usual = np.array(
        [probabilities[labels == c, c].mean() if there[c] else np.inf for c in classes]
    )
    counts = np.where(probabilities >= usual - ROUNDING, probabilities, -1.0)
    guess, sure = counts.argmax(axis=1), counts.max(axis=1) >= 0
    likelier = probabilities.max(axis=1) > probabilities[np.arange(len(labels)), labels]
    return sure & (guess != labels) & likelier


def neighbours(features: np.ndarray, count: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest other examples of each and their cosine distances, `[n, count]` each.

    Args:
        features: `[n, d]`.
        count: How many; fewer where there are not so many.
    """
    features = np.asarray(features, np.float32)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count = min(count, len(features) - 1)
    places, distances = [], []
    for start in range(0, len(features), BLOCK):
        block = 1 - features[start : start + BLOCK] @ features.T
        block[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        nearest = np.argpartition(block, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(block, nearest, axis=1)
        order = found.argsort(axis=1, kind="stable")
        places.append(np.take_along_axis(nearest, order, axis=1))
        distances.append(np.take_along_axis(found, order, axis=1))
    found = np.concatenate(distances)
    return np.concatenate(places), np.where(found < ROUNDING, 0, found)


def near_duplicates(places: np.ndarray, distances: np.ndarray) -> list[tuple[int, int]]:
    """Returns pairs of examples that are much nearer to each other than examples usually are.

    Args:
        places, distances: From `neighbours`.
    """
    limit = SAME * np.median(distances[:, 0])
    pairs = {
        (min(i, j), max(i, j))
        for i, (j, distance) in enumerate(zip(places[:, 0], distances[:, 0], strict=True))
        if distance <= limit
    }
    return sorted((int(i), int(j)) for i, j in pairs)


def shares_of_neighbours(places: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how the neighbours of each example are labelled, as probabilities `[n, classes]`.

    An example's own label has no say in it.

    Args:
        places: From `neighbours`.
        labels: int `[n]`.
        num_classes: Number of classes.
    """
    return np.eye(num_classes)[labels[places]].mean(axis=1)


def write_suspects(path: str | Path, suspects: Sequence[Suspect]) -> None:
    """Writes suspicious.csv: likely wrong labels first, the least likely ones before the others."""
    text = io.StringIO()
    names = [field.name for field in fields(Suspect)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for suspect in suspects:
        cells = [getattr(suspect, name) for name in names]
        writer.writerow(
            ["" if c is None else f"{c:.4f}" if isinstance(c, float) else c for c in cells]
        )
    atomic_write(Path(path), text.getvalue())


def read_suspects(path: str | Path) -> list[Suspect]:
    """Returns the rows of suspicious.csv."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            Suspect(**row | {"label_probability": float(row["label_probability"] or 0)})
            for row in csv.DictReader(file)
        ]


def suspects_for_report(
    run_dir: str | Path, thumbnails: Mapping[str, bytes], shown: int = 12
) -> dict[str, Any]:
    """Returns what the report says of suspicious.csv; nothing where there is no such file.

    Args:
        run_dir: Of the run.
        thumbnails: PNG of examples by their ids.
        shown: Most of each kind that are shown.
    """
    path = Path(run_dir) / FILE
    if not path.is_file():
        return {}
    found = read_suspects(path)
    kinds = {why: [s for s in found if s.why == why] for why in ("label", "near duplicate")}
    wrong, doubles = kinds.values()
    return {
        "searched": True,
        "wrong": wrong[:shown],
        "wrong_count": len(wrong),
        "doubles": doubles[:shown],
        "doubles_count": len(doubles),
        "contradicting": sum(s.label != s.twin_label for s in doubles),
        "leaking": sum(s.split != s.twin_split for s in doubles),
        "pictures": {name: base64.b64encode(png).decode() for name, png in thumbnails.items()},
    }
