"""The files that lie beside an exported model and make it of use without tfsft."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfsft.data import windows, words
from tfsft.evaluation import decoding
from tfsft.export.portable_tokenizer import special_tokens, write_tokenizer
from tfsft.export.predictor import Predictor

HERE = Path(__file__).parent / "portable"
# What is copied as `reading.py` by task, and what that needs.
READING = {
    "image_classification": ("pictures.py", "labels.py"),
    "text_classification": ("texts.py", "labels.py", "tokens.py"),
    "token_classification": ("tags.py", "tokens.py", "words.py", "windows.py"),
    "question_answering": ("questions.py", "tokens.py", "words.py", "windows.py", "decoding.py"),
    "chat": ("logits.py",),
    "text_generation": ("logits.py",),
}
# The same for a SavedModel, which reads by itself; only its replay needs them.
SERVED = {
    "image_classification": ("served_pictures.py", "pictures.py", "labels.py"),
    "text_classification": ("served_texts.py", "labels.py"),
    "token_classification": ("served_tags.py",),
    "question_answering": ("served_questions.py",),
}
# These know nothing of tfsft, so they are used as they are.
_OWN = {f"{of.__name__.split('.')[-1]}.py": of.__file__ for of in (decoding, windows, words)}
RUNTIMES = {
    "onnx": "onnx_runtime.py",
    "litert": "litert_runtime.py",
    "keras": "keras_runtime.py",
    "saved_model": "saved_model_runtime.py",
    "preset": "preset_runtime.py",
    "transformers": "transformers_runtime.py",
    "tfsft": "tfsft_runtime.py",
}


def write_portable(
    predictor: Predictor, folder: Path, runtime: str, fixed_length: int | None = None
) -> None:
    """Writes task.json, tokenizer.json, example.py and what it imports.

    Args:
        predictor: Of the run.
        folder: Where the model is, or will be.
        runtime: One of `RUNTIMES`.
        fixed_length: Tokens that the model takes, if it takes no other number.

    Raises:
        UserError: The tokenizer cannot be written as a tokenizer.json.
    """
    task: dict[str, Any] = dict(predictor.task)
    readers = SERVED if runtime == "saved_model" else READING
    reading, *needed = readers[task["task"]]
    if "tokens.py" in needed:
        task["special_tokens"] = special_tokens(predictor.tokenizer)
        task["special_tokens"] |= {"fixed_length": fixed_length}
        write_tokenizer(predictor.tokenizer, folder / "tokenizer.json")
    text = json.dumps(task, indent=1, ensure_ascii=False)
    (folder / "task.json").write_text(text + "\n", encoding="utf-8")
    copies: Mapping[str, str] = {
        "example.py": "example.py",
        "reading.py": reading,
        "runtime.py": RUNTIMES[runtime],
        **{name: name for name in needed},
    }
    for name, source in copies.items():
        shutil.copyfile(_OWN.get(source, HERE / source), folder / name)
