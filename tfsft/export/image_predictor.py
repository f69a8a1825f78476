"""A finished run about pictures as a function from pictures to answers."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfsft import data, evaluation, models, training
from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.data.sources import FileStorage, ImageSource
from tfsft.data.text_encodings import find_encoding
from tfsft.errors import UsageError, UserError
from tfsft.evaluation.predictions import order, predictions
from tfsft.export.predictor import Predictor, label_answers
from tfsft.untrusted import inside

BATCH_SIZE = 32


class ImagePredictor(Predictor):
    """Classifies pictures with the model of a run."""

    nouns = ("picture", "pictures")
    options = ("image_column", "label_column", *Predictor.options)

    def __init__(self, run: Path, task: dict[str, Any]):
        super().__init__(run, task)
        self.model = models.from_resized(self.load_model())

    def read(self, inputs: Sequence[str], table: str | None = None) -> list[str]:
        """Returns the picture files that are meant; of a CSV file those in its first column."""
        if table is not None:
            inputs = [*inputs, *first_column(table)]
        return find_pictures(inputs)

    def answer(
        self, examples: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> tuple[list[dict[str, Any]], list[data.BadExample]]:
        """Answers for each picture file."""
        rows, outputs, bad = self.predict(examples, progress)
        return label_answers(rows, outputs, self.class_names), bad

    def predict(
        self, paths: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> tuple[list[evaluation.Prediction], np.ndarray, list[data.BadExample]]:
        """Answers for each picture.

        Args:
            paths: Files.
            progress: Called with (done, total) pictures.

        Returns:
            An answer for each readable picture in its order, the model's outputs `[n, ...]` for
            these, and the pictures that could not be read.
        """
        source, bad = self.source(paths)
        if not len(source):
            return [], np.empty((0, len(self.class_names))), bad
        names = source.ids
        outputs, ok = training.predict(self.model, self.pipeline(source), progress=progress)
        bad += [
            data.BadExample(name, "its content cannot be decoded")
            for name, good in zip(names, ok, strict=True)
            if not good
        ]
        names = [name for name, good in zip(names, ok, strict=True) if good]
        outputs = outputs[ok]
        return predictions(names, None, outputs, self.class_names, kind=self.labels), outputs, bad

    def source(self, paths: Sequence[str]) -> tuple[ImageSource, list[data.BadExample]]:
        """Returns picture files as unlabelled examples, and those that cannot be read."""
        storage = FileStorage(paths)
        checked = [storage.check(row) for row in range(len(paths))]
        bad = [
            data.BadExample(path, reason)
            for path, (_, reason) in zip(paths, checked, strict=True)
            if reason
        ]
        good = np.array([i for i, (_, reason) in enumerate(checked) if not reason], np.int64)
        names = [paths[i] for i in good]
        keys = np.array([checked[i][0] for i in good])
        unknown = np.zeros(len(good), np.int64 if self.class_names else np.float32)
        return ImageSource(storage, good, names, unknown, self.class_names, keys), bad

    def load(self, given: str, **options: Any) -> data.Splits:
        """Loads labelled pictures with the run's classes."""
        return data.load_images(
            given,
            task=self.labels,
            class_names=self.class_names or None,
            validation_fraction=0.0,
            test_fraction=0.0,
            **options,
        )

    def evaluate(
        self,
        source: ImageSource,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[dict[str, Any], list[evaluation.Prediction]]:
        """Returns the metrics on labelled pictures, and the predictions with the worst mistakes
        first.
        """
        metrics, rows = training.score_labels(
            self.model,
            self.pipeline(source),
            source,
            kind=self.labels,
            class_names=self.class_names,
            progress=progress,
        )
        return metrics, order(rows)

    def pipeline(self, source: ImageSource, batch_size: int = BATCH_SIZE) -> data.Pipeline:
        """Returns batches of pictures of the right size, decoded on the way."""
        feed = data.ImageFeed(source, self.task["image_size"], memory=0, on_bad="skip")
        return feed.pipeline(batch_size)


def find_pictures(inputs: Sequence[str]) -> list[str]:
    """Returns the picture files that are named, and all those in the folders that are.

    Raises:
        UserError: One of them does not exist, or no picture is found.
    """
    found = []
    for given in inputs:
        if os.path.isdir(given):
            found += sorted(
                str(p)
                for p in Path(given).rglob("*")
                if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
            )
        elif os.path.exists(given):  # a name may be too long for Path
            found.append(str(Path(given)))
        else:
            raise UserError(
                f"There is no file or folder {given}.",
                "Pictures, or folders of pictures.",
                "Check the spelling; paths are relative to where you are.",
            )
    if not found:
        raise UserError(
            f"No picture was found in {', '.join(inputs)}.",
            f"Files that end in {', '.join(sorted(IMAGE_SUFFIXES))}.",
            "Name a folder that holds some.",
        )
    return found


def first_column(table: str) -> list[str]:
    """Returns the files that the first cells of a CSV file name, its header aside.

    Raises:
        UserError: It cannot be read, or a name leads out of its folder.
    """
    try:
        with open(table, newline="", encoding=find_encoding(table)) as file:
            rows = [row[0].lstrip("\ufeff") for row in csv.reader(file) if row]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{table} cannot be read: {reason}.", "A CSV file of paths.") from error
    folder = Path(table).absolute().parent
    find, paths = inside(folder), []
    for row, name in enumerate(rows, start=1):
        found = find(name.strip())
        if found is None:
            raise UserError(
                f"Row {row} of {table} leads out of its folder: {name}",
                f"Paths are relative to {folder} and stay inside it, links included.",
                "Move the table to a folder above the pictures, or name them without --csv.",
            )
        paths.append(os.path.join(folder, found[0]))
    # A header is not a path.
    return paths[1:] if paths and not os.path.exists(paths[0]) else paths
