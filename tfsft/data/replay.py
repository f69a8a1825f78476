"""Known examples mixed into new ones, so that what a model could do is not forgotten."""

import dataclasses
from pathlib import Path
from typing import TypeVar

import numpy as np

from tfsft.data.splits import Source, Splits, fingerprint
from tfsft.errors import UserError

AnySource = TypeVar("AnySource", bound=Source)


def mix_in(source: AnySource, replay: AnySource, share: float, seed: int = 0) -> AnySource:
    """Returns a source in which a share of the examples comes from another one.

    Args:
        source: All of its examples are in the mixture, once each.
        replay: Of the same kind. Where it has too few examples, all of them come equally often, but
            for one.
        share: Of the mixture, from 0 to less than 1.
        seed: Which examples are taken.
    """
    count = round(len(source) * share / (1 - share))
    random = np.random.default_rng(seed)
    rounds = -(-count // max(len(replay), 1))
    orders = [random.permutation(len(replay)) for _ in range(rounds)]
    chosen = np.concatenate([np.empty(0, np.int64), *orders])[:count].astype(np.int64)
    return type(source).joined([source, replay.subset(chosen)])


def apart(new: Splits, old: Splits) -> Splits:
    """Returns new data without what lies on another side of the old data, and says so.

    New examples that were held out before are not trained on, and new ones that were trained on are
    not held out.

    Raises:
        UserError: Nothing is left to train on.
    """
    held_out = [part for part in (old.validation, old.test) if part is not None]
    parts, sentences = {}, []
    for name, part in new.sources().items():
        others = held_out if name == "train" else [old.train]
        kept = part
        for other in others:
            kept = _without(kept, other)
        if len(kept) < len(part):
            where = "held out" if name == "train" else "trained on"
            sentences.append(
                f"Of the new examples {len(part) - len(kept)} were {where} before; {name} does "
                "without them."
            )
        parts[name] = kept if len(kept) else None
    if parts["train"] is None:
        raise UserError(
            "No new example is left to train on: all of them were held out before.",
            "Examples that the model is not measured by.",
            "Add some.",
        )
    return dataclasses.replace(new, **parts, warnings=(*new.warnings, *sentences))


def with_old(new: Splits, old: Splits, share: float | None = None, seed: int = 0) -> Splits:
    """Returns what a model is trained on that has learned some data already.

    Args:
        new: From `apart`. All of its training examples are in each epoch, once each.
        old: What the model was trained on; examples that are in `new` as well count as new.
        share: Of old examples among those of training, and among those of validation; None takes
            all.
        seed: Which old ones are taken.

    Returns:
        Splits whose `test` has all that is held out for the end, the old examples first.
    """

    def mixed(fresh: Source | None, known: Source | None) -> Source | None:
        if fresh is None or known is None or not len(known):
            return known if fresh is None else fresh
        if share is None:
            return type(fresh).joined([fresh, known])
        return mix_in(fresh, known, share, seed)

    tests = [part for part in (old.test, new.test) if part is not None]
    result = dataclasses.replace(
        new,
        train=mixed(new.train, _without(old.train, new.train)),
        validation=mixed(new.validation, old.validation),
        test=type(tests[0]).joined(tests) if tests else None,
    )
    return dataclasses.replace(result, fingerprint=fingerprint(result.sources()))


def called_wrong(data: str | Path) -> Path:
    """Returns where answers are kept that people called wrong without saying what is right.

    Args:
        data: The file of feedback beside.
    """
    path = Path(data)
    return path.with_name(f"{path.stem}-wrong.jsonl")


def _without(source: Source, other: Source) -> Source:
    """Returns the examples of a source whose content, and group, another one does not have."""
    shared = np.isin(source.keys.astype(str), other.keys.astype(str))
    if source.groups is not None and other.groups is not None:
        shared |= np.isin(source.groups, other.groups) & (source.groups != "")
    return source.subset(np.flatnonzero(~shared)) if shared.any() else source
