"""Whether an export answers held-out examples as its run does."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfsft.errors import UserError
from tfsft.export.certificate import EXACT, LOSS, Certificate, Side, worst_rows, write_certificate
from tfsft.export.held_out import raw_inputs
from tfsft.export.predictor import Predictor
from tfsft.export.replaying import (
    FIGURES,
    answers,
    differences,
    replay,
    replay_keras,
    run_outputs,
    score,
)


def certify(
    predictor: Predictor,
    source: Any,
    out: Path,
    folder: Path,
    *,
    format: str,
    quantize: str | None = None,
    tolerance: float | None = None,
    data: str | None = None,
) -> Certificate:
    """Replays held-out examples through the run and through an export of it.

    Args:
        predictor: Of the run.
        source: The examples.
        out: The export, which gets the certificate.
        folder: Where `reading.py` and `runtime.py` lie, which answer by the export.
        format, quantize: What is exported, and how.
        tolerance: Largest difference of an output, or with `quantize` largest loss of the figure;
            None for `EXACT` or `LOSS`.
        data: What the examples are of, where they are not the run's own.

    Raises:
        UserError: The export does not answer as the run does.
    """
    ours = run_outputs(predictor, source)
    with tempfile.TemporaryDirectory(prefix="tfsft-inputs-") as place:
        examples = raw_inputs(predictor, source, Path(place))
        exported = replay(folder, examples, format)
        keras = replay_keras(predictor, examples)
    apart = differences(ours, exported.outputs)
    strange = np.flatnonzero(~np.isfinite(apart))
    if len(strange):  # other tokens, or no number
        raise UserError(
            f"The export of {predictor.run} does not see {source.ids[int(strange[0])]} as the run "
            "does.",
            "The same tokens, and numbers.",
            "It was removed. Use --format saved_model, and report this.",
        )
    said = [answers(predictor, source, of) for of in (ours, exported.outputs)]
    same = [a == b for a, b in zip(*said, strict=True)]
    if predictor.labels == "regression":
        same = apart <= EXACT
    sides = [
        Side(score(predictor, source, outputs), size, of.seconds, of.loaded, of.memory)
        for outputs, size, of in (
            (ours, _size(predictor.run / "model.keras"), keras),
            (exported.outputs, _size(out), exported),
        )
    ]
    certificate = Certificate(
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
    if not certificate.kept:
        raise certificate.refusal()
    write_certificate(certificate, out)
    return certificate


def _size(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
