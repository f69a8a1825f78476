"""Plots draw every shape of data without a warning, and say what is in it."""

import io
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from tfsft.evaluation import plots


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure):
    """All words of a figure, by way of a strict XML parser."""
    svg = ElementTree.fromstring(plots.to_svg(figure, "a plot"))
    return [
        "".join(element.itertext()).strip()
        for element in svg.iter("{http://www.w3.org/2000/svg}text")
    ]


def picture(figure):
    return np.asarray(Image.open(io.BytesIO(plots.to_png(figure))).convert("RGB"))


@pytest.mark.parametrize("classes", [1, 2, 10, 25, 1000])
def test_confusion_matrix_of_any_size(classes):
    matrix = np.diag(np.full(classes, 7))
    if classes == 1000:
        matrix[417, 903] = 3
    figure = plots.confusion_matrix(matrix, [f"class {i}" for i in range(classes)])
    words = texts(figure)
    assert ("7" in words) == (classes <= 20)
    assert sum(word.startswith("class ") for word in words) == 2 * min(classes, 30)
    assert max(figure.get_size_inches()) < 12
    if classes == 1000:
        assert {"class 417", "class 903"} <= set(words)
    assert picture(figure).std() > 1


def test_the_most_confused_classes_stand_side_by_side():
    matrix = np.zeros((100, 100), int)
    for i in range(16):
        matrix[i, 99 - i] = 50 + i
    shown = list(plots.most_confused(matrix))
    assert set(shown) <= {*range(16), *range(84, 100)}
    assert len(shown) == 30
    beside = sum(abs(shown.index(i) - shown.index(99 - i)) == 1 for i in range(1, 16) if i in shown)
    assert beside >= 14


def test_names_are_taken_literally_and_kept_short():
    names = ["a $x$ & <b>", "line\nbreak", "x" * 300]
    words = texts(plots.confusion_matrix(np.eye(3, dtype=int), names))
    assert "a $x$ & <b>" in words
    assert "line break" in words
    assert max(map(len, words)) <= 22


def test_names_that_begin_alike_stay_apart():
    names = [f"Canis lupus familiaris, breed number {i}, adult" for i in range(3)]
    assert plots.shorten_all(names, 20) == ["0", "1", "2"]
    assert plots.shorten_all(["cat", "dog"], 20) == ["cat", "dog"]
    assert plots.shorten("abcdefghij", 7) == "abcd…ij"


HISTORY = [
    {"phase": "head", "loss": "2.0", "accuracy": "0.5", "val_loss": "1.5", "val_accuracy": "0.6"},
    {"phase": "head", "loss": "nan", "accuracy": "", "val_loss": "1.0", "val_accuracy": "0.7"},
    {"phase": "unfreeze", "loss": "0.5", "accuracy": "1", "val_loss": "1", "val_accuracy": "0.8"},
]


def test_learning_curves_show_phases_and_both_splits():
    figure = plots.learning_curves(HISTORY)
    loss, accuracy = figure.axes
    assert (loss.get_title("left"), accuracy.get_title("left")) == ("loss", "accuracy")
    training, validation = loss.get_lines()
    np.testing.assert_array_equal(training.get_ydata(), [2.0, np.nan, 0.5])
    np.testing.assert_array_equal(validation.get_ydata(), [1.5, 1.0, 1.0])
    assert {"head", "unfreeze", "training", "validation"} <= set(texts(figure))


@pytest.mark.parametrize("rows", [[], HISTORY[:1], [{"phase": "head", "loss": "1.0"}]])
def test_short_histories(rows):
    assert picture(plots.learning_curves(rows)).size


def test_bars_weakest_first_without_the_undefined():
    rows = [{"class": name, "f1": f1} for name, f1 in (("a", 0.9), ("b", None), ("c", 0.25))]
    words = texts(plots.per_class_bars(rows))
    assert words.index("c") < words.index("a")
    assert "b" not in words
    assert "0.25" in words
    assert texts(plots.per_class_bars([]))


def test_reliability_points_are_the_bins():
    figure = plots.reliability_diagram(np.array([0.55, 0.58, 0.95, 1.0]), np.array([1, 0, 1, 1]))
    points = figure.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(points, [[0.565, 0.5], [0.975, 1.0]])


@pytest.mark.parametrize("count", [1, 30, 3000])
def test_predicted_against_true(count):
    labels = np.linspace(-5, 5, count)
    svg = plots.to_svg(plots.predicted_against_true(labels, labels**2), "scatter")
    assert len(svg) < 300_000


def test_picture_grid_of_unlike_pictures():
    pictures = [np.zeros((8, 8), np.uint8), np.full((30, 50, 3), 255, np.uint8)] * 4
    figure = plots.picture_grid(pictures, [f"is a\nsaid {i}" for i in range(8)], columns=3)
    assert len(figure.axes) == 8
    assert {"is a", "said 7"} <= set(texts(figure))
    assert picture(plots.picture_grid([])).size


def test_svg_can_stand_in_any_page():
    svg, again = (
        plots.to_svg(plots.confusion_matrix([[5, 1], [0, 6]], ["a", "b"]), 'right & "wrong"')
        for _ in range(2)
    )
    assert svg == again  # the same run gives the same report
    assert svg.startswith("<svg")
    assert 'aria-label="right &amp; &quot;wrong&quot;"' in svg
    assert "var(--plot-blue, #0072b2)" in svg
    assert not re.findall(r'(?:href|src)="(?!#)', svg)
    other = plots.to_svg(plots.learning_curves(HISTORY), "curves")
    ids = re.findall(r'\bid="([^"]*)"', svg + other)
    assert len(ids) == len(set(ids))


def test_no_pyplot():
    # pyplot would keep figures alive and look for a display; others may have imported it
    assert "pyplot" not in vars(plots)
    if "matplotlib.pyplot" in sys.modules:
        from matplotlib import pyplot

        before = pyplot.get_fignums()
        plots.to_png(plots.learning_curves(HISTORY))
        assert pyplot.get_fignums() == before
