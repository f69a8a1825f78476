"""What a finished run has left in its folder."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfsft.errors import UsageError
from tfsft.evaluation.predictions import Prediction, read_predictions
from tfsft.untrusted import is_plain_name, read_json

FORMAT = 1  # of task.json
REFUSED = "REFUSED"  # a file with the reason; without it the model counts as any other


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run whose training has ended.

    Args:
        dir: Where it is.
        name: What to call it among others.
        config, task, metrics: The JSON files.
        history: The rows of history.csv.
        predictions: The rows of predictions.csv.
    """

    dir: Path
    name: str
    config: Mapping[str, Any]
    task: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: list[dict[str, str]]
    predictions: list[Prediction]

    @property
    def split(self) -> str | None:
        """What predictions.csv is about: `test`, else `validation`, None without either."""
        return next((name for name in ("test", "validation") if self.metrics.get(name)), None)

    @property
    def kind(self) -> str:
        """The kind of labels."""
        return self.task["labels"]


def read_finished_run(folder: str | Path, name: str | None = None) -> FinishedRun:
    """Reads the folder of a run.

    Args:
        folder: Where it is.
        name: What to call it; by default what the folder is called.

    Raises:
        UsageError: The folder is no run, the run is not finished, or a file of it is damaged.
    """
    folder = Path(folder)
    task = read_task(folder, refused_too=True)
    table, history = folder / "predictions.csv", folder / "history.csv"
    try:
        return FinishedRun(
            dir=folder,
            name=name or folder.resolve().name,
            config=read_json(folder / "config.json"),
            task=task,
            metrics=read_json(folder / "metrics.json"),
            history=read_history(history) if history.is_file() else [],
            predictions=read_predictions(table) if table.is_file() else [],
        )
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"The run {folder} cannot be read: {error}.",
            "A folder that `tfsft run` has made, with all its files.",
            "Copy the folder again, or train again.",
        ) from error


def read_task(run: Path, *, refused_too: bool = False) -> Mapping[str, Any]:
    """Returns task.json of a finished run.

    Args:
        run: Its folder.
        refused_too: For looking at a model, and not for using it.

    Raises:
        UsageError: The folder is no run, the run is not finished, or its model was refused.
    """
    if not (run / "config.json").is_file():
        raise UsageError(
            f"{run} is not the folder of a run.",
            "A folder that `tfsft run` has made; it holds a config.json.",
            "Check the path.",
        )
    if not (run / "model.keras").is_file():
        raise UsageError(
            f"The run {run} is not finished: it has no model.keras.",
            "A run whose training has ended.",
            "Go on with it: tfsft run RECIPE --resume " + str(run),
        )
    if (run / REFUSED).is_file() and not refused_too:
        raise UsageError(
            f"The model of {run} was refused. "
            + (run / REFUSED).read_text(encoding="utf-8").strip(),
            "A model that has not forgotten what it knew. tfsft evaluate, explain and compare look "
            "at this one all the same.",
            f"To use it in spite of that, remove the file {run / REFUSED}",
        )
    path = run / "task.json"
    task = read_json(path)
    said = task if isinstance(task, dict) else {}
    wrong = [name for name, fits in _FIELDS.items() if not fits(said.get(name))]
    if wrong:
        raise UsageError(
            f"{path} has no {wrong[0]} that a run can have.",
            "Expected what `tfsft run` wrote.",
            "Copy the whole run folder again.",
        )
    if task.get("format", FORMAT) != FORMAT:
        raise UsageError(
            f"{path} has format {task['format']}.",
            f"This version of tfsft reads format {FORMAT}.",
            "Use the version of tfsft that wrote it; config.json names it under 'versions'.",
        )
    return task


# What task.json may say: the tokenizer lies in the run folder, pictures are no larger than those of
# a recipe.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "task": lambda value: isinstance(value, str),
    "labels": lambda value: value is None or isinstance(value, str),
    "class_names": lambda value: value is None or isinstance(value, list),
    "tokenizer": lambda value: value is None or is_plain_name(value),
    "image_size": lambda value: value is None or (isinstance(value, int) and 0 < value <= 4096),
}


def read_history(path: Path) -> list[dict[str, str]]:
    """Returns the rows of history.csv."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
