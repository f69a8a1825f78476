"""A finished run as a function from inputs to answers; needs model.keras and task.json, never the
recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfsft import data, models
from tfsft.errors import UsageError, UserError
from tfsft.evaluation.finished_run import read_task
from tfsft.evaluation.predictions import Prediction
from tfsft.untrusted import read_json

Progress = Callable[[int, int], None] | None


class Predictor:
    """What the predictors of all tasks have in common.

    Args:
        run: Folder of a finished run.
        task: Its task.json.

    `nouns` is what one example and several are called, `options` what `load` takes beside the data,
    `setting_names` those of them that the recipe calls otherwise.
    """

    nouns = ("example", "examples")
    options: tuple[str, ...] = ("tfds_dir", "on_bad")
    setting_names: Mapping[str, str] = {}

    def __init__(self, run: Path, task: dict[str, Any]):
        self.run = run
        self.task = task
        self.class_names = tuple(task["class_names"])
        self.labels = task["labels"]

    def read(self, inputs: Sequence[str], table: str | None = None) -> Any:
        """Returns what is to be answered.

        Args:
            inputs: What a person typed.
            table: A file with more of it.

        Raises:
            UserError: It cannot be read.
        """
        raise NotImplementedError

    def answer(
        self, examples: Any, progress: Progress = None
    ) -> tuple[list[dict[str, Any]], list[data.BadExample]]:
        """Answers for each example, and lists those that could not be read.

        Args:
            examples: From `read`.
            progress: Called with (done, total) examples.

        Returns:
            Dicts with `id` and `prediction`, for people to read; `probability` of the prediction;
            and what else there is to know, for JSON.
        """
        raise NotImplementedError

    def load(self, given: str, **options: Any) -> data.Splits:
        """Loads labelled data with the run's classes, without making splits.

        Args:
            given: As the recipe's `data`.
            **options: As for the recipe's loading function.
        """
        raise NotImplementedError

    def evaluate(
        self, source: Any, progress: Progress = None
    ) -> tuple[dict[str, Any], list[Prediction]]:
        """Returns the metrics on labelled examples, and the predictions, worst mistakes first."""
        raise NotImplementedError

    def measure(self, source: Any) -> dict[str, Any]:
        """Returns the metrics that two models are compared by."""
        return self.evaluate(source)[0]

    def labelled(
        self, given: str, *, split: str | None = None, **options: Any
    ) -> tuple[Any, tuple]:
        """Returns labelled examples of other data, and those that are bad.

        Args:
            given: As the recipe's `data`.
            split: "train", "validation", "test", or "all"; by default the data's own test part,
                else all of it.
            **options: As for the recipe's loading function.
        """
        found = self.load(given, **options)
        sources = found.sources()
        if split is None:
            split = "test" if "test" in sources else "all"
        if split == "all":
            return found.everything(), found.bad
        if split not in sources:
            raise UsageError(
                f"{given} has no part called {split}.",
                f"It has: {', '.join(sources)}.",
                "Choose one of these with --split, or --split all.",
            )
        return sources[split], found.bad

    def own_options(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Returns the `options` that the settings of a run have."""
        names = {name: self.setting_names.get(name, name) for name in self.options}
        return {name: settings[of] for name, of in names.items() if settings.get(of)}

    def trained_on(self, **options: Any) -> Any:
        """Reads again what the run was trained and measured on: all labelled examples, and behind
        them those of the runs that it goes on from.

        Args:
            **options: As for the recipe's loading function, besides those of the run.

        Raises:
            UserError: The data is gone.
        """
        sources, run = [], self.run
        while (run / "config.json").is_file():
            config = read_json(run / "config.json")
            settings = config.get("settings") or {}
            if not settings.get("data"):
                raise UserError(
                    f"{run / 'config.json'} does not say what it was trained on.",
                    "The setting `data` of a recipe.",
                )
            own = self.own_options(settings)
            sources.append(self.labelled(settings["data"], split="all", **own, **options)[0])
            if "from" not in config:
                break
            run = Path(config["from"]["run"])
        return sources[0] if len(sources) == 1 else type(sources[0]).joined(sources)

    def load_model(self) -> keras.Model:
        """Loads model.keras, for inference."""
        return models.load_model(self.run / "model.keras")


def load_predictor(run: str | Path, *, refused_too: bool = False) -> Predictor:
    """Returns the predictor for the task of a run.

    Args:
        run: Folder of a finished run.
        refused_too: As for `read_task`.

    Raises:
        UsageError: The folder is no run, the run is not finished, or its task is unknown.
    """
    from tfsft.export.chat_predictor import ChatPredictor, Rewriter
    from tfsft.export.image_predictor import ImagePredictor
    from tfsft.export.text_predictors import AnswerFinder, Tagger, TextClassifier

    kinds = {
        "image_classification": ImagePredictor,
        "text_classification": TextClassifier,
        "token_classification": Tagger,
        "question_answering": AnswerFinder,
        "chat": ChatPredictor,
        "text_generation": Rewriter,
    }
    run = Path(run)
    task = read_task(run, refused_too=refused_too)
    if task.get("task") not in kinds:
        raise UsageError(
            f"The run {run} is about '{task.get('task')}'.",
            f"This tfsft predicts with runs about {', '.join(kinds)}.",
            "Update tfsft, or load its model.keras with keras.models.load_model.",
        )
    return kinds[task["task"]](run, task)


def label_answers(
    rows: Sequence[Prediction], outputs: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the answers of a model that gives classes or numbers.

    Args:
        rows: What it said of each example.
        outputs: Probabilities `[n, classes]`, or numbers.
        class_names: By class number; empty for numbers.
    """
    answers = []
    for row, scores in zip(rows, outputs, strict=True):
        answer: dict[str, Any] = {"id": row.id, "prediction": row.prediction}
        if class_names:
            answer["probability"] = row.probability
            answer["probabilities"] = dict(zip(class_names, map(float, scores), strict=True))
        answers.append(answer)
    return answers
