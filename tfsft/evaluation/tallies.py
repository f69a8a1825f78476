"""Metrics as functions of sums over the examples, so that resampling them is one product."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfsft.evaluation.predictions import Prediction

if TYPE_CHECKING:
    from scipy import sparse

Metric = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tally:
    """What each example adds to the sums that metrics are made of.

    Args:
        columns: Sparse `[n, k]`.
        metrics: By name, functions of sums `[..., k]`; NaN where undefined.
    """

    columns: "sparse.csr_array"
    metrics: Mapping[str, Metric]

    def value(self, name: str) -> float:
        """Returns a metric over all examples."""
        return float(self.metrics[name](np.asarray(self.columns.sum(axis=0))))


def tally(rows: Sequence[Prediction], kind: str, class_names: Sequence[str] = ()) -> Tally:
    """Returns the tally of the metrics that predictions.csv is enough for.

    They are those of metrics.json. Of classes: accuracy, balanced accuracy and F1; of several
    labels also F1 by label and by example; of numbers the errors and R2; of tags precision, recall
    and F1 over entities; of answers exact match; of generated texts chrF and exact match.

    Args:
        rows: The examples.
        kind: As in task.json.
        class_names: By class number.
    """
    right = np.array([row.correct for row in rows], float)[:, None]
    if kind == "regression":
        return _numbers(rows)
    if kind == "tags":
        return _entities(rows)
    if kind in ("single", "multi"):
        return _labels(rows, right, kind, class_names)
    if kind == "chat":
        return _texts(rows, right)
    return _tally([np.ones_like(right), right], {"exact": _mean_of(1)})


def _labels(
    rows: Sequence[Prediction], right: np.ndarray, kind: str, class_names: Sequence[str]
) -> Tally:
    several = kind == "multi"
    split = (lambda cell: [c for c in cell.split("|") if c]) if several else (lambda cell: [cell])
    truth, said = ([set(split(str(cell))) for cell in column] for column in zip(
        *((row.label, row.prediction) for row in rows), strict=True
    ))  # fmt: skip
    place = {name: i for i, name in enumerate(class_names)}
    for name in sorted(set().union(*truth, *said) - place.keys()):
        place[name] = len(place)
    hits = [a & b for a, b in zip(truth, said, strict=True)]
    n = len(place)
    support, predicted, common = (slice(2 + i * n, 2 + (i + 1) * n) for i in range(3))

    def f1(sums: np.ndarray) -> np.ndarray:
        both = sums[..., support] + sums[..., predicted]
        f1 = 2 * sums[..., common] / np.maximum(both, 1)
        # As scikit-learn's: over the classes that occur, of several labels over all.
        return f1.mean(axis=-1) if several else f1.sum(axis=-1) / (both > 0).sum(axis=-1)

    def f1_micro(sums: np.ndarray) -> np.ndarray:
        both = sums[..., support].sum(axis=-1) + sums[..., predicted].sum(axis=-1)
        return 2 * sums[..., common].sum(axis=-1) / np.maximum(both, 1)

    def balanced(sums: np.ndarray) -> np.ndarray:
        there = sums[..., support] > 0
        recall = sums[..., common] / np.maximum(sums[..., support], 1)
        return recall.sum(axis=-1) / there.sum(axis=-1)

    parts = [np.ones_like(right), right, *(_marks(sets, place) for sets in (truth, said, hits))]
    if not several:
        metrics = {"accuracy": _mean_of(1), "balanced_accuracy": balanced, "f1_macro": f1}
        return _tally(parts, metrics)
    by_example = [
        2 * len(h) / max(1, len(a) + len(b)) for h, a, b in zip(hits, truth, said, strict=True)
    ]
    metrics = {
        "accuracy": _mean_of(1),
        "f1_macro": f1,
        "f1_micro": f1_micro,
        "f1_samples": _mean_of(2 + 3 * n),
    }
    return _tally([*parts, np.array(by_example)[:, None]], metrics)


def _numbers(rows: Sequence[Prediction]) -> Tally:
    label = np.array([row.label for row in rows], float)
    error = np.array([row.error for row in rows], float)
    centred = label - label.mean()  # R2 from sums of squares loses no digits then

    def r2(sums: np.ndarray) -> np.ndarray:
        spread = sums[..., 4] - sums[..., 3] ** 2 / sums[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread > 1e-12 * sums[..., 4], 1 - sums[..., 2] / spread, np.nan)

    columns = np.stack([np.ones_like(label), abs(error), error**2, centred, centred**2], axis=1)
    metrics = {
        "mae": _mean_of(1),
        "rmse": lambda sums: np.sqrt(sums[..., 2] / sums[..., 0]),
        "r2": r2,
    }
    return _tally([columns], metrics)


def _entities(rows: Sequence[Prediction]) -> Tally:
    pairs = [(set(row.label_spans), set(row.prediction_spans)) for row in rows]
    counts = np.array([[1, len(a), len(b), len(a & b)] for a, b in pairs], float)

    def share(whole: int) -> Metric:
        return lambda sums: sums[..., 3] / np.maximum(sums[..., whole], 1)

    def f1(sums: np.ndarray) -> np.ndarray:
        return 2 * sums[..., 3] / np.maximum(sums[..., 1] + sums[..., 2], 1)

    return _tally([counts], {"f1": f1, "precision": share(2), "recall": share(1)})


def _texts(rows: Sequence[Prediction], right: np.ndarray) -> Tally:
    from tfsft.evaluation.generation import chrf_counts, chrf_of

    counts = chrf_counts([row.label for row in rows], [row.prediction for row in rows])

    def chrf(sums: np.ndarray) -> np.ndarray:
        return chrf_of(np.atleast_2d(sums)[:, 2:].round().astype(np.int64))

    parts = [np.ones_like(right), right, counts]
    return _tally(parts, {"chrf": chrf, "exact_match": _mean_of(1)})


def _mean_of(column: int) -> Metric:
    return lambda sums: sums[..., column] / sums[..., 0]


def _marks(sets: Sequence[set[str]], place: Mapping[str, int]) -> "sparse.csr_array":
    from scipy import sparse

    where = [(row, place[name]) for row, names in enumerate(sets) for name in names]
    rows, columns = zip(*where, strict=True) if where else ((), ())
    shape = (len(sets), len(place))
    return sparse.csr_array((np.ones(len(where)), (rows, columns)), shape=shape)


def _tally(parts: Sequence, metrics: Mapping[str, Metric]) -> Tally:
    from scipy import sparse

    columns = sparse.hstack([sparse.csr_array(part) for part in parts], format="csr")
    return Tally(columns, metrics)
