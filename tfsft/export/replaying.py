"""Held-out examples through what was exported of a run, in a process of its own."""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfsft.errors import UserError
from tfsft.export.portable_folder import HERE, write_portable
from tfsft.export.predictor import Predictor

TIMED = 30  # examples that Keras is timed with, one at a time
# What must not be imported, by runtime
_BLOCKED = {
    "keras": ("tfsft",),
    "preset": ("tfsft",),
    "saved_model": ("tfsft", "keras_hub"),
    "transformers": ("tfsft", "keras_hub"),
    "tfsft": (),
}
_ALL_BLOCKED = ("tfsft", "keras", "keras_hub", "tensorflow", "tensorflow_text", "tf_keras")


@dataclass(frozen=True)
class Replay:
    """What a model said of examples in a process of its own, one after another.

    Args:
        outputs: Of each example, what `outputs` of its `reading.py` gives.
        seconds: The median time of one call of the model.
        loaded: Seconds until the model was ready.
        memory: The most that the process had, in bytes.
        runtime: What ran the model.
        tokens: Whether the export's own tokenizer makes the run's tokens of each example; None if
            it was not asked.
    """

    outputs: list[Any]
    seconds: float
    loaded: float
    memory: int
    runtime: str = ""
    tokens: Sequence[bool] | None = None


def replay(
    folder: Path,
    examples: Sequence[Sequence[Any]],
    runtime: str,
    *,
    take: Callable[[int, np.ndarray], Any] = lambda place, output: output,
    python: str = sys.executable,
) -> Replay:
    """Answers examples by the files of an export.

    Args:
        folder: Where `reading.py` and `runtime.py` lie.
        examples: Raw inputs.
        runtime: One of `RUNTIMES`; what it must do without is not to be imported.
        take: Makes of each example's number and output what is kept of it, before the next.
        python: The interpreter.

    Raises:
        UserError: It does not answer.
    """
    blocked = _BLOCKED.get(runtime, _ALL_BLOCKED)
    command = [python, "-I", "-B", HERE / "replay.py", folder.absolute(), *blocked]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said) as process,
    ):
        try:
            outputs = []
            for place, example in enumerate(examples):
                process.stdin.write(json.dumps(example).encode() + b"\n")
                process.stdin.flush()
                outputs.append(take(place, _received(process.stdout)))
            process.stdin.close()
            about = json.loads(_received(process.stdout).tobytes())
        except (EOFError, BrokenPipeError) as error:
            code = process.wait()
            said.seek(0)
            lines = said.read().decode(errors="replace").split("\n")
            lines = [line for line in lines if line.strip()] or [f"exit code {code}"]
            raise UserError(
                f"The export does not answer: {lines[-1][:300]}",
                "Every held-out example is answered in the format's own runtime.",
                "It was removed. Use another --format or --quantize, or report this.",
            ) from error
        except BaseException:
            process.kill()
            raise
    return Replay(outputs, **about)


def _received(stream: BinaryIO) -> np.ndarray:
    """Returns the next array; raises EOFError if there is none."""
    size = int.from_bytes(stream.read(8), "little")
    content = stream.read(size)
    if not size or len(content) < size:
        raise EOFError
    return np.load(io.BytesIO(content), allow_pickle=False)


def replay_keras(predictor: Predictor, examples: Sequence[Sequence[Any]]) -> Replay:
    """Answers a few examples by plain Keras, for the time and the memory that it takes."""
    with tempfile.TemporaryDirectory(prefix="tfsft-keras-") as place:
        folder = Path(place)
        write_portable(predictor, folder, "keras")
        shutil.copyfile(predictor.run / "model.keras", folder / "model.keras")
        return replay(folder, examples[:TIMED], "keras")
