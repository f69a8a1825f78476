"""Tables of examples: CSV, TSV, JSONL and Parquet."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow

from tfsft.data.folders import SPLIT_NAMES
from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.data.labels import cell_text, index_labels, number_labels
from tfsft.data.sources import FileStorage, Listing
from tfsft.data.text_encodings import shortened
from tfsft.data.text_tables import TextTable, check_rows, first_line_is_example, open_text_table
from tfsft.errors import UserError, nearest
from tfsft.untrusted import inside

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
IMAGE_COLUMNS = [
    "image",
    "image_path",
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image_file",
    "image_name",
    "img",
    "picture",
    "photo",
]
LABEL_COLUMNS = [
    "label",
    "labels",
    "class",
    "classes",
    "class_name",
    "target",
    "category",
    "tag",
    "tags",
    "y",
]
NUMBER_COLUMNS = ["label", "target", "value", "score", "y", "number"]
SPLIT_COLUMNS = ["split", "subset", "partition"]


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Args:
        path: Its file.
        data: Its columns; those of CSV and TSV are text.
        numbers: The number that a person sees beside each row.
    """

    path: str
    data: pyarrow.Table
    numbers: np.ndarray

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self.data.column_names

    def __len__(self) -> int:
        return self.data.num_rows

    def values(self, column: str, count: int | None = None) -> list:
        """Returns the cells of one column, or the first `count` of them."""
        return self.data.column(column).slice(0, count).to_pylist()

    def row(self, index: int) -> str:
        """Says where example `index` stands, for messages."""
        return f"row {self.numbers[index]} of {self.path}"


def read_table(path: str) -> Table:
    """Reads a whole CSV, TSV, JSONL or Parquet file.

    Args:
        path: The file.

    Raises:
        UserError: It is not a readable table, has no rows, or has a row that is broken.
    """
    table = open_text_table(path, least_columns=1)
    if _are_pictures(table.columns, share=0.0):
        raise first_line_is_example(path, ",".join(table.columns))
    batches, numbers = zip(*table.batches(table.columns), strict=True)
    check_rows(table)
    return Table(path, pyarrow.Table.from_batches(batches), np.concatenate(numbers))


def find_column(
    table: Table,
    names: list[str],
    what: str,
    option: str,
    *,
    chosen: str | None = None,
    taken: tuple[str | None, ...] = (),
    fits: Callable[[list], bool] | None = None,
) -> str:
    """Finds a column by its name and by its content.

    Args:
        table: Where to look.
        names: Names that such a column often has, the best first.
        what: What the column holds, for the message: "paths of pictures".
        option: The option that names the column: "--image-column".
        chosen: The column that the user named.
        taken: Columns that have another use.
        fits: Says whether cells look like the right content; None trusts the name, or that it is
            the only one left.

    Raises:
        UserError: There is no such column; the message lists those that exist.
    """
    listed = ", ".join(table.columns)
    if chosen is not None:
        if chosen in table.columns:
            return chosen
        raise UserError(
            f"{table.path} has no column {chosen!r}.{nearest(chosen, table.columns)}",
            f"{option} names a column with {what}; there are: {listed}.",
            f"Give one of these to {option}.",
        )
    free = [column for column in table.columns if column not in taken]
    named = [column for name in names for column in free if plain_name(column) == name]
    fitting = [column for column in free if fits is None or fits(table.values(column, 200))]
    for column in named:
        if column in fitting:
            return column
    if len(fitting) == 1:
        return fitting[0]
    if named and not fitting:
        return named[0]
    raise UserError(
        f"{table.path} has no column that is clearly the one with {what}.",
        f"A column called {', '.join(names[:4])} or the like; there are: {listed}.",
        f"Name it with {option}.",
    )


def check_plain(table: Table | TextTable, columns: dict[str, str], *, lists: bool = False) -> None:
    """Raises where a column holds objects or lists, which are no text, number or class.

    Args:
        table: With its first rows.
        columns: By what they hold, in a word: "text", "label".
        lists: Whether labels may be lists.
    """
    for what, column in columns.items():
        refused = dict if lists and what == "label" else (dict, list)
        odd = next((c for c in table.values(column, 200) if isinstance(c, refused)), None)
        if odd is not None:
            kind = "a list" if isinstance(odd, list) else "an object"
            raise UserError(
                f"The {what} in column {column!r} of {table.path} is {kind}: "
                f"{shortened(repr(odd))}",
                "A single text or number in each row.",
                "Several labels an example are read with --multi-label."
                if what == "label" and kind == "a list"
                else "Name another column, or write the parts into columns of their own.",
            )


def plain_name(column: str) -> str:
    """Returns the name of a column in small letters and digits, with `_` for the rest."""
    return re.sub(r"[^0-9a-z]+", "_", column.strip().lower())


def list_table(
    path: str,
    *,
    task: str = "single",
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Listing:
    """Lists the pictures that a table names, with their labels.

    Paths are relative to the table's folder and must stay inside it. A column `split` with train,
    validation and test is honoured.

    Args:
        path: The table.
        task: "single" (a class in each row), "multi" (several, in a list or separated by `|`, `;`
            or `,`) or "regression" (a finite number).
        image_column, label_column, group_column: Columns to use; None finds the first two by name
            and content.
        class_names: The classes to use; None takes those that occur.

    Raises:
        UserError: The table does not have what it takes; names column, row and cell.
    """
    table = read_table(path)
    if group_column is not None:
        find_column(table, [], "groups", "--group-column", chosen=group_column)
    split_column = next(
        (name for name in table.columns if name.strip().lower() in SPLIT_COLUMNS), None
    )
    if split_column in (image_column, label_column, group_column):
        split_column = None
    image_column = find_column(
        table, IMAGE_COLUMNS, "paths of pictures", "--image-column",
        chosen=image_column, taken=(label_column, group_column, split_column), fits=_are_pictures,
    )  # fmt: skip
    number = task == "regression"
    label_column = find_column(
        table, NUMBER_COLUMNS if number else LABEL_COLUMNS, "labels", "--label-column",
        chosen=label_column, taken=(image_column, group_column, split_column),
        fits=are_numbers if number else None,
    )  # fmt: skip
    check_plain(table, {"path": image_column, "label": label_column}, lists=task == "multi")
    ids, paths = _inside(table, image_column)
    cells = table.values(label_column)
    if number:
        labels, class_names = number_labels(cells, table.row), ()
    else:
        names = _several(cells) if task == "multi" else _one(table, label_column, cells)
        labels, class_names = index_labels(names, task, class_names, table.row)
    groups = None
    if group_column is not None:
        groups = np.array([cell_text(cell) for cell in table.values(group_column)])
    sides = None if split_column is None else _sides(table, split_column)
    return Listing(FileStorage(paths), ids, labels, class_names, groups, sides)


def _are_pictures(cells: list, share: float = 0.5) -> bool:
    """Says whether more than `share` of the cells end like file names of pictures."""
    suffixes = [os.path.splitext(cell)[1].lower() for cell in cells if isinstance(cell, str)]
    return sum(suffix in IMAGE_SUFFIXES for suffix in suffixes) > share * len(cells)


def are_numbers(cells: list) -> bool:
    """Says whether all cells are finite numbers or spell them."""
    try:
        return all(math.isfinite(float(cell)) for cell in cells)
    except (TypeError, ValueError):
        return False


def _one(table: Table, column: str, cells: list) -> list[list[str]]:
    names = [cell_text(cell) for cell in cells]
    for row, name in enumerate(names):
        if not name.strip():
            raise UserError(
                f"The label in {table.row(row)}, column {column}, is empty.",
                "Every picture has one class.",
                "Fill it in, or remove the row.",
            )
    return [[name] for name in names]


def _several(cells: list) -> list[list[str]]:
    text = [cell for cell in cells if isinstance(cell, str)]
    mark = next((mark for mark in "|;," if any(mark in cell for cell in text)), None)
    names = []
    for cell in cells:
        parts = cell if isinstance(cell, list) else cell_text(cell).split(mark or "|")
        names.append([name for name in (cell_text(part).strip() for part in parts) if name])
    return names


def _sides(table: Table, column: str) -> np.ndarray:
    sides = np.empty(len(table), np.int8)
    for row, cell in enumerate(table.values(column)):
        side = SPLIT_NAMES.get(cell_text(cell).strip().lower())
        if side is None:
            raise unknown_split(f"{table.row(row)}, column {column},", cell)
        sides[row] = side
    return sides


def unknown_split(where: str, cell: object) -> UserError:
    """Returns the error for a cell that names no split."""
    return UserError(
        f"The split in {where} is {cell!r}.{nearest(cell_text(cell), SPLIT_NAMES)}",
        "train, validation or test.",
        "Correct it, or give the column another name to have splits made.",
    )


def _inside(table: Table, column: str) -> tuple[list[str], list[str]]:
    """Returns ids and real paths of the pictures; refuses those outside of the table's folder."""
    folder = os.path.realpath(os.path.dirname(os.path.abspath(table.path)))
    find = inside(folder)
    ids, paths = [], []
    for row, cell in enumerate(table.values(column)):
        name = cell_text(cell).strip()
        if not name:
            raise UserError(
                f"The path in {table.row(row)}, column {column}, is empty.",
                "Every row names a picture.",
                "Fill it in, or remove the row.",
            )
        name = name.replace("\\", "/")  # tables written on Windows
        found = find(name)
        if found is None:
            raise UserError(
                f"The path in {table.row(row)} leads out of the data folder: {name}",
                f"Paths are relative to {folder} and stay inside it, links included.",
                "Move the pictures into that folder, or the table to the folder above them.",
            )
        ids.append(found[0])
        paths.append(found[1])
    return ids, paths
