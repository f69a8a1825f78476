"""What an export is, beside the run that it was made of: certificate.json and certificate.html."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfsft.errors import UserError
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.pages import render
from tfsft.evaluation.wording import percent
from tfsft.export.replaying import Replay

FORMAT = 1
EXACT = 1e-4  # the largest difference of outputs in float32
LOSS = 0.01  # what a quantised model may lose of its figure
WORST = 5
_FIGURES = {
    "accuracy": "Accuracy",
    "r2": "R²",
    "f1": "F1 of entities",
    "exact": "Exact answers",
    "perplexity": "Perplexity",
}


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Args:
        score: Its figure on the examples; None where that is not defined.
        bytes: Of its file, or of all files of an export.
        seconds: The median time of one call with one example.
        loaded: Seconds until it was ready, libraries included.
        memory: The most that its process had, in bytes.
        runtime: What ran it.
    """

    score: float | None
    bytes: int
    seconds: float
    loaded: float
    memory: int
    runtime: str

    @classmethod
    def of(cls, score: float | None, path: Path, replay: Replay) -> Self:
        """Returns what is known of a model.

        Args:
            score: Its figure.
            path: Its file, or the folder of an export.
            replay: How it has answered.
        """
        return cls(
            score, size_of(path), replay.seconds, replay.loaded, replay.memory, replay.runtime
        )


@dataclass(frozen=True)
class Certificate:
    """How an export compares with its run on held-out examples.

    Args:
        run, format, quantize: What was exported, and how.
        data: Where the examples are from.
        examples: How many.
        figure: What `Side.score` is.
        difference: The largest of an output; of numbers beyond 1 relative.
        agreement: Share of the examples with the same answer; of language models share of the
            answers' tokens for which the same one is the most likely.
        tolerance: What was allowed: of the difference, or with `quantize` of the loss of score.
        keras, exported: The two models.
        worst: The examples with the largest differences: id, both answers, difference.
        tokens: Share of the examples of which the export's own tokenizer makes the tokens of the
            run; None where it was not asked.
    """

    run: str
    format: str
    quantize: str | None
    data: str
    examples: int
    figure: str
    difference: float
    agreement: float
    tolerance: float
    keras: Side
    exported: Side
    worst: Sequence[dict[str, Any]]
    tokens: float | None = None

    @property
    def agreed(self) -> str:
        """What `agreement` counts."""
        return "most likely tokens" if self.figure == "perplexity" else "answers"

    @property
    def loss(self) -> float | None:
        """How much worse the export's figure is than the run's; None where it is not defined."""
        if self.keras.score is None or self.exported.score is None:
            return None
        lost = self.keras.score - self.exported.score
        return -lost if self.figure == "perplexity" else lost

    @property
    def kept(self) -> bool:
        """Whether the export is what the run is, within the tolerance."""
        if self.quantize is None:
            return self.difference <= self.tolerance
        lost = self.loss
        # Without a figure there is only the agreement of the answers.
        lost = 1 - self.agreement if lost is None else lost
        return math.isfinite(self.difference) and lost <= self.tolerance + 1e-9

    def summary(self) -> str:
        """Returns what a person should know, in one line."""
        was, now = (said(self.figure, side.score) for side in (self.keras, self.exported))
        sizes = [f"{side.bytes / 1e6:,.1f}" for side in (self.keras, self.exported)]
        return (
            f"On {self.examples} held-out examples {percent(self.agreement)} of its {self.agreed} "
            f"are those of the run ({_FIGURES[self.figure]} {was}, now {now}; largest difference "
            f"{self.difference:.2g}; {sizes[0]} MB, now {sizes[1]} MB): see certificate.html."
        )

    def refusal(self) -> UserError:
        """Returns the error for an export that is not kept, with the worst examples."""
        if self.quantize is None:
            came = f"answers differently from the run, by {self.difference:.2g}"
            expected = f"At most {self.tolerance:g} in any output."
            fix = "Report this if it is no question of rounding"
        else:
            was, now = (said(self.figure, x.score) for x in (self.keras, self.exported))
            came = f"loses too much: {_FIGURES[self.figure]} {was} becomes {now}"
            expected = f"At most {self.tolerance:g} less."
            fix = "Try another --quantize, or none"
        worst = "".join(
            f"\n  {row['id']}: {row['run']} became {row['export']} ({row['difference']:.2g})"
            for row in self.worst
        )
        return UserError(
            f"The export of {self.run} {came}. The worst of {self.examples} examples:{worst}",
            expected,
            f"It was removed. {fix}; --tolerance allows more.",
        )


def issue_certificate(certificate: Certificate, folder: Path) -> None:
    """Writes both files into the folder of an export.

    Raises:
        UserError: The export is not kept.
    """
    if not certificate.kept:
        raise certificate.refusal()
    content = asdict(certificate)
    content = {"format": FORMAT, "target": content.pop("format"), **content}
    content["loss"] = certificate.loss
    atomic_write(
        folder / "certificate.json",
        json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    )
    atomic_write(folder / "certificate.html", render("certificate.html", _context(certificate)))


def check_seen(run: Path, ids: Sequence[str], apart: np.ndarray) -> None:
    """Raises a UserError if an output is no number, or is of something else than the run's.

    Args:
        run: Its folder.
        ids: Of the examples.
        apart: Their differences; infinite where words or tokens are others.
    """
    strange = np.flatnonzero(~np.isfinite(apart))
    if len(strange):
        raise UserError(
            f"The export of {run} does not see {ids[int(strange[0])]} as the run does.",
            "The same tokens, and numbers.",
            "It was removed. Use another --format, and report this.",
        )


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def worst_rows(
    ids: Sequence[str], ours: Sequence[Any], theirs: Sequence[Any], apart: np.ndarray
) -> list[dict[str, Any]]:
    """Returns the examples whose outputs differ most, other answers first."""
    other = [a != b for a, b in zip(ours, theirs, strict=True)]
    order = sorted(range(len(ids)), key=lambda i: (-other[i], -np.nan_to_num(apart[i], nan=np.inf)))
    return [
        {
            "id": str(ids[i]),
            "run": _answer(ours[i]),
            "export": _answer(theirs[i]),
            "difference": float(apart[i]),
        }
        for i in order[:WORST]
    ]


def said(figure: str, score: float | None) -> str:
    """Returns a figure as people read it."""
    if score is None:
        return "undefined"
    if figure == "perplexity":
        return f"{score:.4g}"
    return f"{score:.4f}" if figure == "r2" else percent(score)


def _answer(answer: Any) -> str:
    if isinstance(answer, list):  # tags
        return " ".join(answer)
    return f"{answer:g}" if isinstance(answer, float) else str(answer)


def _context(certificate: Certificate) -> dict[str, Any]:
    sides = certificate.keras, certificate.exported
    mega = [f"{side.bytes / 1e6:,.1f} MB" for side in sides]
    rows = [
        (_FIGURES[certificate.figure], [said(certificate.figure, side.score) for side in sides]),
        ("Size of the model", mega),
        ("Time of one example", [f"{1e3 * side.seconds:.2f} ms" for side in sides]),
        ("Ready after", [f"{side.loaded:.1f} s" for side in sides]),
        ("Memory of the process", [f"{side.memory / 1e6:,.0f} MB" for side in sides]),
        ("Run by", [side.runtime for side in sides]),
    ]
    return {
        "c": certificate,
        "name": certificate.format + (f", {certificate.quantize}" if certificate.quantize else ""),
        "rows": rows,
        "agreement": percent(certificate.agreement),
        "tokens": None if certificate.tokens is None else percent(certificate.tokens),
        "difference": f"{certificate.difference:.2g}",
    }
