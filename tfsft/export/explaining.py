"""The pages that explain a run: one for each input, and one for its worst mistakes."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfsft import data
from tfsft.errors import UserError
from tfsft.evaluation.explanations import Explanation, write_explanations
from tfsft.export.explainer import Explainer, load_explainer

Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Explained:
    """What `explain_run` wrote.

    Args:
        pages: The files; the last one is that of the worst mistakes, if there are any.
        notes: What could not be done, a sentence each.
        bad: Inputs that could not be read.
    """

    pages: list[Path]
    notes: list[str]
    bad: list[data.BadExample]


def explain_run(
    run: str | Path,
    inputs: Sequence[str] = (),
    table: str | None = None,
    *,
    out: str | Path | None = None,
    worst: int | None = None,
    progress: Progress = None,
) -> Explained:
    """Writes a page for each input, and one for the worst mistakes of a run.

    Args:
        run: Folder of a finished run.
        inputs: What a person typed: pictures, folders or texts.
        table: A file with more of it.
        out: Folder of the pages; `explanations` in that of the run where it is None.
        worst: Most mistakes on the page of these; 0 leaves it out, None takes `Explainer.worst`.
        progress: Called with (done, total) examples of a kind.

    Raises:
        UserError: The run cannot be explained, or an input cannot be read or is too large.
    """
    run = Path(run)
    out = run / "explanations" if out is None else Path(out)
    explainer = load_explainer(run)
    worst = explainer.worst if worst is None else worst
    pages, notes, bad = [], [], []
    if inputs or table is not None:
        examples, bad = explainer.read(inputs, table)
        found = _watched(explainer.explain(examples), _count(examples), progress)
        for number, one in enumerate(found, 1):
            path = out / f"{number:02}-{_short(one.id)}.html"
            pages.append(_write(path, one.id, [one], explainer))
    if worst:
        try:
            examples, known = explainer.mistakes(worst)
        except UserError as error:
            notes.append(
                f"The worst mistakes were left out, as the data is not there: {error.came}"
            )
            examples, known = None, {}
        if known:
            found = _watched(explainer.explain(examples, known), len(known), progress)
            title = f"The worst mistakes of {run.resolve().name}"
            pages.append(_write(out / "worst.html", title, list(found), explainer))
        elif not notes:
            notes.append("There are no mistakes in predictions.csv to explain.")
    return Explained(pages, notes, bad)


def _write(
    path: Path, title: str, explanations: Sequence[Explanation], explainer: Explainer
) -> Path:
    return write_explanations(path, title, explanations, explainer.baseline, explainer.unit)


def _count(examples: Any) -> int:
    return len(examples["ids"] if isinstance(examples, Mapping) else examples)


def _watched(
    explanations: Iterator[Explanation], total: int, progress: Progress
) -> Iterator[Explanation]:
    for done, one in enumerate(explanations, 1):
        yield one
        if progress is not None:
            progress(done, total)


def _short(name: str) -> str:
    """Returns what of a name can be part of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name[-60:]).stem)[:40].strip("-.") or "input"
