"""Tables of texts, read piece by piece: CSV, TSV, JSON lines, JSON and Parquet."""

import contextlib
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from pyarrow.types import is_null, is_string, is_temporal

from tfsft.data.json_text import FLATTEN, LAYOUT, bad_lines, load_json, row_problem
from tfsft.data.labels import cell_text
from tfsft.data.text_encodings import ENCODINGS, find_encoding, first_letter, shortened
from tfsft.data.text_source import BATCH_ROWS
from tfsft.errors import UserError
from tfsft.untrusted import check_parquet

TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
HEAD_ROWS = 200  # looked at to find out which column holds what
BLOCK = 1 << 20  # bytes; pyarrow reads 32 blocks ahead
KINDS_BLOCK = 1 << 22  # from which the kinds of JSON's fields are known
MAX_BLOCK = 1 << 30
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
TOO_DEEP = re.compile(rb"(?:[{\[][^][{}]*+){500}")


class TextTable(Protocol):
    """A table whose rows are read in batches.

    Attributes:
        path: Its file, for messages.
        name: What rows are numbered after, in ids.
        files: What it is read from.
        columns: Names of its columns.
        head: Its first rows.
        note: How the file was read: "UTF-8, comma".
        bad: What is wrong with rows that are not in their place, by the number a person sees;
            filled while batches are read.
    """

    path: str
    name: str
    files: list[str]
    columns: list[str]
    head: pyarrow.Table
    note: str
    bad: dict[int, str]

    def values(self, column: str, count: int | None = None) -> list:
        """Returns the first cells of a column, at most HEAD_ROWS."""

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pyarrow.RecordBatch, np.ndarray]]:
        """Yields rows of these columns, and the number a person sees beside each."""


def open_text_table(path: str, least_columns: int = 2) -> TextTable:
    """Opens a table, as its suffix says.

    Args:
        path: The file.
        least_columns: What a CSV or TSV must have.

    Raises:
        UserError: It is not a readable table, or has no rows.
    """
    suffix = os.path.splitext(path)[1].lower()
    with _reading(path):
        if not os.path.getsize(path):
            raise UserError(f"{path} is empty.", LAYOUT, "Fill it.")
        if suffix == ".parquet":
            table = _Parquet(path)
        elif (begin := first_letter(path)) == "<":
            raise UserError(
                f"{path} is a web page or XML, and no table.",
                LAYOUT,
                "Download it again; a page that asks to sign in is often saved instead of a file.",
            )
        elif suffix in (".csv", ".tsv"):
            table = _Csv(path, least_columns)
        elif suffix == ".json" or begin == "[":
            table = _Json(path)
        else:
            table = _JsonLines(path)
    if not table.head.num_rows:
        raise UserError(f"{path} has no rows.", LAYOUT, "Fill it.")
    return table


def check_rows(table: TextTable) -> None:
    """Raises where a row that was read is broken; for those who can do without none."""
    if table.bad:
        number = min(table.bad)
        raise UserError(
            f"Row {number} of {table.path} {table.bad[number]}",
            "Every row is whole: a cell for each column; text with commas in quotation marks.",
            "Mend or remove the row.",
        )


class _Table:
    def __init__(self, path: str):
        self.path = path
        self.name = os.path.basename(path)
        self.files = [path]
        self.bad: dict[int, str] = {}

    def values(self, column: str, count: int | None = None) -> list:
        return self.head.column(column).slice(0, count).to_pylist()


class _Csv(_Table):
    def __init__(self, path: str, least_columns: int):
        super().__init__(path)
        self.encoding = find_encoding(path)
        with open(path, encoding=self.encoding, newline="") as file:
            first = file.readline(1 << 16).lstrip("\ufeff")
        self.delimiter = max(DELIMITERS, key=first.count)
        # In files with tabs a quotation mark is often just that.
        choices = ['"', False] if self.delimiter == "\t" else ['"']
        line = open_quotation(path, self.encoding, self.delimiter)
        if line and len(choices) == 1:
            raise UserError(
                f"{path}, line {line}: a quotation mark is opened and never closed.",
                'A cell in "quotation marks", those inside of it doubled: "He said ""no""."',
                "Close it, or take it away.",
            )
        if line:
            choices = [False]
        tries = {quote: self._try(quote) for quote in choices}
        self.quote = min(choices, key=lambda quote: tries[quote][1])
        self.head = tries[self.quote][0]
        if isinstance(self.head, Exception):
            raise self.head
        self.columns = self.head.column_names
        self.note = f"{ENCODINGS[self.encoding]}, {DELIMITERS[self.delimiter]}"
        if self.delimiter == "\t" and not self.quote:
            self.note += ", quotation marks as they are"
        self._check_header(",".join(self.columns), least_columns)

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pyarrow.RecordBatch, np.ndarray]]:
        start = 2
        with _reading(self.path):
            for batch in _batches(lambda block: self._open(block, self.quote, columns, self.bad)):
                skipped = sum(number >= start for number in self.bad)
                numbers = np.arange(start, start + len(batch) + skipped)
                numbers = numbers[~np.isin(numbers, list(self.bad))][: len(batch)]
                start = int(numbers[-1]) + 1
                yield batch, numbers

    def _try(self, quote: str | bool) -> tuple[pyarrow.Table | Exception, tuple]:
        """Returns the first rows, and what speaks against this way of reading: rows that do not
        fit, and then rows that it makes one.
        """
        bad: dict[int, str] = {}
        try:
            first = _first_batch(lambda block: self._open(block, quote, None, bad), BLOCK)
            # Spreadsheets leave columns without a name behind.
            names = [name for name in first.column_names if name]
            _check_names(names)
            bad.clear()
            head = _first_batch(lambda block: self._open(block, quote, names, bad), BLOCK)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            return error, (float("inf"),)
        return head.slice(0, HEAD_ROWS), (len(bad), -len(head))

    def _open(
        self, block: int, quote: str | bool, columns: Sequence[str] | None, bad: dict[int, str]
    ) -> pyarrow.RecordBatchReader:
        def ragged(row: pyarrow.csv.InvalidRow) -> str:
            bad[row.number] = (
                f"has {row.actual_columns} cells and not {row.expected_columns}: "
                f"{shortened(row.text)}"
            )
            return "skip"

        text = pyarrow.large_string()
        return pyarrow.csv.open_csv(
            self.path,
            # With threads, rows have no numbers.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, encoding=self.encoding, block_size=block
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self.delimiter,
                quote_char=quote,
                newlines_in_values=bool(quote),
                invalid_row_handler=ragged,
            ),
            # Cells stay text, so that the class `007` or `NA` keeps its name.
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns or (), text),
                strings_can_be_null=False,
            ),
        )

    def _check_header(self, first: str, least_columns: int) -> None:
        if len(self.columns) < least_columns:
            raise UserError(
                f"{self.path} has one column only: {shortened(first)}",
                "Two columns at least, text and label, separated by a comma, a semicolon, a tab or "
                "a vertical bar.",
                "Save it again with one of these between the columns.",
            )
        # Names are short words, and no cells of their own columns.
        for name in self.columns:
            repeated = self.values(name).count(name)
            if len(name) > 60 or is_number(name) or (name and repeated > 1):
                raise first_line_is_example(self.path, first)


def first_line_is_example(path: str, line: str) -> UserError:
    """Returns the error for a table without the names of its columns."""
    return UserError(
        f"The first line of {path} is an example and not the names of the columns: "
        f"{shortened(line)}",
        "A first line such as text,label.",
        "Write the names of the columns above the first row.",
    )


class _JsonLines(_Table):
    def __init__(self, path: str):
        super().__init__(path)
        self.encoding = find_encoding(path)
        self.note = ENCODINGS[self.encoding]
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if TOO_DEEP.search(data):  # pyarrow would crash
                raise UserError(f"{path} holds a value that is nested too deep.", LAYOUT, FLATTEN)
        if first_letter(path) != "{":  # pyarrow crashes at a null that comes first
            self.bad = bad_lines(path, self.encoding)
        try:
            self.head = self._head()
        except pyarrow.ArrowInvalid as error:
            self.bad = bad_lines(path, self.encoding, error)
            self.head = self._head()
        self.columns = self.head.column_names
        if not self.columns:
            number, why = next(iter(self.bad.items()))
            raise pyarrow.ArrowInvalid(f"no line holds an object: line {number} {why}")

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pyarrow.RecordBatch, np.ndarray]]:
        done = 0
        with _reading(self.path):
            while True:
                try:
                    for batch in _batches(lambda b: self._open(b, self._schema(columns)), done):
                        done += len(batch)
                        yield batch, np.arange(done - len(batch) + 1, done + 1)
                    return
                except pyarrow.ArrowInvalid as error:
                    if self.bad:
                        raise
                    self.bad = bad_lines(self.path, self.encoding, error)

    def _head(self) -> pyarrow.Table:
        return _first_batch(self._open, KINDS_BLOCK).slice(0, HEAD_ROWS)

    def _schema(self, columns: Sequence[str]) -> pyarrow.Schema:
        def final(kind: pyarrow.DataType) -> pyarrow.DataType:
            # Text that looks like a date is text; whole numbers may be followed by others.
            if is_temporal(kind) or is_string(kind) or is_null(kind):
                return pyarrow.large_string()
            if pyarrow.types.is_integer(kind):
                return pyarrow.float64()
            if pyarrow.types.is_list(kind):
                return pyarrow.list_(final(kind.value_type))
            return kind

        kinds = self.head.schema
        return pyarrow.schema([(name, final(kinds.field(name).type)) for name in columns])

    def _open(self, block: int, schema: pyarrow.Schema | None = None) -> pyarrow.RecordBatchReader:
        stream = pyarrow.OSFile(self.path)
        if self.encoding != "utf8":
            stream = pyarrow.transcoding_input_stream(stream, self.encoding, "utf8")
        if self.bad:
            stream = pyarrow.PythonFile(_Mended(self.path, self.encoding, self.bad), mode="r")
        rest = "infer" if schema is None else "ignore"
        return pyarrow.json.open_json(
            stream,
            pyarrow.json.ReadOptions(block_size=block),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=rest),
        )


class _Mended:
    """A file of JSON lines in which an empty object stands for each bad line."""

    def __init__(self, path: str, encoding: str, bad: dict[int, str]):
        self._file = open(path, encoding=encoding, errors="replace", newline="\n")  # noqa: SIM115
        self._bad = bad
        self._line = 0
        self._rest = b""
        self.closed = False

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (line := self._file.readline()):
            self._line += 1
            self._rest += b"{}\n" if self._line in self._bad else line.encode()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def close(self) -> None:
        self.closed = True
        self._file.close()


class _Json(_Table):
    def __init__(self, path: str):
        super().__init__(path)
        self.encoding = find_encoding(path)
        self.note = ENCODINGS[self.encoding]
        rows = load_json(path)
        if isinstance(rows, dict):
            rows = rows.get("data")
        if not isinstance(rows, list):
            raise pyarrow.ArrowInvalid('it is no list of objects, and no {"data": [...]}')
        for number, row in enumerate(rows, 1):
            problem = row_problem(row)
            if problem:
                self.bad[number] = f"{problem}: {shortened(repr(row))}"
                rows[number - 1] = {}
        self.columns = list(dict.fromkeys(name for row in rows[:HEAD_ROWS] for name in row))
        self.rows = pyarrow.table(
            {name: plain_array([row.get(name) for row in rows]) for name in self.columns}
        )
        self.head = self.rows.slice(0, min(HEAD_ROWS, len(rows)))

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pyarrow.RecordBatch, np.ndarray]]:
        start = 1
        for batch in self.rows.select(list(columns)).to_batches(max_chunksize=BATCH_ROWS):
            yield batch, np.arange(start, start + len(batch))
            start += len(batch)


class _Parquet(_Table):
    def __init__(self, path: str):
        super().__init__(path)
        self.note = "Parquet"
        check_parquet(path)
        with pyarrow.parquet.ParquetFile(path) as file:
            self.columns = file.schema_arrow.names
            first = next(file.iter_batches(HEAD_ROWS), None)
            schema = file.schema_arrow
        _check_names(self.columns)
        if first is not None:
            first.validate(full=True)  # text need not be text
        self.head = pyarrow.Table.from_batches([] if first is None else [first], schema)

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pyarrow.RecordBatch, np.ndarray]]:
        start = 1
        with _reading(self.path), pyarrow.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                batch.validate(full=True)
                yield batch.select(list(columns)), np.arange(start, start + len(batch))
                start += len(batch)


def _batches(
    open_with: Callable[[int], pyarrow.RecordBatchReader], done: int = 0
) -> Iterator[pyarrow.RecordBatch]:
    """Yields the rows after the first `done` of what is opened with blocks of so many bytes."""
    block = BLOCK
    while True:
        end = 0
        try:
            for batch in open_with(block):
                end += len(batch)
                if end > done:
                    fresh = min(len(batch), end - done)
                    done = end
                    yield batch.slice(len(batch) - fresh)
            return
        except pyarrow.ArrowInvalid as error:
            block = _larger(block, error)


def _first_batch(
    open_with: Callable[[int], pyarrow.RecordBatchReader], block: int
) -> pyarrow.Table:
    """Returns the first rows of what is opened with blocks of so many bytes."""
    while True:
        try:
            reader = open_with(block)
            first = next((batch for batch in reader if len(batch)), None)
            return pyarrow.Table.from_batches([] if first is None else [first], reader.schema)
        except pyarrow.ArrowInvalid as error:
            block = _larger(block, error)


def _larger(block: int, error: pyarrow.ArrowInvalid) -> int:
    """Returns what to try after blocks into which a row did not fit; raises any other error."""
    if "increase block size" not in str(error) or block >= MAX_BLOCK:
        raise error
    return block * 4


def open_quotation(path: str, encoding: str, delimiter: str) -> int | None:
    """Returns the line of a quotation mark that begins a cell of a CSV file and never ends it.

    All that follows would be one cell, or be lost with a column that is not used.
    """
    with open(path, encoding=encoding, newline="") as file:
        marks = sum(block.count('"') for block in iter(lambda: file.read(1 << 20), ""))
        if marks % 2 == 0:
            return None
        file.seek(0)
        text = file.read()
    cells = re.finditer(rf'(?:^|[{re.escape(delimiter)}\r\n])"(?:[^"]++|"")*+("?)', text)
    begin = next((cell.start() for cell in cells if not cell[1]), None)
    return None if begin is None else text.count("\n", 0, begin + 1) + 1


def plain_array(cells: list) -> pyarrow.Array:
    """Returns cells as text, lists of text, or what they are where all are of one kind."""
    try:
        return pyarrow.array(cells)
    except (pyarrow.ArrowException, OverflowError):
        if any(isinstance(cell, list) for cell in cells):
            cells = [c if c is None else [cell_text(p) for p in _list(c)] for c in cells]
            return pyarrow.array(cells, pyarrow.list_(pyarrow.large_string()))
        cells = [cell if cell is None else cell_text(cell) for cell in cells]
        return pyarrow.array(cells, pyarrow.large_string())


def _list(cell: object) -> list:
    return cell if isinstance(cell, list) else [cell]


def text_array(cells: pyarrow.Array) -> pyarrow.Array:
    """Returns cells as text: `1.0` is "1"."""
    kind = cells.type
    if pyarrow.types.is_dictionary(kind):
        cells, kind = cells.dictionary_decode(), kind.value_type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        texts = (cell if cell is None else cell_text(cell) for cell in cells.to_pylist())
        cells = pyarrow.array(list(texts), pyarrow.large_string())
    return cells.cast(pyarrow.large_string())


def label_array(cells: pyarrow.Array) -> pyarrow.Array:
    """Returns cells as text, and lists as lists of text."""
    if not (pyarrow.types.is_list(cells.type) or pyarrow.types.is_large_list(cells.type)):
        return text_array(cells)
    lists = [
        None if cell is None else [cell_text(part) for part in cell] for cell in cells.to_pylist()
    ]
    return pyarrow.array(lists, pyarrow.list_(pyarrow.large_string()))


def is_number(text: str) -> bool:
    """Says whether text spells a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_names(names: list[str]) -> None:
    if not names:
        raise pyarrow.ArrowInvalid("no column has a name")
    if len(set(names)) < len(names):
        raise pyarrow.ArrowInvalid(f"two columns have the same name: {', '.join(names)}")


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
            LAYOUT,
            "Mend the file, or save it again in one of these formats.",
        ) from error
