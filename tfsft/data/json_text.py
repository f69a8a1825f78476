"""JSON that may be broken: values, and lines of them."""

import json

from tfsft.data.text_encodings import find_encoding, shortened
from tfsft.errors import UserError

LAYOUT = (
    "A table with the names of its columns in the first line (CSV, TSV; UTF-8), one object a line "
    "(JSONL), a list of objects (JSON), or Parquet."
)

FLATTEN = "Write it in another way: text and label are enough."
HALF = "has half a character (a surrogate)"


def load_json(path: str) -> object:
    """Reads a whole JSON file.

    Raises:
        UserError: It does not parse; names the line.
    """
    with open(path, encoding=find_encoding(path)) as file:
        text = file.read().lstrip("\ufeff")
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        raise UserError(
            f"{path} does not parse as JSON, line {error.lineno}: {error.msg}: {shortened(line)}",
            LAYOUT,
            "Mend that line; if each line is an object of its own, call the file .jsonl.",
        ) from error
    except ValueError as error:
        raise UserError(f"{path} does not parse as JSON: {error}", LAYOUT, FLATTEN) from error


def parse_json(text: str) -> object:
    """Returns what JSON says; whatever is wrong with it is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def row_problem(row: object) -> str:
    """Returns what keeps a value from being a row, or nothing."""
    if not isinstance(row, dict):
        return "is no object"
    return HALF if has_half(row) else ""


def has_half(value: object) -> bool:
    """Says whether there is half a character in a value from JSON, which cannot be written."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def bad_lines(path: str, encoding: str, error: Exception | None = None) -> dict[int, str]:
    """Finds the lines of a JSONL file that do not parse, by line number.

    Args:
        path: The file.
        encoding: From `find_encoding`.
        error: Why pyarrow could not read it.

    Raises:
        UserError: All lines parse, but a field is of more than one kind.
    """
    bad: dict[int, str] = {}
    kinds: dict[str, tuple[str, int]] = {}
    mixed = None
    # Only these end a line; str.splitlines knows others that may stand in text.
    with open(path, encoding=encoding, newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                row = parse_json(line.lstrip("\ufeff")) if line.strip() else {}
                problem = row_problem(row)
            except ValueError:
                problem = "does not parse as JSON"
            if problem:
                bad[number] = f"{problem}: {shortened(line)}"
                continue
            for name, cell in row.items():
                kind = _kind(cell)
                before, where = kinds.setdefault(name, (kind, number)) if kind else (kind, 0)
                if before != kind and not mixed:
                    mixed = (number, name, kind, cell, before, where)
    if error is not None and mixed and not bad:
        number, name, kind, cell, before, where = mixed
        raise UserError(
            f"{path}, line {number}: {name!r} is {kind} ({shortened(json.dumps(cell))}), but "
            f"{before} in line {where}.",
            "One kind of value in each field.",
            "Write all of them the same way, for example with quotation marks.",
        ) from error
    if error is not None and not bad:
        raise error
    return bad


def _kind(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true or false"
    if isinstance(cell, (int, float)):
        return "a number"
    return {str: "text", list: "a list", dict: "an object"}[type(cell)]
