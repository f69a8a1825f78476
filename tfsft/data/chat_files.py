"""Files of conversations, row by row: JSON lines, JSON, CSV, TSV and Parquet."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfsft.data.json_text import LAYOUT, load_json, parse_json
from tfsft.data.text_encodings import ENCODINGS, find_encoding, first_letter, shortened
from tfsft.data.text_tables import HEAD_ROWS, TextTable, open_text_table
from tfsft.errors import UserError

Row = tuple[int, dict[str, Any] | None, str | None]  # number, cells, what is wrong with it
LISTS = ("data", "conversations", "rows", "examples", "items", "train")


@dataclass(frozen=True)
class ChatFile:
    """A file whose rows are read one after another.

    Args:
        path: Its path, for messages.
        name: What rows are numbered after, in ids.
        files: What it is read from.
        note: How it was read: "UTF-8".
        read: Yields the rows of these columns, or of all (None): the number that a person sees,
            the cells by column, or what is wrong with the row.
        head: Cells of its first good rows.
        about: What its conversations are, where they are not a person's own.
    """

    path: str
    name: str
    files: list[str]
    note: str
    read: Callable[[Sequence[str] | None], Iterator[Row]]
    head: list[dict[str, Any]] = field(default_factory=list)
    about: str = ""

    @property
    def columns(self) -> list[str]:
        """Names that occur in the first rows."""
        return list(dict.fromkeys(name for row in self.head for name in row))

    def cells(self, column: str) -> list:
        """Returns what the first rows have in a column; nothing for those that lack it."""
        return [row[column] for row in self.head if row.get(column) is not None]


def open_chat_file(path: str, least_columns: int = 2) -> ChatFile:
    """Opens a file of conversations; lines of JSON are told from one value by what they hold.

    Args:
        path: The file.
        least_columns: What a CSV or TSV must have.

    Raises:
        UserError: It cannot be read, or has no rows.
    """
    if not path.lower().endswith((".json", ".jsonl", ".ndjson")):
        return from_table(open_text_table(path, least_columns))
    try:
        if not os.path.getsize(path):
            raise UserError(f"{path} is empty.", LAYOUT, "Fill it.")
        lines = _is_lines(path)
        note = ENCODINGS[find_encoding(path)]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}", LAYOUT, "Check the file."
        ) from error
    if lines:
        return _with_head(path, [path], note, lambda columns: _lines(path))
    rows = _rows(path, load_json(path))
    return _with_head(path, [path], note, lambda columns: iter(rows))


def from_table(table: TextTable) -> ChatFile:
    """Returns the rows of a table as those of a file."""

    def read(columns: Sequence[str] | None) -> Iterator[Row]:
        seen = set()
        for batch, numbers in table.batches(list(table.columns if columns is None else columns)):
            for number, cells in zip(numbers.tolist(), batch.to_pylist(), strict=True):
                seen.add(number)
                yield number, cells, table.bad.get(number)
        for number in sorted(set(table.bad) - seen):
            yield number, None, table.bad[number]

    return ChatFile(table.path, table.name, table.files, table.note, read, table.head.to_pylist())


def is_messages(cell: object) -> bool:
    """Says whether a cell holds a conversation: a list of objects with a role and a content."""
    cell = as_list(cell)
    return bool(cell) and all(
        isinstance(part, dict) and ("role" in part or "from" in part) for part in cell
    )


def as_list(cell: object) -> list | None:
    """Returns a list; one that was written as JSON text, or as lists of roles and of contents.

    Anything else is None.
    """
    if isinstance(cell, str) and cell.lstrip()[:2].startswith(("[{", "[ ", "[\n", '{"')):
        try:
            cell = parse_json(cell)
        except ValueError:
            return None
    if isinstance(cell, dict) and cell and all(isinstance(part, list) for part in cell.values()):
        parts = itertools.zip_longest(*cell.values())
        cell = [dict(zip(cell, part, strict=True)) for part in parts]
    return cell if isinstance(cell, list) else None


def _with_head(
    path: str, files: list[str], note: str, read: Callable[[Sequence[str] | None], Iterator[Row]]
) -> ChatFile:
    head = [cells for _, cells, _ in itertools.islice(read(None), HEAD_ROWS) if cells]
    if not head:
        first = next(read(None), None)
        if first is None:
            raise UserError(f"{path} has no rows.", LAYOUT, "Fill it.")
        what = first[2] or "is an empty object"
        raise UserError(f"{path} cannot be read: row {first[0]} {what}", LAYOUT, "Mend the file.")
    return ChatFile(path, os.path.basename(path), files, note, read, head)


def _is_lines(path: str) -> bool:
    """Says whether each line of a file is a value of its own, whatever the file is called."""
    if first_letter(path) not in ("{", "["):
        return not path.lower().endswith(".json")
    with open(path, encoding=find_encoding(path), newline="\n") as file:
        lines = (line.strip("\ufeff \t\r\n") for line in file)
        first, second = [*itertools.islice(filter(None, lines), 2), "", ""][:2]
    if not path.lower().endswith(".json"):
        return first[0] == "{" or (second != "" and _parses(first))
    return second != "" and _parses(first)


def _parses(text: str) -> bool:
    try:
        return bool(parse_json(text))
    except ValueError:
        return False


def _lines(path: str) -> Iterator[Row]:
    # Only these end a line; str.splitlines knows others that may stand in text.
    with open(path, encoding=find_encoding(path), newline="\n") as file:
        for number, line in enumerate(file, 1):
            line = line.lstrip("\ufeff")
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError:
                yield number, None, f"does not parse as JSON: {shortened(line)}"
                continue
            yield _row(number, row)


def _rows(path: str, content: object) -> list[Row]:
    """Returns the rows of a whole JSON file."""
    if isinstance(content, dict) and not any(map(is_messages, content.values())):
        content = next((content[name] for name in LISTS if isinstance(content.get(name), list)), 0)
    if isinstance(content, dict) or is_messages(content):
        content = [content]
    if not isinstance(content, list):
        raise UserError(
            f"{path} holds no list of conversations.", 'A list of objects, or {"data": [...]}.',
            "Write the conversations into a list.",
        )  # fmt: skip
    return [_row(number, row) for number, row in enumerate(content, 1)]


def _row(number: int, row: object) -> Row:
    if isinstance(row, dict):
        return number, row, None
    if is_messages(row):
        return number, {"messages": row}, None
    return number, None, f"is neither an object nor a list of messages: {shortened(repr(row))}"
