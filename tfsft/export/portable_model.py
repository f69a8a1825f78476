"""A finished run as an ONNX or LiteRT file with a certificate, for machines without TensorFlow."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfsft.errors import UsageError, UserError
from tfsft.evaluation.finished_run import read_task
from tfsft.export.certificate import EXACT, LOSS, Certificate, Side, worst_rows, write_certificate
from tfsft.export.converting import FILES, check_installed, convert
from tfsft.export.exported import Exported, refuse_existing, written_beside
from tfsft.export.held_out import find_held_out, raw_inputs
from tfsft.export.portable_folder import READING, write_portable
from tfsft.export.predictor import Predictor, Progress, load_predictor
from tfsft.export.replaying import (
    FIGURES,
    answers,
    differences,
    replay,
    replay_keras,
    run_outputs,
    score,
)

QUANTIZE = ("int8", "dynamic", "float16")
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
        quantize: One of `QUANTIZE`; None for float32.
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
    refuse_unknown(run, read_task(run), format)
    check_installed(format)
    predictor = load_predictor(run)
    _refuse_half_precision(predictor, format)
    held_out, training = find_held_out(predictor, data, progress)
    if quantize == "int8" and training is None:
        training = _training(predictor)
    with written_beside(out) as beside:
        write_portable(predictor, beside, format)
        path = beside / FILES[format]
        convert(
            predictor.model,
            path,
            format,
            output=_OUTPUTS.get(predictor.labels, "probabilities"),
            quantize=quantize,
            calibration=lambda: calibration(predictor, training),
            about=predictor.task,
        )
        certificate = certify(
            predictor,
            beside,
            held_out,
            format=format,
            quantize=quantize,
            tolerance=tolerance,
            data=data,
        )
        if not certificate.kept:
            raise certificate.refusal()
        write_certificate(certificate, beside)
    usage = f"cd {out} && python example.py INPUT"
    return Exported(out, certificate.examples, certificate.difference, usage, (), certificate)


def refuse_unknown(run: Path, task: dict[str, Any], format: str) -> None:
    """Raises a UsageError for a pair of task and format that cannot be."""
    if task.get("task") in READING:
        return
    if task.get("task") == "chat":
        raise UsageError(
            f"{run} is about conversations, and is not written with --format {format}: a cache of "
            "what was said would have to go in and out of the file.",
            "hf: a folder of Hugging Face, which other programs convert. keras: a preset.",
            f"tfsft export {run} --format hf",
        )
    raise UsageError(
        f"{run} is about '{str(task.get('task')).replace('_', ' ')}', and is not written with "
        f"--format {format}: texts are generated token by token, which is no single graph.",
        "Pictures, texts, tags and questions are exported; of this run model.keras is there, a "
        "plain Keras file.",
        f"tfsft serve {run} answers over HTTP.",
    )


def certify(
    predictor: Predictor,
    folder: Path,
    source: Any,
    *,
    format: str,
    quantize: str | None,
    tolerance: float | None,
    data: str | None,
) -> Certificate:
    """Replays held-out examples through the run and through an export of it."""
    with tempfile.TemporaryDirectory(prefix="tfsft-inputs-") as place:
        examples = raw_inputs(predictor, source, Path(place))
        exported = replay(folder, examples)
        keras = replay_keras(predictor, examples)
    ours = run_outputs(predictor, source)
    apart = differences(ours, exported.outputs)
    comparable = bool(np.isfinite(apart).all())
    if not comparable:  # other tokens, or no number
        place = int(np.argmin(np.isfinite(apart)))
        raise UserError(
            f"The export of {predictor.run} does not see {source.ids[place]} as the run does.",
            "The same tokens, and numbers.",
            "It was removed. Use --format saved_model, and report this.",
        )
    said = [answers(predictor, source, of) for of in (ours, exported.outputs)]
    if predictor.labels == "regression":
        same = apart <= EXACT
    else:
        same = [a == b for a, b in zip(*said, strict=True)]
    scores = [score(predictor, source, of) for of in (ours, exported.outputs)]
    sizes = [
        (predictor.run / "model.keras").stat().st_size,
        (folder / FILES[format]).stat().st_size,
    ]
    sides = [
        Side(figure, size, of.seconds, of.loaded, of.memory)
        for figure, size, of in zip(scores, sizes, (keras, exported), strict=True)
    ]
    return Certificate(
        run=predictor.run.resolve().name,
        format=format,
        quantize=quantize,
        data=data or "the run's own data",
        examples=len(source),
        figure=FIGURES[predictor.labels],
        difference=float(np.max(apart, initial=0.0)),
        agreement=float(np.mean(same)),
        tolerance=tolerance if tolerance is not None else LOSS if quantize else EXACT,
        keras=sides[0],
        exported=sides[1],
        worst=worst_rows(source.ids, *said, apart),
    )


def calibration(predictor: Predictor, source: Any) -> Iterator[dict[str, np.ndarray]]:
    """Yields training examples, one at a time, as the model takes them."""
    for inputs, _, weights in predictor.pipeline(source).in_order().epoch(0):
        named = inputs if isinstance(inputs, dict) else {"pictures": inputs}
        for row in np.flatnonzero(weights.numpy() > 0):
            one = {name: tensor[row : row + 1].numpy() for name, tensor in named.items()}
            if "padding_mask" in one:  # as a program sends it
                length = max(int(one["padding_mask"].sum()), 1)
                one = {name: array[:, :length] for name, array in one.items()}
            yield one


def _training(predictor: Predictor) -> Any:
    try:
        _, training = find_held_out(predictor)
    except UserError as error:
        raise UserError(
            f"--quantize int8 is measured on the training data, which is gone: {error.came}",
            "The data that the run was trained on.",
            "Put the data back, or use --quantize dynamic, which needs none.",
        ) from error
    return training


def _refuse_half_precision(predictor: Predictor, format: str) -> None:
    types = {layer.compute_dtype for layer in predictor.model._flatten_layers()}
    if half := types & {"bfloat16", "float16"}:
        raise UserError(
            f"The model of {predictor.run} computes in {half.pop()}.",
            f"--format {format} is written of models in float32.",
            f"tfsft export {predictor.run} --format saved_model",
        )
