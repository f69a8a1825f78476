"""Where in a picture a model looks."""

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tfsft import data, models
from tfsft.data.sources import ImageSource
from tfsft.evaluation.explanations import Explanation, Reason
from tfsft.evaluation.predictions import Prediction
from tfsft.export.attribution import grad_cam, integrated_gradients
from tfsft.export.explainer import (
    Explainer,
    check_count,
    explained_labels,
    output_said,
    output_slopes,
    reason,
    unreadable,
)
from tfsft.export.image_predictor import ImagePredictor

GREY = 127
SHOWN = 320  # pixels of the side of a picture
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)
SMOOTHED = 1 / 60  # of the side: single pixels are noise to the eye
STRONGEST = 99.5  # percentile that has the full colour


class ImageExplainer(Explainer):
    """Explains pictures by Grad-CAM and integrated gradients."""

    baseline = "an even grey picture"
    predictor: ImagePredictor

    def __init__(self, predictor: ImagePredictor):
        super().__init__(predictor)
        self.below, above = models.cut_at_pixels(predictor.model)
        self.slopes = output_slopes(above, lambda y, place: y[:, place], 0)
        try:
            self.features = models.cut_at_features(predictor.model)
        except ValueError:  # a network without features that have a place has no Grad-CAM
            self.features = None

    def read(
        self, inputs: Sequence[str], table: str | None = None
    ) -> tuple[ImageSource, list[data.BadExample]]:
        """Returns the pictures that are meant, and those that cannot be read."""
        paths = self.predictor.read(inputs, table)
        check_count(len(paths), "pictures")
        source, bad = self.predictor.source(paths)
        if not len(source):
            raise unreadable(bad)
        return source, bad

    def chosen(self, source: ImageSource, rows: np.ndarray) -> ImageSource:
        """Returns some labelled pictures."""
        return source.subset(rows)

    def explain(
        self,
        examples: ImageSource,
        known: Mapping[str, Prediction] | None = None,
        said: Sequence[Mapping[str, Any]] | None = None,
    ) -> Iterator[Explanation]:
        """Yields why each picture is answered as it is; leaves out what cannot be decoded."""
        batches = self.predictor.pipeline(examples, batch_size=1).in_order().epoch()
        for place, (picture, _, readable) in enumerate(batches):
            if readable.numpy()[0] > 0:
                name, answer = examples.ids[place], said[place] if said else None
                yield self._explanation(picture.numpy(), name, (known or {}).get(name), answer)

    def _explanation(
        self,
        picture: np.ndarray,
        name: str,
        known: Prediction | None,
        said: Mapping[str, Any] | None,
    ) -> Explanation:
        features, names = self._looked(picture), self.predictor.class_names
        output = self._top(features).numpy() if said is None else output_said(said, names)
        why = partial(self._reason, picture, features)
        return explained_labels(name, output, self.predictor, known, why)

    def _reason(
        self, picture: np.ndarray, features: list[tf.Tensor], title: str, place: int
    ) -> Reason:
        grey = np.full_like(picture, GREY)
        point, start = (tf.cast(self.below(x)[0], tf.float32).numpy() for x in (picture, grey))
        found = integrated_gradients(
            self.slopes, point, start, tf.constant(place), batch=8, most=self.most, until=self.until
        )
        shown = [
            ("what the model sees", _png(_enlarged(picture[0]))),
            ("integrated gradients", draw_signed(picture[0], found.values)),
        ]
        heat = self._heat(features, place)
        if heat is not None:
            shown.insert(1, ("Grad-CAM", draw_heat(picture[0], heat)))
        return reason(title, found, pictures=tuple(shown))

    def _looked(self, picture: np.ndarray) -> list[tf.Tensor]:
        """Returns the features of a picture, and what else the output is made of."""
        return [picture] if self.features is None else tf.nest.flatten(self.features[0](picture))

    def _top(self, features: list[tf.Tensor]) -> tf.Tensor:
        """Returns the output for what `_looked` returns."""
        above = self.predictor.model if self.features is None else self.features[1]
        return above(features if len(features) > 1 else features[0], training=False)

    def _heat(self, features: list[tf.Tensor], place: int) -> np.ndarray | None:
        if self.features is None:
            return None

        def score(first: tf.Tensor) -> tf.Tensor:
            y = self._top([first, *features[1:]])
            if self.predictor.labels == "regression":
                return y[:, place]
            # Before it is squeezed: a sure answer still has a slope there.
            return tf.math.log(tf.maximum(y[:, place], 1e-30))

        return grad_cam(score, features[0])


def draw_heat(picture: np.ndarray, heat: np.ndarray) -> bytes:
    """Returns a picture under a heat map, as PNG.

    Args:
        picture: uint8 `[height, width, 3]`.
        heat: 0 to 1, `[h, w]`.
    """
    import matplotlib

    base = _enlarged(picture)
    large = Image.fromarray(np.asarray(heat, np.float32)).resize(
        base.shape[1::-1], Image.Resampling.BILINEAR
    )
    share = np.clip(np.asarray(large), 0, 1)[..., None]
    colours = matplotlib.colormaps["inferno"](share[..., 0])[..., :3] * 255
    return _png(base * (1 - 0.65 * share) + colours * 0.65 * share)


def draw_signed(picture: np.ndarray, values: np.ndarray) -> bytes:
    """Returns a pale picture under what speaks for an output (blue) and against it (orange).

    Args:
        picture: uint8 `[height, width, 3]`.
        values: `[height, width]`.
    """
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(np.asarray(values, np.float64), SMOOTHED * max(values.shape))
    base = _enlarged(picture).mean(axis=-1, keepdims=True) * 0.4 + 150
    large = Image.fromarray(values.astype(np.float32)).resize(
        base.shape[1::-1], Image.Resampling.BILINEAR
    )
    signed = np.asarray(large)[..., None]
    strength = np.clip(abs(signed) / (np.percentile(abs(signed), STRONGEST) or 1.0), 0, 1)
    colour = np.where(signed > 0, np.array(BLUE), np.array(ORANGE))
    return _png(base * (1 - 0.85 * strength) + colour * 0.85 * strength)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.asarray(picture, np.uint8))
    scale = SHOWN / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return np.asarray(image.resize(size, how), np.float32)


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.clip(picture.round(), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
