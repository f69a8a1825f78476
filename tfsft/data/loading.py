"""From what a person gives as --data to train, validation and test."""

import os
from collections.abc import Callable

import numpy as np

from tfsft.data import splits
from tfsft.data.folders import LAYOUT, check_there, list_folder
from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.data.labels import index_labels
from tfsft.data.sources import ArrayStorage, ImageSource, Listing, check_pictures
from tfsft.data.split_making import (
    SplitPlan,
    check_arguments,
    check_bad,
    check_classes,
    make_splits,
)
from tfsft.data.splits import BadExample, Splits
from tfsft.data.tables import TABLE_SUFFIXES, list_table
from tfsft.data.tfds_source import PREFIX, list_tfds
from tfsft.errors import UsageError, UserError

EXPECTED = "a folder, a CSV, TSV, JSONL or Parquet file, tfds:NAME, or digits"


def load_images(
    data: str,
    *,
    task: str = "single",
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    limit: int | None = None,
    on_bad: str = "stop",
    tfds_dir: str | None = None,
    class_names: tuple[str, ...] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Splits:
    """Finds labelled pictures, reads each of them once to see that it is one, and splits them.

    The data set's own splits are honoured; validation that is missing beside them is split off
    train, and test stays None. Otherwise both are made (see `split_rows`), unless their fraction
    is 0.

    Args:
        data: A folder of class folders, or of `train/`, `validation/` and `test/` with class
            folders in them; a CSV, TSV, JSONL or Parquet file with a path and a label in each row;
            `tfds:NAME[:CONFIG]`; or `digits`.
        task: "single" (a class for each picture), "multi" (several) or "regression" (a number).
        image_column, label_column: Columns of the table, or features of the tfds data set; None
            finds them.
        group_column: Column of what must stay on one side of the splits, such as a patient.
        validation_fraction, test_fraction: Shares of all pictures, where splits are made.
        seed: Another one gives other splits.
        limit: Take about this many pictures in all, of every class, for a quick try.
        on_bad: "stop" at pictures that cannot be read; "skip" them, unless they are more than one
            in ten; or "list" them, however many, for a look at the data.
        tfds_dir: Folder with prepared tfds data sets.
        class_names: The classes and their order, where a model has them already; some may then
            have no pictures.
        progress: Called with (done, total) while pictures are read.

    Raises:
        UserError: Something about the data must be mended; the message names it.
        UsageError: An argument is out of range.
    """
    check_arguments(data, task, on_bad, limit, "pictures")
    if not data:
        raise UsageError("--data is empty.", "A folder, a table, tfds:NAME or digits.", "Name one.")
    splits.check_fractions(validation_fraction, test_fraction)
    plan = SplitPlan(
        data,
        "pictures",
        validation_fraction,
        test_fraction,
        seed,
        limit,
        known_classes=class_names is not None,
        usable="Every picture can be opened",
    )
    columns = {
        "image_column": image_column,
        "label_column": label_column,
        "group_column": group_column,
    }
    listing = _list(data, task, columns, tfds_dir, class_names, progress)
    if task == "single":
        check_classes(plan, listing.class_names)
    rows = plan.limited(listing.labels, listing.sides, listing.ids)
    keys, reasons = check_pictures(listing.storage, rows, progress)
    bad = tuple(BadExample(listing.ids[rows[row]], reason) for row, reason in reasons.items())
    check_bad(plan, bad, len(rows), on_bad)
    good = np.array([row not in reasons for row in range(len(rows))], bool)
    rows, keys = rows[good], keys[good]
    source = ImageSource(
        listing.storage,
        rows,
        [listing.ids[row] for row in rows],
        listing.labels[rows],
        listing.class_names,
        keys,
        None if listing.groups is None else listing.groups[rows],
    )
    sides = None if listing.sides is None else listing.sides[rows]
    return make_splits(plan, source, sides, bad, listing.warnings)


def _list(
    data: str,
    task: str,
    columns: dict[str, str | None],
    tfds_dir: str | None,
    class_names: tuple[str, ...] | None,
    progress: Callable[[int, int], None] | None,
) -> Listing:
    """Chooses who reads `data`."""
    if data.startswith(PREFIX):
        return list_tfds(
            data,
            task=task,
            tfds_dir=tfds_dir,
            class_names=class_names,
            progress=progress,
            **columns,
        )
    if tfds_dir is not None:
        raise UsageError(
            f"--tfds-dir with --data {data}.", "--tfds-dir goes with tfds:NAME.", "Leave it out."
        )
    path = os.path.expanduser(data)
    if data != "digits" and path.lower().endswith(TABLE_SUFFIXES) and os.path.isfile(path):
        return list_table(path, task=task, class_names=class_names, **columns)
    for column, value in columns.items():
        if value is not None:
            option = "--" + column.replace("_", "-")
            raise UsageError(
                f"{option} {value} with --data {data}.",
                f"{option} names a column of a table (CSV, TSV, JSONL, Parquet) or a feature of "
                "tfds:NAME.",
                "Leave it out, or give a table.",
            )
    if data == "digits":
        return _digits(task, class_names)
    check_there(path, EXPECTED, "digits")
    if os.path.isdir(path):
        return list_folder(path, task=task, class_names=class_names)
    if path.lower().endswith(tuple(IMAGE_SUFFIXES)):
        raise UserError(
            f"{data} is a single picture.", LAYOUT, "Give the folder above the classes."
        )
    raise UserError(
        f"{data} is a file of an unknown kind.",
        f"A folder, or a table: {', '.join(TABLE_SUFFIXES)}.",
        "Unpack it if it is an archive; save it as CSV if it is a table.",
    )


def _digits(task: str, class_names: tuple[str, ...] | None) -> Listing:
    """Lists scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, with 0 to 16 as 0 to 255."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    if task == "regression":
        labels, class_names = digits.target.astype(np.float32), ()
    else:
        names = [[str(digit)] for digit in digits.target]
        labels, class_names = index_labels(names, task, class_names)
    warnings = []
    if os.path.isdir("digits"):
        warnings.append(
            "digits means scikit-learn's; for your folder of this name give --data ./digits."
        )
    return Listing(
        ArrayStorage(np.repeat(grey[..., None], 3, axis=-1)),
        [f"digits/{row}" for row in range(len(labels))],
        labels,
        class_names,
        warnings=warnings,
    )
