"""Long texts in overlapping windows of tokens."""

from collections.abc import Sequence

import numpy as np


def windows(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Returns where windows over `length` tokens begin and end.

    Each has `room` tokens and shares `stride` with the one before; the last one ends at the end,
    and may share more.
    """
    if length <= room:
        return [(0, length)]
    starts = [*range(0, length - room, room - stride), length - room]
    return [(start, start + room) for start in starts]


def most_context(length: int, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns for each token the window in which it is furthest from an edge, int64 `[length]`."""
    if len(spans) == 1:
        return np.zeros(length, np.int64)
    places = np.arange(length)
    starts, stops = np.array(spans).T[..., None]
    # The ends of the text are no edges: there is nothing beyond them.
    before = np.where(starts == 0, length, places - starts)
    after = np.where(stops == length, length, stops - 1 - places)
    context = np.where((places >= starts) & (places < stops), np.minimum(before, after), -1)
    return context.argmax(axis=0)
