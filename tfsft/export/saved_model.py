"""A finished run as a SavedModel that takes raw texts or pictures and needs no tfsft."""

import json
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfsft.evaluation.finished_run import read_task
from tfsft.export.certifying import certify
from tfsft.export.comparison import compare
from tfsft.export.exported import Exported, answers_differently, refuse_existing, written_beside
from tfsft.export.held_out import find_held_out
from tfsft.export.pairs import check_pair
from tfsft.export.portable_folder import write_portable
from tfsft.export.precision import HALF_PRECISION
from tfsft.export.predictor import Predictor, Progress, load_predictor
from tfsft.export.served import (
    serve_answers,
    serve_encoded,
    serve_pictures,
    serve_tags,
    serve_texts,
)

TOLERANCE = 1e-5
HALF_PRECISION_TOLERANCE = 3e-2  # what the width of a batch makes of rounding
_SERVE = {
    "text_classification": serve_texts,
    "token_classification": serve_tags,
    "question_answering": serve_answers,
}


def export_saved_model(
    run: str | Path,
    out: str | Path,
    *,
    certified: bool = False,
    tolerance: float | None = None,
    data: str | None = None,
    progress: Progress = None,
) -> Exported:
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
    - Pictures: `serve(pictures)`, uint8 `[n, height, width, 3]`: as texts. The signature `encoded`
      takes `image_bytes`, the contents of files.

    Args:
        run: Folder of a finished run.
        out: Folder to make.
        certified: Also replays held-out examples in another process, and writes the certificate.
        tolerance, data, progress: Of the certificate, see `export_portable`.

    Raises:
        UsageError: `run` is no finished run, is about conversations, or `out` exists.
        UserError: The SavedModel does not answer as the predictor does; nothing is left of it.
    """
    run, out = Path(run), Path(out)
    refuse_existing(out)
    check_pair(run, read_task(run), "saved_model")
    predictor = load_predictor(run)
    held_out = find_held_out(predictor, data, progress)[0] if certified else None
    certificate = None
    with written_beside(out) as beside:
        _write(predictor, beside)
        samples, difference = compare(predictor, beside)
        types = {layer.compute_dtype for layer in predictor.model._flatten_layers()}
        limit = HALF_PRECISION_TOLERANCE if types & HALF_PRECISION else TOLERANCE
        if not difference <= limit:
            raise answers_differently(run, difference, limit)
        if certified:
            if tolerance is None and types & HALF_PRECISION:
                tolerance = HALF_PRECISION_TOLERANCE
            with tempfile.TemporaryDirectory(prefix="tfsft-serve-") as place:
                folder = Path(place)
                write_portable(predictor, folder, "saved_model")
                (folder / "saved_model").symlink_to(beside.absolute())
                options = {"format": "saved_model", "tolerance": tolerance, "data": data}
                certificate = certify(predictor, held_out, beside, folder, **options)
    return Exported(out, samples, difference, usage(predictor.task, out), (), certificate)


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
    encoded = None
    if task["task"] == "image_classification":
        model = predictor.load_model()  # which resizes
        function, signature = serve_pictures(model, task)
        encoded = serve_encoded(model, task)
    else:
        model = predictor.model
        holder = tf.Module()  # Keras tracks layers once they are built, which this never is
        holder.tokenizer = predictor.tokenizer.keras_tokenizer
        archive.track(holder)
        function, signature = _SERVE[task["task"]](model, predictor.encoder, task)
    archive.track(model)
    archive.add_endpoint("serve", function, signature)
    if encoded is not None:
        archive.add_endpoint("encoded", *encoded)
    archive.write_out(folder, verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "task.json").write_text(json.dumps(task, indent=1), encoding="utf-8")
