"""A finished run as a function from inputs to answers; needs model.keras and task.json, never the
recipe.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfsft import data, evaluation, models, training
from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.data.sources import FileStorage, ImageSource
from tfsft.errors import UsageError, UserError
from tfsft.evaluation.predictions import order, predictions

BATCH_SIZE = 32


class ImagePredictor:
    """Classifies pictures with the model of a run.

    Args:
        run: Folder of a finished run.

    Raises:
        UsageError: The folder is no run, the run is not finished, or it is not about pictures.
    """

    def __init__(self, run: str | Path):
        self.run = Path(run)
        self.task = _read_task(self.run)
        self.class_names = tuple(self.task["class_names"])
        self.labels = self.task["labels"]
        model = keras.models.load_model(self.run / "model.keras", compile=False)
        self.model = models.from_resized(model)

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
        storage = FileStorage(paths)
        checked = [storage.check(row) for row in range(len(paths))]
        bad = [
            data.BadExample(path, reason)
            for path, (_, reason) in zip(paths, checked, strict=True)
            if reason
        ]
        good = np.array([i for i, (_, reason) in enumerate(checked) if not reason], np.int64)
        if not len(good):
            return [], np.empty((0, len(self.class_names))), bad
        names = [paths[i] for i in good]
        keys = np.array([checked[i][0] for i in good])
        unknown = np.zeros(len(good), np.int64 if self.class_names else np.float32)
        source = ImageSource(storage, good, names, unknown, self.class_names, keys)
        outputs, ok = self._run(source, progress)
        bad += [
            data.BadExample(name, "its content cannot be decoded")
            for name, good in zip(names, ok, strict=True)
            if not good
        ]
        names = [name for name, good in zip(names, ok, strict=True) if good]
        outputs = outputs[ok]
        return predictions(names, None, outputs, self.class_names, kind=self.labels), outputs, bad

    def labelled(
        self, folder: str, *, split: str | None = None, **options: Any
    ) -> tuple[ImageSource, tuple]:
        """Returns labelled pictures of other data with the run's classes, and those that are bad.

        Args:
            folder: As the recipe's `data`.
            split: "train", "validation", "test", or "all"; by default the data's own test part,
                else all of it.
            **options: As for `data.load_images`.
        """
        found = data.load_images(
            folder,
            task=self.labels,
            class_names=self.class_names or None,
            validation_fraction=0.0,
            test_fraction=0.0,
            **options,
        )
        sources = found.sources()
        if split is None:
            split = "test" if "test" in sources else "all"
        if split == "all":
            return found.everything(), found.bad
        if split not in sources:
            raise UsageError(
                f"{folder} has no part called {split}.",
                f"It has: {', '.join(sources)}.",
                "Choose one of these with --split, or --split all.",
            )
        return sources[split], found.bad

    def evaluate(
        self,
        source: ImageSource,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[dict[str, Any], list[evaluation.Prediction]]:
        """Returns the metrics on labelled pictures, and the predictions with the worst mistakes
        first.
        """
        outputs, ok = self._run(source, progress)
        names = [name for name, good in zip(source.ids, ok, strict=True) if good]
        truth = source.labels[ok]
        metrics = evaluation.evaluate(self.labels, truth, outputs[ok], self.class_names)
        rows = predictions(names, truth, outputs[ok], self.class_names, kind=self.labels)
        return metrics, order(rows)

    def _run(
        self, source: ImageSource, progress: Callable[[int, int], None] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        # Pictures are decoded on the way: each is needed once.
        feed = data.ImageFeed(source, self.task["image_size"], memory=0, on_bad="skip")
        return training.predict(self.model, feed.pipeline(BATCH_SIZE), progress=progress)


def find_pictures(inputs: Sequence[str]) -> list[str]:
    """Returns the picture files that are named, and all those in the folders that are.

    Raises:
        UserError: One of them does not exist, or no picture is found.
    """
    found = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found += sorted(
                str(p)
                for p in path.rglob("*")
                if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
            )
        elif path.exists():
            found.append(str(path))
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


def _read_task(run: Path) -> dict[str, Any]:
    if not (run / "config.json").is_file():
        raise UsageError(
            f"{run} is not the folder of a run.",
            "A folder that `tfsft run` has made; it holds a config.json.",
            "Check the path.",
        )
    if not (run / "model.keras").is_file() or not (run / "task.json").is_file():
        raise UsageError(
            f"The run {run} is not finished: it has no model.keras.",
            "A run whose training has ended.",
            "Go on with it: tfsft run RECIPE --resume " + str(run),
        )
    task = json.loads((run / "task.json").read_text(encoding="utf-8"))
    if task.get("task") != "image_classification":
        raise UsageError(
            f"The run {run} is about '{task.get('task')}'.",
            "This tfsft predicts with runs about image_classification.",
            "Update tfsft, or load its model.keras with keras.models.load_model.",
        )
    return task
