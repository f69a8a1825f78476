"""The page of a search: which settings were tried and how well they did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfsft.evaluation import plots
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.metrics import falls
from tfsft.evaluation.pages import render, svg
from tfsft.evaluation.wording import number, plain

IN_A_ROW = 3  # panels
STATES = ("finished", "pruned", "failed", "running")


@dataclass(frozen=True)
class TrialRow:
    """One trial of a search.

    Args:
        number: Counted from 0.
        state: One of `STATES`.
        values: The settings that were searched for.
        figure: What the trial is judged by; None if it was not finished.
        curve: The figure after each epoch, counted from 1 over all phases.
        seconds: How long it took.
        message: Why it failed.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    figure: float | None
    curve: Mapping[int, float]
    seconds: float
    message: str = ""

    @staticmethod
    def folder_of(number: int) -> str:
        """Returns the name of a trial's run folder."""
        return f"trial-{number:03}"

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return self.folder_of(self.number)


def write_search_page(
    path: str | Path,
    rows: Sequence[TrialRow],
    *,
    recipe: str,
    metric: str,
    logarithmic: Sequence[str] = (),
    planned: int,
    best: int | None,
    command: str | None,
) -> Path:
    """Writes a page that needs nothing else.

    Args:
        path: The file.
        rows: The trials up to now.
        recipe: What they are runs of.
        metric: What they are judged by, a column of history.csv.
        logarithmic: Settings that are drawn on a logarithmic axis.
        planned: How many trials there will be.
        best: The number of the best one.
        command: What trains it again.
    """
    path = Path(path)
    smaller = falls(metric)
    done = sorted(
        (row for row in rows if row.figure is not None),
        key=lambda row: row.figure,
        reverse=not smaller,
    )
    ranked = [*done, *(row for row in rows if row.figure is None)]
    names = list(rows[0].values) if rows else []
    figure = metric.removeprefix("val_").replace("_", " ")
    states = [row.state for row in rows]
    counts = {state: states.count(state) for state in sorted(set(states), key=STATES.index)}
    context = {
        "recipe": recipe,
        "figure": figure,
        "smaller": smaller,
        "planned": planned,
        "counts": counts,
        "best": next((row for row in rows if row.number == best), None),
        "command": command,
        "names": names,
        "rows": [(row, [_said(row.values[name]) for name in names]) for row in ranked],
        "settings": svg(
            figure_by_setting(rows, names, figure, logarithmic, best), "The figure by each setting"
        )
        if best is not None
        else None,
        "curves": svg(trial_curves(rows, figure, best), "Each trial from epoch to epoch")
        if any(row.curve for row in rows)
        else None,
    }
    atomic_write(path, render("search.html", context))
    return path


def figure_by_setting(
    rows: Sequence[TrialRow],
    names: Sequence[str],
    figure: str,
    logarithmic: Sequence[str] = (),
    best: int | None = None,
) -> Figure:
    """Returns a panel for each setting: its values across, the figures of finished trials up."""
    done = [row for row in rows if row.figure is not None]
    colours = [plots.ORANGE if row.number == best else plots.BLUE for row in done]
    with plots.style():
        columns = min(len(names), IN_A_ROW)
        lines = -(-len(names) // columns)
        drawn = Figure(figsize=(3.4 * columns, 2.8 * lines), layout="constrained")
        for panel, name in enumerate(names, 1):
            axes = drawn.add_subplot(lines, columns, panel)
            values = [row.values[name] for row in done]
            if any(isinstance(value, str | bool | None) for value in values):
                labels = list(dict.fromkeys(map(_said, values)))
                axes.set_xticks(range(len(labels)), [plots.shorten(label, 16) for label in labels])
                axes.set_xlim(-0.5, len(labels) - 0.5)
                values = [labels.index(_said(value)) for value in values]
            elif name in logarithmic:
                axes.set_xscale("log")
            axes.scatter(values, [row.figure for row in done], c=colours, s=24, alpha=0.85)
            axes.set_title(name.replace("_", " "))
            axes.grid(axis="y")
            if panel % columns == 1 or columns == 1:
                axes.set_ylabel(figure)
        return drawn


def trial_curves(rows: Sequence[TrialRow], figure: str, best: int | None = None) -> Figure:
    """Returns the figure of each trial after each epoch; pruned and failed ones are dashed."""
    with plots.style():
        drawn = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = drawn.add_subplot()
        for row in sorted(rows, key=lambda row: row.number == best):  # the best on top
            epochs, values = list(row.curve), list(row.curve.values())
            is_best = row.number == best
            axes.plot(
                epochs,
                values,
                "-" if row.state == "finished" else "--",
                color=plots.ORANGE if is_best else plots.BLUE,
                alpha=1.0 if is_best else 0.45,
                lw=2.2 if is_best else 1.2,
                marker="o",
                ms=4 if is_best else 2.5,
            )
        axes.set_title(f"{figure} on validation data")
        axes.set_xlabel("epoch, over all phases")
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        return drawn


def _said(value: Any) -> str:
    return number(value) if isinstance(value, float) else plain(value)
