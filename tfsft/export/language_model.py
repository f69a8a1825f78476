"""A finished run about conversations as a folder of KerasHub or of Hugging Face."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from tfsft import data, models
from tfsft.evaluation.finished_run import read_task
from tfsft.export.chat_predictor import ChatPredictor
from tfsft.export.exported import Exported, answers_differently, refuse_existing, written_beside
from tfsft.export.pairs import check_pair

TOLERANCE = 1e-5
PROMPTS = (
    "Hello! How are you today?",
    "What is the capital of France?",
    "Write a short poem about the sea, in three lines.",
    "2 + 2 = ?\n\nAnd 3 + 3?",
    "Как дела? 你好 🎉",
)


def export_language_model(run: str | Path, out: str | Path, format: str) -> Exported:
    """Writes the merged model of a chat run with its tokenizer, template and stop tokens.

    It is written beside its place, loaded again as `--backbone` does, compared with the run in its
    logits on a few prompts and in the tokens of these, and then renamed.

    Args:
        run: Folder of a finished run.
        out: Folder to make.
        format: "keras", a preset of KerasHub; or "hf", a folder of Hugging Face.

    Raises:
        UsageError: `run` is no finished run about conversations, or `out` exists.
        UserError: The format has no such model, or what was written is not what the run is;
            nothing is left of it.
    """
    run, out = Path(run), Path(out)
    refuse_existing(out)
    task = read_task(run)
    check_pair(run, task, format)
    predictor = ChatPredictor(run, task)
    notes, readable = [], True
    template = predictor.encoder.template.portable
    if template is None:
        template = task["template"]
        notes.append(
            "Its chat template needs what tfsft does around it: other programs will write "
            "conversations down differently."
        )
    with written_beside(out) as beside:
        if format == "keras":
            readable = models.save_preset(
                predictor.model, predictor.tokenizer, beside, template=template
            )
            if not readable:
                notes.append(
                    "KerasHub has no tokenizer for this vocabulary: it reads the model, and tfsft "
                    "the tokenizer too."
                )
        else:
            models.save_hugging_face(
                predictor.model,
                predictor.tokenizer,
                beside,
                template=template,
                stop=predictor.encoder.stop,
                positions=task.get("positions"),
            )
        difference = _compare(predictor, beside)
        if not difference <= TOLERANCE:
            raise answers_differently(run, difference, TOLERANCE)
    return Exported(out, len(PROMPTS), difference, _usage(out, format, readable), tuple(notes))


def _compare(predictor: ChatPredictor, folder: Path) -> float:
    """Returns the largest difference between the logits of a run and of what was written.

    It is infinite where tokenizer, template or stop tokens are different.
    """
    backbone = predictor.model.get_layer("backbone")
    with _policy(backbone.dtype_policy):
        written = models.load_causal_lm(str(folder))
    template = data.make_template(written.template, written.tokenizer)
    encoder = data.ChatEncoder(written.tokenizer, template, predictor.task["max_length"])
    if encoder.stop != predictor.encoder.stop:
        return np.inf
    largest = 0.0
    for text in PROMPTS:
        messages = [{"role": "user", "content": text}]
        ids = predictor.encoder.prompt(messages)
        if encoder.prompt(messages) != ids:
            return np.inf
        ids = ids[: predictor.task["max_length"]]
        ours, theirs = (_logits(model, ids) for model in (predictor.model, written.model))
        largest = max(largest, float(np.abs(ours - theirs).max()))
    return largest


def _logits(model: keras.Model, ids: Sequence[int]) -> np.ndarray:
    batch = np.array([ids], np.int32)
    logits = model({"token_ids": batch, "padding_mask": np.ones_like(batch)})
    return np.asarray(keras.ops.convert_to_numpy(logits), np.float32)


@contextmanager
def _policy(policy: keras.DTypePolicy) -> Iterator[None]:
    """Loads models with the number format of the run."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _usage(folder: Path, format: str, readable: bool) -> str:
    """Returns lines of Python that load what was written."""
    if format == "keras":
        load = "keras_hub.models.CausalLM.from_preset"
        options = "" if readable else ", preprocessor=None"
        return f"import keras_hub\nmodel = {load}({str(folder)!r}{options})"
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})"
    )
