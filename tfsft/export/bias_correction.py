"""Makes up for what rounding weights to 8 bits does to the means of a picture network.

Large parts of pictures are alike, background for instance, so that rounded weights shift a channel
by nearly the same everywhere, and layer after layer adds to it. The shift of each layer is measured
on pictures and taken from its bias, before the model is quantised (Nagel et al., "Data-free
quantization through weight equalization and bias correction", 2019, with data).
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

PIXELS = 2**20  # of all pictures that are measured with; what flows takes some GB
_KERNELS = {  # where weights are rounded, and the axes of those of one channel
    keras.layers.DepthwiseConv2D: (0, 1),
    keras.layers.Conv2D: (0, 1, 2),
    keras.layers.Dense: (0,),
}
Found = list[tuple[keras.Variable, tf.Tensor]]


@contextmanager
def corrected_biases(model: keras.Model, pictures: np.ndarray, exact: int = 0) -> Iterator[None]:
    """Changes the biases of a model for as long as it is being quantised.

    Args:
        model: With layers of Keras; others stay as they are.
        pictures: As the model takes them, `[n, height, width, 3]`; as many as `PIXELS` allow.
        exact: So many convolutions, the first ones, will not be rounded.
    """
    most = max(PIXELS // (pictures.shape[1] * pictures.shape[2]), 8)
    before = []
    try:
        for variable, shift in _shifts(model, pictures[:most], exact):
            before.append((variable, variable.numpy()))
            variable.assign_add(shift)
        yield
    finally:
        for variable, value in reversed(before):
            variable.assign(value)


def _shifts(model: keras.Model, pictures: np.ndarray, exact: int) -> Found:
    """Returns what to add to which variable.

    The pictures go through the model twice at once: exact in the first half of the batch, and in
    the second with rounded weights and all that was corrected so far.
    """
    found: Found = []
    with _listening(model, found, exact):
        variables: list[keras.Variable] = []

        @tf.function
        def measure(batch: tf.Tensor) -> list[tf.Tensor]:
            model(batch, training=False)
            variables.extend(variable for variable, _ in found)
            return [shift for _, shift in found]

        shifts = measure(tf.concat([pictures, pictures], 0))
    return list(zip(variables, shifts, strict=True))


@contextmanager
def _listening(model: keras.Model, found: Found, exact: int) -> Iterator[None]:
    """Lets layers with weights, and the normalisation behind them, see both halves of a batch."""
    waiting: dict[object, tf.Tensor] = {}  # of layers without a bias, by their output
    convolutions, changed = itertools.count(), []
    try:
        for layer in model._flatten_layers():
            axes = next((of for kind, of in _KERNELS.items() if isinstance(layer, kind)), None)
            if axes is not None:
                changed.append((layer, layer.activation))
                kept = lambda axes=axes: len(axes) > 1 and next(convolutions) < exact  # noqa: E731
                layer.call = _twice(layer, layer.call, layer.activation, axes, kept, found, waiting)
                layer.activation = None
            elif isinstance(layer, keras.layers.BatchNormalization):
                changed.append((layer, None))
                layer.call = _normalised(layer, layer.call, found, waiting)
        yield
    finally:
        for layer, activation in changed:
            del layer.call
            if activation is not None:
                layer.activation = activation


def _twice(
    layer: keras.Layer,
    call: Callable,
    activation: Callable | None,
    axes: tuple[int, ...],
    kept: Callable[[], bool],
    found: Found,
    waiting: dict,
) -> Callable:
    """Returns a layer's function: with its weights for the first half, rounded for the second."""

    def both(inputs: tf.Tensor, **_: object) -> tf.Tensor:
        if kept():
            outputs = call(inputs)
            return outputs if activation is None else activation(outputs)
        exact, rounded = tf.split(inputs, 2)
        exact = call(exact)
        kernel = getattr(layer, "_kernel", layer.kernel)
        with keras.StatelessScope(state_mapping=[(kernel, _rounded(layer.kernel, axes))]):
            rounded = call(rounded)
        shift = _mean(exact) - _mean(rounded)
        if layer.use_bias:
            found.append((layer.bias, shift))
            rounded += shift
        outputs = tf.concat([exact, rounded], 0)
        if not layer.use_bias:
            waiting[outputs.ref()] = shift
        return outputs if activation is None else activation(outputs)

    return both


def _normalised(layer: keras.Layer, call: Callable, found: Found, waiting: dict) -> Callable:
    """Returns the function of a batch normalisation, which takes the shift of the layer before."""

    def corrected(inputs: tf.Tensor, *args: object, **options: object) -> tf.Tensor:
        shift = waiting.get(inputs.ref())
        if shift is not None:
            found.append((layer.moving_mean, -shift))
            exact, rounded = tf.split(inputs, 2)
            inputs = tf.concat([exact, rounded + shift], 0)
        return call(inputs, *args, **options)

    return corrected


def _rounded(kernel: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """Returns weights as 8 bits have them, with a scale for each channel."""
    kernel = tf.convert_to_tensor(kernel)
    scale = tf.reduce_max(tf.abs(kernel), axes, keepdims=True) / 127
    return tf.round(tf.math.divide_no_nan(kernel, scale)) * scale


def _mean(outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(outputs, tf.range(tf.rank(outputs) - 1))
