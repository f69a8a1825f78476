"""Tables of examples: CSV, TSV, JSONL and Parquet."""

import csv
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from tfsft.data.folders import SPLIT_NAMES
from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.data.labels import index_labels, number_labels
from tfsft.data.sources import FileStorage, Listing
from tfsft.errors import UserError, nearest
from tfsft.untrusted import check_parquet, inside

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
        first_row: The number that a person sees beside the first example: 2 below a header line.
    """

    path: str
    data: pyarrow.Table
    first_row: int

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
        return f"row {index + self.first_row} of {self.path}"


def read_table(path: str) -> Table:
    """Reads a CSV, TSV, JSONL or Parquet file, as its suffix says.

    Cells of CSV and TSV stay text, so that the class `007` or `NA` keeps its name.

    Args:
        path: The file.

    Raises:
        UserError: It is not a readable table, or has no rows.
    """
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix == ".parquet":
            check_parquet(path)
            table = Table(path, pyarrow.parquet.read_table(path), 1)
        elif suffix in (".jsonl", ".ndjson"):
            table = Table(path, _read_json(path), 1)
        else:
            table = Table(path, _read_csv(path, "\t" if suffix == ".tsv" else ","), 2)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
            "A table, as its suffix says: CSV or TSV (UTF-8, names of the columns in the first "
            "line), JSONL (one object a line) or Parquet.",
            "Mend the file, or save it again in one of these formats.",
        ) from error
    if not len(table):
        raise UserError(f"{path} has no rows.", "One row for each example.", "Fill it.")
    return table


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


def _read_csv(path: str, delimiter: str) -> pyarrow.Table:
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        if delimiter == "," and "," not in first:  # as spreadsheets write it in many countries
            delimiter = next((mark for mark in ";\t" if mark in first), ",")
        file.seek(0)
        header = next(csv.reader(file, delimiter=delimiter), [])
    if not header:
        raise pyarrow.ArrowInvalid("it is empty")
    if _are_pictures(header, share=0.0):
        raise pyarrow.ArrowInvalid(
            f"its first line is an example and not the names of the columns: {first.strip()}"
        )
    if len(set(header)) < len(header):
        raise pyarrow.ArrowInvalid(f"two columns have the same name: {', '.join(header)}")
    return pyarrow.csv.read_csv(
        path,
        # With threads, errors would not name the row.
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pyarrow.string()), strings_can_be_null=False
        ),
    )


def _read_json(path: str) -> pyarrow.Table:
    options = pyarrow.json.ReadOptions(block_size=1 << 26)  # a row must fit into a block
    table = pyarrow.json.read_json(path, options)
    dates = [field.name for field in table.schema if pyarrow.types.is_timestamp(field.type)]
    if not dates:
        return table
    # Text that looks like a date is text.
    schema = pyarrow.schema([(name, pyarrow.string()) for name in dates])
    return pyarrow.json.read_json(path, options, pyarrow.json.ParseOptions(explicit_schema=schema))


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


def cell_text(cell: object) -> str:
    """Returns a cell as text; whole numbers have no `.0`, and what is missing is empty."""
    if cell is None or cell != cell:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


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
