"""Plots draw every shape of data without a warning, and say what is in it."""

import io
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from tfsft.evaluation import fonts, plots


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


SCRIPTS = (
    "sports",
    "汽车与交通",
    "رياضة وسياسة",
    "👩\u200d💻 code",
    "हिन्दी",
    "שלום",
    "می\u200cخواهم",
)


@pytest.fixture
def only_latin(monkeypatch):
    """A machine whose only font has Latin letters: DejaVu Sans without all others."""
    monkeypatch.setattr(fonts, "_family", {})
    draws = fonts._draws
    monkeypatch.setattr(fonts, "_draws", lambda path, c: ord(c) < 0x250 and draws(path, c))


def written(figure, monkeypatch):
    """The lines of text that are drawn into a PNG; a missing glyph is a warning, thus an error."""
    lines = []
    draw = plots.RendererAgg.draw_text

    def spy(self, gc, x, y, s, *rest, **more):
        lines.append(s)
        draw(self, gc, x, y, s, *rest, **more)

    monkeypatch.setattr(plots.RendererAgg, "draw_text", spy)
    assert picture(figure).std() > 1
    return lines


def test_names_in_any_script_are_text_in_the_page():
    words = texts(plots.confusion_matrix(np.eye(7, dtype=int), SCRIPTS))
    assert set(SCRIPTS) <= set(words)
    assert words.count("汽车与交通") == 2


def test_what_no_font_draws_goes_by_its_number(monkeypatch, only_latin):
    figure = plots.confusion_matrix(np.eye(7, dtype=int), SCRIPTS)
    lines = written(figure, monkeypatch)
    assert {"sports", *(f"class {i}" for i in range(1, 7))} <= set(lines)
    assert not [line for line in lines if max(map(ord, line)) > 0x2050]
    assert any("class_names[N]" in line for line in lines)
    assert set(SCRIPTS) <= set(texts(figure))  # the page is as before
    rows = [{"class": name, "f1": i / 10} for i, name in enumerate(SCRIPTS)]
    assert "class 3" in written(plots.per_class_bars(rows), monkeypatch)
    grid = plots.picture_grid([np.zeros((8, 8), np.uint8)], ["is 猫\nsaid dog"])
    assert {r"is \u732b", "said dog"} <= set(written(grid, monkeypatch))


def test_no_script_draws_boxes_with_the_fonts_that_are_here(monkeypatch):
    lines = written(plots.confusion_matrix(np.eye(7, dtype=int), SCRIPTS), monkeypatch)
    for i, name in enumerate(SCRIPTS):
        assert (name in lines) != (f"class {i}" in lines)
    assert "sports" in lines
    assert not [line for line in lines if "class_names" in line] or "sports" in lines


def test_without_shaping_joined_letters_are_not_drawn(monkeypatch):
    monkeypatch.setattr(fonts, "SHAPES", False)
    assert fonts.undrawable("abc é") == set()
    assert fonts.undrawable("سلام") == set("سلام")
    assert fonts.undrawable("שלום") == set("שלום")


def test_a_fallback_font_is_found_and_used(monkeypatch):
    monkeypatch.setattr(fonts, "_family", {})
    installed = {fonts.DEFAULT: "latin", "Bold Emoji": "emoji", "Han": "han"}
    monkeypatch.setattr(fonts, "_installed", lambda: installed)
    monkeypatch.setattr(
        fonts,
        "_draws",
        lambda path, c: {"latin": c < "ɐ", "emoji": c > "\U0001f000", "han": c == "猫"}[path],
    )
    assert fonts.families(["cat", "dog"]) == [fonts.DEFAULT]
    assert fonts.families(["猫 cat"]) == [fonts.DEFAULT, "Han"]
    assert fonts.undrawable("猫犬 a 😀\u200d😀\ufe0f") == {"犬"}


def test_fonts_without_outlines_draw_nothing(tmp_path):
    path = fonts._installed()[fonts.DEFAULT]
    assert fonts._draws(path, "a")
    assert not fonts._draws(path, "猫")
    assert not fonts._draws(str(tmp_path / "gone.ttf"), "a")
    assert not any("lastresort" in name.lower().replace(" ", "") for name in fonts._installed())


def test_wide_names_find_room_in_the_page():
    # nine letters of one em at 9 points, and their distance from the cells
    figure = plots.confusion_matrix(np.eye(2, dtype=int), ("汽车与交通运输问题", "b"))
    plots.to_svg(figure, "m")
    room = figure.axes[0].get_position().x0 * figure.get_size_inches()[0] * 72
    assert room > 9 * 9 + 3


def test_names_are_cut_between_letters():
    assert plots.shorten("汽车与交通运输问题", 9) == "汽车与…题"
    assert plots.shorten("👩\u200d💻" * 9, 12).startswith("👩\u200d💻")
    assert not plots.shorten("👩\u200d💻" * 9, 12).split("…")[0].endswith("\u200d")
    assert plots.shorten("می\u200cخواهم", 22) == "می\u200cخواهم"
    assert plots.shorten("a\u202eb\x00c", 22) == "a b c"


TOKENS = {
    "train": {"lengths": [3, 5, 1], "edges": [0, 10, 20, 40], "max_length": 32},
    "test": {"lengths": [1, 0, 1], "edges": [0, 10, 20, 40], "max_length": None},
}


def test_histogram_of_lengths_with_the_limit():
    figure = plots.length_histogram(TOKENS)
    train, test = figure.axes
    np.testing.assert_array_equal(train.patches[0].get_data().values, [3, 5, 1])
    assert [list(line.get_xdata()) for line in train.get_lines()] == [[32, 32]]
    assert not test.get_lines()
    assert {"train", "test", "tokens"} <= set(texts(figure))
    assert texts(plots.length_histogram({})) == []


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
