"""Entities in tagged words, and how well they are found: a type counts from first to last word.

Three ways to tag are read. IOB2 begins an entity with `B-` and goes on with `I-`; BILOU and IOBES
also mark its last word (`L-` or `E-`) and one that is a single word (`U-` or `S-`); plain tags name
the type alone, and each run of one tag is an entity. `O` is outside of any entity. What a model
writes is not always well-formed, so a tag that cannot go on with the entity before it begins one of
its own, whatever its prefix, as in seqeval's default mode.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

OUTSIDE = "O"
UNTYPED = "_"  # the type of a bare B or I
BEGIN, INSIDE, END, SINGLE = "BIES"
PREFIXES = {"B": BEGIN, "I": INSIDE, "E": END, "L": END, "S": SINGLE, "U": SINGLE}

Span = tuple[str, int, int]


def is_plain(tags: Iterable[str]) -> bool:
    """Returns whether tags name types alone, because one of them has no prefix such as `B-`."""
    return any(tag != OUTSIDE and tag.partition("-")[0] not in PREFIXES for tag in tags)


def tag_spans(tags: Sequence[str], plain: bool | None = None) -> list[Span]:
    """Returns the entities of one text as (type, first word, last word), in order.

    Args:
        tags: One a word.
        plain: Whether tags are types without a prefix; found out from these tags when not given,
            which a text of few words may mislead.
    """
    plain = is_plain(tags) if plain is None else plain
    spans: list[Span] = []
    before = None  # prefix and type of the entity that the next word may go on with
    for word, tag in enumerate(tags):
        if tag == OUTSIDE:
            before = None
            continue
        prefix, type_ = (INSIDE, tag) if plain else _parts(tag)
        if before == type_ and prefix in (INSIDE, END):
            spans[-1] = (type_, spans[-1][1], word)
        else:
            spans.append((type_, word, word))
        before = type_ if prefix in (BEGIN, INSIDE) else None
    return spans


def tag_metrics(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns how well entities are found, over whole entities as seqeval counts them by default.

    An entity is right when type, first and last word are. `precision`, `recall` and `f1` are over
    all entities (micro); the macro means run over the types that occur among the true or the
    predicted entities, and there what is undefined counts as 0. Without any entity on either side
    they are None.

    Args:
        true: The tags of each text, one a word.
        predicted: The same from the model; each as long as its text.
        class_names: Types to list even where they do not occur; the others follow by name.

    Returns:
        Plain Python numbers, strings, lists and None; `accuracy` is the share of words with the
        right tag, `entities` the number of true entities, `words` that of words.
    """
    if [len(tags) for tags in true] != [len(tags) for tags in predicted]:
        raise ValueError("true and predicted tags are not of the same lengths")
    plain = is_plain(tag for tags in (*true, *predicted) for tag in tags)
    support, found, hits = Counter(), Counter(), Counter()
    words = right = 0
    for wanted, said in zip(true, predicted, strict=True):
        words += len(wanted)
        right += sum(a == b for a, b in zip(wanted, said, strict=True))
        expected, answered = (set(tag_spans(tags, plain)) for tags in (wanted, said))
        for spans, counter in (
            (expected, support), (answered, found), (expected & answered, hits)
        ):  # fmt: skip
            counter.update(type_ for type_, _, _ in spans)
    occurring = sorted(support.keys() | found.keys())
    names = [*class_names, *(name for name in occurring if name not in class_names)]
    rows = [{"class": name, **_figures(support[name], found[name], hits[name])} for name in names]
    present = [row for row in rows if row["support"] or row["predicted"]]
    whole = _figures(support.total(), found.total(), hits.total())
    return {
        "examples": len(true),
        "words": words,
        "entities": whole["support"],
        "entities_predicted": whole["predicted"],
        # Without any entity there is nothing to say; else what is undefined is a failure.
        **{key: (whole[key] or 0.0) if present else None for key in ("precision", "recall", "f1")},
        **{f"{key}_macro": _mean(present, key) for key in ("precision", "recall", "f1")},
        **{f"{key}_weighted": _mean(present, key, True) for key in ("precision", "recall", "f1")},
        "accuracy": right / words if words else None,
        "per_class": rows,
    }


def _parts(tag: str) -> tuple[str, str]:
    prefix, _, type_ = tag.partition("-")
    return PREFIXES[prefix], type_ or UNTYPED


def _figures(support: int, predicted: int, hits: int) -> dict[str, Any]:
    return {
        "support": support,
        "predicted": predicted,
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "f1": 2 * hits / (support + predicted) if support + predicted else None,
    }


def _mean(rows: Sequence[dict[str, Any]], key: str, weighted: bool = False) -> float | None:
    weights = [row["support"] if weighted else 1 for row in rows]
    if not rows:
        return None
    total = sum(weights)
    values = (weight * (row[key] or 0.0) for weight, row in zip(weights, rows, strict=True))
    return sum(values) / total if total else 0.0
