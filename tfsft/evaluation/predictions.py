"""predictions.csv: one row an example, the worst mistakes first."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.metrics import whole_probability


@dataclass(frozen=True)
class Prediction:
    """What the model said of one example.

    Args:
        id: How a person finds the example.
        label: The right answer, or None where nobody knows; several labels are joined with `|`.
        prediction: The answer; several labels are joined with `|`.
        probability: How sure the model is of this answer, 0..1; of all labels at once where there
            are several. None for regression.
        error: Prediction minus label, for regression; None otherwise and where there is no label.
        index: Place of the example in the arrays that were handed in; place of the row when read
            from a file.
    """

    id: str
    label: str | float | None
    prediction: str | float
    probability: float | None = None
    error: float | None = None
    index: int = 0

    @property
    def correct(self) -> bool:
        """Whether the answer is the label."""
        return self.label == self.prediction


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    labels: np.ndarray | None,
    outputs: np.ndarray,
    class_names: Sequence[str] = (),
    *,
    kind: str = "single",
) -> list[Prediction]:
    """Writes predictions.csv and returns its rows in their order.

    Mistakes come first, the most confident before the others; then what is right, the least sure
    first. For regression the largest error comes first. Without labels the order stays as it is.

    Args:
        path: The file; it is replaced as a whole.
        ids: [n].
        labels: int [n], 0/1 [n, classes] or float [n] by `kind`; None where there are none.
        outputs: Probabilities [n, classes], or numbers [n] or [n, 1].
        class_names: [classes]; unused for regression.
        kind: `single`, `multi` or `regression`.
    """
    rows = order(predictions(ids, labels, outputs, class_names, kind=kind))
    write_rows(path, rows, kind=kind)
    return rows


def write_rows(path: str | Path, rows: Sequence[Prediction], *, kind: str = "single") -> None:
    """Writes predictions.csv with these rows in their order; the arguments are those of
    `write_predictions`.
    """
    columns = ("id", "label", "prediction", "error" if kind == "regression" else "probability")
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(columns)
    for row in rows:
        cells = [_cell(getattr(row, column)) for column in columns]
        # The csv module leaves a bare carriage return unquoted and then cannot read it back.
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
    atomic_write(Path(path), text.getvalue())


def read_predictions(path: str | Path) -> list[Prediction]:
    """Returns the rows of a predictions.csv, numbers as numbers; no label is an empty text."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        regression = "error" in (reader.fieldnames or ())
        text = (lambda cell: float(cell) if cell else None) if regression else str
        return [
            Prediction(
                id=row["id"],
                label=text(row["label"]),
                prediction=text(row["prediction"]),
                probability=None if regression else float(row["probability"]),
                error=float(row["error"]) if regression and row["error"] else None,
                index=index,
            )
            for index, row in enumerate(reader)
        ]


def predictions(
    ids: Sequence[str],
    labels: np.ndarray | None,
    outputs: np.ndarray,
    class_names: Sequence[str] = (),
    *,
    kind: str = "single",
) -> list[Prediction]:
    """Returns one `Prediction` an example, in the order of the examples.

    The arguments are those of `write_predictions`.
    """
    if len(ids) != len(outputs) or (labels is not None and len(labels) != len(outputs)):
        raise ValueError(
            f"{len(ids)} ids, {'no' if labels is None else len(labels)} labels, "
            f"{len(outputs)} outputs"
        )
    outputs = np.asarray(outputs)
    names = [str(name) for name in class_names]
    if kind == "single":
        best = outputs.argmax(axis=1) if len(outputs) else []
        said = [names[i] for i in best]
        sure = outputs.max(axis=1) if len(outputs) else []
        truth = None if labels is None else [names[i] for i in np.asarray(labels)]
    elif kind == "multi":
        said = [_joined(names, row >= 0.5) for row in outputs]
        sure = whole_probability(outputs)
        truth = None if labels is None else [_joined(names, row > 0.5) for row in labels]
    elif kind == "regression":
        said = [float(number) for number in outputs.reshape(len(ids))]
        sure = [None] * len(ids)
        truth = None if labels is None else [float(label) for label in labels]
    else:
        raise ValueError(f"kind is {kind!r}; expected single, multi or regression")
    return [
        Prediction(
            id=str(ids[i]),
            label=truth[i] if truth else None,
            prediction=said[i],
            probability=None if sure[i] is None else float(sure[i]),
            error=said[i] - truth[i] if kind == "regression" and truth else None,
            index=i,
        )
        for i in range(len(ids))
    ]


def order(rows: Sequence[Prediction]) -> list[Prediction]:
    """Returns the rows, worst mistakes first; equally bad and unlabelled ones keep order."""

    def badness(row: Prediction) -> tuple[bool, float]:
        if row.label is None:
            return True, 0.0
        if row.error is not None:
            return False, -abs(row.error)
        return row.correct, row.probability if row.correct else -row.probability

    return sorted(rows, key=badness)


def _joined(names: Sequence[str], chosen: np.ndarray) -> str:
    return "|".join(name for name, yes in zip(names, chosen, strict=True) if yes)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else value
