"""Several short rows in one long one, so that hardly any of it is padding."""

import bisect

import numpy as np

from tfsft.data.ragged import Ragged
from tfsft.data.token_table import TokenTable


class PackedTable:
    """Rows of tokens put together, which can be fetched as those of a `TokenTable`.

    Which rows share one is decided once; an epoch shuffles what it gets. A column `segments` says
    which of them a token belongs to: 1, 2, ... within its row.

    Args:
        table: The single rows.
        room: Most tokens in a row.
        seed: Of which rows share one, among rows of the same length.
    """

    def __init__(self, table: TokenTable, room: int, seed: int = 0):
        self.table = table
        self.packs = pack(np.asarray(table.lengths), room, seed)
        self.lengths = np.add.reduceat(
            table.lengths[self.packs.values].astype(np.int64), self.packs.offsets[:-1]
        )
        self.tokens = {**table.tokens, "segments": None}
        self.rows = {
            name: np.maximum.reduceat(column[self.packs.values], self.packs.offsets[:-1])
            for name, column in table.rows.items()
        }
        self.facts = table.facts

    def __len__(self) -> int:
        return len(self.packs)

    def padded(self, name: str, rows: np.ndarray, width: int, padding: int) -> np.ndarray:
        """Returns what `tokens[name]` has for some rows; as `TokenTable.padded`."""
        kind = np.int32 if name == "segments" else self.table.tokens[name].dtype
        result = np.full((len(rows), width), padding, kind)
        for line, row in zip(result, rows, strict=True):
            place = 0
            for number, single in enumerate(self.packs[row], 1):
                length = int(self.table.lengths[single])
                start = int(self.table.offsets[single])
                line[place : place + length] = (
                    number
                    if name == "segments"
                    else self.table.tokens[name][start : start + length]
                )
                place += length
        return result


def pack(lengths: np.ndarray, room: int, seed: int = 0) -> Ragged:
    """Puts rows together by best fit: long ones first, each where the least room is left over.

    Args:
        lengths: Of the rows, int `[rows]`, none above `room`.
        room: Of a row that holds several.
        seed: Of the order among rows of the same length.

    Returns:
        The numbers of the rows in each.
    """
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    packs: list[list[int]] = []
    left: list[tuple[int, int]] = []  # what room is left where, in ascending order
    for row in order.tolist():
        length = int(lengths[row])
        place = bisect.bisect_left(left, (length, -1))
        if place == len(left):
            packs.append([row])
            bisect.insort(left, (room - length, len(packs) - 1))
            continue
        free, number = left.pop(place)
        packs[number].append(row)
        bisect.insort(left, (free - length, number))
    return Ragged.of(packs, "int64")
