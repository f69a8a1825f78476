"""Why a model said what it said, as pages: heat maps of pictures, and coloured texts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.pages import render
from tfsft.evaluation.wording import number, percent

FAINTEST = 0.03  # of the strongest; weaker ones are left uncoloured

# Words, and what they add to the output; None where the model did not see them.
Piece = tuple[str, float | None]


@dataclass(frozen=True)
class Reason:
    """What one output of a model rests on.

    Args:
        title: Which output.
        output: Its value.
        baseline: Its value for the empty input that it is compared with.
        gap: How far the parts are from adding up to the difference, as a share of it.
        places: How often the gradient was computed.
        pictures: (caption, PNG).
        passages: (name, pieces) of each text.
    """

    title: str
    output: float
    baseline: float
    gap: float
    places: int
    pictures: tuple[tuple[str, bytes], ...] = ()
    passages: tuple[tuple[str, tuple[Piece, ...]], ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What a model said of one example, and why.

    Args:
        id: How a person finds the example.
        prediction: What it said.
        probability: How sure it was, if it says so.
        label: What is right, if somebody knows.
        reasons: One for each output that is looked at.
        notes: What else there is to know.
    """

    id: str
    prediction: str
    probability: float | None
    reasons: tuple[Reason, ...]
    label: str | None = None
    notes: tuple[str, ...] = ()


def write_explanations(
    path: str | Path, title: str, explanations: Sequence[Explanation], baseline: str, unit: str
) -> Path:
    """Writes a page that needs nothing else.

    Args:
        path: The file; its folder is made where it is missing.
        title: What the page is about.
        explanations: The examples.
        baseline: What the examples are compared with, in words.
        unit: What an output is, in words.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    context = {
        "title": title,
        "explanations": explanations,
        "baseline": baseline,
        "unit": unit,
        "percent": percent,
        "number": number,
        "shades": shades,
        "data": lambda png: base64.b64encode(png).decode(),
    }
    atomic_write(path, render("explain.html", context))
    return path


def shades(reason: Reason) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Returns the passages as (name, pieces), each piece as (words, colour, tooltip).

    The strongest piece of all has the full colour; blue speaks for the output, orange against.
    """
    found = [w for _, pieces in reason.passages for _, w in pieces if w is not None]
    most = max(map(abs, found), default=0.0) or 1.0

    def shade(words: str, weight: float | None) -> tuple[str, str, str]:
        if weight is None:
            return words, "unread", "not seen by the model"
        strength = abs(weight) / most
        if strength < FAINTEST:
            return words, "", number(weight)
        colour = "0,114,178" if weight > 0 else "213,94,0"
        sign = "+" if weight > 0 else ""
        return words, f"rgba({colour},{0.75 * strength:.2f})", sign + number(weight)

    return [(name, [shade(*piece) for piece in pieces]) for name, pieces in reason.passages]
