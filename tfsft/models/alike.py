"""Blocks that are alike, traced once: the layers of a transformer are calls of one function, which
TensorFlow puts into the graph for each of them. Tracing takes longer than that by far.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfsft.models.graph import changed, is_functional

FEWEST = 4  # blocks that are worth a function
NAMES = ("name", "_name", "_path", "_parent_path")


@contextlib.contextmanager
def traced_once(
    model: keras.Model, rounded: Mapping[keras.layers.Layer, tf.Tensor] | None = None
) -> Iterator[None]:
    """Traces blocks of a model that are alike once, in what is traced inside; what runs eagerly
    stays as it is.

    Args:
        model: Keeps its layers and weights.
        rounded: As for `lean_layers`.
    """
    with contextlib.ExitStack() as changes:
        for blocks in alike(model):
            function = _Function(blocks[0], rounded or {})
            for block in blocks:
                changes.enter_context(changed(block, "call", function.of(block)))
        yield


def alike(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """Returns the blocks of a transformer that differ in nothing but their weights and names."""
    groups = defaultdict(list)
    for layer in model._flatten_layers(include_self=False):
        # Blocks of KerasHub have no class in common, but names like TransformerEncoder and
        # GemmaDecoderBlock (T5's have not, and are left as they are).
        if "coder" not in type(layer).__name__ or is_functional(layer):
            continue
        inner = list(layer._flatten_layers())
        # The next seed of a block's dropout would not come out of its function.
        if not any(getattr(part, "_seed_generators", ()) for part in inner):
            weights = [(v.name, v.shape, str(v.dtype), v.trainable) for v in layer.variables]
            groups[repr([weights, *map(_settings, inner)])].append(layer)
    return [blocks for blocks in groups.values() if len(blocks) >= FEWEST]


def _settings(layer: keras.layers.Layer) -> list:
    """Returns what a layer has been told, but for its name."""
    plain = (int, float, str, type(None))
    settings = {k: v for k, v in vars(layer).items() if isinstance(v, plain) and k not in NAMES}
    return [type(layer), sorted(settings.items()), getattr(layer, "activation", None)]


class _Function:
    """What blocks compute, traced with the layers of the first of them.

    Args:
        block: The first one.
        rounded: Kernels to compute with.
    """

    def __init__(self, block: keras.layers.Layer, rounded: Mapping[keras.layers.Layer, tf.Tensor]):
        self._block = block
        self._rounded = rounded
        self._traced = tf.function(self._compute, autograph=False)

    def of(self, block: keras.layers.Layer) -> Callable:
        """Returns what takes the place of a block's `call`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not tf.inside_function():  # this function would be traced for a single step
                return type(block).call(block, *args, **kwargs)
            plain = tuple((k, v) for k, v in sorted(kwargs.items()) if not tf.is_tensor(v))
            tensors = {k: v for k, v in kwargs.items() if tf.is_tensor(v)}
            values = [tf.convert_to_tensor(v._value) for v in block.variables]
            kernels = [self._rounded[layer] for layer in self._layers(block)]
            return self._traced(values, kernels, args, tensors, plain)

        return call

    def _layers(self, block: keras.layers.Layer) -> list[keras.layers.Layer]:
        return [layer for layer in block._flatten_layers() if layer in self._rounded]

    def _compute(
        self, values: list, kernels: list, args: tuple, tensors: dict, plain: tuple
    ) -> Any:
        block = self._block
        given = [
            (v, value if v.trainable else tf.stop_gradient(value))
            for v, value in zip(block.variables, values, strict=True)
        ]
        with contextlib.ExitStack() as changes:
            for layer, kernel in zip(self._layers(block), kernels, strict=True):
                changes.enter_context(changed(layer, "_kernel", tf.stop_gradient(kernel)))
            changes.enter_context(keras.StatelessScope(state_mapping=given))
            return type(block).call(block, *args, **tensors, **dict(plain))
