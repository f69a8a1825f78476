"""What is different about a run that goes on: each difference as a line for a person to read."""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MOST_LINES = 40  # of a difference that is shown
MOST_NAMES = 10


def changed_values(
    before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str] | None = None
) -> list[str]:
    """Returns a line for each value that differs.

    Args:
        before, now: Plain data by name.
        names: Which to compare, where both have them; by default all of `now`.
    """
    if names is None:
        pairs = [(name, before.get(name), value) for name, value in now.items()]
    else:
        pairs = [(n, before[n], now[n]) for n in names if n in before and n in now]
    return [
        f"{name} was {old!r}, now {new!r}"
        for name, old, new in ((n, old, json.loads(json.dumps(new))) for n, old, new in pairs)
        if new != old
    ]


def changed_recipe(before: Path, now: Path) -> list[str]:
    """Returns the lines of a recipe that differ, as a short unified diff."""
    if not before.is_file():
        return ["what it was is not known: the run has no recipe.py"]
    old, new = (path.read_text(encoding="utf-8").splitlines() for path in (before, now))
    lines = list(difflib.unified_diff(old, new, str(before), str(now), lineterm="", n=1))
    left = len(lines) - MOST_LINES
    return lines[:MOST_LINES] + ([f"... and {left} more lines"] if left > 0 else [])


def changed_data(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    names_before: Iterable[str],
    names_now: Iterable[str],
) -> list[str]:
    """Returns what differs in the data.

    Args:
        before, now: Facts of config.json: fingerprint, sizes of the splits.
        names_before, names_now: The names of the classes.
    """
    if before.get("fingerprint") == now.get("fingerprint"):
        return []
    lines = changed_values(before, now, ("train", "validation", "test"))
    names_before, names_now = list(names_before), list(names_now)
    for what, some, others in (
        ("new classes", names_now, names_before),
        ("missing classes", names_before, names_now),
    ):
        found = [name for name in some if name not in others]
        if found:
            more = ", ..." if len(found) > MOST_NAMES else ""
            lines.append(f"{what}: {', '.join(found[:MOST_NAMES])}{more}")
    lines += changed_values(before, now, ("fingerprint",))
    return lines
