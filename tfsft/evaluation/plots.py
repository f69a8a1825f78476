"""Plots as Matplotlib figures of one quiet style, for TensorBoard (PNG) and the report (SVG).

Figures are made through the object API and drawn by Agg: pyplot keeps every figure alive and wants
a display. Right is blue, wrong and training are orange (Okabe and Ito's palette, told apart with
any colour vision).
"""

import functools
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tfsft.evaluation.metrics import calibration_bins, wilson_interval

INK, MUTED, GRID, BLUE, ORANGE = "#23272f", "#6b7281", "#e3e6eb", "#0072b2", "#d55e00"
MOST_CLASSES = 30  # more rows than that nobody reads
STYLE = {
    "font.family": "DejaVu Sans",
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


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
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
    margin = 0.4 + 0.075 * max(map(len, names))
    side = max(2.2, n * cell)
    figure = Figure(figsize=(side + margin, side + margin), layout="constrained")
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
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=90 if max(map(len, names)) > 3 else 0)
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
            values = np.array([_number(row.get(column)) for row in history])
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
    figure = Figure(figsize=(6.5, 0.8 + 0.24 * max(len(rows), 1)), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1.0))
    axes.barh(range(len(rows)), [row[metric] for row in rows], color=BLUE, height=0.7)
    for i, row in enumerate(rows):
        axes.text(row[metric] + 0.01, i, f"{row[metric]:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [shorten(row["class"], 28) for row in rows])
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


def to_png(figure: Figure, dpi: int = 120) -> bytes:
    """Returns a figure as a PNG on white."""
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png", dpi=dpi, facecolor="white")
    return file.getvalue()


def to_svg(figure: Figure, label: str) -> str:
    """Returns a figure as an `<svg>` element to put into a page, see-through.

    Its colours are CSS variables (`--plot-ink` and so on) that fall back to those of the style, so
    that a dark page can lighten them.

    Args:
        figure: The figure.
        label: What is shown, for those who cannot see it; different for each figure of a page.
    """
    file = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": label}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
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
    """Returns a name on one line, its middle left out where it is longer than `length`."""
    name = "".join(letter if letter.isprintable() else " " for letter in str(name)).strip()
    if len(name) <= length:
        return name
    tail = (length - 1) // 3
    return f"{name[: length - 1 - tail]}…{name[-tail:]}" if tail else name[:length]


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


def _number(value: Any) -> float:
    try:
        value = float(value)
    except (TypeError, ValueError):
        return np.nan
    return value if np.isfinite(value) else np.nan
