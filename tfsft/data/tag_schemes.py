"""How tags of words mark spans, and whether they do so without contradiction."""

import re
from collections.abc import Iterable, Sequence

from tfsft.data.labels import natural_key, shorten
from tfsft.errors import UserError

OUTSIDE = "O"
# The marks of each scheme: a span begins, goes on, ends, or is one word.
SCHEMES = {"IOB2": "BI", "BILOU": "BILU", "IOBES": "BIES"}


def find_scheme(tags: Iterable[str]) -> str:
    """Returns "IOB2", "BILOU", "IOBES", or "plain" where tags have no marks.

    Args:
        tags: All different tags.

    Raises:
        UserError: Some have marks and some do not, or marks of two schemes.
    """
    tags = sorted(set(tags) - {OUTSIDE})
    marked = [tag for tag in tags if re.match(r"[BILUES]-.", tag)]
    if not any(tag[0] in "BI" for tag in marked):
        return "plain"
    marks = {tag[0] for tag in marked}
    scheme = next((name for name, known in SCHEMES.items() if marks <= set(known)), None)
    if len(marked) == len(tags) and scheme:
        return scheme
    odd = [tag for tag in tags if tag not in marked] or marked
    raise UserError(
        f"The tags follow no known scheme: {shorten(odd, 8)}"
        + (f" beside {shorten(marked, 3)}." if odd is not marked else "."),
        "O and tags marked B-, I- (IOB2), with L-, U- (BILOU) or E-, S- (IOBES); or no marks.",
        "Correct these tags.",
    )


def tag_type(tag: str, scheme: str) -> str:
    """Returns what a tag says about a word: PER of B-PER; "" outside of spans."""
    if tag == OUTSIDE:
        return ""
    return tag if scheme == "plain" else tag[2:]


def all_tags(tags: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Returns the tags a model chooses from: O, and each type with every mark of the scheme."""
    tags = set(tags)
    types = sorted({tag_type(tag, scheme) for tag in tags} - {""}, key=natural_key)
    outside = (OUTSIDE,) if OUTSIDE in tags or scheme != "plain" else ()
    if scheme == "plain":
        return (*outside, *types)
    return (*outside, *(f"{mark}-{name}" for name in types for mark in SCHEMES[scheme]))


def first_contradiction(tags: Sequence[str], scheme: str) -> int | None:
    """Returns the place of the first tag that cannot follow the one before it, or None.

    Args:
        tags: Of one sentence.
        scheme: From `find_scheme`. `len(tags)` is returned for a span that does not end.
    """
    if scheme == "plain":
        return None
    whole = scheme == "IOB2"  # spans end where another begins
    before = OUTSIDE
    for place, tag in enumerate(tags):
        inside = tag[0] in "ILE" and tag != OUTSIDE
        open_span = before[0] in "BI" and before != OUTSIDE
        if inside and not (open_span and before[2:] == tag[2:]):
            return place
        if not inside and open_span and not whole:
            return place
        before = tag
    if not whole and tags and before != OUTSIDE and before[0] in "BI":
        return len(tags)
    return None
