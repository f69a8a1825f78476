"""The model of a run as a server sees it: what it takes, what it gives, and how it is called."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tfsft.data.images import decode_image, inspect_image, resize
from tfsft.evaluation.predictions import predictions
from tfsft.export.predictor import Predictor, label_answers
from tfsft.export.served import serve_answers, serve_pictures, serve_tags, serve_texts
from tfsft.export.serving.problems import Problem, TooLarge
from tfsft.export.serving.settings import Settings
from tfsft.export.text_predictors import entity_answer

Outputs = dict[str, Any]


@dataclass(frozen=True)
class Tensor:
    """What goes in or comes out, for all examples of a call together.

    Args:
        name: As protocols call it.
        dtype: "string", "uint8", "int64" or "float32".
        shape: Of one example; -1 is any size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()


class ServedModel:
    """What the models of all tasks have in common.

    `inputs` and `outputs` are those of the SavedModel that `tfsft export` writes; `words` is what
    people call the inputs.
    """

    words: tuple[str, ...] = ("text",)
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __init__(self, predictor: Predictor, settings: Settings):
        self.predictor = predictor
        self.settings = settings
        self.task = predictor.task

    def prepare(self, example: Mapping[str, Any]) -> Any:
        """Returns an example ready for the model; several threads may call it at once.

        Args:
            example: A value for each input: a text, or a picture as bytes of a file or uint8
                `[height, width, 3]`.

        Raises:
            Problem: It cannot be used.
        """
        return tuple(checked_text(example[i.name], i.name, self.settings) for i in self.inputs)

    def size(self, row: Any) -> int:
        """Returns how much of a batch an example takes up, in characters."""
        return sum(map(len, row))

    def run(self, rows: Sequence[Any]) -> list[Outputs]:
        """Returns what the model says of each example; called in one thread alone."""
        raise NotImplementedError

    def tidy(self, row: Any, outputs: Outputs) -> dict[str, Any]:
        """Returns an answer as `tfsft predict` gives it."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Answers once, which takes longer than later."""
        row = self.prepare(self.sample())
        for rows in ([row], [row] * self.settings.batch):
            self.tidy(row, self.run(rows)[0])

    def sample(self) -> dict[str, Any]:
        """Returns an example to warm up with."""
        return {tensor.name: "This is a good day." for tensor in self.inputs}


class GraphModel(ServedModel):
    """A model that answers in one graph, the one that `tfsft export` writes."""

    def __init__(
        self, predictor: Predictor, settings: Settings, function: Callable, signature: list
    ):
        super().__init__(predictor, settings)
        self._graph = tf.function(function, input_signature=signature, autograph=False)
        found = self._graph.get_concrete_function()
        self.words = getattr(predictor, "columns", self.words)
        self.inputs = tuple(_tensor(spec.name, spec) for spec in signature)
        self.outputs = tuple(_tensor(*named) for named in found.structured_outputs.items())

    def run(self, rows: Sequence[Any]) -> list[Outputs]:
        """Returns what the graph says, of each example by the names of the outputs."""
        found: list[Outputs] = [{}] * len(rows)
        for places in alike([self.size(row) for row in rows]):
            columns = zip(*(rows[place] for place in places), strict=True)
            outputs = self._graph(*(self._column(list(column)) for column in columns))
            arrays = {name: value.numpy() for name, value in outputs.items()}
            for i, place in enumerate(places):
                found[place] = self._row({name: array[i] for name, array in arrays.items()})
        return found

    def _column(self, values: list) -> tf.Tensor:
        return tf.constant([value.encode() for value in values], tf.string)

    def _row(self, outputs: dict[str, np.ndarray]) -> Outputs:
        return {name: _plain(value) for name, value in outputs.items()}


class Labels(GraphModel):
    """Classes, or a number, of texts."""

    def tidy(self, row: Any, outputs: Outputs) -> dict[str, Any]:
        """Returns the answer in words, with the probability of every class."""
        names, kind = self.predictor.class_names, self.predictor.labels
        scores = np.array([outputs["probabilities" if names else "value"]], np.float32)
        said = predictions([""], None, scores, names, kind=kind)
        (answer,) = label_answers(said, scores, names)
        del answer["id"]
        return answer


class Pictures(Labels):
    """Classes, or a number, of pictures."""

    words = ("picture",)

    def __init__(self, *given: Any):
        super().__init__(*given)
        # Those of any size that the exported model takes; here they come resized.
        self.inputs = (Tensor("pictures", "uint8", (-1, -1, 3)),)

    def prepare(self, example: Mapping[str, Any]) -> Any:
        """Returns a picture in the size of the model."""
        given = example["pictures"]
        image = self._decoded(given) if isinstance(given, bytes) else self._checked(given)
        return (resize(image, self.task["image_size"]).numpy(),)

    def size(self, row: Any) -> int:
        """Returns nothing: all pictures are alike."""
        return 0

    def sample(self) -> dict[str, Any]:
        """Returns a black picture."""
        file = io.BytesIO()
        Image.new("RGB", (64, 48)).save(file, "PNG")
        return {"pictures": file.getvalue()}

    def _column(self, values: list) -> tf.Tensor:
        return tf.constant(np.stack(values))

    def _decoded(self, file: bytes) -> tf.Tensor:
        reason = inspect_image(file)
        if reason:
            raise Problem(f"The picture {reason}. JPEG, PNG, BMP, GIF and WebP are read.")
        with Image.open(io.BytesIO(file)) as image:  # the header alone
            self._check_pixels(image.width * image.height)
        pixels, good = decode_image(tf.constant(file))
        if not good:
            raise Problem("The content of the picture cannot be decoded.")
        return pixels

    def _checked(self, given: Any) -> tf.Tensor:
        image = pixels(given)
        if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise Problem(f"A picture is [height, width, 3] and not {list(image.shape)}.")
        self._check_pixels(image.size // 3)
        return tf.constant(image)

    def _check_pixels(self, pixels: int) -> None:
        if pixels > self.settings.max_pixels:
            raise TooLarge(
                f"The picture has {pixels:,} pixels, and at most {self.settings.max_pixels:,} are "
                "taken. Make it smaller."
            )


class Tags(GraphModel):
    """Entities in texts."""

    def tidy(self, row: Any, outputs: Outputs) -> dict[str, Any]:
        """Returns the entities, with their place in characters."""
        return entity_answer(row[0], outputs, self.task["tags"])

    def _row(self, outputs: dict[str, np.ndarray]) -> Outputs:
        words = int(np.sum(outputs["starts"] >= 0))  # the rest is filler
        return super()._row({name: value[:words] for name, value in outputs.items()})


class Answers(GraphModel):
    """Answers to questions in their contexts."""

    def tidy(self, row: Any, outputs: Outputs) -> dict[str, Any]:
        """Returns the answer and where it stands in the context."""
        found = outputs["start"] >= 0
        return {
            "prediction": outputs["answer"],
            "probability": outputs["probability"],
            "start": outputs["start"] if found else None,
            "end": outputs["end"] if found else None,
        }


class Writing(ServedModel):
    """Texts that are made of texts: summaries, translations, answers of an assistant."""

    inputs = (Tensor("texts", "string"),)
    outputs = (Tensor("answer", "string"),)

    def __init__(self, predictor: Predictor, settings: Settings):
        super().__init__(predictor, settings)
        self.answerer = predictor.answerer(settings.max_new_tokens)

    def run(self, rows: Sequence[Any]) -> list[Outputs]:
        """Returns the answer to each text."""
        chats = [[*self.predictor.begin(), {"role": "user", "content": text}] for (text,) in rows]
        answers, _ = self.answerer.answer(chats)
        return [{"answer": answer} for answer in answers]

    def tidy(self, row: Any, outputs: Outputs) -> dict[str, Any]:
        """Returns the answer."""
        return {"prediction": outputs["answer"]}


def served_model(predictor: Predictor, settings: Settings) -> ServedModel:
    """Returns the model of a run, ready to be called.

    Args:
        predictor: Of the run.
        settings: With the limits.
    """
    task = predictor.task
    if task["task"] == "image_classification":
        return Pictures(predictor, settings, *serve_pictures(predictor.model, task))
    texts = {
        "text_classification": (Labels, serve_texts),
        "token_classification": (Tags, serve_tags),
        "question_answering": (Answers, serve_answers),
    }
    if task["task"] in texts:
        kind, serve = texts[task["task"]]
        return kind(predictor, settings, *serve(predictor.model, predictor.encoder, task))
    if task["task"] == "chat":
        from tfsft.export.serving.assistant import Assistant

        return Assistant(predictor, settings)
    return Writing(predictor, settings)


def alike(sizes: Sequence[int]) -> list[list[int]]:
    """Returns the places of examples in groups of alike sizes.

    All examples of a call are padded to the longest; so a short one waits for less in a call of
    its own than it would cost beside a long one.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
        if groups and sizes[place] <= 1.5 * sizes[groups[-1][0]] + 40:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def checked_text(text: Any, name: str, settings: Settings) -> str:
    """Returns a text that is one, and not too long.

    Raises:
        Problem: It is not.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not isinstance(text, str):
        raise Problem(f"{name!r} is a {type(text).__name__} and not a text.")
    if len(text) > settings.max_text:
        raise TooLarge(
            f"{name!r} has {len(text):,} characters, and at most {settings.max_text:,} are taken. "
            "Shorten it."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Problem(f"{name!r} is no valid UTF-8.") from error
    return text


def pixels(given: Any) -> np.ndarray:
    """Returns numbers from 0 to 255 in lists of lists, or an array of these, as uint8.

    Raises:
        Problem: They are something else.
    """
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise Problem("The rows of a picture must be of the same length.") from error
    if array.dtype != np.uint8:
        if array.dtype.kind not in "iu" or array.min(initial=0) < 0 or array.max(initial=0) > 255:
            raise Problem(
                'A picture is {"b64": "the file in base64"}, or whole numbers from 0 to 255.'
            )
        array = array.astype(np.uint8)
    return array


def _tensor(name: str, spec: Any) -> Tensor:
    shape = tuple(-1 if size is None else size for size in spec.shape[1:])
    return Tensor(name, tf.as_dtype(spec.dtype).name, shape)


def _plain(value: np.ndarray | np.generic | bytes) -> Any:
    """Returns Python's own values; what is no number is None, as JSON has no other word for it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value.dtype == object:
        return [_plain(item) for item in value]
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        flat = [float(x) if np.isfinite(x) else None for x in np.ravel(value)]
        return flat if value.ndim else flat[0]
    return value.tolist()
