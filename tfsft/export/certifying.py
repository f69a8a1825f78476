"""Whether an export answers held-out examples as its run does."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfsft.export.certificate import (
    EXACT,
    LOSS,
    Certificate,
    Side,
    check_seen,
    issue_certificate,
    worst_rows,
)
from tfsft.export.held_out import raw_inputs
from tfsft.export.judging import FIGURES, Judge, differences
from tfsft.export.judging_choices import SERVED
from tfsft.export.predictor import Predictor
from tfsft.export.replaying import replay, replay_keras


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
    served = SERVED.get(predictor.task["task"], Judge) if format == "saved_model" else Judge
    judge = served(predictor, source)
    ours = judge.ours()
    with tempfile.TemporaryDirectory(prefix="tfsft-inputs-") as place:
        examples = raw_inputs(predictor, source, Path(place))
        exported = replay(folder, examples, format)
        keras = replay_keras(predictor, examples)
    theirs = judge.theirs(ours, exported.outputs)
    apart = differences(ours, theirs)
    check_seen(predictor.run, source.ids, apart)
    said = [judge.answers(of) for of in (ours, theirs)]
    same = [a == b for a, b in zip(*said, strict=True)]
    if predictor.labels == "regression":
        same = apart <= EXACT
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
        keras=Side.of(judge.score(ours, said[0]), predictor.run / "model.keras", keras),
        exported=Side.of(judge.score(theirs, said[1]), out, exported),
        worst=worst_rows(source.ids, *said, apart),
    )
    issue_certificate(certificate, out)
    return certificate
