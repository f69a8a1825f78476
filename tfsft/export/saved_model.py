"""A finished run as a SavedModel that takes raw texts or pictures and needs no tfsft."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfsft.errors import UsageError, UserError
from tfsft.export.comparison import compare
from tfsft.export.predictor import Predictor, load_predictor
from tfsft.export.served import serve_answers, serve_pictures, serve_tags, serve_texts

TOLERANCE = 1e-5
HALF_PRECISION = {"bfloat16", "float16"}
HALF_PRECISION_TOLERANCE = 3e-2  # what the width of a batch makes of rounding
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
        types = {layer.compute_dtype for layer in predictor.model._flatten_layers()}
        limit = HALF_PRECISION_TOLERANCE if types & HALF_PRECISION else TOLERANCE
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
    imports = "import tensorflow as tf, tensorflow_text"
    call = 'tf.constant(["a text", "another"])'
    if task["task"] == "image_classification":
        imports = "import tensorflow as tf"
        call = "pictures"
    elif task["task"] == "question_answering":
        call = 'tf.constant(["Who was late?"]), tf.constant(["The train was late."])'
    elif "pair" in task.get("inputs", ()):
        call = 'tf.constant(["a text"]), tf.constant(["its pair"])'
    load = f"model = tf.saved_model.load({str(folder)!r})"
    return f"{imports}\n{load}\nprint(model.serve({call}))"


def _write(predictor: Predictor, folder: Path) -> None:
    """Writes the SavedModel of a run."""
    task = predictor.task
    archive = keras.export.ExportArchive()
    if task["task"] == "image_classification":
        model = predictor.load_model()  # which resizes
        function, signature = serve_pictures(model, task)
    else:
        model = predictor.model
        holder = tf.Module()  # Keras tracks layers once they are built, which this never is
        holder.tokenizer = predictor.tokenizer.keras_tokenizer
        archive.track(holder)
        function, signature = _SERVE[task["task"]](model, predictor.encoder, task)
    archive.track(model)
    archive.add_endpoint("serve", function, signature)
    archive.write_out(folder, verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "task.json").write_text(json.dumps(task, indent=1), encoding="utf-8")
