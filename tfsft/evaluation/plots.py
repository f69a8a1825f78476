"""Plots as Matplotlib figures of one quiet style, for TensorBoard (PNG) and the report (SVG).

Figures are made through the object API and drawn by Agg: pyplot keeps every figure alive and wants
a display. Right is blue, wrong and training are orange (Okabe and Ito's palette, told apart with
any colour vision).

Names are in any script. A page draws them with the reader's fonts; a PNG has those of this machine
only, and what they cannot draw goes by a number instead.
"""

import functools
import html
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len

from tfsft.evaluation import fonts
from tfsft.evaluation.metrics import calibration_bins, wilson_interval

INK, MUTED, GRID, BLUE, ORANGE = "#23272f", "#6b7281", "#e3e6eb", "#0072b2", "#d55e00"
MOST_CLASSES = 30  # more rows than that nobody reads
STYLE = {
    "font.family": fonts.DEFAULT,
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # class names may hold dollar signs
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
}
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")
JOINERS = "\u200c\u200d"  # Persian words and families of emoji fall apart without them

NUMBERED = "“class N” is class_names[N] of task.json: no font installed here draws its name"


class Plot(Figure):
    """A figure that knows the numbers of the classes it names.

    Args:
        numbers: The number of each name.
    """

    def __init__(self, *args: Any, numbers: Mapping[str, int] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.numbers = numbers or {}


def style() -> AbstractContextManager[None]:
    """Figures that are made within have the style."""
    return matplotlib.rc_context(STYLE)


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return styled


@_styled
def confusion_matrix(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Returns what the examples of each class (rows) were taken for (columns).

    The stronger the colour, the larger the share of the row. Up to 20 classes carry their counts.
    Of more than 30 classes, those most often confused are shown, the ones confused with each other
    side by side.

    Args:
        matrix: [classes, classes] counts.
        class_names: [classes].
    """
    matrix = np.asarray(matrix)
    shown = most_confused(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    counts, shares = matrix[np.ix_(shown, shown)], shares[np.ix_(shown, shown)]
    names = shorten_all([class_names[i] for i in shown], 22)
    n = len(shown)

    cell = 0.5 if n <= 10 else 0.38 if n <= 20 else 0.25
    margin = 0.4 + 0.075 * max(map(cell_len, names))
    side = max(2.2, n * cell)
    figure = Plot(
        figsize=(side + margin, side + margin),
        layout="constrained",
        numbers=dict(zip(names, shown, strict=True)),
    )
    axes = figure.add_subplot(aspect="equal", xlim=(0, n), ylim=(n, 0))
    axes.add_patch(Rectangle((0, 0), n, n, color=GRID, alpha=0.35, lw=0))
    cells = [(row, column) for row, column in np.ndindex(n, n) if counts[row, column]]
    axes.add_collection(
        PatchCollection(
            [Rectangle((column + 0.03, row + 0.03), 0.94, 0.94) for row, column in cells],
            # A single mistake among thousands must still be seen.
            facecolors=[
                (BLUE if row == column else ORANGE, 0.1 + 0.9 * shares[row, column] ** 0.5)
                for row, column in cells
            ],
            linewidths=0,
        )
    )
    if n <= 20:
        for row, column in cells:
            axes.text(
                column + 0.5,
                row + 0.5,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=8 if counts[row, column] < 10_000 else 6,
                color="white" if shares[row, column] > 0.3 else INK,
            )
    # Anchored where they end, so that they stand at their cells in fonts of any width.
    upright = {"rotation": 90, "rotation_mode": "anchor", "ha": "right", "va": "center"}
    wide = max(map(cell_len, names)) > 3
    axes.set_xticks(np.arange(n) + 0.5, names, **(upright if wide else {}))
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.tick_params(length=0, labelsize=9 if n <= 20 else 7.5, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("what the model says")
    axes.set_ylabel("what it is")
    return figure


def most_confused(matrix: np.ndarray, limit: int = MOST_CLASSES) -> np.ndarray:
    """Returns the classes to show: all, or the most confused ones, alike beside alike.

    Args:
        matrix: int [classes, classes].
        limit: More classes than this are thinned out.
    """
    matrix = np.asarray(matrix)
    if len(matrix) <= limit:
        return np.arange(len(matrix))
    from scipy.cluster.hierarchy import leaves_list, linkage

    mistakes = matrix - np.diag(matrix.diagonal())
    mistakes = mistakes + mistakes.T
    chosen = np.sort(np.argsort(-mistakes.sum(axis=1), kind="stable")[:limit])
    alike = mistakes[np.ix_(chosen, chosen)]
    distance = 1 / (1 + alike[np.triu_indices(limit, k=1)])
    return chosen[leaves_list(linkage(distance, "average"))]


@_styled
def learning_curves(
    history: Sequence[Mapping[str, Any]], metrics: Sequence[str] | None = None
) -> Figure:
    """Returns how the metrics went from epoch to epoch, on training and on validation data.

    Args:
        history: The rows of history.csv, with `phase` and the metrics `x` and `val_x`; what is not
            a finite number leaves a gap.
        metrics: One panel each; all those with a validation value when not given.
    """
    if metrics is None:
        columns = list(history[0]) if history else []
        metrics = [name for name in columns if f"val_{name}" in columns] or ["loss"]
    figure = Figure(figsize=(4.6 * len(metrics), 3.0), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    phases = [str(row.get("phase", "")) for row in history]
    starts = [i for i in range(len(phases)) if i == 0 or phases[i] != phases[i - 1]]
    for panel, metric in enumerate(metrics, 1):
        axes = figure.add_subplot(1, len(metrics), panel)
        for column, label, colour, style in (
            (metric, "training", ORANGE, "--"),
            (f"val_{metric}", "validation", BLUE, "-"),
        ):
            values = np.array([number_or_nan(row.get(column)) for row in history])
            if np.isfinite(values).any():
                axes.plot(epochs, values, style, color=colour, label=label, marker="o", ms=3)
        axes.set_title(metric.replace("_", " "), pad=18 if len(starts) > 1 else None)
        axes.set_xlabel("epoch")
        axes.grid(axis="y")
        axes.set_xlim(0.5, max(len(history), 1) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axes.get_lines():
            axes.legend(handlelength=2.2)
        for i, start in enumerate(starts if len(starts) > 1 else ()):
            end = starts[i + 1] if i + 1 < len(starts) else len(history)
            if i % 2:
                axes.axvspan(start + 0.5, end + 0.5, color=GRID, alpha=0.55, lw=0, zorder=0)
            # The name of a phase stands above its range, where no curve runs.
            axes.text(
                (start + end + 1) / 2,
                1.02,
                shorten(phases[start], 16),
                transform=axes.get_xaxis_transform(),
                ha="center",
                fontsize=8,
                color=MUTED,
            )
    return figure


@_styled
def per_class_bars(per_class: Sequence[Mapping[str, Any]], metric: str = "f1") -> Figure:
    """Returns one bar a class, the weakest first; of many classes the 30 weakest.

    Args:
        per_class: As in metrics.json.
        metric: Which of its figures.
    """
    defined = [row for row in per_class if row[metric] is not None]
    rows = sorted(defined, key=lambda row: row[metric])[:MOST_CLASSES]
    names = [shorten(row["class"], 28) for row in rows]
    order = [row["class"] for row in per_class]
    figure = Plot(
        figsize=(6.5, 0.8 + 0.24 * max(len(rows), 1)),
        layout="constrained",
        numbers={name: order.index(row["class"]) for name, row in zip(names, rows, strict=True)},
    )
    axes = figure.add_subplot(xlim=(0, 1.0))
    axes.barh(range(len(rows)), [row[metric] for row in rows], color=BLUE, height=0.7)
    for i, row in enumerate(rows):
        axes.text(row[metric] + 0.01, i, f"{row[metric]:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_title(metric.replace("_", " ").capitalize() + " by class")
    return figure


@_styled
def reliability_diagram(confidences: np.ndarray, correct: np.ndarray) -> Figure:
    """Returns how often predictions are right (with 95% intervals) against how sure the model was.

    Args:
        confidences: float [n], the probability of each prediction.
        correct: bool [n].
    """
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1.03), ylim=(0, 1.03))
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
    bins = calibration_bins(confidences, correct, bins=10)
    for count, confidence, right in bins:
        interval = wilson_interval(round(right * count), count)
        axes.vlines(confidence, *interval, color=BLUE, alpha=0.4)
    largest = max(count for count, _, _ in bins)
    axes.scatter(
        [confidence for _, confidence, _ in bins],
        [right for _, _, right in bins],
        s=[20 + 130 * count / largest for count, _, _ in bins],
        color=BLUE,
        linewidths=0,
        zorder=3,
        clip_on=False,
    )
    axes.grid()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("how sure the model was")
    axes.set_ylabel("how often it was right")
    return figure


@_styled
def predicted_against_true(labels: np.ndarray, predictions: np.ndarray) -> Figure:
    """Returns a point for each example of a regression; on the dotted line the answer is exact.

    Args:
        labels: float [n].
        predictions: float [n].
    """
    labels, predictions = np.asarray(labels, float), np.asarray(predictions, float)
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    ends = [min(labels.min(), predictions.min()), max(labels.max(), predictions.max())]
    axes.plot(ends, ends, color=MUTED, lw=1, ls=":")
    axes.scatter(
        labels,
        predictions,
        s=12,
        color=BLUE,
        alpha=0.45 if len(labels) < 1000 else 0.15,
        linewidths=0,
        rasterized=len(labels) > 1000,  # outlines of them all would be megabytes
    )
    axes.grid()
    axes.set_xlabel("what it is")
    axes.set_ylabel("what the model says")
    return figure


@_styled
def length_histogram(tokens: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Returns how long the texts of each split are in tokens, and where they are cut.

    Args:
        tokens: By split, as in config.json: `lengths` counts the texts between each two of the
            `edges`; `max_length` is where texts are cut, if they are.
    """
    figure = Figure(figsize=(6.5, 0.5 + 1.15 * max(len(tokens), 1)), layout="constrained")
    first = None
    for panel, (split, facts) in enumerate(tokens.items(), 1):
        axes = first = figure.add_subplot(len(tokens), 1, panel, sharex=first)
        axes.stairs(facts["lengths"], facts["edges"], fill=True, color=BLUE, lw=0)
        limit = facts.get("max_length")
        if limit:
            axes.axvline(limit, color=ORANGE, lw=1.2, ls="--")
        axes.set_title(split, fontsize=9, pad=4)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelbottom=panel == len(tokens))
    if first is not None:
        first.set_xlabel("tokens")
        first.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@_styled
def picture_grid(
    pictures: Sequence[np.ndarray], captions: Sequence[str] = (), columns: int = 6
) -> Figure:
    """Returns pictures in rows, each with its caption below.

    Args:
        pictures: uint8 [height, width, 3] or [height, width] each; sizes may differ.
        captions: One a picture, of one or more lines, or none at all.
        columns: Pictures in a row.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    figure = Figure(figsize=(1.5 * columns, (1.5 + 0.16 * lines) * rows), layout="constrained")
    for i, picture in enumerate(pictures):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if captions:
            caption = "\n".join(shorten(line, 22) for line in captions[i].split("\n"))
            axes.set_xlabel(caption, fontsize=8, color=INK)
    return figure


class _Legible:
    """What a renderer needs to write names in any script without a box.

    Args:
        written: What is drawn in place of a line of text.
        measured: What its room is measured by.
    """

    written: Callable[[str], str] = staticmethod(str)
    measured: Callable[[str], str] = staticmethod(str)
    families: Sequence[str] = (fonts.DEFAULT,)

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> Any:
        """Measures what will be seen."""
        return super().get_text_width_height_descent(self.measured(s), self._in(prop), ismath)

    def draw_text(self, gc: Any, x: float, y: float, s: str, prop: FontProperties, *rest: Any,
                  **more: Any) -> None:  # fmt: skip
        """Draws what can be read."""
        super().draw_text(gc, x, y, self.written(s), self._in(prop), *rest, **more)

    def _in(self, prop: FontProperties) -> FontProperties:
        prop = prop.copy()
        prop.set_family(list(self.families))
        return prop


class _LegibleAgg(_Legible, RendererAgg):
    pass


class _LegibleSVG(_Legible, RendererSVG):
    pass


class _AggCanvas(FigureCanvasAgg):
    """A canvas of Agg with fallback fonts, and stand-ins for what they lack."""

    def __init__(self, figure: Figure, written: Mapping[str, str], families: Sequence[str]):
        super().__init__(figure)
        self.written, self.families = written, families

    def get_renderer(self) -> RendererAgg:
        """Returns a renderer of the figure's present size."""
        width, height = self.figure.bbox.size
        self.renderer = _LegibleAgg(width, height, self.figure.dpi)
        self.renderer.written = self.renderer.measured = lambda line: self.written.get(line, line)
        self.renderer.families = self.families
        return self.renderer


class _SVGCanvas(FigureCanvasSVG):
    """A canvas whose text is text, with room for letters that only the reader's fonts have."""

    def get_renderer(self, file: io.StringIO | None = None) -> RendererSVG:
        """Returns a renderer of the figure's present size; the layout asks for one as well."""
        renderer = _LegibleSVG(
            *self.figure.bbox.size, file or io.StringIO(), metadata={"Date": None}
        )
        renderer.measured = _as_wide
        return renderer


def to_png(figure: Figure, dpi: int = 120) -> bytes:
    """Returns a figure as a PNG on white.

    Where no installed font draws the name of a class, its number stands for it and a line above
    says so; other letters that cannot be drawn are written as Python escapes.
    """
    file = io.BytesIO()
    lines = {line for text in _texts(figure) for line in text.splitlines()}
    numbers = getattr(figure, "numbers", {})
    written = {
        line: f"class {numbers[line]}" if line in numbers else shorten(_escaped(line), 22)
        for line in lines
        if fonts.undrawable(line)
    }
    seen = [written.get(line, line) for line in lines]
    with matplotlib.rc_context(STYLE):
        note = None
        if written.keys() & numbers.keys():
            note = figure.suptitle(NUMBERED, fontsize=7, color=MUTED, wrap=True)
        _AggCanvas(figure, written, fonts.families(seen))
        figure.savefig(file, format="png", dpi=dpi, facecolor="white")
        if note is not None:
            note.set_text("")
    return file.getvalue()


def _texts(figure: Figure) -> list[str]:
    """Returns all that is written in a figure."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # they are written just before they are drawn
    return [text.get_text() for text in figure.findobj(Text)]


def _escaped(line: str) -> str:
    bad = fonts.undrawable(line)
    return "".join(
        letter.encode("unicode_escape").decode() if letter in bad else letter for letter in line
    )


def _as_wide(line: str) -> str:
    """Returns letters of the default font that take as much room as the line will."""
    known = fonts.default_letters()
    return "".join(letter if letter in known else _room(letter) for letter in line)


def _room(letter: str) -> str:
    # Emoji are wider than the one em of a Chinese letter.
    wide = "—i" if letter >= "\U0001f000" else "—"
    return {0: "", 1: "n"}.get(cell_len(letter), wide)


def to_svg(figure: Figure, label: str) -> str:
    """Returns a figure as an `<svg>` element to put into a page, see-through.

    Its colours are CSS variables (`--plot-ink` and so on) that fall back to those of the style, so
    that a dark page can lighten them. Its text is text, for the reader's own fonts.

    Args:
        figure: The figure.
        label: What is shown, for those who cannot see it; different for each figure of a page.
    """
    file = io.StringIO()
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_facecolor("none")
    dpi, figure.dpi = figure.dpi, 72  # SVG counts in points
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": label}):
        inside = _SVGCanvas(figure).get_renderer(file)
        inside.image_dpi = dpi
        # What asks to be pixels becomes a picture.
        renderer = MixedModeRenderer(figure, *figure.get_size_inches(), dpi, inside)
        figure.draw(renderer)
        renderer.finalize()
    figure.dpi = dpi
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Names that nothing refers to would be there twice as soon as a page has two figures.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    width, height = (round(inches * 96) for inches in figure.get_size_inches())
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>',
        lambda match: (
            f'<svg class="plot" role="img" aria-label="{html.escape(label)}" viewBox="{match[1]}" '
            f'width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink">'
        ),
        svg,
        count=1,
    )
    names = {INK: "ink", MUTED: "muted", GRID: "grid", BLUE: "blue", ORANGE: "orange"}
    return re.sub("|".join(names), lambda match: f"var(--plot-{names[match[0]]}, {match[0]})", svg)


def shorten(name: str, length: int) -> str:
    """Returns a name on one line, its middle left out where it is wider than `length` letters.

    Chinese letters and emoji count as two; marks and joined emoji stay with what they belong to.
    """
    name = "".join(letter if _is_visible(letter) else " " for letter in str(name)).strip()
    if cell_len(name) <= length:
        return name
    letters = _letters(name)
    tail = (length - 1) // 3
    if not tail:
        return _fitting(letters, length)
    end = _fitting([letter[::-1] for letter in reversed(letters)], tail)[::-1]
    return f"{_fitting(letters, length - 1 - tail)}…{end}"


def _is_visible(letter: str) -> bool:
    return letter in JOINERS or unicodedata.category(letter) not in INVISIBLE


def _letters(name: str) -> list[str]:
    """Returns what a reader takes for one letter each."""
    letters: list[str] = []
    for letter in name:
        if letters and (fonts.is_modifier(letter) or letters[-1].endswith(JOINERS[1])):
            letters[-1] += letter
        else:
            letters.append(letter)
    return letters


def _fitting(letters: Sequence[str], width: int) -> str:
    """Returns the first letters, as many as fit."""
    fitting = ""
    for letter in letters:
        if cell_len(fitting + letter) > width:
            break
        fitting += letter
    return fitting


def shorten_all(names: Sequence[str], length: int) -> list[str]:
    """Returns short names; where they would become the same, without what all of them share."""
    short = [shorten(name, length) for name in names]
    if len(set(short)) < len(set(names)):
        start = _shared(names)
        end = _shared([name[start:][::-1] for name in names])
        short = [shorten(name[start : len(name) - end], length) for name in names]
    return short


def _shared(names: Sequence[str]) -> int:
    """Returns how many letters all names begin with."""
    columns = enumerate(zip(*names, strict=False))
    return next((i for i, letters in columns if len(set(letters)) > 1), min(map(len, names)))


def number_or_nan(value: Any) -> float:
    """Returns a finite number, or NaN for whatever else a cell may hold."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return np.nan
    return value if np.isfinite(value) else np.nan
