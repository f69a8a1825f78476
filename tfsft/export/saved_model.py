"""A finished run as a SavedModel that takes raw texts or pictures and needs no tfsft."""

import csv
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tfsft.errors import UsageError, UserError
from tfsft.evaluation.tags import is_plain
from tfsft.export.predictor import Predictor, load_predictor
from tfsft.export.served import serve_answers, serve_pictures, serve_tags, serve_texts
from tfsft.models import TextTokenizer
from tfsft.training.scoring import character_spans

TOLERANCE = 1e-5
HALF_PRECISION = ("bfloat16", "float16")
HALF_PRECISION_TOLERANCE = 3e-2  # what the width of a batch makes of rounding
SAMPLES = 8
ENDS = ("start", "end")
BUILT_IN = (
    "This is a good day, isn't it?",
    "The train from Ankara to Berlin was late again; Ada Lovelace didn't mind.",
    "我们在北京吃饭。你好，世界！",
    "مرحبا بالعالم، كيف حالك؟ 😀",
    "a long one " * 300,
    "",
)
_SERVE = {
    "text_classification": serve_texts,
    "token_classification": serve_tags,
    "question_answering": serve_answers,
}


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        folder: The SavedModel.
        samples: Number of examples it was compared with the predictor on.
        difference: The largest in a probability or number (of numbers beyond 1, relative).
        usage: Lines of Python that load and call it.
    """

    folder: Path
    samples: int
    difference: float
    usage: str


def export_saved_model(run: str | Path, out: str | Path) -> Exported:
    """Writes the model of a run as a SavedModel, and compares it with the run's predictor.

    Its function `serve` does all from raw inputs to answers, tokenisation included, exactly as
    `tfsft predict` does; task.json lies in `assets.extra`. It is written beside its place, and
    renamed once it has answered as it should.

    - Texts: `serve(texts)`, or of pairs `serve(text, pair)`: `probabilities` and, where a text has
      one label, its `label`; or `value`.
    - Words: `serve(texts)`: `words`, `starts` and `ends` (in characters), `tags`, `probabilities`,
      padded to the text with most words, with "", -1 and 0.
    - Questions: `serve(question, context)`: `answer`, `start`, `end`, `probability`; no answer is
      empty and starts and ends at -1.
    - Pictures: `serve(pictures)`, uint8 `[n, height, width, 3]`: as texts.

    Args:
        run: Folder of a finished run.
        out: Folder to make.

    Raises:
        UsageError: `run` is no finished run, or `out` exists.
        UserError: The SavedModel does not answer as the predictor does; nothing is left of it.
    """
    out = Path(out)
    if out.exists():
        raise UsageError(
            f"{out} exists already.",
            "A SavedModel is written into a new folder.",
            "Delete it, or name another with --out.",
        )
    predictor = load_predictor(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
    try:
        _write(predictor, beside)
        samples, difference = compare(predictor, beside)
        limit = TOLERANCE
        if any(
            layer.compute_dtype in HALF_PRECISION for layer in predictor.model._flatten_layers()
        ):
            limit = HALF_PRECISION_TOLERANCE
        if not difference <= limit:
            raise UserError(
                f"The SavedModel of {run} answers differently from the run, by {difference:.2g}.",
                f"At most {limit:g}.",
                "It was removed. This is a mistake of tfsft: please report it.",
            )
        beside.chmod(0o755)  # temporary folders are private
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(out, samples, difference, usage(predictor.task, out))


def usage(task: dict[str, Any], folder: str | Path) -> str:
    """Returns lines of Python that load a SavedModel and call it."""
    calls = {
        "text_classification": 'texts=tf.constant(["a text", "another"])',
        "token_classification": 'texts=tf.constant(["a text", "another"])',
        "question_answering": 'question=tf.constant(["Who?"]), context=tf.constant(["Ada did."])',
        "image_classification": "pictures=pictures",
    }
    call = calls[task["task"]]
    if "pair" in task.get("inputs", ()):
        call = 'text=tf.constant(["a text"]), pair=tf.constant(["another"])'
    imports = "import tensorflow as tf"
    if task["task"] != "image_classification":
        imports += ", tensorflow_text"
    return f'{imports}\nmodel = tf.saved_model.load("{folder}")\nprint(model.serve({call}))'


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
    expected, _ = predictor.answer(examples)
    served = loaded.serve(*(tf.constant(column) for column in columns))
    served = {name: value.numpy() for name, value in served.items()}
    return len(ids), _difference(predictor.task, expected, served)


def _write(predictor: Predictor, folder: Path) -> None:
    """Writes the SavedModel of a run."""
    task = predictor.task
    archive = keras.export.ExportArchive()
    if task["task"] == "image_classification":
        model = predictor.load_model()  # which resizes
        function, signature = serve_pictures(model, task)
    else:
        model = predictor.model
        tokenizer: TextTokenizer = predictor.tokenizer
        holder = tf.Module()  # Keras tracks layers once they are built, which this never is
        holder.tokenizer = tokenizer.keras_tokenizer
        archive.track(holder)
        function, signature = _SERVE[task["task"]](model, tokenizer, task)
    archive.track(model)
    archive.add_endpoint("serve", function, signature)
    archive.write_out(folder, verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "task.json").write_text(json.dumps(task, indent=1), encoding="utf-8")


def _sample_texts(predictor: Predictor) -> list[list[str]]:
    """Returns some texts for each column of the run: those it was tested on, or built-in ones."""
    width = len(predictor.columns)
    texts = _tested_texts(predictor.run / "predictions.csv")[:SAMPLES]
    if texts and width == 2:  # one below the other
        return [list(side) for side in zip(*(_halves(text) for text in texts), strict=True)]
    return [texts or [*BUILT_IN], [*reversed(BUILT_IN)]][:width]


def _tested_texts(path: Path) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [row["text"] for row in csv.DictReader(file) if row.get("text")]
    except OSError:
        return []


def _halves(text: str) -> tuple[str, str]:
    a, _, b = text.partition("\n")
    return a, b


def _difference(
    task: dict[str, Any], expected: Sequence[dict[str, Any]], served: dict[str, np.ndarray]
) -> float:
    """Returns the largest difference between the predictor's answers and the SavedModel's."""
    if task["task"] == "token_classification":
        pairs = [
            pair
            for row, answer in enumerate(expected)
            for pair in _entity_pairs(
                task["tags"], answer, {name: of[row] for name, of in served.items()}
            )
        ]
    elif task["task"] == "question_answering":
        same = [
            (answer["prediction"], *(-1 if answer[end] is None else answer[end] for end in ENDS))
            == (said.decode(), start, end)
            for answer, said, start, end in zip(
                expected, served["answer"], served["start"], served["end"], strict=True
            )
        ]
        if not all(same):
            return np.inf
        pairs = [
            (answer["probability"], found)
            for answer, found in zip(expected, served["probability"], strict=True)
        ]
    elif task["labels"] == "regression":
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
    differences = [abs(a - float(b)) / max(1.0, abs(a)) for a, b in pairs]
    return float(np.max(differences, initial=0.0))  # unlike max, NaN stays NaN


def _entity_pairs(
    names: Sequence[str], answer: dict[str, Any], served: dict[str, np.ndarray]
) -> list[tuple[float, float]]:
    """Returns the probabilities of a text's entities by the predictor and by the SavedModel."""
    words = np.flatnonzero(served["starts"] >= 0)
    starts, ends, sure = (served[name][words] for name in ("starts", "ends", "probabilities"))
    tags = [tag.decode() for tag in served["tags"][words]]
    spans = character_spans(tags, starts.tolist(), ends.tolist(), plain=is_plain(names))
    entities = answer["entities"]
    if [(e["start"], e["end"], e["type"]) for e in entities] != spans:
        return [(0.0, np.inf)]
    inside = [np.prod(sure[(starts >= first) & (starts < last)]) for first, last, _ in spans]
    of_entities = [(e["probability"], p) for e, p in zip(entities, inside, strict=True)]
    return [*of_entities, (answer["probability"], np.prod(sure, dtype=np.float64))]


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
