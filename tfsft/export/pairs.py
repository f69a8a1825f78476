"""Which runs are exported to which format, and why not to the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfsft.errors import UsageError

GRAPHS = ("saved_model", "onnx", "litert")
FOLDERS = ("keras", "hf")
QUANTIZE = {"onnx": ("float16", "dynamic", "int8"), "litert": ("float16", "dynamic", "int8")}
FORMATS: Mapping[str, tuple[str, ...]] = {
    "image_classification": GRAPHS,
    "text_classification": GRAPHS,
    "token_classification": GRAPHS,
    "question_answering": GRAPHS,
    "chat": FOLDERS,
    "text_generation": FOLDERS,
}


def check_pair(run: Path, task: Mapping[str, Any], format: str) -> None:
    """Raises a UsageError if a run about this task is not exported to a format."""
    kind = str(task.get("task"))
    formats = FORMATS.get(kind, GRAPHS)  # an unknown task is another error
    if format in formats:
        return
    if formats == FOLDERS:
        what = "is about conversations" if kind == "chat" else "writes texts token by token"
        raise UsageError(
            f"{run} {what}, and is not exported with --format {format}: what was said before would "
            "have to go in and out of its graph with each token.",
            "hf: a folder of Hugging Face, which other programs convert. keras: a preset of "
            "KerasHub.",
            f"tfsft export {run} --format {'keras' if format == 'saved_model' else 'hf'}",
        )
    raise UsageError(
        f"{run} is about {kind.replace('_', ' ')}, and is not exported with --format {format}: "
        "its model.keras is a plain Keras file already.",
        f"--format {', '.join(formats)}.",
        f"tfsft export {run} --format saved_model",
    )
