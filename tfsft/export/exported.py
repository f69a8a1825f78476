"""What all exports have in common: a new folder that is there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfsft.errors import UsageError, UserError


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        folder: It.
        samples: Number of examples it was compared with the run on.
        difference: The largest: in a logit of a language model; else in a probability or number
            (of numbers beyond 1, relative).
        usage: Lines of Python that load and call it.
        notes: What else there is to know.
        certificate: How it compares with the run on held-out examples, if that was done.
    """

    folder: Path
    samples: int
    difference: float
    usage: str
    notes: tuple[str, ...] = ()
    certificate: Any = None


def refuse_existing(out: Path) -> None:
    """Raises a UsageError if there is something already."""
    if out.exists():
        raise UsageError(
            f"{out} exists already.",
            "An export is written into a new folder.",
            "Delete it, or name another with --out.",
        )


@contextmanager
def written_beside(out: Path) -> Iterator[Path]:
    """Yields a folder to fill, which becomes `out` at the end, or is removed after an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
    try:
        yield beside
        beside.chmod(0o755)  # temporary folders are private
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def answers_differently(run: Path, difference: float, limit: float) -> UserError:
    """Returns the error for an export that is not what the run is."""
    return UserError(
        f"The export of {run} answers differently from the run, by {difference:.2g}.",
        f"At most {limit:g}.",
        "It was removed. This is a mistake of tfsft: please report it.",
    )
