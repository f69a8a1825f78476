"""A finished run that writes texts as a folder of KerasHub or of Hugging Face."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfsft import models
from tfsft.data import ChatEncoder, Seq2SeqEncoder, make_template
from tfsft.evaluation.finished_run import read_task
from tfsft.export.certifying_logits import (
    MOST,
    certify_logits,
    check_provable,
    logits,
    named_inputs,
    noted,
)
from tfsft.export.chat_predictor import ChatPredictor, WritingPredictor
from tfsft.export.exported import Exported, answers_differently, refuse_existing, written_beside
from tfsft.export.held_out import find_held_out
from tfsft.export.pairs import check_pair
from tfsft.export.predictor import Progress, load_predictor

TOLERANCE = 1e-5
PROMPTS = (
    "Hello! How are you today?",
    "What is the capital of France?",
    "Write a short poem about the sea, in three lines.",
    "2 + 2 = ?\n\nAnd 3 + 3?",
    "Как дела? 你好 🎉",
)
UNREAD = "KerasHub has no tokenizer for this vocabulary: it reads the model, and only tfsft both."


def export_language_model(
    run: str | Path,
    out: str | Path,
    format: str,
    *,
    certified: bool = False,
    tolerance: float | None = None,
    data: str | None = None,
    progress: Progress = None,
) -> Exported:
    """Writes the merged model of a run with its tokenizer and stop tokens, and a chat's template.

    It is written beside its place, loaded again as `--backbone` does, compared with the run in its
    logits on a few prompts and in the tokens of these, and then renamed.

    Args:
        run: Folder of a finished run.
        out: Folder to make.
        format: "keras", a preset of KerasHub; or "hf", a folder of Hugging Face.
        certified: Also replays held-out texts in another process, and writes the certificate.
        tolerance, data, progress: Of the certificate, see `export_portable`.

    Raises:
        UsageError: `run` is no finished run that writes texts, or `out` exists.
        UserError: The format has no such model, or what was written is not what the run is;
            nothing is left of it.
    """
    run, out = Path(run), Path(out)
    refuse_existing(out)
    check_pair(run, read_task(run), format)
    predictor = load_predictor(run)
    # KerasHub does not read T5 from there, so only transformers can say what a folder is worth.
    readable = format == "keras" or type(_backbone(predictor)).__name__ != "T5Backbone"
    if not readable:
        check_provable()
        certified = True
    held_out = find_held_out(predictor, data, progress, most=MOST)[0] if certified else None
    difference, certificate = 0.0, None
    with written_beside(out) as beside:
        write = _write_chat if isinstance(predictor, ChatPredictor) else _write_rewriter
        notes = write(predictor, beside, format)
        usage = _usage(predictor, out, format, UNREAD not in notes)
        if readable:
            difference = _compare(predictor, beside)
            if not difference <= TOLERANCE:
                raise answers_differently(run, difference, TOLERANCE)
        if certified:
            options = {"format": format, "tolerance": tolerance, "data": data}
            certificate = certify_logits(predictor, held_out, beside, **options)
            notes += noted(certificate)
    samples = len(PROMPTS) if readable else certificate.examples
    return Exported(out, samples, difference, usage, tuple(notes), certificate)


def _backbone(predictor: WritingPredictor) -> keras.Model:
    return predictor.model.get_layer("backbone")


def _write_chat(predictor: ChatPredictor, folder: Path, format: str) -> list[str]:
    """Writes a causal language model; returns what there is to know of it."""
    task, notes = predictor.task, []
    template = predictor.encoder.template.portable
    if template is None:
        template = task["template"]
        notes.append(
            "Its chat template needs what tfsft does around it: other programs will write "
            "conversations down differently."
        )
    what = predictor.model, predictor.tokenizer, folder
    if format == "keras":
        return notes + [UNREAD] * (not models.save_preset(*what, template=template))
    models.save_hugging_face(
        *what,
        template=template,
        stop=predictor.encoder.stop,
        positions=task.get("positions"),
    )
    return notes


def _write_rewriter(predictor: WritingPredictor, folder: Path, format: str) -> list[str]:
    """Writes a sequence-to-sequence model; returns what there is to know of it."""
    task, what = predictor.task, (predictor.model, predictor.tokenizer, folder)
    notes = []
    if task["prefix"]:
        notes.append(f"Other programs have to put {task['prefix']!r} before every text.")
    if format == "keras":
        return notes + [UNREAD] * (not models.save_preset(*what))
    names = ("start", "end", "decoder_start", "prefix", "max_new_tokens")
    models.save_hugging_face_seq2seq(*what, **{name: task[name] for name in names})
    return notes


def _compare(predictor: WritingPredictor, folder: Path) -> float:
    """Returns the largest difference between the logits of a run and of what was written.

    It is infinite where tokenizer, template or stop tokens are different.
    """
    with _policy(_backbone(predictor).dtype_policy):
        model, encoder = _read(predictor, folder)
    for name in ("stop", "decoder_start"):
        if getattr(encoder, name, None) != getattr(predictor.encoder, name, None):
            return np.inf
    largest = 0.0
    for text in PROMPTS:
        messages = [{"role": "user", "content": text}]
        ids = predictor.encoder.prompt(messages)
        if encoder.prompt(messages) != ids:
            return np.inf
        parts = {"": ids[: predictor.task["max_length"]]}
        if isinstance(encoder, Seq2SeqEncoder):
            parts = {"encoder_": ids, "decoder_": [*encoder.decoder_start, *ids[:4]]}
        inputs = named_inputs(parts)
        ours, theirs = (logits(of, inputs) for of in (predictor.model, model))
        largest = max(largest, float(np.abs(ours - theirs).max()))
    return largest


def _read(predictor: WritingPredictor, folder: Path) -> tuple[keras.Model, Any]:
    """Returns the model that was written, and what makes tokens for it."""
    task = predictor.task
    if isinstance(predictor, ChatPredictor):
        written = models.load_causal_lm(str(folder))
        template = make_template(written.template, written.tokenizer)
        return written.model, ChatEncoder(written.tokenizer, template, task["max_length"])
    written = models.load_seq2seq_lm(str(folder))
    encoder = Seq2SeqEncoder(
        written.tokenizer,
        task["max_length"],
        task["max_target_length"],
        start=written.start,
        end=written.end,
        decoder_start=written.decoder_start,
        prefix=task["prefix"],
    )
    return written.model, encoder


@contextmanager
def _policy(policy: keras.DTypePolicy) -> Iterator[None]:
    """Loads models with the number format of the run."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _usage(predictor: WritingPredictor, folder: Path, format: str, readable: bool) -> str:
    """Returns lines of Python that load what was written."""
    kind = "CausalLM" if isinstance(predictor, ChatPredictor) else "Seq2SeqLM"
    if format == "keras":
        load = f"keras_hub.models.{kind}.from_preset"
        options = "" if readable else ", preprocessor=None"
        return f"import keras_hub\nmodel = {load}({str(folder)!r}{options})"
    return (
        f"from transformers import AutoModelFor{kind}, AutoTokenizer\n"
        f"model = AutoModelFor{kind}.from_pretrained({str(folder)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})"
    )
