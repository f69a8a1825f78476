"""Whether a SavedModel answers as the run does that it was made from."""

import csv
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tfsft.export.judging import differences
from tfsft.export.judging_choices import SERVED
from tfsft.export.predictor import Predictor

SAMPLES = 8
BUILT_IN = (
    "This is a good day, isn't it?",
    "The train from Ankara to Berlin was late again; Ada Lovelace didn't mind.",
    "我们在北京吃饭。你好，世界！",
    "مرحبا بالعالم، كيف حالك؟ 😀",
    " ".join(f"Sentence {number} of a long text." for number in range(100)),
    "",
)


def compare(predictor: Predictor, folder: Path) -> tuple[int, float]:
    """Asks a SavedModel and the predictor the same.

    Args:
        predictor: Of the run.
        folder: The SavedModel.

    Returns:
        The number of examples, and the largest difference, infinite where answers differ in more
        than numbers.
    """
    loaded = tf.saved_model.load(str(folder))
    if predictor.task["task"] == "image_classification":
        return _compare_pictures(predictor, loaded)
    columns = _sample_texts(predictor)
    ids = [str(i) for i in range(len(columns[0]))]
    examples = predictor.plain(dict(zip(predictor.columns, columns, strict=True)), ids)
    served = loaded.serve(*(tf.constant(column) for column in columns))
    served = {name: value.numpy() for name, value in served.items()}
    if predictor.task["task"] not in SERVED:
        expected, _ = predictor.answer(examples)
        return len(ids), _difference(predictor.task, expected, served)
    judge = SERVED[predictor.task["task"]](predictor, examples)
    ours = judge.ours()
    theirs = judge.theirs(ours, _choices(predictor.task, served))
    return len(ids), float(np.max(differences(ours, theirs), initial=0.0))


def _choices(task: dict[str, Any], served: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Returns what `SERVED` compares, of the outputs of a SavedModel."""
    if "tags" not in served:
        return list(np.stack([served["start"], served["end"], served["probability"]], axis=1))
    numbers = {name.encode(): place for place, name in enumerate(task["tags"])}
    found = []
    for starts, ends, tags, sure in zip(
        *(served[name] for name in ("starts", "ends", "tags", "probabilities")), strict=True
    ):
        inside = starts >= 0
        chosen = np.array([numbers[tag] for tag in tags[inside]])
        found.append(np.stack([starts[inside], ends[inside], chosen, sure[inside]], axis=1))
    return found


def _sample_texts(predictor: Predictor) -> list[list[str]]:
    """Returns some texts for each column of the run: those it was tested on, or built-in ones."""
    width = len(predictor.columns)
    texts = _tested_texts(predictor.run / "predictions.csv")
    if texts and width == 2:  # one below the other
        return [list(side) for side in zip(*(_halves(text) for text in texts), strict=True)]
    return [texts or [*BUILT_IN], [*reversed(BUILT_IN)]][:width]


def _tested_texts(path: Path) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [row["text"] for row in islice(csv.DictReader(file), SAMPLES) if row.get("text")]
    except (OSError, csv.Error):  # there is none, or a text is longer than the reader takes
        return []


def _halves(text: str) -> tuple[str, str]:
    a, _, b = text.partition("\n")
    return a, b


def _difference(
    task: dict[str, Any], expected: Sequence[dict[str, Any]], served: dict[str, np.ndarray]
) -> float:
    """Returns the largest difference between the predictor's answers and the SavedModel's."""
    if task["labels"] == "regression":
        pairs = [
            (answer["prediction"], value)
            for answer, value in zip(expected, served["value"], strict=True)
        ]
    else:
        pairs = [
            pair
            for answer, found in zip(expected, served["probabilities"], strict=True)
            for pair in zip(answer["probabilities"].values(), found, strict=True)
        ]
    apart = [abs(a - float(b)) / max(1.0, abs(a)) for a, b in pairs]
    return float(np.max(apart, initial=0.0))  # unlike max, NaN stays NaN


def _compare_pictures(predictor: Predictor, loaded: Any) -> tuple[int, float]:
    """As `compare`, on pictures of noise in several sizes."""
    random = np.random.default_rng(0)
    size = predictor.task["image_size"]
    sizes = [(size, size), (size + 31, 2 * size), (max(size // 2, 8), size)]
    pictures = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in sizes]
    with tempfile.TemporaryDirectory(prefix="tfsft-pictures-") as folder:
        paths = [str(Path(folder, f"{i}.png")) for i in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            Image.fromarray(picture).save(path)
        expected, _ = predictor.answer(paths)
    difference = 0.0
    for answer, picture in zip(expected, pictures, strict=True):
        served = loaded.serve(tf.constant(picture[None]))
        found = _difference(predictor.task, [answer], {k: v.numpy() for k, v in served.items()})
        difference = max(difference, found)
    return len(pictures), difference
