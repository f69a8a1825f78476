"""Labels of texts: from a column in a file to an array."""

import math

import numpy as np
import pyarrow
import pyarrow.compute as pc

from tfsft.data.labels import natural_key, unknown_class

NO_LABEL = "has no label"


def label_texts(
    table: pyarrow.Table, task: str, class_names: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...], dict[int, str]]:
    """Turns the column `label` into an array; a Python object is made for each different cell.

    Args:
        table: Columns id, label and problem.
        task: "single", "multi" or "regression".
        class_names: The classes and their order; None takes those that occur, sorted naturally.

    Returns:
        Labels as in a source, of all rows; the class names; and what is wrong with the rows that
        cannot be used, where labels mean nothing.

    Raises:
        UserError: A class is not in `class_names`.
    """
    column = table["label"]
    problems = {
        row: table["problem"][row].as_py()
        for row in np.flatnonzero(pc.is_valid(table["problem"]).to_numpy()).tolist()
    }
    if task == "multi":
        rows, names = _several(column)
    else:
        encoded = column.dictionary_encode().combine_chunks()
        cells = encoded.dictionary.to_pylist()
        numbers = encoded.indices.fill_null(len(cells)).to_numpy()
        cells.append("")
        wrong = [_problem(cell, task) for cell in cells]
        for row in np.flatnonzero(np.array([w is not None for w in wrong])[numbers]).tolist():
            problems.setdefault(row, wrong[numbers[row]])
        if task == "regression":
            values = [
                0.0 if reason else float(cell) for cell, reason in zip(cells, wrong, strict=True)
            ]
            return np.array(values, np.float32)[numbers], (), problems
        rows, names = [(np.arange(len(column)), numbers)], cells

    used = np.zeros(len(names) + 1, bool)
    good = np.ones(len(column), bool)
    good[list(problems)] = False
    for examples, numbers in rows:
        used[numbers[good[examples]]] = True
    occurring = [name for name, there in zip(names, used, strict=False) if there]
    if class_names is None:
        class_names = tuple(sorted(set(occurring), key=natural_key))
    index = {name: position for position, name in enumerate(class_names)}
    for number, name in enumerate(names):
        if used[number] and name not in index:
            row = _first(rows, number, good)
            raise unknown_class(name, class_names, table["id"][row].as_py())
    place = np.array([index.get(name, 0) for name in names], np.int64)
    if task == "single":
        return place[rows[0][1]], class_names, problems
    labels = np.zeros((len(column), len(class_names)), np.float32)
    for examples, numbers in rows:
        kept = good[examples]
        labels[examples[kept], place[numbers[kept]]] = 1.0
    return labels, class_names, problems


def _several(column: pyarrow.ChunkedArray) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Returns (examples, numbers of names), and the names."""
    if pyarrow.types.is_list(column.type):
        start, examples, parts = 0, [], []
        for chunk in column.chunks:
            examples.append(pc.list_parent_indices(chunk).to_numpy() + start)
            parts.append(pc.utf8_trim_whitespace(chunk.flatten()))
            start += len(chunk)
        encoded = pyarrow.chunked_array(parts).dictionary_encode().combine_chunks()
        names = encoded.dictionary.to_pylist()
        examples, numbers = np.concatenate(examples), encoded.indices.to_numpy()
        named = np.array([bool(name) for name in names], bool)[numbers]
        return [(examples[named], numbers[named])], names
    encoded = column.dictionary_encode().combine_chunks()
    cells = encoded.dictionary.to_pylist()
    mark = next((mark for mark in "|;," if any(mark in cell for cell in cells)), "|")
    lists = [[name for name in map(str.strip, cell.split(mark)) if name] for cell in cells]
    index: dict[str, int] = {}
    lists = [[index.setdefault(name, len(index)) for name in names] for names in lists]
    numbers = encoded.indices.fill_null(len(lists)).to_numpy()
    counts = np.array([*map(len, lists), 0])[numbers]
    flat = np.array([number for numbers in lists for number in numbers], np.int64)
    starts = np.concatenate([[0], np.cumsum([*map(len, lists), 0])])[numbers]
    examples = np.repeat(np.arange(len(numbers)), counts)
    within = np.arange(len(examples)) - np.repeat(np.cumsum(counts) - counts, counts)
    return [(examples, flat[np.repeat(starts, counts) + within])], list(index)


def _problem(cell: str, task: str) -> str | None:
    if not cell.strip():
        return NO_LABEL
    if task == "regression":
        try:
            with np.errstate(over="ignore"):
                finite = math.isfinite(np.float32(cell))
        except ValueError:
            finite = False
        if not finite:
            return f"has the label {cell!r}, which is not a finite number"
    return None


def _first(rows: list[tuple[np.ndarray, np.ndarray]], number: int, good: np.ndarray) -> int:
    return next(
        int(examples[found[0]])
        for examples, numbers in rows
        if len(found := np.flatnonzero((numbers == number) & good[examples]))
    )
