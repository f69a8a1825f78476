"""Texts in memory that nobody has labelled: what a finished model is asked about."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from tfsft.data.questions import COLUMNS
from tfsft.data.tables import cell_text, find_column
from tfsft.data.text_encodings import find_encoding
from tfsft.data.text_loading import PAIR_COLUMNS, TEXT_COLUMNS
from tfsft.data.text_tables import check_rows, open_text_table
from tfsft.errors import UserError

NAMES = {  # that columns with such texts often have, as in labelled data
    "text": [*TEXT_COLUMNS, *(first for first, _ in PAIR_COLUMNS)],
    "pair": ["pair", "text_pair", *(second for _, second in PAIR_COLUMNS)],
    "question": COLUMNS["question"],
    "context": COLUMNS["context"],
}


class PlainTexts:
    """A few texts with the face of a `TextSource`.

    Args:
        columns: Cells by name, as `TextSource.column` has them: of a text or a pair, "text" and
            "pair"; of words to tag, "text", "starts" and "ends"; of questions, "question" and
            "context".
        ids: How a person finds each.
        class_names: Of the model, empty if it answers with a number.
    """

    fingerprint = None  # not worth a place in the cache

    def __init__(
        self,
        columns: Mapping[str, list],
        ids: Sequence[str],
        class_names: tuple[str, ...] = (),
    ):
        self.columns = columns
        self.ids = ids
        self.class_names = class_names
        self.labels = np.zeros(len(ids), np.int64 if class_names else np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, name: str) -> bool:
        """Says whether there is such a column."""
        return name in self.columns

    def column(self, name: str, rows: np.ndarray | None = None) -> list:
        """Returns the cells of one column, of `rows` or of all texts.

        Labels are not known: words have the first tag, and questions no answers.
        """
        rows = np.arange(len(self)) if rows is None else rows
        if name == "tags":
            return [[0] * len(starts) for starts in self.column("starts", rows)]
        if name == "answers":
            return [[] for _ in rows]
        return [self.columns[name][row] for row in rows]


def read_plain_texts(path: str, columns: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Reads texts without labels from a table.

    Args:
        path: CSV, TSV, JSONL, JSON or Parquet.
        columns: What to read; found by their names, or as the only column there is.

    Returns:
        The cells by name, and what to call each row.

    Raises:
        UserError: It cannot be read, or has no such columns.
    """
    table = open_text_table(path)
    names: dict[str, str] = {}
    for column in columns:
        names[column] = find_column(
            table, NAMES[column], f"the {column} of each row", "--csv", taken=tuple(names.values())
        )
    cells: dict[str, list[str]] = {column: [] for column in columns}
    ids = []
    for batch, numbers in table.batches(list(names.values())):
        for column, name in names.items():
            cells[column] += [cell_text(cell) for cell in batch.column(name).to_pylist()]
        ids += [f"{os.path.basename(path)}:{number}" for number in numbers.tolist()]
    check_rows(table)
    return cells, ids


def read_text(path: str | os.PathLike) -> str:
    """Returns what a text file says, in whatever encoding it is.

    Raises:
        UserError: It cannot be read, or is no text.
    """
    try:
        with open(path, encoding=find_encoding(str(path))) as file:
            return file.read()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}", "A text file.", "Check the file."
        ) from error
