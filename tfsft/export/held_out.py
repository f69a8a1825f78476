"""The held-out examples of a run, found again where its data lies."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfsft.data.sources import ArrayStorage, FileStorage, ImageSource
from tfsft.errors import UserError
from tfsft.evaluation.predictions import read_predictions
from tfsft.export.predictor import Predictor, Progress
from tfsft.untrusted import read_json

MOST = 1000  # examples that are replayed
CALIBRATION = 100  # others, that int8 is measured with


def find_held_out(
    predictor: Predictor, given: str | None = None, progress: Progress = None, *, most: int = MOST
) -> tuple[Any, Any]:
    """Returns held-out examples, evenly chosen where there are very many, and some of the others.

    Args:
        predictor: Of the run.
        given: Other labelled data with the same columns, of which the test part is taken, or all;
            None: what predictions.csv of the run is about, the test split.
        progress: Called with (done, total) while data is read.
        most: Held-out examples.

    Raises:
        UserError: The data is gone, or none of these examples is in it.
    """
    run, training = predictor.run, None
    if given is not None:
        settings = read_json(run / "config.json").get("settings") or {}
        options = predictor.own_options(settings)
        source, _ = predictor.labelled(given, progress=progress, **options)
        return _some(source, np.arange(len(source)), most), training
    try:
        everything = predictor.trained_on(progress=progress)
    except UserError as error:
        raise _gone(run, error.came) from error
    table = run / "predictions.csv"
    known = {row.id for row in read_predictions(table)} if table.is_file() else set()
    held = np.array([name in known for name in everything.ids], bool)
    if not held.any():
        raise _gone(run, "No example of predictions.csv is in the data it was trained on.")
    rest = np.flatnonzero(~held)
    if len(rest):
        training = _some(everything, rest, CALIBRATION)
    return _some(everything, np.flatnonzero(held), most), training


def raw_inputs(predictor: Predictor, source: Any, folder: Path) -> list[list[Any]]:
    """Returns what a program is given for each example: files, or texts.

    Args:
        predictor: Of the run.
        source: Examples.
        folder: Where pictures are written that are no files yet.
    """
    if isinstance(source, ImageSource):
        return [[str(_picture(source, place, folder))] for place in range(len(source))]
    texts = [source.column(name) for name in predictor.columns]
    if predictor.task["task"] == "token_classification":  # the data says what is a word
        starts, ends = source.column("starts"), source.column("ends")
        texts.append([list(zip(*spans, strict=True)) for spans in zip(starts, ends, strict=True)])
    return [list(example) for example in zip(*texts, strict=True)]


def _picture(source: ImageSource, place: int, folder: Path) -> Path:
    storage, row = source.storage, int(source.rows[place])
    if isinstance(storage, FileStorage):
        return Path(storage.paths[row]).absolute()
    path = folder / f"{place}.png"
    if isinstance(storage, ArrayStorage):
        Image.fromarray(storage.images[row]).save(path)
    else:
        path.write_bytes(storage.read(row))
    return path


def _some(source: Any, rows: np.ndarray, most: int) -> Any:
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return source.subset(rows)


def _gone(run: Path, why: str) -> UserError:
    return UserError(
        f"The held-out examples of {run} cannot be found: {why}",
        "An export is compared with the run on examples that it was not trained on.",
        "Name other labelled data with --data, or put the data back.",
    )
