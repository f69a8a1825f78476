"""The models of keras.applications by name, with the preprocessing that each was trained with."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from tfsft.errors import UsageError, UserError

_SILENCE_SECONDS = 30


def applications() -> dict[str, Callable]:
    """Returns the builder functions of keras.applications by lower-case name (`resnet50`)."""
    return {
        name.lower(): value
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }


def load_application(name: str, image_size: int, pretrained: bool) -> keras.Model:
    """Builds a model of keras.applications without its classifier.

    Args:
        name: A key of `applications()`.
        image_size: Side of the square input, in pixels.
        pretrained: Whether to load the ImageNet weights, from Keras's cache or by download.

    Raises:
        UsageError: The model cannot take pictures that small.
        UserError: The weights cannot be downloaded.
    """
    try:
        with _socket_timeout(_SILENCE_SECONDS):
            model = applications()[name](
                include_top=False,
                weights="imagenet" if pretrained else None,
                input_shape=(image_size, image_size, 3),
            )
    except Exception as error:
        if "Input size must be at least" in str(error):
            least = str(error).split("at least ")[1].split("x")[0]
            raise UsageError(
                f"The image size {image_size} is too small for {name}.",
                f"It takes pictures from {least} pixels.",
                f"Use --image-size {least} or more, or another --backbone.",
            ) from error
        if not pretrained or isinstance(error, (MemoryError, TypeError)):
            raise
        raise UserError(
            f"The ImageNet weights of {name} could not be downloaded: {_first_line(error)}",
            f"They are downloaded once, from storage.googleapis.com to {keras_cache()}.",
            "Without that network, copy the file into that folder, give --backbone a local folder "
            "with a model, or use --backbone auto, which falls back to efficientnet_lite0.",
        ) from error
    model.name = "backbone"  # afterwards: EfficientNetV2 looks its architecture up by this argument
    return model


def application_preprocessing(name: str) -> list[keras.layers.Layer]:
    """Returns Keras layers that do to RGB 0..255 what the model's own `preprocess_input` does.

    Every such function swaps channels or not, then scales and shifts each channel, so three pure
    colours tell all about it. Models with preprocessing built in have one that does nothing.

    Args:
        name: A key of `applications()`.
    """
    preprocess_input = sys.modules[applications()[name].__module__].preprocess_input
    offset = preprocess_input(np.zeros((1, 1, 1, 3)), data_format="channels_last")[0, 0, 0]
    colours = 255 * np.eye(3).reshape(3, 1, 1, 3)
    gains = (preprocess_input(colours, data_format="channels_last")[:, 0, 0] - offset) / 255

    swapped = gains[0, 0] == 0
    scale = np.diag(gains[::-1] if swapped else gains)
    layers = [rgb_to_bgr()] if swapped else []
    return [*layers, rescaling(scale, offset)]


def rescaling(scale: float | np.ndarray, offset: float | np.ndarray) -> keras.layers.Layer:
    """Returns the layer `x * scale + offset`, for each channel, in float32 under any policy."""
    plain = [np.broadcast_to(np.asarray(value, "float64"), 3).tolist() for value in (scale, offset)]
    return keras.layers.Rescaling(*plain, dtype="float32", name="rescale")


def rgb_to_bgr() -> keras.Model:
    """Returns a layer that turns the channels round: a functional model, as Keras has none."""
    pictures = keras.Input((None, None, 3), dtype="float32", name="rgb")
    return keras.Model(pictures, keras.ops.flip(pictures, axis=-1), name="rgb_to_bgr")


def keras_cache() -> str:
    """Returns the folder where Keras keeps downloaded weights."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return str(Path(home).expanduser() / "models")


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Keras downloads without a timeout: behind a silent firewall it would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
