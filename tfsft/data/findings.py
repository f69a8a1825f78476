"""What a person should know about labelled examples before training on them: plain sentences."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tfsft.data.labels import class_counts, class_pairs, is_number_task, shorten

MAX_SKEW = 20
SIDES = ("train", "validation", "test")
# UTF-8 that was read as Latin-1, and what stands for a letter that could not be read.
MOJIBAKE = re.compile(
    "\ufffd|\u00c3[\u0080-\u00bf]|\u00c2[\u0080-\u00bf]|\u00e2\u20ac|\u00f0\u0178"
)


@dataclass(frozen=True)
class Conflict:
    """One content under different labels.

    Args:
        ids: How a person finds each example of it.
        labels: The label of each, as text.
        text: What it says, if it is a text.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        pairs = list(zip(self.ids, self.labels, strict=True))[:3]
        return " and ".join(f"{name} ({label})" for name, label in pairs)


def similar_class_names(class_names: Sequence[str]) -> list[str]:
    """Finds classes whose names differ only by case, spaces or the way characters are encoded."""
    alike = defaultdict(list)
    for name in class_names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        alike["".join(plain.split())].append(name)
    return [
        f"The classes {' and '.join(map(repr, names))} differ only by case or spaces; they are "
        "trained as different classes. Rename them if they are one."
        for names in alike.values()
        if len(names) > 1
    ]


def skew(labels: np.ndarray, class_names: Sequence[str]) -> tuple[float, list[str]]:
    """Compares the largest class with the smallest.

    Returns:
        How many times as many examples it has, and a sentence when that is over 20.
    """
    if is_number_task(labels) or not class_names:
        return 1.0, []
    counts = class_counts(labels, len(class_names))
    large, small = int(counts.argmax()), int(counts.argmin())
    ratio = float(counts[large] / max(counts[small], 1))
    if ratio <= MAX_SKEW:
        return ratio, []
    return ratio, [
        f"The classes are of very different size: {class_names[large]} has {counts[large]} "
        f"training examples, {class_names[small]} has {counts[small]}. Consider --class-weight "
        "balanced, or balanced sampling, so that small classes count."
    ]


def duplicates(keys: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of every content that occurs more than once."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    again = np.zeros(len(keys) + 1, bool)  # the same as the one before
    again[1:-1] = keys[1:] == keys[:-1]
    starts = np.flatnonzero(~again[:-1] & again[1:])
    ends = np.flatnonzero(again[:-1] & ~again[1:]) + 1
    groups = [order[start:end].copy() for start, end in zip(starts, ends, strict=True)]
    return sorted(groups, key=lambda rows: rows[0])


def conflicts(
    repeated: list[np.ndarray],
    ids: Sequence[str],
    labels: np.ndarray,
    class_names: Sequence[str],
    texts: Callable[[np.ndarray], list[str]] | None = None,
) -> list[Conflict]:
    """Finds the same content under different labels.

    Args:
        repeated: Rows of each content that occurs more than once, from `duplicates`.
        ids, labels, class_names: As in a source.
        texts: Returns what rows say, if they are texts.
    """
    differing = [rows for rows in repeated if (labels[rows] != labels[rows[0]]).any()]
    said = [""] * len(differing)
    if texts is not None and differing:
        said = texts(np.array([rows[0] for rows in differing]))
    return [
        Conflict(
            tuple(ids[row] for row in rows),
            tuple(describe_label(labels[row], class_names) for row in rows),
            text,
        )
        for rows, text in zip(differing, said, strict=True)
    ]


def describe_conflicts(found: Sequence[Conflict]) -> list[str]:
    """Returns a sentence about the same content under different labels."""
    if not found:
        return []
    return [
        f"{len(found)} examples occur again with another label: {shorten(map(str, found), 3)}. "
        "Only one of the labels can be right; remove the others."
    ]


def shared_between_sides(
    repeated: list[np.ndarray], sides: np.ndarray, ids: Sequence[str]
) -> list[str]:
    """Finds the same content in more than one split, which makes the scores too good.

    Args:
        repeated: Rows of each content that occurs more than once, from `duplicates`.
        sides: int8 `[n]`: 0 train, 1 validation, 2 test.
        ids: As in a source.
    """
    leaks = [rows for rows in repeated if len(set(sides[rows].tolist())) > 1]
    if not leaks:
        return []
    shown = []
    for rows in leaks:
        firsts = [rows[sides[rows] == side][0] for side in np.unique(sides[rows])]
        shown.append(" = ".join(f"{ids[row]} ({SIDES[sides[row]]})" for row in firsts))
    return [
        f"{len(leaks)} examples are in more than one split: {shorten(shown, 3)}. "
        "Scores on seen examples are too good; remove them from all splits but one."
    ]


def shared_groups(groups: np.ndarray, sides: np.ndarray) -> list[str]:
    """Finds groups with examples in more than one split."""
    members = defaultdict(set)
    for group, side in zip(groups.tolist(), sides.tolist(), strict=True):
        members[group].add(side)
    leaks = [group for group, found in members.items() if group and len(found) > 1]
    if not leaks:
        return []
    return [f"{len(leaks)} groups are in more than one split: {shorten(leaks)}."]


def missing_classes(
    labels: np.ndarray, sides: np.ndarray, class_names: Sequence[str], present: Iterable[int]
) -> list[str]:
    """Finds classes without examples on a side.

    Args:
        labels: As in a source.
        sides: int8 `[n]`: 0 train, 1 validation, 2 test.
        class_names: As in a source; empty for numbers finds nothing.
        present: The sides that there are.
    """
    if not class_names:
        return []
    rows, classes = class_pairs(labels)
    sentences = []
    for side in present:
        found = np.bincount(classes[sides[rows] == side], minlength=len(class_names))
        names = [name for name, count in zip(class_names, found, strict=True) if not count]
        if names:
            sentences.append(f"No {SIDES[side]} examples of {shorten(names)}.")
    return sentences


def describe_label(label: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns one label as text: a class name, several, or a number."""
    if not class_names:
        return f"{float(label):g}"
    if np.ndim(label):
        return " | ".join(class_names[index] for index in np.flatnonzero(label)) or "none"
    return class_names[int(label)]


def describe_garbled(ids: Sequence[str], things: str) -> list[str]:
    """Returns a sentence about texts that match `MOJIBAKE`."""
    if not ids:
        return []
    return [
        f"{len(ids)} {things} hold letters that come from a wrong encoding, such as \u00c3\u00a9 "
        f"for \u00e9: {shorten(ids)}. Save the file as UTF-8 again."
    ]


def three_lengths(lengths: np.ndarray) -> tuple[int, int, int]:
    """Returns the shortest, the median and the longest."""
    ordered = np.sort(lengths)
    return int(ordered[0]), int(ordered[len(ordered) // 2]), int(ordered[-1])
