"""Train, validation and test: the user's own, or made from the content of the examples."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from tfsft.data.findings import SIDES, Conflict
from tfsft.data.labels import class_pairs, is_number_task
from tfsft.errors import UsageError

TRAIN, VALIDATION, TEST = 0, 1, 2
QUANTILE_BINS = 10


class Source(Protocol):
    """Labelled examples, any of which can be fetched by its index.

    Attributes:
        ids: How a person finds each example.
        labels: int64 `[n]` class indices, float32 `[n, classes]` of 0 and 1 when an example has
            several labels, or float32 `[n]` numbers.
        class_names: Names of the classes; empty when labels are numbers.
        keys: `[n]`, content hash of each example, as text or as bytes.
        groups: `[n]`, what must stay on one side of a split; an empty string is no group.
    """

    ids: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    keys: np.ndarray
    groups: np.ndarray | None

    def __len__(self) -> int: ...

    def subset(self, rows: np.ndarray) -> Self:
        """Returns the source of the examples `rows` of this one, in that order."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Returns one source of the examples of several that come from the same place."""


@dataclass(frozen=True)
class BadExample:
    """An example that was left out.

    Args:
        id: How a person finds it.
        reason: What is wrong with it, in words that follow its name.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class Splits:
    """What a recipe trains on, watches and is scored on.

    Args:
        train: Examples to learn from.
        validation: Examples that choose the best weights; None when there are none.
        test: Examples that are looked at once; None when there are none.
        class_names: Names of the classes; empty when labels are numbers.
        warnings: What a person should know.
        bad: What was left out under on_bad="skip".
        fingerprint: Stands for examples, labels, class names and splits.
        notes: How the data was read, a sentence each: which columns hold what.
        conflicts: The same text under different labels.
        tags: Names of the tags of words, `O` first; empty where words have none.
        scheme: How tags mark spans: "IOB2", "BILOU", "plain"; empty where there are none.
    """

    train: Source
    validation: Source | None
    test: Source | None
    class_names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    bad: tuple[BadExample, ...] = ()
    fingerprint: str = ""
    notes: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    tags: tuple[str, ...] = ()
    scheme: str = ""

    def sources(self) -> dict[str, Source]:
        """Returns the splits that there are, by name."""
        found = {name: getattr(self, name) for name in SIDES}
        return {name: source for name, source in found.items() if source is not None}

    def everything(self) -> Source:
        """Returns all examples of all splits as one source."""
        return type(self.train).joined(list(self.sources().values()))

    def facts(self) -> dict[str, Any]:
        """Returns what config.json says about the data."""
        return {
            "fingerprint": self.fingerprint,
            **{name: len(source) for name, source in self.sources().items()},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "bad": [{"id": example.id, "reason": example.reason} for example in self.bad],
            "conflicts": [dataclasses.asdict(conflict) for conflict in self.conflicts],
        }


def split_rows(
    labels: np.ndarray,
    keys: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
) -> np.ndarray:
    """Says on which side each example lies, from its content alone.

    Examples of the same content or group form a unit, and a unit stays together. Within each class
    the units are ordered by a hash of (seed, content); the first go to test, the next to
    validation. So fractions are met in each class to rounding, and few of the old examples change
    sides when new ones come. Units with several labels are placed by their rarest one; numbers
    count as classes of equal size, by quantiles.

    Args:
        labels: int64 `[n]`, float32 `[n, classes]` or float32 `[n]`, as in a source.
        keys: Bytes or str `[n]`, content hashes.
        groups: str `[n]`; an empty string is no group.
        validation_fraction, test_fraction: Shares of all examples, from 0 to less than 1 together.
        seed: Another one gives other splits.

    Returns:
        int8 `[n]`: 0 train, 1 validation, 2 test. Each class with as many units as there are sides
        is on every one.
    """
    unit, rank = _units(keys, groups, seed)
    rows, classes = class_pairs(_quantile_bins(labels) if is_number_task(labels) else labels)
    num_classes = int(classes.max(initial=0)) + 1
    # Each class of each unit once.
    pair_units, pair_classes = _unique_pairs(unit[rows], classes, num_classes)
    del keys, rows  # 24 bytes an example, which are not needed where most is
    frequency = np.bincount(classes, minlength=num_classes)
    stratum = rarest_class(pair_units, pair_classes, len(rank), frequency)
    sizes = np.bincount(unit)
    side = np.full(len(rank), TRAIN, np.int8)
    by_stratum = _Rows(stratum, np.arange(len(stratum), dtype=np.int32))
    for number in range(int(stratum.max(initial=-1)) + 1):
        members = by_stratum.of(number)
        ordered = members[np.argsort(rank[members], kind="stable")]
        # A unit goes where its middle lies, which for units of one example is exact.
        middles = np.cumsum(sizes[ordered]) - sizes[ordered] / 2
        total = sizes[ordered].sum()
        test = _quota(total, test_fraction)
        side[ordered[middles < test + _quota(total, validation_fraction)]] = VALIDATION
        side[ordered[middles < test]] = TEST

    wanted = wanted_sides(validation_fraction, test_fraction)
    _fill_gaps(side, pair_units, pair_classes, rank, wanted)
    return side[unit]


def wanted_sides(validation_fraction: float, test_fraction: float) -> list[int]:
    """Returns the sides that are not to be empty."""
    fractions = [(TRAIN, 1.0), (VALIDATION, validation_fraction), (TEST, test_fraction)]
    return [side for side, fraction in fractions if fraction > 0]


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raises `UsageError` unless both fractions leave something to train on."""
    for option, value in [
        ("--validation-fraction", validation_fraction),
        ("--test-fraction", test_fraction),
    ]:
        if not 0 <= value < 1:
            raise UsageError(
                f"{option} {value}", "A share from 0 to less than 1.", f"Try {option} 0.15."
            )
    if validation_fraction + test_fraction >= 1:
        raise UsageError(
            f"--validation-fraction {validation_fraction} and --test-fraction {test_fraction} "
            "leave nothing to train on.",
            "Together they are less than 1.",
            "Try 0.15 for each.",
        )


def strata(labels: np.ndarray) -> np.ndarray:
    """Returns what each example is stratified by, int64 `[n]`: (rarest) label or quantile."""
    if is_number_task(labels):
        return _quantile_bins(labels)
    rows, classes = class_pairs(labels)
    return rarest_class(rows, classes, len(labels), np.bincount(classes, minlength=1))


def stratified_subset(
    strata: np.ndarray, ids: Sequence[str], count: int, at_least: int
) -> np.ndarray:
    """Chooses about `count` examples, the same ones every time.

    Args:
        strata: int64 `[n]`; each keeps its share, and at least `at_least` examples as far as it
            has them.
        ids: Names of the examples, which decide.
        count: How many to choose in all.
        at_least: How many to keep of each stratum.

    Returns:
        Chosen rows, int64, ascending.
    """
    if count >= len(ids):
        return np.arange(len(ids))
    totals = np.bincount(strata)
    quotas = np.maximum(np.rint(totals * (count / len(ids))), at_least)
    order = np.lexsort((_hashes(ids, 0), strata))
    starts = np.concatenate([[0], np.cumsum(totals)[:-1]])
    rank = np.arange(len(ids)) - starts[strata[order]]
    return np.sort(order[rank < quotas[strata[order]]])


def fingerprint(splits: dict[str, Source]) -> str:
    """Returns a hash of examples, labels, class names and splits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, source in splits.items():
        for part in (name, *source.class_names):
            digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(source.keys.astype("S", copy=False).view(np.uint8))  # all are as long
        digest.update(np.ascontiguousarray(source.labels))
    return digest.hexdigest()


def count_contents(labels: np.ndarray, keys: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how many different contents each class has, int64 `[num_classes]`."""
    rows, classes = class_pairs(labels)
    return np.bincount(
        _unique_pairs(_number(keys)[rows], classes, num_classes)[1], minlength=num_classes
    )


def rarest_class(
    items: np.ndarray, classes: np.ndarray, num_items: int, frequency: np.ndarray
) -> np.ndarray:
    """Returns the rarest class of each item; items without one share a class of their own.

    Args:
        items: Integers `[pairs]`.
        classes: Integers `[pairs]`, a class of each of these items.
        num_items: Number of items.
        frequency: int64 `[classes]`.

    Returns:
        int32 `[num_items]`.
    """
    rarest = np.full(num_items, len(frequency), np.int32)
    order = np.lexsort((classes, frequency[classes], items))
    first = order[_changes(items[order])]
    rarest[items[first]] = classes[first]
    return rarest


def _units(keys: np.ndarray, groups: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Joins examples of the same content or group.

    Returns:
        The unit of each example, int32 `[n]`, and a number of each unit by its name and the seed,
        uint64 `[units]`.
    """
    unit = _number(keys)
    if groups is None:
        return unit, _hashes(keys[_first_appearances(unit)], seed)
    # A graph of contents and groups, joined by examples; each connected component is a unit.
    contents = int(unit.max(initial=-1)) + 1
    grouped = np.flatnonzero(groups != "")
    group = contents + _number(groups[grouped])
    size = contents + len(grouped)
    edges = scipy.sparse.coo_array(
        (np.ones(len(grouped), bool), (unit[grouped], group)), shape=(size, size)
    )
    component = scipy.sparse.csgraph.connected_components(edges, directed=False)[1]
    unit = _number(component[unit])
    # A group keeps its name when examples join it, and so its side. The space sorts before
    # every content hash.
    names = np.where(groups != "", np.char.add(" ", groups), keys.astype(str))
    order = np.lexsort((names, unit))
    return unit, _hashes(names[order[_changes(unit[order])]], seed)


# Below, arrays of a million rows are kept small and few: they are what loading takes at most.


def _number(values: np.ndarray) -> np.ndarray:
    """Numbers different values from 0 in the order of their first appearance, int32 `[n]`."""
    order = np.argsort(values, kind="stable")
    changes = _changes(values[order])
    first = order[changes].astype(np.int32)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    number = np.empty(len(values), np.int32)
    number[order] = rank[np.cumsum(changes, dtype=np.int32) - 1]
    return number


def _changes(ordered: np.ndarray) -> np.ndarray:
    """Says where values that are in order differ from the one before, bool `[n]`."""
    changes = np.ones(len(ordered), bool)
    changes[1:] = ordered[1:] != ordered[:-1]
    return changes


def _first_appearances(number: np.ndarray) -> np.ndarray:
    """Says where the numbers that `_number` gives appear for the first time, bool `[n]`."""
    first = np.ones(len(number), bool)
    first[1:] = number[1:] > np.maximum.accumulate(number)[:-1]
    return first


def _unique_pairs(
    items: np.ndarray, classes: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each pair once, in order: int32 `[pairs]` of items, and of classes."""
    pairs = items.astype(np.int64) * num_classes
    pairs += classes
    pairs.sort()
    pairs = pairs[_changes(pairs)]
    items = (pairs // num_classes).astype(np.int32)
    pairs %= num_classes
    return items, pairs.astype(np.int32)


def _hashes(names: Iterable[str | bytes], seed: int) -> np.ndarray:
    start = hashlib.blake2b(f"{seed} ".encode(), digest_size=8)

    def number(name: str | bytes) -> int:
        digest = start.copy()
        digest.update(name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape"))
        return int.from_bytes(digest.digest())

    return np.fromiter(map(number, names), np.uint64)


def _quantile_bins(labels: np.ndarray) -> np.ndarray:
    bins = int(np.clip(len(labels) // 20, 1, QUANTILE_BINS))
    edges = np.quantile(labels, np.arange(1, bins) / bins)
    return np.searchsorted(edges, labels, side="right")


def _quota(total: int, fraction: float) -> float:
    return max(float(np.rint(total * fraction)), 1.0) if fraction else 0.0


def _fill_gaps(
    side: np.ndarray,
    pair_units: np.ndarray,
    pair_classes: np.ndarray,
    rank: np.ndarray,
    wanted: list[int],
) -> None:
    """Moves single units, in place, until each class is on as many sides as it has units for.

    Train comes first, so that a class too small for every side is at least learned.
    """
    num_classes = int(pair_classes.max(initial=-1)) + 1
    units = np.bincount(pair_classes, minlength=num_classes)
    counts = np.zeros((num_classes, len(SIDES)), np.int64)
    np.add.at(counts, (pair_classes, side[pair_units]), 1)
    needed = np.zeros_like(counts, dtype=bool)
    for place, wanted_side in enumerate(wanted):
        needed[:, wanted_side] = units > place
    gaps = np.argwhere(needed & (counts == 0))
    if not len(gaps):
        return
    by_unit = _Rows(pair_units, pair_classes)
    by_class = _Rows(pair_classes, pair_units)
    for label, target in gaps[np.lexsort((gaps[:, 1], units[gaps[:, 0]]))]:
        if counts[label, target]:
            continue  # filled by an earlier move
        members = by_class.of(label)
        spare = counts[label] - needed[label]
        for unit in sorted(members.tolist(), key=lambda unit: (-spare[side[unit]], rank[unit])):
            classes, source = by_unit.of(unit), side[unit]
            if (counts[classes, source] > needed[classes, source]).all():
                side[unit] = target
                counts[classes, source] -= 1
                counts[classes, target] += 1
                break


class _Rows:
    """The values that belong to each key."""

    def __init__(self, keys: np.ndarray, values: np.ndarray):
        order = np.argsort(keys, kind="stable")
        self.values = values[order]
        self.starts = np.searchsorted(keys[order], np.arange(keys.max(initial=-1) + 2))

    def of(self, key: int) -> np.ndarray:
        return self.values[self.starts[key] : self.starts[key + 1]]
