"""Why the model of a finished run answers as it does; needs no recipe."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft import data
from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.errors import UsageError, UserError
from tfsft.evaluation.explanations import Explanation, Reason
from tfsft.evaluation.predictions import Prediction, predictions, read_predictions
from tfsft.export.attribution import MOST, Attribution, Score, Slopes
from tfsft.export.predictor import Predictor, load_predictor
from tfsft.training.lean import lean_layers

MOST_INPUTS = 100
LONGEST_TEXT = 20_000  # characters


class Explainer:
    """What the explainers of all tasks have in common.

    Args:
        predictor: Of the run.

    `baseline` is what an example is compared with, `unit` what an output is, in words; `worst` how
    many of the worst mistakes are explained if nobody says it; `slopes` those of the output, and
    `most` how many are computed for one reason, and `until` when there must be an answer.
    """

    slopes: Slopes

    worst = 12
    most = MOST
    until = math.inf
    baseline = ""
    unit = "a probability"

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        if predictor.labels == "regression":
            self.unit = "a number, in the unit of the labels"

    def read(self, inputs: Sequence[str], table: str | None = None) -> tuple[Any, list]:
        """Returns what is to be explained, and what of it cannot be read.

        Args:
            inputs: What a person typed.
            table: A file with more of it.

        Raises:
            UserError: It cannot be read, or is too much.
        """
        check_kind(inputs, self.predictor)
        return self.predictor.read(inputs, table), []

    def chosen(self, source: Any, rows: np.ndarray) -> Any:
        """Returns some labelled examples as `read` returns those that were typed."""
        raise NotImplementedError

    def explain(
        self,
        examples: Any,
        known: Mapping[str, Prediction] | None = None,
        said: Sequence[Mapping[str, Any]] | None = None,
    ) -> Iterator[Explanation]:
        """Yields why each example is answered as it is.

        Args:
            examples: From `read` or `chosen`.
            known: What is right, by the ids of the examples.
            said: What was answered, as `tfsft predict` says it. Where two answers are nearly as
                likely, rounding could choose the other one here.
        """
        raise NotImplementedError

    def mistakes(self, limit: int) -> tuple[Any, dict[str, Prediction]]:
        """Returns the worst mistakes of the run as examples, and what was said of them.

        Args:
            limit: Most mistakes.

        Raises:
            UserError: The data that the run was trained on is gone.
        """
        table = self.predictor.run / "predictions.csv"
        rows = read_predictions(table) if table.is_file() else []
        wrong = [row for row in rows if not row.correct][:limit]
        if not wrong:
            return None, {}
        source = self.predictor.trained_on()
        places = {name: place for place, name in enumerate(source.ids)}
        found = {row.id: row for row in wrong if row.id in places}
        if not found:
            return None, {}
        return self.chosen(source, np.array([places[name] for name in found])), found


def load_explainer(run: str | Path) -> Explainer:
    """Returns the explainer for the task of a run.

    Raises:
        UsageError: The folder is no run, the run is not finished, or its task is not explained.
        UserError: Its model has no place to look at.
    """
    try:
        return explainer_of(load_predictor(run, refused_too=True))
    except ValueError as error:
        raise UserError(
            f"The model of {run} cannot be explained: {error}.",
            "A model as the recipes build it, through which all of an input takes one way.",
        ) from error


def explainer_of(predictor: Predictor) -> Explainer:
    """Returns what explains the answers of a predictor.

    Raises:
        UsageError: Its task is not explained.
        ValueError: Its model has no place to look at.
    """
    from tfsft.export.chat_explainer import ChatExplainer
    from tfsft.export.chat_predictor import ChatPredictor
    from tfsft.export.image_explainer import ImageExplainer
    from tfsft.export.image_predictor import ImagePredictor
    from tfsft.export.text_explainers import AnswerExplainer, TagExplainer, TextExplainer
    from tfsft.export.text_predictors import AnswerFinder, Tagger, TextClassifier

    kinds = {
        ImagePredictor: ImageExplainer,
        TextClassifier: TextExplainer,
        Tagger: TagExplainer,
        AnswerFinder: AnswerExplainer,
        ChatPredictor: ChatExplainer,
    }
    if type(predictor) not in kinds:
        raise UsageError(
            f"The run {predictor.run} is about '{predictor.task['task'].replace('_', ' ')}'.",
            "Runs about pictures, texts, tags, questions and conversations can be explained.",
            f"Read what it answers: tfsft predict {predictor.run} INPUT",
        )
    return kinds[type(predictor)](predictor)


def output_slopes(above: keras.Model, score: Score, *ranks: int) -> Slopes:
    """Returns the slopes of an output where a model was cut.

    Args:
        above: The upper part, from what crosses.
        score: From the outputs `[k, ...]` and int32 tensors to `[k]`.
        ranks: Of these tensors.

    Returns:
        Takes the first tensor that crosses `[...]`, the others `[1, ...]`, then those of `score`.
    """
    first, *rest = above.inputs
    above.trainable = False  # normalisations stay as they are, and go into the convolutions before

    def from_crossing(x: tf.Tensor, *given: tf.Tensor) -> tf.Tensor:
        count = tf.shape(x)[0]
        others = [tf.repeat(other, count, axis=0) for other in given[: len(rest)]]
        inputs = [tf.cast(x, first.dtype), *others]
        with lean_layers(above):
            outputs = above(inputs if rest else inputs[0], training=False)
        return score(outputs, *given[len(rest) :])

    specs = [tf.TensorSpec([1, *x.shape[1:]], x.dtype) for x in rest]
    specs += [tf.TensorSpec([None] * rank, tf.int32) for rank in ranks]
    return Slopes(from_crossing, first.shape[1:], *specs)


def explained_labels(
    name: str,
    output: np.ndarray,
    predictor: Predictor,
    known: Prediction | None,
    why: Callable[[str, int], Reason],
) -> Explanation:
    """Returns why a classifier answers one example as it does.

    Args:
        name: The example's id.
        output: Of the model, `[1, outputs]`.
        predictor: Of the run.
        known: What is right, if somebody knows.
        why: From the title and the place of an output to the reason for it.
    """
    (row,) = predictions([name], None, output, predictor.class_names, kind=predictor.labels)
    targets = label_targets(output[0], predictor.task, known)
    return Explanation(
        id=name,
        prediction=str(row.prediction),
        probability=row.probability,
        label=None if known is None else str(known.label),
        reasons=tuple(why(*target) for target in targets),
    )


def output_said(said: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    """Returns the output of a classifier, `[1, outputs]`, that was answered in words."""
    return np.array([[said["probabilities"][n] for n in names] if names else [said["prediction"]]])


def label_targets(
    output: np.ndarray, task: Mapping[str, Any], known: Prediction | None
) -> list[tuple[str, int]]:
    """Returns which outputs of a classifier to explain: (title, place).

    That is what it says, and what is right where it is wrong.

    Args:
        output: Of one example, `[outputs]`.
        task: The task.json.
        known: What is right, if somebody knows.
    """
    names = list(task["class_names"])
    if task["labels"] == "regression":
        return [("The number it says", 0)]
    said = [int(output.argmax())]
    if task["labels"] == "multi":
        said = [int(place) for place in np.flatnonzero(output >= 0.5)] or said
    right = set()
    if known is not None:
        cells = str(known.label).split("|") if task["labels"] == "multi" else [str(known.label)]
        right = {names.index(cell) for cell in cells if cell in names}
    found = [(f"Why “{names[place]}”", place) for place in said]
    missed = sorted(right - set(said))
    return found + [(f"Why not “{names[place]}”, which is right", place) for place in missed]


def reason(title: str, found: Attribution, **shown: Any) -> Reason:
    """Returns what was found as pages show it."""
    return Reason(title, found.output, found.baseline, found.gap, found.places, **shown)


def check_count(count: int, what: str) -> None:
    """Refuses more inputs than a person reads pages."""
    if count > MOST_INPUTS:
        raise UserError(
            f"{count:,} {what} were given.",
            f"At most {MOST_INPUTS} are explained at once, on a page each.",
            "Name those that you want to look at.",
        )


def check_kind(inputs: Sequence[str], predictor: Predictor) -> None:
    """Refuses pictures where the run is about texts, whose names would be taken for texts."""
    for given in inputs:
        if Path(given[-255:]).suffix.lower() in IMAGE_SUFFIXES and Path(given).is_file():
            raise UserError(
                f"{given} is a picture, and the run is about {predictor.nouns[1]}.",
                "Texts in quotes, text files, or a table with --csv.",
                "Name a run about pictures, or give a text.",
            )


def check_length(text: str, name: str) -> None:
    """Refuses texts that no page shows."""
    if len(text) > LONGEST_TEXT:
        raise UserError(
            f"The text {name[:60]!r} has {len(text):,} characters.",
            f"At most {LONGEST_TEXT:,} are explained.",
            "Cut it to the part that you want to look at.",
        )


def unreadable(bad: Sequence[data.BadExample]) -> UserError:
    """Returns the error where nothing of what was given can be read."""
    return UserError(
        f"{bad[0].id} {bad[0].reason}.",
        "Pictures that can be decoded.",
        "Convert it to JPEG or PNG, or name another.",
    )
