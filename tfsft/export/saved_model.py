"""A finished run as a SavedModel that takes raw texts or pictures and needs no tfsft."""

import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfsft.errors import UsageError
from tfsft.evaluation.finished_run import read_task
from tfsft.export.comparison import compare
from tfsft.export.exported import Exported, answers_differently, refuse_existing, written_beside
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
        UsageError: `run` is no finished run, is about conversations, or `out` exists.
        UserError: The SavedModel does not answer as the predictor does; nothing is left of it.
    """
    run, out = Path(run), Path(out)
    refuse_existing(out)
    if read_task(run).get("task") == "chat":
        raise UsageError(
            f"{run} is about conversations, and is not written as a SavedModel.",
            "keras: a preset of KerasHub. hf: a folder of Hugging Face.",
            f"tfsft export {run} --format keras",
        )
    predictor = load_predictor(run)
    with written_beside(out) as beside:
        _write(predictor, beside)
        samples, difference = compare(predictor, beside)
        types = {layer.compute_dtype for layer in predictor.model._flatten_layers()}
        limit = HALF_PRECISION_TOLERANCE if types & HALF_PRECISION else TOLERANCE
        if not difference <= limit:
            raise answers_differently(run, difference, limit)
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
