"""The words of raw text, as spans of characters."""

import unicodedata
from functools import lru_cache

JOINER = "\u200d"  # between the parts of one emoji
SINGLES = ("CJK ", "HIRAGANA ", "KATAKANA ")  # scripts written without spaces


def split_words(text: str) -> list[tuple[int, int]]:
    """Splits text where most corpora of tagged words do.

    Words are runs of letters and digits; punctuation marks, symbols, and characters of Chinese and
    Japanese stand alone. Accents and vowel signs stay with what they belong to.

    Args:
        text: Any text.

    Returns:
        Start and end of each word, in characters.
    """
    words: list[tuple[int, int]] = []
    before = " "
    for place, letter in enumerate(text):
        kind = letter_kind(letter)
        joined = kind == "mark" or text[place - 1 : place] == JOINER
        if kind != " " and before != " " and (joined or kind == before == "letter"):
            words[-1] = (words[-1][0], place + 1)
            continue
        if kind != " ":
            words.append((place, place + 1))
        before = kind
    return words


@lru_cache(maxsize=4096)
def letter_kind(letter: str) -> str:
    """Returns what a character is to `split_words`: "letter", "mark", "single", or " "."""
    category = unicodedata.category(letter)
    if letter.isspace() or category in ("Cc", "Zs"):
        return " "
    if category[0] == "M" or letter == JOINER:
        return "mark"
    if category[0] in "LN" and not unicodedata.name(letter, "").startswith(SINGLES):
        return "letter"
    return "single"
