"""Rows of different lengths in one flat array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, one after another.

    Args:
        values: `[total]`, the elements of all rows.
        offsets: int64 `[rows + 1]`: row i is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: str) -> "Ragged":
        """Returns these rows as one array."""
        values = [np.asarray(row, dtype) for row in rows] or [np.empty(0, dtype)]
        return cls.cut(np.concatenate(values), [len(row) for row in rows])

    @classmethod
    def cut(cls, values: np.ndarray, lengths: Sequence[int] | np.ndarray) -> "Ragged":
        """Returns `values` as rows of these lengths."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Elements in each row, int64 `[rows]`."""
        return np.diff(self.offsets)

    @property
    def places(self) -> np.ndarray:
        """Place of each element in its row, int64 `[total]`."""
        return np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)

    def shortened(self, counts: np.ndarray, truncate: str = "end") -> "Ragged":
        """Returns at most `counts[i]` elements of each row i.

        Args:
            counts: int64 `[rows]`.
            truncate: What a longer row loses: its `end`; or its `middle`, so that it keeps as many
                elements of its end as of its start, or one fewer.
        """
        head = counts - counts // 2 if truncate == "middle" else counts
        after = self.lengths - (counts - head)  # where the tail begins
        head, after = (np.repeat(bound, self.lengths) for bound in (head, after))
        kept = (self.places < head) | (self.places >= after)
        return Ragged.cut(self.values[kept], np.minimum(self.lengths, counts))


def joined(parts: Sequence["Ragged | Sequence[int]"]) -> Ragged:
    """Returns rows that consist of the same row of each part, one after the other.

    Args:
        parts: Rows each, all of the same number; or a constant row. At least one has rows.
    """
    rows = next(len(part) for part in parts if isinstance(part, Ragged))
    dtype = next(part.values.dtype for part in parts if isinstance(part, Ragged))
    parts = [
        part
        if isinstance(part, Ragged)
        else Ragged.cut(np.tile(np.array(part, dtype), rows), [len(part)] * rows)
        for part in parts
    ]
    offsets = sum(part.offsets for part in parts)
    values = np.empty(offsets[-1], dtype)
    start = offsets[:-1].copy()
    for part in parts:
        values[np.repeat(start, part.lengths) + part.places] = part.values
        start += part.lengths
    return Ragged(values, offsets)
