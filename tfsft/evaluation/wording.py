"""Examples, numbers, times and settings as a person writes them."""

from collections.abc import Mapping
from typing import Any

# What one example is called.
NOUNS = {
    "image": ("picture", "pictures"),
    "text": ("text", "texts"),
    "token": ("text", "texts"),
    "question": ("question", "questions"),
    "chat": ("conversation", "conversations"),
}


def percent(share: float) -> str:
    """Returns a share in percent, never rounded to a 0 or 100 that it is not."""
    for digits in range(1, 4):
        text = f"{share:.{digits}%}"
        if share in (0, 1) or text.rstrip("%").rstrip("0").rstrip(".") not in ("0", "100"):
            break
    return text.replace(".0%", "%") if share in (0, 1) else text


def number(value: float) -> str:
    """Returns a number with as many digits as a reader needs."""
    size = abs(value)
    if value == round(value) and size < 1e12:
        text = f"{round(value):,}"
    elif not 0.001 <= size < 1e12:
        text = f"{value:.3g}"
    else:
        text = f"{value:,.{3 if size < 10 else 1 if size < 10_000 else 0}f}"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """Returns a time as a person says it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def plain(value: Any) -> str:
    """Returns a setting as a person writes it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value)
