"""Random access to labelled texts, which stay in a memory-mapped file."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow

from tfsft.cache import cache_folder, made_once
from tfsft.errors import UserError

FORMAT = 1  # of the files; another number leaves older ones alone
BATCH_ROWS = 8192
KEY_LETTERS = 16
KEY = pyarrow.binary(KEY_LETTERS)


class TextSource:
    """Labelled texts, any of which can be fetched by its index.

    Args:
        table: From `stored`; the cells of all rows, which are read when they are asked for.
        rows: int64 `[n]`; which of its rows belong to this source.
        labels: int64 `[n]` class indices, float32 `[n, classes]` of 0 and 1 when a text has several
            labels, or float32 `[n]` numbers.
        class_names: Names of the classes; empty when labels are numbers.
        groups: `[n]`, what must stay on one side of a split; an empty string is no group.
        tags: The names that the cells of the column `tags` are indices of.
    """

    def __init__(
        self,
        table: pyarrow.Table,
        rows: np.ndarray,
        labels: np.ndarray,
        class_names: tuple[str, ...],
        groups: np.ndarray | None = None,
        tags: tuple[str, ...] = (),
    ):
        self.table = table
        self.rows = np.asarray(rows, np.int64)
        self.labels = labels
        self.class_names = class_names
        self.groups = groups
        self.tags = tags

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> Sequence[str]:
        """How a person finds each text: `reviews.csv:17`, `spam/0001.txt`."""
        return Ids(self.table["id"], self.rows)

    @property
    def keys(self) -> np.ndarray:
        """Content hash of each text, bytes `[n]`: read anew each time, and not kept."""
        return fixed_width(self.table["key"])[self.rows]

    @property
    def fingerprint(self) -> str:
        """Stands for the cells that are encoded, in this order."""
        name = "digest" if "digest" in self.table.column_names else "key"
        digest = hashlib.blake2b("\0".join(self.tags).encode(), digest_size=16)
        digest.update(fixed_width(self.table[name])[self.rows].view(np.uint8))
        return digest.hexdigest()

    def subset(self, rows: np.ndarray) -> "TextSource":
        """Returns the source of the texts `rows` `[m]` of this one, in that order."""
        return TextSource(
            self.table,
            self.rows[rows],
            self.labels[rows],
            self.class_names,
            None if self.groups is None else self.groups[rows],
            self.tags,
        )

    @classmethod
    def joined(cls, parts: Sequence["TextSource"]) -> "TextSource":
        """Returns one source of the texts of several with the same classes, in their order.

        Of several tables, the columns that all of them have are kept.
        """
        first = parts[0]
        tables = list({id(part.table): part.table for part in parts}.values())
        starts = dict(zip(map(id, tables), np.cumsum([0, *map(len, tables)]), strict=False))
        common = [n for n in tables[0].column_names if all(n in t.column_names for t in tables)]
        table = first.table
        if len(tables) > 1:
            table = pyarrow.concat_tables(
                [table.select(common).replace_schema_metadata() for table in tables]
            )
        grouped = all(part.groups is not None for part in parts)
        return cls(
            table,
            np.concatenate([part.rows + starts[id(part.table)] for part in parts]),
            np.concatenate([part.labels for part in parts]),
            first.class_names,
            np.concatenate([part.groups for part in parts]) if grouped else None,
            first.tags,
        )

    def column(self, name: str, rows: np.ndarray | slice | None = None) -> list:
        """Reads the cells of one column.

        Args:
            name: Of a text or a pair, "text" and "pair"; of tagged words, "text", "starts", "ends"
                and "tags"; of questions, "question", "context", "answers" and "id".
            rows: Which texts of this source; None reads all.

        Returns:
            A cell for each of `rows`, in their order.
        """
        cells = take(self.table[name], self.rows if rows is None else self.rows[rows])
        if name != "tags":
            return cells
        index = {tag: number for number, tag in enumerate(self.tags)}
        return [[index[tag] for tag in tags] for tags in cells]

    def has(self, name: str) -> bool:
        """Says whether there is such a column."""
        return name in self.table.column_names


class Ids(Sequence[str]):
    """Names that are read from the mapped file when they are asked for."""

    def __init__(self, column: pyarrow.ChunkedArray, rows: np.ndarray):
        self._column = column
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice) -> "str | Ids":
        if isinstance(index, slice):
            return Ids(self._column, self._rows[index])
        return self._column[int(self._rows[index])].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BATCH_ROWS):
            yield from take(self._column, self._rows[start : start + BATCH_ROWS])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


def take(column: pyarrow.ChunkedArray, rows: np.ndarray) -> list:
    """Returns cells in the order of `rows`; reads only these, whatever pyarrow's own take does."""
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    chunk_of = np.searchsorted(ends, rows, side="right")
    cells = np.empty(len(rows), object)
    for number in np.unique(chunk_of).tolist():
        chosen = np.flatnonzero(chunk_of == number)
        chunk = column.chunk(number)
        found = chunk.take(pyarrow.array(rows[chosen] - (ends[number] - len(chunk)))).to_pylist()
        for place, cell in zip(chosen.tolist(), found, strict=True):
            cells[place] = cell
    return cells.tolist()


def fixed_width(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Returns a column of keys as bytes `[n]`, without an object for each."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], f"S{KEY_LETTERS}")[chunk.offset :][: len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(chunks) if chunks else np.empty(0, f"S{KEY_LETTERS}")


def content_keys(*columns: Iterable[str | None]) -> pyarrow.Array:
    """Returns a hash for each row of the texts in these columns."""
    rows = zip(*columns, strict=True)
    return pyarrow.array([_key("\0".join(cell or "" for cell in row)) for row in rows], KEY)


def _key(text: str) -> bytes:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_LETTERS // 2)
    return digest.hexdigest().encode()


def stored(
    name: str, identity: Sequence[object], batches: Callable[[], Iterator[pyarrow.RecordBatch]]
) -> pyarrow.Table:
    """Writes rows into one file in the cache folder, where it is not there yet, and maps it.

    Args:
        name: What a person may recognise the file by.
        identity: Everything that decides what the rows are.
        batches: Makes the rows, all of the same schema.

    Raises:
        UserError: The cache folder cannot be written.
    """
    digest = hashlib.blake2b(repr([FORMAT, *identity]).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "texts" / f"{name}-{digest}"

    def write(beside: Path) -> None:
        rows = batches()
        first = next(rows)
        with pyarrow.OSFile(str(beside / "rows.arrow"), "wb") as file:
            with pyarrow.ipc.new_file(file, first.schema) as writer:
                writer.write_batch(first)
                for batch in rows:
                    writer.write_batch(batch)
        pyarrow.default_memory_pool().release_unused()  # it would keep what the copying took

    try:
        made_once(folder, write)
        rows = pyarrow.memory_map(str(folder / "rows.arrow"))
    except OSError as error:
        raise UserError(
            f"The texts cannot be copied to {folder.parent}: {error.strerror or error}.",
            "Space for a copy of the texts."
            if error.errno == errno.ENOSPC
            else "A folder that can be written.",
            "Make room there, or set TFSFT_CACHE to a folder elsewhere.",
        ) from error
    try:
        return pyarrow.ipc.open_file(rows).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"The copy of the texts in {folder} is damaged.",
            "The file that tfsft wrote there.",
            "Delete this folder; it will be made again.",
        ) from error


def file_identity(paths: Iterable[str | os.PathLike]) -> list[tuple]:
    """Returns what changes when one of the files does."""
    statuses = [(str(path), os.stat(path)) for path in paths]
    return [(os.path.abspath(path), s.st_size, s.st_mtime_ns) for path, s in statuses]
