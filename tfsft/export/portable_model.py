"""A finished run as an ONNX or LiteRT file with a certificate, for machines without TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfsft.errors import UserError
from tfsft.evaluation.finished_run import read_task
from tfsft.export.certifying import certify
from tfsft.export.converting import FILES, check_installed, convert
from tfsft.export.exported import Exported, refuse_existing, written_beside
from tfsft.export.held_out import find_held_out
from tfsft.export.pairs import check_pair
from tfsft.export.portable_folder import write_portable
from tfsft.export.precision import compute_in_float32
from tfsft.export.predictor import Predictor, Progress, load_predictor

_OUTPUTS = {"regression": "value", "answers": "logits"}


def export_portable(
    run: str | Path,
    out: str | Path,
    format: str,
    *,
    quantize: str | None = None,
    tolerance: float | None = None,
    data: str | None = None,
    progress: Progress = None,
) -> Exported:
    """Writes the model of a run, what it needs beside it, and the certificate.

    It is written beside its place, has answered held-out examples in a process without tfsft,
    Keras and TensorFlow, and is then renamed.

    Args:
        run: Folder of a finished run.
        out: Folder to make.
        format: "onnx" or "litert".
        quantize: "int8", "dynamic" or "float16"; None for float32.
        tolerance: Largest difference of an output, or with `quantize` largest loss of the figure;
            None for `EXACT` or `LOSS`.
        data: Other held-out data than the run's own.
        progress: Called with (done, total) while data is read.

    Raises:
        UsageError: `run` is no finished run or about something else, or `out` exists.
        UserError: The format's package is missing, the data is gone, the model cannot be written,
            or it answers differently; nothing is left of it.
    """
    run, out = Path(run), Path(out)
    refuse_existing(out)
    check_pair(run, read_task(run), format)
    check_installed(format)
    predictor = load_predictor(run)
    compute_in_float32(predictor.model)
    held_out, training = find_held_out(predictor, data, progress)
    method = quantize
    if quantize == "int8":
        if predictor.task["task"] != "image_classification":
            # Some values in transformers are far beyond the others, elsewhere in each text: what
            # flows between layers fits into 8 bits only in ranges of the text at hand.
            method = "dynamic"
        elif training is None:
            training = _training(predictor)
    with written_beside(out) as beside:
        fixed_length = convert(
            predictor.model,
            beside / FILES[format],
            format,
            output=_OUTPUTS.get(predictor.labels, "probabilities"),
            quantize=method,
            calibration=lambda: calibration(predictor, training),
            about=predictor.task,
            max_length=predictor.task.get("max_length"),
        )
        write_portable(predictor, beside, format, fixed_length)
        options = {"format": format, "quantize": quantize, "tolerance": tolerance, "data": data}
        certificate = certify(predictor, held_out, beside, beside, **options)
    usage = f"cd {out} && python example.py INPUT"
    return Exported(out, certificate.examples, certificate.difference, usage, (), certificate)


def calibration(predictor: Predictor, source: Any) -> Iterator[dict[str, np.ndarray]]:
    """Yields training pictures, one at a time, as the model takes them."""
    for pictures, _, weights in predictor.pipeline(source).in_order().epoch(0):
        for row in np.flatnonzero(weights.numpy() > 0):
            yield {"pictures": pictures[row : row + 1].numpy()}


def _training(predictor: Predictor) -> Any:
    """Returns examples of the run's own data that are not held out."""
    try:
        _, training = find_held_out(predictor)
        why = "all of it is held out"
    except UserError as error:
        training, why = None, error.came
    if training is None:
        raise UserError(
            f"--quantize int8 is measured on the run's own data, which is gone: {why}",
            "The data that the run was trained on.",
            "Put the data back, or use --quantize dynamic, which needs none.",
        )
    return training
