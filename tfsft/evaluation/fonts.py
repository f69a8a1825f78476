"""Which letters the fonts of this machine can draw, so that no picture shows boxes."""

import functools
import unicodedata
from collections.abc import Iterable

from matplotlib import font_manager, ft2font

DEFAULT = "DejaVu Sans"  # comes with Matplotlib
# Fonts that have a box or nothing for every letter.
WITHOUT_SHAPES = ("lastresort", "blank", "tofu")
# Scripts whose letters change with their neighbours, from India to Mongolia.
JOINED = ((0x0900, 0x109F), (0x1780, 0x18AF), (0x1A20, 0x1AAF), (0xA840, 0xAADF))
# Older versions of Matplotlib set one letter after the other, from left to right.
SHAPES = hasattr(ft2font, "__libraqm_version__")

_family: dict[str, str | None] = {}


def families(texts: Iterable[str]) -> list[str]:
    """Returns the families that draw these texts between them, the default one first."""
    letters = {letter for text in texts for letter in text if _has_shape(letter)}
    unknown = letters - _family.keys()
    for name, path in _installed().items() if unknown else ():
        found = {letter for letter in unknown if _draws(path, letter)}
        _family.update(dict.fromkeys(found, name))
        unknown -= found
        if not unknown:
            break
    _family.update(dict.fromkeys(unknown))
    return list(dict.fromkeys([DEFAULT, *filter(None, map(_family.get, sorted(letters)))]))


def undrawable(text: str) -> set[str]:
    """Returns the letters of a text that no installed font draws, or not as they are written."""
    families([text])
    return {
        letter
        for letter in text
        if _has_shape(letter) and (_family[letter] is None or (not SHAPES and _is_joined(letter)))
    }


@functools.cache
def default_letters() -> frozenset[str]:
    """Returns the letters of the default font."""
    return frozenset(map(chr, font_manager.get_font(_installed()[DEFAULT]).get_charmap()))


def _has_shape(letter: str) -> bool:
    return not letter.isspace() and not is_modifier(letter)


def is_modifier(letter: str) -> bool:
    """Returns whether a letter only changes or joins its neighbours: accents, emoji variants."""
    return (
        unicodedata.category(letter) in ("Mn", "Me", "Cf") or "\U0001f3fb" <= letter <= "\U0001f3ff"
    )


def _is_joined(letter: str) -> bool:
    return unicodedata.bidirectional(letter) in ("R", "AL") or any(
        first <= ord(letter) <= last for first, last in JOINED
    )


@functools.cache
def _installed() -> dict[str, str]:
    """Returns files of regular weight by family, those first that are made for many languages."""
    paths = {
        entry.name: entry.fname
        for entry in font_manager.fontManager.ttflist
        if (entry.style, entry.variant, entry.stretch) == ("normal", "normal", "normal")
        and font_manager.weight_dict.get(entry.weight, entry.weight) == 400
        and not any(word in entry.name.lower().replace(" ", "") for word in WITHOUT_SHAPES)
    }
    ordered = sorted(paths, key=lambda n: (n != DEFAULT, not n.startswith("Noto Sans"), n))
    return {name: paths[name] for name in ordered}


def _draws(path: str, letter: str) -> bool:
    try:
        font = font_manager.get_font(path)
        if not font.get_char_index(ord(letter)):
            return False
        # Fonts of coloured emoji have the letter but no outline that Matplotlib could fill.
        font.load_char(ord(letter), flags=ft2font.LoadFlags.NO_HINTING)
        return len(font.get_path()[0]) > 0
    except (OSError, RuntimeError, ValueError):
        return False
