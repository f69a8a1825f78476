"""Examples as tokens on disk, mapped into memory: what a text looks like to a model."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tfsft.data.ragged import Ragged

FORMAT = 1
DESCRIPTION = "table.json"


class TokenTable:
    """Rows of tokens, any of which can be fetched by its index.

    Args:
        folder: What `write_tokens` wrote. Its files are mapped and not read into memory.

    `offsets` int64 `[rows + 1]` says where the tokens of each row begin, `tokens[name]` has one
    number for each token of all rows, and `rows[name]` one for each row.
    """

    def __init__(self, folder: Path):
        about = json.loads((folder / DESCRIPTION).read_text())
        self.tokens = {name: _map(folder, name, kind) for name, kind in about["tokens"].items()}
        self.rows = {name: _map(folder, name, kind) for name, kind in about["rows"].items()}
        self.lengths = self.rows["length"]
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self.facts: dict = about["facts"]

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, name: str, rows: np.ndarray, width: int, padding: int) -> np.ndarray:
        """Returns what `tokens[name]` has for some rows, filled up to one width.

        Args:
            name: A column of `tokens`.
            rows: int64 `[batch]`, none of them longer than `width`.
            width: Tokens in each row of the answer.
            padding: What to fill up with.

        Returns:
            `[batch, width]` in the type of the column.
        """
        column = self.tokens[name]
        places = np.arange(width)
        inside = places < self.lengths[rows][:, None]
        found = np.minimum(self.offsets[rows][:, None] + places, len(column) - 1)
        return np.where(inside, column[found], column.dtype.type(padding))

    def start(self) -> np.ndarray:
        """Returns the tokens that all rows begin with; each row has at least one more."""
        ids, begins = self.tokens["token_ids"], self.offsets[:-1]
        first = np.asarray(ids[: int(self.lengths.min()) - 1])
        for place, token in enumerate(first):
            if (ids[begins + place] != token).any():
                return first[:place]
        return first


def write_tokens(
    folder: Path, chunks: Iterable[tuple[Mapping[str, Ragged], Mapping[str, np.ndarray], dict]]
) -> None:
    """Writes the files of a `TokenTable`, chunk by chunk, so that memory stays flat.

    Args:
        folder: An empty folder.
        chunks: For some rows each: numbers for each token by name; for each row by name, int
            `[rows]`; and facts to add up, by name.
    """
    files: dict = {}
    about: dict = {"format": FORMAT, "tokens": {}, "rows": {}, "facts": {}}
    with ExitStack() as opened:
        for tokens, rows, facts in chunks:
            lengths = next(iter(tokens.values())).lengths
            flat = {name: column.values for name, column in tokens.items()}
            for place, columns in (
                ("tokens", flat),
                ("rows", {**rows, "length": lengths.astype("int32")}),
            ):
                for name, values in columns.items():
                    if name not in files:
                        files[name] = opened.enter_context(open(folder / f"{name}.bin", "wb"))
                        about[place][name] = values.dtype.str
                    files[name].write(np.ascontiguousarray(values).data)
            for name, value in facts.items():
                about["facts"][name] = about["facts"].get(name, 0) + value
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    (folder / DESCRIPTION).write_text(json.dumps(about))


def _map(folder: Path, name: str, kind: str) -> np.ndarray:
    path = folder / f"{name}.bin"
    if not path.stat().st_size:
        return np.empty(0, kind)  # an empty file cannot be mapped
    return np.memmap(path, kind, "r")
