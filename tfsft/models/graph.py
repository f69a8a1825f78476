"""The one place that looks into the graph of a functional Keras model, and changes its layers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


def is_functional(layer: Any) -> bool:
    """Tells whether a layer is a functional model, whose own graph can be walked."""
    return isinstance(layer, keras.Model) and hasattr(layer, "_nodes_by_depth")


def nodes(model: keras.Model) -> list:
    """Returns the calls (`Node`s) of a functional model in the order they run in, but no inputs."""
    by_depth = model._nodes_by_depth
    ordered = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in ordered if not node.is_input]


@contextlib.contextmanager
def changed(layer: keras.layers.Layer, name: str, value: Any) -> Iterator[None]:
    """Gives a layer another attribute, past what Keras tracks; None gives its class's own."""
    missing = object()
    before = layer.__dict__.pop(name, missing)
    if value is not None:
        layer.__dict__[name] = value
    try:
        yield
    finally:
        layer.__dict__.pop(name, None)
        if before is not missing:
            layer.__dict__[name] = before
