"""What loading a model of any kind has in common: names, checks of foreign files, determinism."""

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
from keras.src.backend.common import global_state

from tfsft.errors import UsageError, UserError, nearest
from tfsft.untrusted import check_archive, check_folder, most_bytes

RANDOM = ":random"


def where(
    name: str, named: dict[str, Callable[[], Iterable[str]]], expected: str
) -> tuple[str, str]:
    """Finds out what a name stands for; looks at no network and loads no weights.

    Args:
        name: Of a backbone, with or without `:random`.
        named: For each place, what it is called and a function that lists the names it knows; the
            last is asked only about what is neither a handle nor a folder.
        expected: What a name may be, for the error.

    Returns:
        The place (`model hub`, `folder`, or a key of `named`), and the name there.

    Raises:
        UsageError: No place knows the name.
    """
    key = name.removesuffix(RANDOM)
    *quick, last = named
    for place in quick:
        if key.lower() in named[place]():
            return place, key.lower()
    if "://" in key:
        if key.split("://")[0] not in ("hf", "kaggle"):
            raise UsageError(
                f"'{name}' starts with {key.split('://')[0]}://.",
                "Known handles: hf://USER/MODEL, kaggle://...",
            )
        return "model hub", key
    if Path(key).is_dir():
        if not (Path(key) / "config.json").is_file():
            raise UsageError(f"The folder {key} has no config.json.", f"Expected {expected}")
        return "folder", key
    known = [word for place in named.values() for word in place()]
    if key in known:
        return last, key
    if "/" in key or key.startswith((".", "~")):
        raise UsageError(
            f"There is no folder {key}.", fix="A Hugging Face model needs hf:// before its name."
        )
    raise UsageError(f"There is no backbone '{name}'.{nearest(key, known)}", f"Expected {expected}")


def load_model(path: str | Path) -> keras.Model:
    """Loads a `.keras` file from anywhere, for inference.

    Raises:
        UserError: It is no such file, is damaged, or does what no saved model needs to do.
    """
    with _limited(path, check_archive(path)):
        try:
            return keras.models.load_model(path, compile=False, safe_mode=True)
        except MemoryError:
            raise
        except Exception as error:  # Keras has no error of its own for what it refuses
            reason = str(error).strip() or type(error).__name__
            reason = reason.split("Exception encountered: ")[-1]  # the cause is told last,
            reason = reason.split(" If you trust the source")[0]  # and how to open it anyway
            raise UserError(
                f"{path} cannot be loaded: {textwrap.shorten(reason, 300)}",
                "Expected a model of layers of Keras and KerasHub, without code of its own.",
                "Save it again, with the versions of Keras and KerasHub that are installed here.",
            ) from error


@contextmanager
def foreign_weights(preset: str, pretrained: bool = True) -> Iterator[None]:
    """Guards the loading of a preset: looks at a folder first, and limits what the model takes.

    Args:
        preset: As KerasHub takes it; what is no folder is fetched by KerasHub, and checked there.
        pretrained: Whether the weights are loaded; without, a model may be larger than its folder.

    Raises:
        UserError: The folder holds what no weights need, or describes a model that is far larger
            than its weights.
    """
    if not Path(preset).is_dir():
        yield
        return
    stored = check_folder(preset)
    with _limited(preset, stored if pretrained else math.inf):
        yield


@contextmanager
def _limited(path: str | Path, stored: float) -> Iterator[None]:
    """Ends the making of a model that takes far more memory than weights are stored for it."""
    add_weight, most, asked = keras.layers.Layer.add_weight, most_bytes(stored), 0

    def limited(layer: keras.layers.Layer, shape: Any = None, *args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 4 * math.prod(shape if isinstance(shape, tuple | list) else (shape or 1,))
        if asked > most:
            raise MemoryError
        return add_weight(layer, shape, *args, **options)

    keras.layers.Layer.add_weight = limited
    try:
        yield
    except Exception as error:  # Keras wraps what comes out of a layer
        if asked <= most:
            raise
        raise UserError(
            f"{path} describes a model of more than {most >> 20} MB, and stores "
            f"{stored / 2**20:.1f} MB of weights.",
            "Expected the weights of the whole model.",
            "Where the weights are only a Git LFS pointer, fetch them with `git lfs pull`; if the "
            "model is from somebody else, do not trust it.",
        ) from error
    finally:
        keras.layers.Layer.add_weight = add_weight


@contextmanager
def fresh_layer_names() -> Iterator[None]:
    """Gives layers without a name of their own the same name however many models were built before.

    Checkpoints find weights by the names of their layers.
    """
    before = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", before)


def make_deterministic(model: keras.Model) -> None:
    """Turns the backbone's dropout and stochastic depth off.

    Calling it with `training=False` is not enough: a functional model that is called with
    `training=True` hands that to the models inside it, whatever their own call said.
    """
    for layer in model._flatten_layers(include_self=False):
        for rate in ("rate", "drop_prob", "drop_path_rate"):
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)


def presets_of(tasks: dict[str, type]) -> dict[str, dict]:
    """Returns KerasHub's presets of the backbones that some task classes are made of."""
    presets: dict[str, dict] = {}
    for task in tasks.values():
        presets |= task.backbone_cls.presets
    return presets
