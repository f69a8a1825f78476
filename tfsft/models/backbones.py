"""Pretrained image backbones by name. A name means exactly that model, or a clear error."""

import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import keras

from tfsft.errors import UsageError
from tfsft.models import applications, causal_lms, hub, seq2seq_lms, starters, text_backbones
from tfsft.models.loading import (
    RANDOM,
    foreign_weights,
    fresh_layer_names,
    make_deterministic,
    where,
)

_STANDARD, _STARTER = "resnet50", "efficientnet_lite0"
_STANDARD_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
_STANDARD_URL = (
    f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{_STANDARD_FILE}"
)
_ANSWER_SECONDS = 4


@dataclass(frozen=True)
class ImageBackbone:
    """A pretrained image model without its classifier.

    Args:
        model: Named `backbone`; takes preprocessed pictures [n, image_size, image_size, 3], returns
            a feature map [n, height, width, channels] or tokens [n, tokens, channels].
        preprocessing: Keras layers, in float32, from RGB 0..255 to what `model` was trained on.
        name: As it was asked for.
        source: Where the weights come from, for people to read.
    """

    model: keras.Model
    preprocessing: list[keras.layers.Layer]
    name: str
    source: str


def resolve(name: str, kind: str = "image") -> tuple[str, str]:
    """Decides which backbone a name stands for, before anything is downloaded or built.

    `auto` is the standard backbone of its kind, resnet50 or bert_base_en_uncased, where its weights
    are cached or can be downloaded, else the starter, efficientnet_lite0 or minilm, which comes
    from the package index.

    Args:
        name: `auto`, or a name that `load_image_backbone`, `load_text_backbone`, `load_causal_lm`
            or `load_seq2seq_lm` takes.
        kind: `image`; `text`; `chat`, for which `auto` is the starter smollm2; or `seq2seq`, for
            which it is bart_base_en or an error, as there is no starter.

    Returns:
        The name to load, and the reason as a sentence for the screen.

    Raises:
        UsageError: There is no such model.
    """
    if kind == "text":
        return text_backbones.resolve(name)
    if kind == "chat":
        return causal_lms.resolve(name)
    if kind == "seq2seq":
        return seq2seq_lms.resolve(name)
    if kind != "image":
        raise UsageError(
            f"There are no backbones of kind '{kind}'.", "Known kinds: image, text, chat, seq2seq."
        )
    if name != "auto":
        _where(name)
        return name, f"{name} was asked for by name."
    if (Path(applications.keras_cache()) / _STANDARD_FILE).is_file():
        return _STANDARD, f"{_STANDARD}: its ImageNet weights are in {applications.keras_cache()}."
    if _answers(_STANDARD_URL):
        return _STANDARD, f"{_STANDARD}: its ImageNet weights can be downloaded."
    return _STARTER, (
        f"{_STARTER}: the ImageNet weights of {_STANDARD} are not in {applications.keras_cache()} "
        "and storage.googleapis.com does not offer them, so the starter from the package index "
        "takes its place."
    )


def load_image_backbone(name: str, image_size: int) -> ImageBackbone:
    """Loads a pretrained image backbone and the preprocessing it was trained with.

    Args:
        name: `auto`; a model of keras.applications (`resnet50`, `efficientnetv2b0`); a starter
            (`efficientnet_lite0`); a KerasHub preset (`vit_base_patch16_224_imagenet`); a
            `kaggle://` or `hf://` handle; or a local folder in Keras, Hugging Face or timm format.
            With `:random` at the end the weights stay random, for tests and timing.
        image_size: Side of the square pictures, in pixels.

    Raises:
        UsageError: There is no such model, or it does not take pictures of this size.
        UserError: The weights cannot be downloaded or read.
    """
    if name == "auto":
        name, _ = resolve(name)
    place, key = _where(name)
    pretrained = not name.endswith(RANDOM)
    with fresh_layer_names():
        if place == "keras.applications":
            model = applications.load_application(key, image_size, pretrained)
            preprocessing = applications.application_preprocessing(key)
            source = f"keras.applications, {'ImageNet' if pretrained else 'random'} weights"
        else:
            preset = str(starters.starter_path(key)) if place == "starter" else key
            with foreign_weights(preset, pretrained):
                model, preprocessing = hub.load_from_hub(preset, image_size, pretrained)
            source = f"{place} {preset}" if place != "starter" else f"starter {Path(preset).name}"
            source += "" if pretrained else ", random weights"
    if (
        len(model.inputs) != 1
        or len(model.outputs) != 1
        or len(model.outputs[0].shape) not in (3, 4)
    ):
        raise UsageError(
            f"'{name}' is not an image backbone.",
            "Expected a model that takes one picture and returns one feature map or row of tokens.",
        )
    if isinstance(model.input, dict):  # DINO's, which complains about a bare tensor
        model = keras.Model(model.inputs[0], model.outputs[0], name="backbone")
    make_deterministic(model)
    _preprocess_in_float32(model)
    return ImageBackbone(model, preprocessing, name, source)


def _where(name: str) -> tuple[str, str]:
    return where(
        name,
        {
            "starter": lambda: starters.names("image"),
            "keras.applications": applications.applications,
            "KerasHub preset": hub.hub_presets,
        },
        "auto, efficientnet_lite0, a model of keras.applications (resnet50, mobilenetv2, "
        "efficientnetv2b0, convnexttiny, ...), an image preset of KerasHub, an hf:// or kaggle:// "
        "handle, or a local folder in Keras (save_to_preset), Hugging Face or timm format.",
    )


def _answers(url: str) -> bool:
    """Asks a server for the size of a file; a machine without network must not wait for long."""
    answer = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:
                answer.append(int(response.headers.get("Content-Length", 0)))
        except (OSError, ValueError):
            pass

    # A thread, because no timeout covers a name server that does not answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return bool(answer) and answer[0] > 1_000_000  # a login page of a hotel is smaller than weights


def _preprocess_in_float32(model: keras.Model) -> None:
    """Keeps preprocessing that is built into a backbone exact under a mixed policy."""
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            layer.dtype_policy = "float32"
