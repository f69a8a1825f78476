"""Pretrained image backbones by name. A name means exactly that model, or a clear error."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
from keras.src.backend.common import global_state

from tfsft.errors import UsageError, nearest
from tfsft.models import applications, hub, starters

RANDOM = ":random"

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

    `auto` is the standard backbone, resnet50, where its ImageNet weights are cached or can be
    downloaded, else the starter efficientnet_lite0, which comes from the package index.

    Args:
        name: `auto`, or a name that `load_image_backbone` takes.
        kind: Only `image` as yet.

    Returns:
        The name to load, and the reason as a sentence for the screen.

    Raises:
        UsageError: There is no such model.
    """
    if kind != "image":
        raise UsageError(f"There are no backbones of kind '{kind}'.", "Known kinds: image.")
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
    where, key = _where(name)
    pretrained = not name.endswith(RANDOM)
    with _fresh_layer_names():
        if where == "keras.applications":
            model = applications.load_application(key, image_size, pretrained)
            preprocessing = applications.application_preprocessing(key)
            source = f"keras.applications, {'ImageNet' if pretrained else 'random'} weights"
        else:
            preset = str(starters.starter_path(key)) if where == "starter" else key
            model, preprocessing = hub.load_from_hub(preset, image_size, pretrained)
            source = f"{where} {preset}" if where != "starter" else f"starter {Path(preset).name}"
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
    _make_deterministic(model)
    _preprocess_in_float32(model)
    return ImageBackbone(model, preprocessing, name, source)


def _where(name: str) -> tuple[str, str]:
    """Returns where a name is known and its key there; looks at no network and loads no weights."""
    key = name.removesuffix(RANDOM)
    if key in starters.STARTERS:
        return "starter", key
    if key.lower() in applications.applications():
        return "keras.applications", key.lower()
    if "://" in key:
        scheme = key.split("://")[0]
        if scheme not in ("hf", "kaggle"):
            raise UsageError(
                f"'{name}' starts with {scheme}://.", "Known handles: hf://USER/MODEL, kaggle://..."
            )
        return "model hub", key
    if Path(key).is_dir():
        if not (Path(key) / "config.json").is_file():
            raise UsageError(
                f"The folder {key} has no config.json.",
                "Expected a model in Keras (save_to_preset), Hugging Face or timm format.",
            )
        return "folder", key
    known = [*starters.STARTERS, *applications.applications(), *hub.hub_presets()]
    if key in known:
        return "KerasHub preset", key
    if "/" in key or key.startswith((".", "~")):
        raise UsageError(
            f"There is no folder {key}.", fix="A Hugging Face model needs hf:// before its name."
        )
    raise UsageError(
        f"There is no backbone '{name}'.{nearest(key, known)}",
        "Expected auto, efficientnet_lite0, a model of keras.applications (resnet50, "
        "mobilenetv2, efficientnetv2b0, convnexttiny, ...), an image preset of KerasHub, "
        "an hf:// or kaggle:// handle, or a local folder.",
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


@contextmanager
def _fresh_layer_names() -> Iterator[None]:
    """Gives layers without a name of their own the same name however many models were built before.

    Checkpoints find weights by the names of their layers.
    """
    before = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", before)


def _make_deterministic(model: keras.Model) -> None:
    """Turns the backbone's dropout and stochastic depth off.

    Calling it with `training=False` is not enough: a functional model that is called with
    `training=True` hands that to the models inside it, whatever their own call said.
    """
    for layer in model._flatten_layers(include_self=False):
        for rate in ("rate", "drop_prob", "drop_path_rate"):
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)


def _preprocess_in_float32(model: keras.Model) -> None:
    """Keeps preprocessing that is built into a backbone exact under a mixed policy."""
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            layer.dtype_policy = "float32"
