"""Data sets of tensorflow-datasets as tables of texts."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from tfsft.data.text_source import BATCH_ROWS
from tfsft.data.text_tables import HEAD_ROWS, plain_array
from tfsft.data.tfds_source import class_feature, examples, prepared, split_sides
from tfsft.errors import UserError


class TfdsTable:
    """One split of a data set; a table as `open_text_table` returns it.

    Args:
        builder: Of the data set.
        split: Its name.
    """

    note = "tensorflow-datasets"

    def __init__(self, builder: Any, split: str):
        self.builder = builder
        self.split = split
        self.path = self.name = f"{builder.name}/{split}"
        self.files = [str(Path(path)) for path in builder.info.splits[split].filepaths]
        self.bad: dict[int, str] = {}
        self.features = {
            name: feature
            for name, feature in getattr(builder.info.features, "items", dict)()
            if _is_readable(feature)
        }
        self.columns = list(self.features)

    @cached_property
    def head(self) -> pyarrow.Table:
        """The first rows."""
        batch = next(self._batches(self.columns, HEAD_ROWS), None)
        return pyarrow.table({}) if batch is None else pyarrow.Table.from_batches([batch])

    def values(self, column: str, count: int | None = None) -> list:
        """Returns the first cells of a feature."""
        return self.head.column(column).slice(0, count).to_pylist()

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pyarrow.RecordBatch, np.ndarray]]:
        """Yields rows of these features, and their numbers from 1."""
        start = 1
        for batch in self._batches(columns, BATCH_ROWS):
            yield batch, np.arange(start, start + len(batch))
            start += len(batch)

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """Returns the classes of a feature, where it says which there are."""
        feature = class_feature(self.features[column])
        return None if feature is None else tuple(feature.names)

    def _batches(self, columns: Sequence[str], size: int) -> Iterator[pyarrow.RecordBatch]:
        rows: list[dict] = []
        for example in examples(self.builder, self.split, columns):
            rows.append(example)
            if len(rows) == size:
                yield self._batch(rows, columns)
                rows = []
        if rows:
            yield self._batch(rows, columns)

    def _batch(self, rows: list[dict], columns: Sequence[str]) -> pyarrow.RecordBatch:
        cells = [
            plain_array([_cell(row[name], self.features[name]) for row in rows]) for name in columns
        ]
        return pyarrow.RecordBatch.from_arrays(cells, list(columns))


def open_tfds(data: str, tfds_dir: str | None) -> list[tuple[TfdsTable, str]]:
    """Returns the splits of a data set, which is downloaded where needed, with their sides' names.

    Raises:
        UserError: There is no such data set, it cannot be downloaded, or it holds no texts.
    """
    builder = prepared(data, tfds_dir)
    splits = split_sides(data, builder.info.splits)
    found = [(TfdsTable(builder, split), split if len(splits) > 1 else "") for split in splits]
    if not any(table.columns for table, _ in found):
        raise UserError(
            f"{data} has features that are no texts: {type(builder.info.features).__name__}.",
            "A data set with texts.",
            "Use another data set.",
        )
    return sorted(found, key=lambda item: splits[item[0].split])


def _is_readable(feature: Any) -> bool:
    import tensorflow_datasets as tfds  # slow to import

    if isinstance(feature, tfds.features.Image | tfds.features.Audio | tfds.features.Video):
        return False
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, tfds.features.FeaturesDict):
        return all(map(_is_readable, inner.values()))
    return getattr(inner, "shape", None) in ((), (None,))


def _cell(value: Any, feature: Any) -> Any:
    """Returns a feature's value as names of classes, text, numbers, or lists and dicts of them."""
    inner = getattr(feature, "feature", feature)
    if isinstance(value, dict):
        return {name: _cell(part, inner[name]) for name, part in value.items()}
    if np.ndim(value):
        return [_cell(part, inner) for part in value]
    known = class_feature(feature)
    if known is not None:
        return known.int2str(int(value)) if value >= 0 else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item()
