"""Takes what could lead to a person out of a text: addresses, numbers of phones, cards, accounts.

It errs on the side of taking too much. Names are not recognised.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_DIGITS = r"(?:\d[ \-.\u00a0/()]{0,3})"


@dataclass(frozen=True)
class Masked:
    """A text without what could lead to a person.

    Args:
        text: It.
        cuts: (start, end, length of what stands there now) of each part of the old text.
    """

    text: str
    cuts: tuple[tuple[int, int, int], ...] = ()

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns where a part of the old text stands now."""
        return self._place(start, after=False), self._place(end, after=True)

    def _place(self, place: int, *, after: bool) -> int:
        moved = place
        for start, end, length in self.cuts:
            if end <= place:
                moved += length - (end - start)
            elif start < place or (start == place and not after):
                return moved - place + start + (length if after else 0)
        return moved


def _card(text: str) -> bool:
    """Says whether digits are those of a card, by Luhn's rule."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = (d * 2 - 9 * (d > 4) for d in digits[-2::-2])
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _phone(text: str) -> bool:
    """Says whether digits with marks between them may be called: no date, no plain number."""
    digits = sum(c.isdigit() for c in text)
    if not 7 <= digits <= 15 or _NO_PHONE.fullmatch(text.strip()):
        return False
    return text[0] in "+0(" or digits >= 9 or re.search(r"[ \-./]", text) is not None


_NO_PHONE = re.compile(
    r"(?:\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{4})(?:[ T]\d{1,2})?"
    r"|\d{4}\s?[-/\u2013]\s?\d{4}|\d{1,3}(?:[ .]\d{3})+|\d+[.,]\d+"
)
# By kind: what looks like it, and what else must be true. The earlier ones win.
_ADDRESS_BYTES = r"\b(?:\d{1,3}\.){3}\d{1,3}\b"
_ADDRESS_WORDS = r"\b(?:[0-9a-fA-F]{1,4}:){4,7}[0-9a-fA-F]{1,4}\b"
KINDS: dict[str, tuple[str, Callable[[str], bool] | None]] = {
    "password": (r"(?<=://)[^\s/@:]{1,64}:[^\s/@]{1,64}(?=@)", None),
    "e-mail": (r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}", None),
    "account": (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", None),
    "card": (rf"\b{_DIGITS}{{12,18}}\d\b", _card),
    "IP address": (f"{_ADDRESS_BYTES}|{_ADDRESS_WORDS}", None),
    "social security number": (r"\b\d{3}-\d{2}-\d{4}\b", None),
    "phone": (rf"(?<![\w.,])(?:\+ ?|\(\+?|00)?{_DIGITS}{{6,16}}\d(?!\w)", _phone),
}


def masked(text: str) -> Masked:
    """Puts `[e-mail]` and the like where such a thing stands."""
    found: list[tuple[int, int, str]] = []
    for kind, (pattern, right) in KINDS.items():
        for match in re.finditer(pattern, text):
            start, end = match.span()
            free = all(end <= a or b <= start for a, b, _ in found)
            if free and (right is None or right(match[0])):
                found.append((start, end, f"[{kind}]"))
    parts, cuts, last = [], [], 0
    for start, end, name in sorted(found):
        parts += [text[last:start], name]
        cuts.append((start, end, len(name)))
        last = end
    return Masked("".join([*parts, text[last:]]), tuple(cuts))
