"""Mistakes on texts as a table for TensorBoard, whose pages show Markdown."""

import html
from collections.abc import Sequence

from tfsft.evaluation.plots import shorten
from tfsft.evaluation.predictions import Prediction
from tfsft.evaluation.wording import number, percent

MARKUP = str.maketrans({mark: f"&#{ord(mark)};" for mark in "\\`*_{}[]()#+-.!|~:"})
LONGEST_TEXT, LONGEST_ANSWER = 300, 80


def mistakes_as_markdown(rows: Sequence[Prediction], limit: int = 24) -> str:
    """Returns the first mistakes as a Markdown table.

    Args:
        rows: Of predictions.csv, the worst first.
        limit: Most mistakes to show.
    """
    wrong = [row for row in rows if row.label is not None and not row.correct]
    if not wrong:
        return "No mistakes."
    numbers = wrong[0].error is not None
    lines = [f"| text | is | said | {'off by' if numbers else 'sure'} |", "|---|---|---|---:|"]
    for row in wrong[:limit]:
        measure = row.error if numbers else row.probability
        cells = [
            _cell(row.text or row.id, LONGEST_TEXT),
            *(_cell(_answer(answer), LONGEST_ANSWER) for answer in (row.label, row.prediction)),
            "–" if measure is None else number(measure) if numbers else percent(measure),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _answer(value: str | float | None) -> str:
    return (value or "nothing") if isinstance(value, str) else number(value)


def _cell(text: str, length: int) -> str:
    """Returns a text on one line whose letters mean themselves."""
    # The entities hold marks themselves, so the marks go first.
    plain = html.escape(shorten(" ".join(text.split()), length), quote=False)
    return "&".join(part.translate(MARKUP) for part in plain.split("&"))
