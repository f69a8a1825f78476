"""From what a person gives as --data to train, validation and test."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from tfsft.data import findings, splits
from tfsft.data.folders import LAYOUT, list_folder, missing_folder
from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.data.labels import TASKS, index_labels, is_number_task, shorten
from tfsft.data.sources import ArrayStorage, ImageSource, Listing, check_pictures
from tfsft.data.splits import BadExample, Splits
from tfsft.data.tables import TABLE_SUFFIXES, list_table
from tfsft.data.tfds_source import PREFIX, list_tfds
from tfsft.errors import UsageError, UserError, nearest

ON_BAD = ("stop", "skip", "list")
MAX_BAD_SHARE = 0.1


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
    _check_arguments(data, task, on_bad, limit)
    splits.check_fractions(validation_fraction, test_fraction)
    columns = {
        "image_column": image_column,
        "label_column": label_column,
        "group_column": group_column,
    }
    listing = _list(data, task, columns, tfds_dir, class_names, progress)
    if task == "single" and len(listing.class_names) < 2:
        raise UserError(
            f"All labels in {data} are the same: {shorten(listing.class_names)}.",
            "At least two classes.",
            "Add pictures of something else, or check that the right column is the label.",
        )

    rows = np.arange(len(listing.ids))
    wanted = splits.wanted_sides(validation_fraction, test_fraction)
    if limit is not None:
        sides = 0 if listing.sides is None else listing.sides
        strata = splits.strata(listing.labels) * 3 + sides
        rows = splits.stratified_subset(strata, listing.ids, limit, at_least=len(wanted))
    keys, reasons = check_pictures(listing.storage, rows, progress)
    bad = tuple(BadExample(listing.ids[rows[row]], reason) for row, reason in reasons.items())
    if on_bad != "list":
        _check_bad(bad, len(rows), data, on_bad)
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

    own = listing.sides is not None
    sides = listing.sides[rows].copy() if own else np.zeros(len(rows), np.int8)
    made = [1] if own and not (sides == 1).any() else [] if own else [1, 2]
    made = [side for side in made if side in wanted]
    if made:
        train = source.subset(np.flatnonzero(sides == 0))
        if class_names is None:
            _check_enough(train, 1 + len(made), data, limit)
        sides[sides == 0] = splits.split_rows(
            train.labels,
            train.keys,
            train.groups,
            validation_fraction=validation_fraction,
            test_fraction=0.0 if own else test_fraction,
            seed=seed,
        )
    train, validation, test = (
        source.subset(np.flatnonzero(sides == side)) if (sides == side).any() else None
        for side in range(3)
    )
    if train is None:
        raise UserError(
            f"{data} has no training pictures.", "Pictures to learn from.", "Add some to train."
        )
    result = Splits(
        train, validation, test, listing.class_names, tuple(_warnings(listing, source, sides)), bad
    )
    return dataclasses.replace(result, fingerprint=splits.fingerprint(result.sources()))


def _check_arguments(data: str, task: str, on_bad: str, limit: int | None) -> None:
    for option, value, choices in [("task", task, TASKS), ("--on-bad", on_bad, ON_BAD)]:
        if value not in choices:
            raise UsageError(
                f"{option} {value!r} is unknown.{nearest(str(value), choices)}",
                f"One of {', '.join(choices)}.",
                f"Try {option} {choices[0]}.",
            )
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}", "A positive number of pictures.", "Try --limit 200.")
    if not data:
        raise UsageError("--data is empty.", "A folder, a table, tfds:NAME or digits.", "Name one.")


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
    try:
        os.stat(path)
    except PermissionError as error:
        raise UserError(
            f"{data} cannot be read: permission denied.",
            "A folder or a table that may be read.",
            "Change its permissions, or those of the folders above it.",
        ) from error
    except OSError as error:
        raise missing_folder(path) from error
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


def _check_bad(bad: tuple[BadExample, ...], total: int, data: str, on_bad: str) -> None:
    if not bad or (on_bad == "skip" and len(bad) <= MAX_BAD_SHARE * total):
        return
    lines = [f"  {example.id} {example.reason}" for example in bad[:5]]
    if len(bad) > 5:
        lines.append(f"  and {len(bad) - 5} more (tfsft check lists all of them)")
    skip = "leave them out with --on-bad skip"
    raise UserError(
        "\n".join([f"{len(bad)} of {total} pictures in {data} cannot be used:", *lines]),
        "Every picture can be opened; with --on-bad skip at most one in ten may be bad.",
        f"Mend or remove them, or {skip}." if on_bad == "stop" else "Mend or remove them.",
    )


def _check_enough(train: ImageSource, parts: int, data: str, limit: int | None) -> None:
    """Raises unless each class has a different picture for every split to be made."""
    few = []
    if train.labels.ndim == 1 and not is_number_task(train.labels):
        counts = splits.count_contents(train.labels, train.keys, len(train.class_names))
        few = [
            f"{name} ({count})"
            for name, count in zip(train.class_names, counts, strict=True)
            if 0 < count < parts
        ]
    elif len(set(train.keys.tolist())) < parts:
        few = ["all of them"]
    if few:
        raise UserError(
            f"Too few different pictures in {data} to split them: {shorten(few, 10)}.",
            f"At least {parts} different pictures of each class, one for every split.",
            "Raise --limit."
            if limit
            else "Add pictures, remove these classes, or make fewer splits: --test-fraction 0.",
        )


def _warnings(listing: Listing, source: ImageSource, sides: np.ndarray) -> list[str]:
    names = listing.class_names
    repeated = findings.duplicates(source.keys)
    found = [*listing.warnings, *findings.similar_class_names(names)]
    found += findings.conflicts(repeated, source.ids, source.labels, names)
    if listing.sides is not None:
        found += findings.shared_between_sides(repeated, sides, source.ids)
        if source.groups is not None:
            found += findings.shared_groups(source.groups, sides)
    present = np.unique(sides).tolist()
    found += findings.missing_classes(source.labels, sides, names, present)
    return found + findings.skew(source.labels[sides == 0], names)[1]
