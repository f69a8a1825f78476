"""The figures of metrics.json against hand calculations, NumPy and SciPy."""

import itertools
import json
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from tfsft.errors import UserError
from tfsft.evaluation import (
    classification_metrics,
    evaluate,
    multi_label_metrics,
    regression_metrics,
    wilson_interval,
)
from tfsft.evaluation.metrics import calibration_error


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def strict(metrics):
    """Through strict JSON and back: plain types only, no NaN."""
    return json.loads(json.dumps(metrics, allow_nan=False))


def sure(predictions, num_classes, probability=0.9):
    """Probabilities whose top is the given class; the rest is shared by the others."""
    rest = (1 - probability) / (num_classes - 1)
    table = np.full((len(predictions), num_classes), rest)
    table[np.arange(len(predictions)), predictions] = probability
    return table


def naive_auc(positive, scores):
    """The share of (positive, negative) pairs in the right order; ties count half."""
    pairs = [
        (p > n) + 0.5 * (p == n)
        for p in np.asarray(scores)[positive]
        for n in np.asarray(scores)[~np.asarray(positive)]
    ]
    return sum(pairs) / len(pairs)


def test_skewed_classes_by_hand():
    # 8 of a (7 right, 1 taken for b), 2 of b (1 right, 1 taken for a)
    labels = np.array([0] * 8 + [1] * 2)
    predictions = np.array([0] * 7 + [1] + [1, 0])
    got = strict(classification_metrics(labels, sure(predictions, 2), ("a", "b")))
    assert got["examples"] == 10
    assert got["accuracy"] == pytest.approx(0.8)
    assert got["balanced_accuracy"] == pytest.approx((7 / 8 + 1 / 2) / 2)
    assert got["precision_macro"] == pytest.approx((7 / 8 + 1 / 2) / 2)
    assert got["recall_macro"] == pytest.approx((7 / 8 + 1 / 2) / 2)
    assert got["f1_macro"] == pytest.approx((7 / 8 + 1 / 2) / 2)
    assert got["f1_weighted"] == pytest.approx(0.8 * 7 / 8 + 0.2 * 1 / 2)
    # one of b is above all but one of a, with which it ties; the other ties with 7 and is below 1
    assert got["roc_auc"] == pytest.approx((7 + 0.5 + 7 * 0.5) / 16)
    assert got["log_loss"] == pytest.approx(-(8 * math.log(0.9) + 2 * math.log(0.1)) / 10)
    assert got["expected_calibration_error"] == pytest.approx(0.1)
    assert got["confusion_matrix"] == [[7, 1], [1, 1]]
    assert got["per_class"][1] == {
        "class": "b",
        "support": 2,
        "predicted": 2,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "roc_auc": pytest.approx(11 / 16),
    }
    assert "top_5_accuracy" not in got


def test_a_class_never_predicted_has_no_precision_and_counts_as_zero_in_the_mean():
    labels = np.array([0, 0, 1, 1, 2, 2])
    got = strict(classification_metrics(labels, sure([0, 0, 1, 1, 0, 1], 3), ("a", "b", "c")))
    never = got["per_class"][2]
    assert never["predicted"] == 0
    assert never["precision"] is None
    assert never["recall"] == 0.0
    assert never["f1"] == 0.0
    assert got["precision_macro"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert got["f1_macro"] == pytest.approx((0.8 + 0.8 + 0) / 3)


def test_a_class_absent_from_the_split_is_left_out_of_the_averages():
    labels = np.array([0, 0, 1, 1])
    got = strict(classification_metrics(labels, sure([0, 0, 1, 0], 3), ("a", "b", "c")))
    absent = got["per_class"][2]
    assert [absent[key] for key in ("precision", "recall", "f1", "roc_auc")] == [None] * 4
    assert got["recall_macro"] == pytest.approx((1 + 0.5) / 2)
    assert got["roc_auc"] == pytest.approx(
        np.mean([row["roc_auc"] for row in got["per_class"][:2]])
    )


def test_a_class_that_is_predicted_but_absent_has_no_recall():
    got = strict(classification_metrics(np.array([0, 0, 1]), sure([0, 2, 1], 3), tuple("abc")))
    assert got["per_class"][2]["recall"] is None
    assert got["per_class"][2]["precision"] == 0.0
    assert got["balanced_accuracy"] == pytest.approx(0.75)  # over a and b
    assert got["recall_macro"] == pytest.approx(0.5)  # over a, b and c, as scikit-learn does


def test_ties_take_the_first_class_in_accuracy_and_in_top_5():
    labels = np.array([0, 1, 4, 6])
    got = strict(classification_metrics(labels, np.full((4, 7), 1 / 7), tuple("abcdefg")))
    assert got["accuracy"] == 0.25
    assert got["top_5_accuracy"] == 0.75
    assert got["roc_auc"] == 0.5


def test_top_5_and_roc_auc_against_a_naive_count():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 60)
    probabilities = rng.dirichlet(np.ones(8), 60).astype(np.float32)

    got = strict(classification_metrics(labels, probabilities, [f"c{i}" for i in range(8)]))
    top = [label in np.argsort(-row)[:5] for label, row in zip(labels, probabilities, strict=True)]
    assert got["top_5_accuracy"] == pytest.approx(np.mean(top))
    for i, row in enumerate(got["per_class"]):
        assert row["roc_auc"] == pytest.approx(naive_auc(labels == i, probabilities[:, i]))
    picked = probabilities[np.arange(60), labels].astype(float)
    assert got["log_loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-5)


def test_one_class_only_among_the_labels():
    got = strict(classification_metrics(np.array([0, 0]), sure([0, 1], 2), ("a", "b")))
    assert got["accuracy"] == 0.5
    assert got["roc_auc"] is None
    assert got["per_class"][0]["roc_auc"] is None


def test_one_class_only_in_the_model():
    got = strict(classification_metrics(np.array([0, 0]), np.ones((2, 1)), ("a",)))
    assert got["accuracy"] == 1.0
    assert got["log_loss"] is None
    assert got["roc_auc"] is None


@pytest.mark.parametrize("predicted", [0, 1])
def test_a_single_example(predicted):
    got = strict(classification_metrics(np.array([0]), sure([predicted], 3), tuple("abc")))
    assert got["accuracy"] == 1.0 - predicted
    assert got["roc_auc"] is None
    assert got["log_loss"] == pytest.approx(-math.log([0.9, 0.05][predicted]))


def test_a_softmax_a_rounding_above_one_and_exact_zeros_are_fine():
    probabilities = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0], [0, 1]], np.float32)
    got = strict(classification_metrics(np.array([0, 0]), probabilities, ("a", "b")))
    assert got["log_loss"] == pytest.approx(-math.log(np.finfo(np.float32).eps) / 2, rel=1e-4)


def test_calibration_error_by_hand():
    # bins of 1/15: .05 alone | .62 and .65 together (.6, .667] | 2/3 still in that bin | .99
    confidences = np.array([0.05, 0.62, 0.65, 2 / 3, 0.99])
    correct = np.array([True, True, True, False, True])
    middle = abs((0.62 + 0.65 + 2 / 3) / 3 - 2 / 3)
    expected = (0.95 + 3 * middle + 0.01) / 5
    assert calibration_error(confidences, correct) == pytest.approx(expected)


def test_calibration_error_against_a_naive_loop():
    rng = np.random.default_rng(1)
    confidences, correct = rng.random(500), rng.random(500) < 0.6
    edges, expected = np.linspace(0, 1, 16), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidences > low) & (confidences <= high)
        if inside.any():
            gap = abs(correct[inside].mean() - confidences[inside].mean())
            expected += inside.mean() * gap
    assert calibration_error(confidences, correct) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "of"), [(0, 1), (1, 1), (0, 7), (98, 100), (500, 1000)])
def test_wilson_interval_against_scipy(right, of):
    expected = stats.binomtest(right, of).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, of) == pytest.approx((expected.low, expected.high))


def test_multi_label_by_hand():
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    probabilities = np.array([[0.9, 0.1, 0.2], [0.8, 0.4, 0.1], [0.3, 0.7, 0.6], [0.2, 0.2, 0.3]])
    got = strict(multi_label_metrics(labels, probabilities, ("sun", "sea", "sand")))
    assert got["accuracy"] == 0.5
    assert got["label_accuracy"] == pytest.approx(10 / 12)
    assert got["balanced_accuracy"] == pytest.approx((1 + 0.75) / 2)
    assert got["precision_macro"] == pytest.approx((1 + 1 + 0) / 3)
    assert got["recall_macro"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert got["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert got["f1_micro"] == pytest.approx(2 * 3 / (4 + 4))
    assert got["f1_weighted"] == pytest.approx((2 * 1 + 2 * 2 / 3) / 4)
    # sun = sun | sun, sea as sun | sea as sea, sand | nothing as nothing: 0, as scikit-learn says
    assert got["f1_samples"] == pytest.approx((1 + 2 / 3 + 2 / 3 + 0) / 4)
    assert got["roc_auc"] == 1.0  # of sun and sea; sand has no example
    assert got["average_precision"] == pytest.approx(1.0)
    decided = np.where(labels == 1, probabilities, 1 - probabilities)
    assert got["log_loss"] == pytest.approx(-np.log(decided).mean())
    sand = got["per_class"][2]
    assert (sand["support"], sand["predicted"], sand["precision"]) == (0, 1, 0.0)
    assert sand["recall"] is None
    assert sand["roc_auc"] is None
    assert sand["average_precision"] is None
    assert "confusion_matrix" not in got


def test_regression_by_hand():
    got = strict(regression_metrics(np.array([1, 2, 3, 6.0]), np.array([[2], [2], [1], [6]])))
    assert got == {
        "examples": 4,
        "mse": pytest.approx(5 / 4),
        "rmse": pytest.approx(math.sqrt(5 / 4)),
        "mae": pytest.approx(3 / 4),
        "r2": pytest.approx(1 - 5 / 14),  # squares about the mean 3: 4 + 1 + 0 + 9
        # labels about 3: -2 -1 0 3, predictions about 2.75: -.75 -.75 -1.75 3.25
        "pearson": pytest.approx((1.5 + 0.75 + 0 + 9.75) / math.sqrt(14 * 14.75)),
        # ranks 1 2 3 4 and 2.5 2.5 1 4, about 2.5: -1.5 -.5 .5 1.5 and 0 0 -1.5 1.5
        "spearman": pytest.approx((-0.75 + 2.25) / math.sqrt(5 * 4.5)),
    }


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_correlations_against_plain_numpy(scale):
    rng = np.random.default_rng(4)
    labels = rng.normal(size=200)
    predictions = scale * (labels + rng.normal(size=200)).astype(np.float32)
    got = strict(regression_metrics(labels, predictions))
    assert got["pearson"] == pytest.approx(np.corrcoef(labels, predictions)[0, 1])
    ranks = [np.argsort(np.argsort(values)) for values in (labels, predictions)]  # no ties here
    assert got["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [
        ([3.0], [2.0]),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]),
        ([4.0, 4.0, 4.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, 1.0 + 1e-16, 1.0 + 3e-16]),
    ],
)
def test_correlations_that_are_undefined_are_none(labels, predictions):
    got = strict(regression_metrics(np.array(labels), np.array(predictions)))
    assert got["pearson"] is None
    assert got["spearman"] is None or len(set(predictions)) > 1  # ranks know no rounding


@pytest.mark.parametrize("labels", [[3.0], [2.0, 2.0]])
def test_r2_needs_two_different_labels(labels):
    got = strict(regression_metrics(np.array(labels), np.full(len(labels), 2.5, np.float32)))
    assert got["r2"] is None
    assert got["mae"] == 0.5


def test_evaluate_chooses_by_kind():
    labels, probabilities = np.array([0, 1]), sure([0, 1], 2)
    same = classification_metrics(labels, probabilities, ("a", "b"))
    assert evaluate("single", labels, probabilities, ("a", "b")) == same
    assert evaluate("multi", np.eye(2), probabilities, ("a", "b"))["label_accuracy"] == 1.0
    assert evaluate("regression", np.array([1.0]), np.array([2.0]))["mse"] == 1.0
    with pytest.raises(ValueError, match="single, multi, regression"):
        evaluate("double", labels, probabilities, ("a", "b"))


def test_answers_that_are_not_numbers_are_refused():
    probabilities = sure([0, 1], 2)
    probabilities[1, 0] = np.nan
    with pytest.raises(UserError, match="1 of 2 examples"):
        classification_metrics(np.array([0, 1]), probabilities, ("a", "b"))
    with pytest.raises(UserError, match="no examples"):
        classification_metrics(np.zeros(0, int), np.zeros((0, 2)), ("a", "b"))
    with pytest.raises(ValueError, match="expected"):
        classification_metrics(np.array([0, 1]), sure([0, 1], 2), ("a", "b", "c"))
