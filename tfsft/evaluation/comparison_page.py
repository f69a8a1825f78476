"""A comparison of runs for reading: a page, lines for the terminal, and plain data."""

import math
import string
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfsft.evaluation import plots
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.comparison import Comparison, Estimate, Verdict
from tfsft.evaluation.figures import explained, figure_text
from tfsft.evaluation.pages import render, svg
from tfsft.evaluation.wording import NOUNS, duration, percent, plain

FORMAT = 1
# Okabe and Ito's palette, told apart with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
CURVES = ("accuracy", "f1", "exact", "mae", "loss")


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Writes a page that needs nothing else.

    Args:
        comparison: From `compare`.
        path: The file.
    """
    path = Path(path)
    atomic_write(path, render("compare.html", _context(comparison)))
    return path


def comparison_as_text(comparison: Comparison) -> str:
    """Returns the same for the terminal."""
    context = _context(comparison, drawn=False)
    lines = [f"{letter}  {run.dir}" for letter, run in context["runs"]]
    lines += ["", f"{context['examples']} {context['many']} of the {context['split']} split"]
    lines += [f"Note: {note}" for note in context["notes"]]
    letters = [letter for letter, _ in context["runs"]]
    lines += ["", *_table(["", *letters], [[n, *texts] for n, _, texts in context["figures"]])]
    lines += ["", *(f"{v['head']}. {v['body']}" for v in context["verdicts"])]
    if context["settings"]:
        lines += ["", *_table(["settings that differ", *letters], context["settings"])]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def comparison_as_data(comparison: Comparison) -> dict[str, Any]:
    """Returns the same as JSON has it; what is undefined is None."""

    def defined(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: defined(item) for key, item in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "format": FORMAT,
        "runs": [str(run.dir) for run in comparison.runs],
        "examples": comparison.examples,
        "metrics": {
            name: [defined(asdict(estimate)) for estimate in estimates]
            for name, estimates in comparison.estimates.items()
        },
        "verdicts": [
            {"run": str(run.dir), "verdict": v.word, **defined(asdict(v))}
            for run, v in zip(comparison.runs[1:], comparison.verdicts, strict=True)
        ],
        "settings": dict(comparison.settings),
        "notes": comparison.notes,
    }


def run_curves(
    histories: Sequence[Sequence[dict[str, str]]], names: Sequence[str], metrics: Sequence[str]
) -> Figure:
    """Returns how metrics of validation data went from epoch to epoch, a line for each run.

    Args:
        histories: The rows of history.csv of each run.
        names: What the lines are called.
        metrics: One panel each.
    """
    with plots.style():
        figure = Figure(figsize=(4.6 * len(metrics), 3.2), layout="constrained")
        for panel, metric in enumerate(metrics, 1):
            axes = figure.add_subplot(1, len(metrics), panel)
            for place, (name, rows) in enumerate(zip(names, histories, strict=True)):
                values = [plots.number_or_nan(row.get(f"val_{metric}")) for row in rows]
                epochs = np.arange(1, len(rows) + 1)
                colour = COLOURS[place % len(COLOURS)]
                style = ("-", "--", ":")[place // len(COLOURS) % 3]
                axes.plot(epochs, values, style, color=colour, label=name, marker="o", ms=3)
            axes.set_title(f"{metric.replace('_', ' ')} on validation data")
            axes.set_xlabel("epoch")
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.legend(handlelength=2.2)
        return figure


def _context(comparison: Comparison, *, drawn: bool = True) -> dict[str, Any]:
    runs = comparison.runs
    first = runs[0]
    _, many = NOUNS.get(str(first.task["task"]).split("_")[0], ("example", "examples"))
    letters = _letters(len(runs))
    return {
        "runs": list(zip(letters, runs, strict=True)),
        "many": many,
        "split": first.split,
        "examples": f"{comparison.examples:,}",
        "notes": comparison.notes,
        "figures": [
            (*explained(name, first.kind), [_interval(name, e) for e in estimates])
            for name, estimates in comparison.estimates.items()
        ],
        "others": _others(comparison),
        "verdicts": [
            _said(v, letters[0], letter, first.kind, many)
            for letter, v in zip(letters[1:], comparison.verdicts, strict=True)
        ],
        "corrected": len(comparison.verdicts) > 1,
        "settings": [[name, *map(plain, values)] for name, values in comparison.settings],
        "curves": _curves(comparison, letters) if drawn else None,
    }


def _others(comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """Returns figures that only metrics.json has, over all examples of each run."""
    runs, kind = comparison.runs, comparison.runs[0].kind
    scores = [run.metrics.get(run.split) or {} for run in runs]
    names = ("log_loss", "roc_auc", "expected_calibration_error", "f1", "perplexity", "rougeL")
    rows = [
        (*explained(name, kind), [figure_text(name, score.get(name)) for score in scores])
        for name in names
        if name not in comparison.estimates and any(name in score for score in scores)
    ]
    timing = [run.metrics.get("timing") or {} for run in runs]
    took = [t.get("total_seconds") for t in timing]
    trained = [(run.metrics.get("parameters") or {}).get("trained") for run in runs]
    return [
        *rows,
        ("Took", "From start to end.", ["–" if t is None else duration(t) for t in took]),
        ("Numbers trained", "", ["–" if n is None else f"{n:,}" for n in trained]),
    ]


def _curves(comparison: Comparison, letters: Sequence[str]) -> Any:
    histories = [run.history for run in comparison.runs]
    columns = set.intersection(*(set(rows[0]) if rows else set() for rows in histories))
    metrics = [name for name in CURVES if f"val_{name}" in columns][:2]
    if not metrics:
        return None
    return svg(run_curves(histories, letters, metrics), "Learning curves of the runs")


def _said(verdict: Verdict, first: str, other: str, kind: str, many: str) -> dict[str, str]:
    """Returns a verdict as a headline and what it rests on."""
    name = explained(verdict.metric, kind)[0]
    difference, low, high = (
        _signed(verdict.metric, value) for value in asdict(verdict.difference).values()
    )
    luck = percent(verdict.p) if verdict.p >= 0.0005 else "less than 0.05%"
    if verdict.test == "mcnemar":
        test = "McNemar's exact test"
        counts = (
            f"{other} alone is right on {verdict.gained:,} {many}, {first} alone on "
            f"{verdict.lost:,}. "
        )
    else:
        test, counts = "paired bootstrap", ""
    return {
        "head": f"{other} against {first}: this may be luck"
        if verdict.word == "luck"
        else f"{other} is {verdict.word} than {first}",
        "body": f"{name} {difference} (95%: {low} to {high}). {counts}Luck alone brings such a "
        f"difference, or a larger one, in {luck} of such tests ({test}).",
    }


def _signed(name: str, value: float) -> str:
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return sign + figure_text(name, abs(value))


def _interval(name: str, estimate: Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "–"
    value, *ends = (figure_text(name, x) for x in asdict(estimate).values())
    return f"{value} ({' to '.join(ends)})" if math.isfinite(estimate.low) else value


def _letters(count: int) -> list[str]:
    letters = string.ascii_uppercase
    return [letters[i] if i < len(letters) else str(i + 1) for i in range(count)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    from rich.cells import cell_len

    rows = [[plots.shorten(cell, 40) for cell in row] for row in [header, *rows]]
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(header))]
    return [
        "  ".join(cell + " " * (w - cell_len(cell)) for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]
