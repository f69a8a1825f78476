"""Texts in memory that nobody has labelled: what a finished model is asked about."""

from collections.abc import Mapping, Sequence

import numpy as np


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
