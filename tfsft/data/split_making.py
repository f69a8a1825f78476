"""From labelled examples, whatever they are, to train, validation and test."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfsft.data import findings, splits
from tfsft.data.labels import TASKS, is_number_task, shorten
from tfsft.data.splits import BadExample, Source, Splits
from tfsft.errors import UsageError, UserError, nearest

ON_BAD = ("stop", "skip", "list")
MAX_BAD_SHARE = 0.1


@dataclass(frozen=True)
class SplitPlan:
    """How to split, and how to speak about it.

    Args:
        data: What the person gave as --data.
        things: What the examples are: "pictures", "texts".
        validation_fraction, test_fraction: Shares of all examples, where splits are made.
        seed: Another one gives other splits.
        limit: About how many examples to take in all; None takes all.
        known_classes: A model says which classes there are; some may have no examples.
        usable: What makes an example a good one, for the message about bad ones.
    """

    data: str
    things: str
    validation_fraction: float
    test_fraction: float
    seed: int
    limit: int | None
    known_classes: bool
    usable: str

    @property
    def wanted(self) -> list[int]:
        """The sides that are not to be empty."""
        return splits.wanted_sides(self.validation_fraction, self.test_fraction)

    def limited(
        self, labels: np.ndarray, sides: np.ndarray | None, names: Sequence[str]
    ) -> np.ndarray:
        """Returns the rows to take, int64; every class of every side keeps its share.

        Args:
            labels: As in a source.
            sides: int8 `[n]`, the data set's own splits, or None.
            names: What decides which examples are taken, one each.
        """
        if self.limit is None:
            return np.arange(len(labels))
        strata = splits.strata(labels) * 3 + (0 if sides is None else sides)
        return splits.stratified_subset(strata, names, self.limit, at_least=len(self.wanted))


def check_arguments(data: str, task: str, on_bad: str, limit: int | None, things: str) -> None:
    """Raises `UsageError` for what is wrong before any data is read."""
    for option, value, choices in [("task", task, TASKS), ("--on-bad", on_bad, ON_BAD)]:
        if value not in choices:
            raise UsageError(
                f"{option} {value!r} is unknown.{nearest(str(value), choices)}",
                f"One of {', '.join(choices)}.",
                f"Try {option} {choices[0]}.",
            )
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}", f"A positive number of {things}.", "Try --limit 200.")


def check_classes(plan: SplitPlan, class_names: Sequence[str]) -> None:
    """Raises unless there are two classes at least."""
    if len(class_names) < 2:
        raise UserError(
            f"All labels in {plan.data} are the same: {shorten(class_names)}.",
            "At least two classes.",
            f"Add {plan.things} of something else, or check that the right column is the label.",
        )


def check_bad(plan: SplitPlan, bad: Sequence[BadExample], total: int, on_bad: str) -> None:
    """Raises about examples that cannot be used, unless they may be left out."""
    if not bad or on_bad == "list" or (on_bad == "skip" and len(bad) <= MAX_BAD_SHARE * total):
        return
    lines = [f"  {example.id} {example.reason}" for example in bad[:5]]
    if len(bad) > 5:
        lines.append(f"  and {len(bad) - 5} more (tfsft check lists all of them)")
    skip = "leave them out with --on-bad skip"
    raise UserError(
        "\n".join([f"{len(bad)} of {total} {plan.things} in {plan.data} cannot be used:", *lines]),
        f"{plan.usable}; with --on-bad skip at most one in ten may be bad.",
        f"Mend or remove them, or {skip}." if on_bad == "stop" else "Mend or remove them.",
    )


def make_splits(
    plan: SplitPlan,
    source: Source,
    own_sides: np.ndarray | None,
    bad: tuple[BadExample, ...],
    warnings: Sequence[str] = (),
    *,
    drop_shared: bool = False,
    every_class: bool = True,
) -> Splits:
    """Divides a source; the data set's own splits are honoured.

    Validation that is missing beside them is split off train, and test stays None.

    Args:
        plan: How to split.
        source: All good examples.
        own_sides: int8 `[n]`: 0 train, 1 validation, 2 test; None where the data has no splits.
        bad: What was left out.
        warnings: What was found while the examples were read.
        drop_shared: Whether training loses examples that are in validation or test too.
        every_class: Whether a class that is missing or much smaller than others is worth a warning.

    Raises:
        UserError: There is too little to split.
    """
    own = own_sides is not None
    sides = own_sides.copy() if own else np.zeros(len(source), np.int8)
    warnings = list(warnings)
    if own and drop_shared:
        shared = np.flatnonzero((sides == 0) & np.isin(source.keys, source.keys[sides != 0]))
        if len(shared):
            warnings.append(
                f"{len(shared)} training examples are also in validation or test, for example "
                f"{source.ids[shared[0]]}; training does without them."
            )
            kept = np.setdiff1d(np.arange(len(source)), shared)
            source, sides = source.subset(kept), sides[kept]
    made = [1] if own and not (sides == 1).any() else [] if own else [1, 2]
    made = [side for side in made if side in plan.wanted]
    if made:
        train = source.subset(np.flatnonzero(sides == 0)) if sides.any() else source
        if not plan.known_classes:
            _check_enough(plan, train, 1 + len(made))
        sides[sides == 0] = splits.split_rows(
            train.labels,
            train.keys,
            train.groups,
            validation_fraction=plan.validation_fraction,
            test_fraction=0.0 if own else plan.test_fraction,
            seed=plan.seed,
        )
    train, validation, test = (
        source.subset(np.flatnonzero(sides == side)) if (sides == side).any() else None
        for side in range(3)
    )
    if train is None:
        raise UserError(
            f"{plan.data} has no training {plan.things}.",
            f"{plan.things.capitalize()} to learn from.",
            "Add some to train.",
        )
    names = source.class_names
    repeated = findings.duplicates(source.keys)
    texts = functools.partial(source.column, "text") if _is_text(source) else None
    conflicts = findings.conflicts(repeated, source.ids, source.labels, names, texts)
    warnings += findings.similar_class_names(names)
    warnings += findings.describe_conflicts(conflicts)
    if own:
        warnings += findings.shared_between_sides(repeated, sides, source.ids)
        if source.groups is not None:
            warnings += findings.shared_groups(source.groups, sides)
    if every_class:
        present = np.unique(sides).tolist()
        warnings += findings.missing_classes(source.labels, sides, names, present)
        warnings += findings.skew(train.labels, names)[1]
    result = Splits(
        train, validation, test, names, tuple(warnings), bad, conflicts=tuple(conflicts)
    )
    return dataclasses.replace(result, fingerprint=splits.fingerprint(result.sources()))


def _is_text(source: Source) -> bool:
    return hasattr(source, "column") and source.has("text")


def _check_enough(plan: SplitPlan, train: Source, parts: int) -> None:
    """Raises unless each class has a different example for every split to be made."""
    few = []
    if train.labels.ndim == 1 and not is_number_task(train.labels):
        counts = splits.count_contents(train.labels, train.keys, len(train.class_names))
        few = [
            f"{name} ({count})"
            for name, count in zip(train.class_names, counts, strict=True)
            if 0 < count < parts
        ]
    elif len(np.unique(train.keys)) < parts:
        few = ["all of them"]
    if few:
        raise UserError(
            f"Too few different {plan.things} in {plan.data} to split them: {shorten(few, 10)}.",
            f"At least {parts} different {plan.things} of each class, one for every split.",
            "Raise --limit."
            if plan.limit
            else f"Add {plan.things}, remove these classes, or make fewer splits: "
            "--test-fraction 0.",
        )
