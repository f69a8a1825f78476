"""How good a model is: the figures of metrics.json, by scikit-learn where it has them.

What cannot be computed is None (JSON null), never NaN: the ROC area of a class without examples,
the precision of a class that was never predicted, R2 of a single number. The macro averages run
over the classes that occur among the labels or the predictions, and there an undefined precision or
recall counts as 0, as scikit-learn does it by default: a model that never predicts a class should
not score better for it.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfsft.errors import UserError

KINDS = ("single", "multi", "regression")
CALIBRATION_BINS = 15


def falls(name: str) -> bool:
    """Whether a figure, called as in history.csv or metrics.json, is better when it is smaller."""
    return name.endswith(("loss", "error", "mae", "rmse", "perplexity"))


def evaluate(
    kind: str, labels: np.ndarray, outputs: np.ndarray, class_names: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the metrics of a task, so that training and `tfsft evaluate` give the same figures.

    Args:
        kind: `single` (one label an example), `multi` (several) or `regression`.
        labels: int [n], 0/1 [n, classes] or float [n].
        outputs: What the model answered: probabilities [n, classes], or numbers [n] or [n, 1].
        class_names: In the order of the columns of `outputs`; unused for regression.
    """
    if kind == "single":
        return classification_metrics(labels, outputs, class_names)
    if kind == "multi":
        return multi_label_metrics(labels, outputs, class_names)
    if kind == "regression":
        return regression_metrics(labels, outputs)
    raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns the metrics of a task with one label an example.

    Between equal probabilities the first class is predicted, as `argmax` does.

    Args:
        labels: int [n], class indices.
        probabilities: float [n, classes], rows that sum to 1.
        class_names: [classes].

    Returns:
        Plain Python numbers, strings, lists and None. Row i of `confusion_matrix` counts what the
        examples of class i were taken for; `top_5_accuracy` is there for more than five classes.

    Raises:
        UserError: There are no examples, or some probabilities are not finite.
    """
    from sklearn import metrics

    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    _check(labels, probabilities, (len(labels), len(class_names)))
    num_classes = len(class_names)
    classes = np.arange(num_classes)
    probabilities = np.clip(probabilities, 0, 1)  # a float32 softmax may end at 1.0000001
    predictions = probabilities.argmax(axis=1)
    correct = predictions == labels

    scores = {
        "examples": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, predictions)),
        "accuracy_interval": list(wilson_interval(int(correct.sum()), len(labels))),
        "balanced_accuracy": _balanced_accuracy(labels, predictions),
        **_averages(labels, predictions),
        "log_loss": (
            metrics.log_loss(labels, probabilities, labels=classes) if num_classes > 1 else None
        ),
        "expected_calibration_error": calibration_error(probabilities.max(axis=1), correct),
    }
    if num_classes > 5:
        # Of equals scikit-learn takes the last; reversed it takes the first, as argmax does.
        scores["top_5_accuracy"] = float(
            metrics.top_k_accuracy_score(
                num_classes - 1 - labels, probabilities[:, ::-1], k=5, labels=classes
            )
        )
    with _quiet():
        matrix = metrics.confusion_matrix(labels, predictions, labels=classes)
    per_class = _per_class(
        class_names,
        support=matrix.sum(axis=1),
        predicted=matrix.sum(axis=0),
        hits=matrix.diagonal(),
        roc_auc=[_roc_auc(labels == i, probabilities[:, i]) for i in classes],
    )
    scores["roc_auc"] = _mean(row["roc_auc"] for row in per_class)
    return scores | {"per_class": per_class, "confusion_matrix": matrix.tolist()}


def multi_label_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns the metrics of a task with any number of labels an example, given from 0.5 on.

    `accuracy` counts the examples whose labels are all right, `label_accuracy` the single yes-or-no
    decisions; `balanced_accuracy` is the mean over the labels of what the right decisions of "yes"
    and of "no" average to. `f1_samples` is the mean of the F1 of each example, which is 0 where
    there are no labels on either side.

    Args:
        labels: 0/1 [n, classes].
        probabilities: float [n, classes], each on its own between 0 and 1.
        class_names: [classes].

    Raises:
        UserError: There are no examples, or some probabilities are not finite.
    """
    from sklearn import metrics

    labels, probabilities = np.asarray(labels).astype(int), np.asarray(probabilities)
    _check(labels, probabilities, (len(labels), len(class_names)))
    probabilities = np.clip(probabilities, 0, 1)
    predictions = (probabilities >= 0.5).astype(int)
    correct = (predictions == labels).all(axis=1)
    columns = range(len(class_names))

    per_class = _per_class(
        class_names,
        support=labels.sum(axis=0),
        predicted=predictions.sum(axis=0),
        hits=(labels & predictions).sum(axis=0),
        roc_auc=[_roc_auc(labels[:, i], probabilities[:, i]) for i in columns],
    )
    for i, row in enumerate(per_class):
        row["average_precision"] = (
            float(metrics.average_precision_score(labels[:, i], probabilities[:, i]))
            if row["support"]
            else None
        )
    both = [i for i in columns if 0 < labels[:, i].sum() < len(labels)]
    return {
        "examples": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_interval": list(wilson_interval(int(correct.sum()), len(labels))),
        "label_accuracy": float(1 - metrics.hamming_loss(labels, predictions)),
        "balanced_accuracy": _mean(
            _balanced_accuracy(labels[:, i], predictions[:, i]) for i in both
        ),
        **_averages(labels, predictions),
        **{
            f"f1_{average}": float(
                metrics.f1_score(labels, predictions, average=average, zero_division=0)
            )
            for average in ("micro", "samples")
        },
        "roc_auc": _mean(row["roc_auc"] for row in per_class),
        "average_precision": _mean(row["average_precision"] for row in per_class),
        "log_loss": float(
            metrics.log_loss(
                labels.ravel(),
                np.stack([1 - probabilities.ravel(), probabilities.ravel()], axis=1),
                labels=[0, 1],
            )
        ),
        "expected_calibration_error": calibration_error(whole_probability(probabilities), correct),
        "per_class": per_class,
    }


def regression_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Returns the metrics of a task whose label is a number.

    R2 needs two different labels; the correlations also need two different predictions.

    Args:
        labels: float [n].
        predictions: float [n] or [n, 1].

    Raises:
        UserError: There are no examples, or some predictions are not finite.
    """
    from sklearn import metrics

    labels = np.asarray(labels, dtype=np.float64)
    predictions = np.asarray(predictions, dtype=np.float64).reshape(len(labels), -1)
    _check(labels, predictions, (len(labels), 1))
    predictions = predictions[:, 0]
    mse = float(metrics.mean_squared_error(labels, predictions))
    return {
        "examples": len(labels),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": float(metrics.mean_absolute_error(labels, predictions)),
        "r2": float(metrics.r2_score(labels, predictions)) if np.ptp(labels) > 0 else None,
        "pearson": _correlation("pearsonr", labels, predictions),
        "spearman": _correlation("spearmanr", labels, predictions),
    }


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Returns the expected calibration error over equal-width bins (Guo et al. 2017).

    It is how far, on average, the probability of a prediction is from how often such predictions
    are right.

    Args:
        confidences: float [n], the probability of each prediction.
        correct: bool [n].
    """
    return sum(
        count * abs(right - confidence)
        for count, confidence, right in calibration_bins(confidences, correct)
    ) / len(confidences)


def calibration_bins(
    confidences: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS
) -> list[tuple[int, float, float]]:
    """Returns (examples, mean probability, share that is right) of each bin that has examples.

    Bins are open at the left and closed at the right; 0 belongs to the first.
    """
    confidences = np.asarray(confidences, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.float64)
    index = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    return [
        (int(inside.sum()), float(confidences[inside].mean()), float(correct[inside].mean()))
        for inside in (index == i for i in np.unique(index))
    ]


def whole_probability(probabilities: np.ndarray) -> np.ndarray:
    """Returns how sure the model is of all labels of an example at once.

    The labels are taken as independent.

    Args:
        probabilities: float [n, classes], each on its own between 0 and 1.

    Returns:
        float64 [n]; comparable with how often all labels of an example are right.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    return np.maximum(probabilities, 1 - probabilities).prod(axis=1)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95% confidence interval of a share (Wilson 1927).

    Sound for few trials and near 0 or 1, where the textbook interval is not.
    """
    z = 1.959963984540054
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the formula gives 0 and 1 exactly; rounding does not.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def _check(labels: np.ndarray, outputs: np.ndarray, expected: tuple[int, int]) -> None:
    if outputs.shape != expected or (labels.ndim == 2 and labels.shape != expected):
        raise ValueError(f"labels {labels.shape}, outputs {outputs.shape}; expected {expected}")
    if not len(labels):
        raise UserError(
            "There are no examples to measure on.", "At least one labelled example is needed."
        )
    bad = int((~np.isfinite(outputs)).any(axis=1).sum())
    if bad:
        raise UserError(
            f"The model's answers are not numbers (NaN or infinity) for {bad} of {len(labels)} "
            "examples.",
            "A model that trained well gives finite numbers.",
            "Train again with a smaller learning rate.",
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A small split that lacks a class is ordinary, and what follows from it is handled here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        yield


def _averages(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predictions, average="macro", zero_division=0
    )
    weighted = metrics.f1_score(labels, predictions, average="weighted", zero_division=0)
    return {
        "precision_macro": float(precision),
        "recall_macro": float(recall),
        "f1_macro": float(f1),
        "f1_weighted": float(weighted),
    }


def _balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn import metrics

    with _quiet():
        return float(metrics.balanced_accuracy_score(labels, predictions))


def _roc_auc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    from sklearn import metrics

    if positive.all() or not positive.any():
        return None
    return float(metrics.roc_auc_score(positive, scores))


def _correlation(name: str, labels: np.ndarray, predictions: np.ndarray) -> float | None:
    from scipy import stats

    if not (np.ptp(labels) > 0 and np.ptp(predictions) > 0):
        return None
    with warnings.catch_warnings():
        # SciPy's word for what differs by rounding alone, and that is as good as constant.
        warnings.simplefilter("error", stats.DegenerateDataWarning)
        try:
            correlation = float(getattr(stats, name)(labels, predictions).statistic)
        except stats.DegenerateDataWarning:
            return None
    return correlation if math.isfinite(correlation) else None


def _per_class(
    class_names: Sequence[str],
    support: np.ndarray,
    predicted: np.ndarray,
    hits: np.ndarray,
    roc_auc: list[float | None],
) -> list[dict[str, Any]]:
    def share(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

    return [
        {
            "class": str(name),
            "support": int(support[i]),
            "predicted": int(predicted[i]),
            "precision": share(hits[i], predicted[i]),
            "recall": share(hits[i], support[i]),
            "f1": share(2 * hits[i], support[i] + predicted[i]),
            "roc_auc": roc_auc[i],
        }
        for i, name in enumerate(class_names)
    ]


def _mean(values: Any) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
