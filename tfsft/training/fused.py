"""Layers that only move numbers about, compiled by XLA: one pass over memory instead of a dozen.

On a processor the matrix products of a transformer are fast, and what lies between them is not:
TensorFlow computes a GELU in nine operations, its gradient in fifteen more, and each reads and
writes the whole tensor. XLA makes one loop of them. Matrix products stay with TensorFlow, whose
library (oneDNN) knows the processor better than XLA does.
"""

import contextlib
import json
import re
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from tfsft.models.alike import traced_once
from tfsft.models.graph import changed
from tfsft.training.lean import lean_layers

ACTIVATIONS = ("gelu", "silu", "swish", "mish", "elu", "selu", "softplus")
UPDATES, FOR_EACH_SHAPE = 200, 30  # from where on compiling costs less than it saves
NORMALISATIONS = re.compile(r"(Layer|RMS)_?Norm")

_functions: dict[str, Callable] = {}  # compiled, by what they compute


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


def compilable(model: keras.Model) -> set[keras.layers.Layer]:
    """Returns the layers of a model that `faster` can compile; makes their functions ready.

    To be called outside of any strategy's scope and of anything that is traced.
    """
    layers = model._flatten_layers(include_self=False)
    return {layer for layer in layers if _function(layer) is not None}


@contextlib.contextmanager
def faster(
    model: keras.Model,
    compiled: Container[keras.layers.Layer] = (),
    rounded: Mapping[keras.layers.Layer, tf.Tensor] | None = None,
) -> Iterator[None]:
    """Computes a model in fewer operations, in what is traced inside.

    The formulas stay those of the layers. Compiled layers call them inside of a compiled function,
    once for the result, and once more for the gradient, which so keeps the input of a layer and
    nothing else. Layers alike share a function, also those of other models, so that each shape is
    compiled once for them all.

    Args:
        model: Keeps its layers and weights.
        compiled: Those of its layers to compile, of `compilable`.
        rounded: As for `lean_layers`.
    """
    with contextlib.ExitStack() as changes:
        changes.enter_context(lean_layers(model, rounded))
        changes.enter_context(traced_once(model, rounded))
        for layer in model._flatten_layers(include_self=False):
            if layer in compiled and _is_norm(layer):
                changes.enter_context(changed(layer, "call", _normalise(layer)))
            elif layer in compiled:
                changes.enter_context(changed(layer, "activation", _function(layer)))
        yield


def _is_norm(layer: keras.layers.Layer) -> bool:
    return bool(NORMALISATIONS.search(type(layer).__name__)) and not layer._layers


def _function(layer: keras.layers.Layer) -> Callable | None:
    """Returns the compiled function of a layer's kind; None where there is nothing to compile."""
    activation = getattr(layer, "activation", None)
    if _is_norm(layer):
        config = {k: v for k, v in layer.get_config().items() if k not in ("name", "trainable")}
        key = f"{type(layer)} {json.dumps(config, default=str, sort_keys=True)}"
        make = partial(_formula, layer)
    elif _name(activation) in ACTIVATIONS:
        key, make = f"{_name(activation)} {id(activation)}", partial(_in_float32, activation)
    else:
        return None
    if key not in _functions:
        _functions[key] = _compiled(make())
    return _functions[key]


def _formula(layer: keras.layers.Layer) -> Callable:
    """Returns what a layer computes, as a function of its input and its weights."""
    twin = type(layer).from_config(layer.get_config())  # not to keep a whole model
    twin.build(layer._build_shapes_dict["input_shape"])

    def compute(x: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        with keras.StatelessScope(state_mapping=list(zip(twin.variables, weights, strict=True))):
            return twin(x)

    return compute


def _in_float32(function: Callable) -> Callable:
    """Returns a function that rounds its result alone and no number on the way, which also takes
    half as long: XLA rounds to bfloat16 by integer operations.
    """
    return lambda x: tf.cast(function(tf.cast(x, "float32")), x.dtype)


def _normalise(layer: keras.layers.Layer) -> Callable:
    fused, plain, variables = _function(layer), type(layer).call, layer.variables

    def call(x: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        if args or any(value is not None for value in kwargs.values()):
            return plain(layer, x, *args, **kwargs)
        return fused(x, *(tf.convert_to_tensor(v.value) for v in variables))

    return call


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
