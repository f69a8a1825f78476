"""What loading an image backbone and loading a text backbone have in common."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
from keras.src.backend.common import global_state

from tfsft.errors import UsageError, nearest

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
