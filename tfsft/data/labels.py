"""Class names and labels as arrays."""

import re
from collections.abc import Callable, Iterable

import numpy as np

from tfsft.errors import UserError, nearest

TASKS = ("single", "multi", "regression")


def natural_key(name: str) -> tuple:
    """Returns a key that sorts names as people do: `img2` before `img10`, `a` beside `A`."""
    parts: list = re.split(r"([0-9]{1,18})", name.casefold())
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return (parts, name)


def index_labels(
    names: list[list[str]],
    task: str,
    class_names: tuple[str, ...] | None,
    where: Callable[[int], str] | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turns the label names of each example into an array.

    Args:
        names: The labels of each example; exactly one each unless task is "multi".
        task: "single" or "multi".
        class_names: The classes and their order; None takes the names that occur, sorted naturally.
        where: Says where example i stands, for the message about an unknown class.

    Returns:
        int64 `[n]`, or for "multi" float32 `[n, classes]` of 0 and 1; and the class names.

    Raises:
        UserError: A name is not in `class_names`.
    """
    if class_names is None:
        class_names = tuple(sorted({name for row in names for name in row}, key=natural_key))
    index = {name: position for position, name in enumerate(class_names)}
    rows = [row for row, labels in enumerate(names) for _ in labels]
    flat = [name for labels in names for name in labels]
    for row, name in zip(rows, flat, strict=True):
        if name not in index:
            raise unknown_class(name, class_names, where(row) if where else "")
    columns = np.array([index[name] for name in flat], np.int64)
    if task == "single":
        return columns, class_names
    labels = np.zeros((len(names), len(class_names)), np.float32)
    labels[rows, columns] = 1.0
    return labels, class_names


def number_labels(cells: list, where: Callable[[int], str]) -> np.ndarray:
    """Turns numbers, or text that spells them, into float32 `[n]`.

    Args:
        cells: A number for each example.
        where: Says where example i stands, for the message about one that is not finite.

    Raises:
        UserError: A cell is not a finite number.
    """
    numbers = np.empty(len(cells), np.float32)
    for row, cell in enumerate(cells):
        try:
            with np.errstate(over="ignore"):
                numbers[row] = float(cell)
            finite = np.isfinite(numbers[row])
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise UserError(
                f"The label of {where(row)} is {cell!r}.",
                "A finite number, such as 3.5.",
                "Correct it, or leave this example out.",
            )
    return numbers


def unknown_class(name: str, class_names: tuple[str, ...], where: str = "") -> UserError:
    """Returns the error for a class that the model or the training data does not have."""
    return UserError(
        f"The class {name!r}{f' of {where}' if where else ''} is unknown.",
        f"The classes are: {shorten(class_names, 20)}.{nearest(name, class_names)}",
        "Rename it, or leave these examples out.",
    )


def cell_text(cell: object) -> str:
    """Returns a cell as text; whole numbers have no `.0`, and what is missing is empty."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bytes):  # text in Parquet files of some programs
        return cell.decode("utf-8", "replace")
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def printable(text: str) -> str:
    """Returns a text that can be printed and written; bytes that are no text become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_number_task(labels: np.ndarray) -> bool:
    """Says whether `labels` are numbers to predict, and not classes."""
    return labels.ndim == 1 and np.issubdtype(labels.dtype, np.floating)


def class_pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows, classes), one pair for each label of each example."""
    if labels.ndim == 2:
        return np.nonzero(labels)
    return np.arange(len(labels)), labels


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how many examples each class has, int64 `[num_classes]`."""
    return np.bincount(class_pairs(labels)[1], minlength=num_classes)


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the weights that make all classes count the same: n / (classes * count).

    Args:
        labels: int64 `[n]`.
        num_classes: Number of classes.

    Returns:
        float32 `[num_classes]`; 0 for a class without examples.
    """
    counts = class_counts(labels, num_classes)
    weights = len(labels) / (num_classes * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0.0).astype(np.float32)


def shorten(names: Iterable[str], count: int = 5) -> str:
    """Returns the first names as a list in a sentence."""
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
