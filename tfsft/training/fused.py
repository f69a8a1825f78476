"""Layers that only move numbers about, compiled by XLA: one pass over memory instead of a dozen.

On a processor the matrix products of a transformer are fast, and what lies between them is not:
TensorFlow computes a GELU in nine operations, its gradient in fifteen more, and each reads and
writes the whole tensor. XLA makes one loop of them. Matrix products stay with TensorFlow, whose
library (oneDNN) knows the processor better than XLA does.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

ACTIVATIONS = ("gelu", "silu", "swish", "mish", "elu", "selu", "softplus")
UPDATES, FOR_EACH_SHAPE = 200, 30  # from where on compiling costs less than it saves
NORMALISATIONS = re.compile(r"(Layer|RMS)_?Norm")


def pays(jit: str, strategy: tf.distribute.Strategy, updates: int, shapes: int) -> bool:
    """Says whether to compile.

    Args:
        jit: "on", "off", or "auto", which does so on processors, for trainings so long that
            compiling (half a second for each shape) is made up for.
        strategy: Whose devices count.
        updates: Steps of the training.
        shapes: Different shapes of batches.
    """
    if jit != "auto" or isinstance(strategy, tf.distribute.TPUStrategy):
        return jit == "on"
    slow = not tf.config.list_physical_devices("GPU")
    return slow and updates >= max(UPDATES, FOR_EACH_SHAPE * shapes)


class FusedLayers:
    """Compiles normalisations and activations of a model, for as long as `active`.

    The formulas stay those of the layers: they are called inside of a compiled function, once
    for the result, and once more for the gradient, which so keeps the input of a layer and
    nothing else. Layers alike share a function, so that each shape is compiled once for them all.

    Args:
        model: Keeps its layers; what is compiled is used by nothing but what is traced meanwhile.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self._functions: dict[str, Callable] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Uses the compiled layers in what is traced inside."""
        with contextlib.ExitStack() as changes:
            for layer in self.model._flatten_layers(include_self=False):
                if NORMALISATIONS.search(type(layer).__name__) and not layer._layers:
                    changes.enter_context(_changed(layer, "call", self._normalise(layer)))
                elif _name(getattr(layer, "activation", None)) in ACTIVATIONS:
                    fused = self._activation(layer.activation)
                    changes.enter_context(_changed(layer, "activation", fused))
            yield

    def _normalise(self, layer: keras.layers.Layer) -> Callable:
        config = {k: v for k, v in layer.get_config().items() if k not in ("name", "trainable")}
        key = f"{type(layer)} {json.dumps(config, default=str, sort_keys=True)}"
        variables = layer.variables
        plain = type(layer).call

        def compute(x: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
            mapping = list(zip(variables, weights, strict=True))
            # A call as any other, whose own `call` is not the compiled one.
            with keras.StatelessScope(state_mapping=mapping), _changed(layer, "call", None):
                return layer(x)

        fused = self._functions.setdefault(key, _compiled(compute))

        def call(x: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
            if args or any(value is not None for value in kwargs.values()):
                return plain(layer, x, *args, **kwargs)
            return fused(x, *(tf.convert_to_tensor(v.value) for v in variables))

        return call

    def _activation(self, activation: Callable) -> Callable:
        key = f"{_name(activation)} {id(activation)}"
        return self._functions.setdefault(key, _compiled(activation))


def _name(activation: Any) -> str:
    """Returns which function of Keras an activation is; KerasHub wraps some of them."""
    return re.sub(r"_(approximate|kernel)$", "", getattr(activation, "__name__", ""))


def _compiled(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns a function of tensors whose result and whose gradient are compiled."""
    forward = tf.function(function, jit_compile=True)

    @tf.function(jit_compile=True)
    def backward(upstream: tf.Tensor, *inputs: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(*inputs)
        return tape.gradient(outputs, inputs, upstream, unconnected_gradients="zero")

    @tf.custom_gradient
    def fused(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return forward(*inputs), lambda upstream: backward(upstream, *inputs)

    return fused


@contextlib.contextmanager
def _changed(layer: keras.layers.Layer, name: str, value: Any) -> Iterator[None]:
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
