"""Layers of Keras in fewer operations, with the same formulas.

Keras multiplies `[batch, tokens, dim]` by the kernel of an EinsumDense layer example by example:
the gradient of the kernel is computed for each example, and summed then. TensorFlow sums the
gradient of a bias slower than it multiplies matrices. Dropout draws 32 random bits for a number
where 16 do. A batch normalisation that stays as it was pretrained is a factor and a shift for each
channel: they go into the kernel and the bias of the convolution before it, where they cost a pass
over its weights instead of several over its results.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfsft.models.graph import changed, is_functional

CHANCES = 1 << 16  # what a random number of dropout is one of


@contextlib.contextmanager
def lean_layers(
    model: keras.Model, rounded: Mapping[keras.layers.Layer, tf.Tensor] | None = None
) -> Iterator[None]:
    """Computes dense layers as products of two matrices, dropout from half of the random bits, and
    convolutions together with the frozen batch normalisation behind them.

    Args:
        model: Keeps its layers and weights; what is traced inside alone computes so.
        rounded: Kernels to compute with, of `rounded_kernels`.
    """
    with contextlib.ExitStack() as changes:
        for layer in model._flatten_layers(include_self=False):
            if rounded and layer in rounded:
                changes.enter_context(changed(layer, "_kernel", rounded[layer]))
            axes = _contracted(layer)
            if axes:
                changes.enter_context(changed(layer, "call", _product(layer, axes)))
            elif type(layer) is keras.layers.Dropout and layer.noise_shape is None:
                changes.enter_context(changed(layer, "call", _dropout(layer)))
        for convolution, norm in _normalised(model):
            changes.enter_context(changed(convolution, "call", _folded(convolution, norm)))
            changes.enter_context(changed(norm, "call", _nothing))
        yield


def rounded_kernels(model: keras.Model) -> dict[keras.layers.Layer, tf.Tensor]:
    """Returns frozen kernels in the number format their layers compute in, by layer: what would
    be rounded anew in every update.
    """
    kinds = (keras.layers.Dense, keras.layers.EinsumDense)
    kernels = {}
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, kinds) or layer.quantization_mode or layer.lora_enabled:
            continue
        adapter = getattr(layer, "adapter", None)
        if adapter is not None and adapter.lengths is not None:
            continue  # DoRA goes by the lengths of the weights themselves
        kernel = layer._kernel
        if not kernel.trainable and kernel.dtype != layer.compute_dtype:
            kernels[layer] = tf.cast(_value(kernel), layer.compute_dtype)
    return kernels


def _contracted(layer: keras.layers.Layer) -> int:
    """Returns how many axes at the end of an input meet those at the start of the kernel; 0 where
    they meet in another way.
    """
    if type(layer) not in (keras.layers.Dense, keras.layers.EinsumDense):
        return 0
    if layer.lora_enabled or layer.quantization_mode:
        return 0
    if type(layer) is keras.layers.Dense:
        return 1
    inputs, product = layer.equation.split(",")
    kernel, outputs = product.split("->")
    for axes in range(1, len(kernel)):
        lead, met, made = inputs[:-axes], kernel[:axes], kernel[axes:]
        if lead and inputs.endswith(met) and outputs == lead + made:
            return axes
    return 0


def _product(layer: keras.layers.Layer, axes: int) -> Callable[..., tf.Tensor]:
    plain = type(layer).call

    def call(x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        kernel = tf.convert_to_tensor(layer.kernel)
        bias = None if layer.bias is None else tf.convert_to_tensor(layer.bias)
        made = kernel.shape[axes:]
        short = x.shape.rank is None or x.shape.rank <= axes
        if short or x.dtype != kernel.dtype or (bias is not None and bias.shape != made):
            return plain(layer, x)
        width = math.prod(kernel.shape[:axes])
        y = tf.reshape(x, [-1, width]) @ tf.reshape(kernel, [width, -1])
        # Shaped before the bias is added: TensorFlow would make one operation of product and bias,
        # which takes three times as long as the product where weights are no constants.
        y = tf.reshape(y, tf.concat([tf.shape(x)[:-axes], made], 0))
        y.set_shape([*x.shape[:-axes], *made])
        if bias is not None:
            y = _biased(y, bias)
        return y if layer.activation is None else layer.activation(y)

    return call


@tf.custom_gradient
def _biased(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Adds a bias to the last axes; its gradient, a sum of rows, is a product of matrices, too."""

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.reshape(upstream, [-1, tf.size(bias)])
        return upstream, tf.reshape(_sum_of_rows(rows), bias.shape)

    return x + bias, gradients


def _sum_of_rows(matrix: tf.Tensor) -> tf.Tensor:
    return (tf.ones([1, tf.shape(matrix)[0]], matrix.dtype) @ matrix)[0]


def _dropout(layer: keras.layers.Dropout) -> Callable[..., tf.Tensor]:
    kept = CHANCES - round(layer.rate * CHANCES)  # of so many chances

    def call(x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or kept == CHANCES:
            return x
        seed, size = tf.cast(layer.seed_generator.next(), "int32"), tf.size(x)
        pairs = tf.random.stateless_uniform([(size + 1) // 2], seed, None, None, "int32")
        chances = tf.reshape(tf.bitcast(pairs, "uint16"), [-1])[:size]
        scale = CHANCES / kept if kept else 0.0
        mask = tf.cast(chances < kept, x.dtype) * tf.cast(scale, x.dtype)
        return x * tf.reshape(mask, tf.shape(x))

    return call


def _normalised(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Yields convolutions, each with the frozen batch normalisation that alone sees its output."""
    layers = list(model._flatten_layers())
    ends = {
        tensor._keras_history.operation
        for inner in layers
        if is_functional(inner)
        for tensor in inner.outputs
    }
    for norm in layers:
        if type(norm) is not keras.layers.BatchNormalization or norm.trainable or norm.renorm:
            continue
        makers = {
            tensor._keras_history.operation
            for node in norm._inbound_nodes
            for tensor in node.input_tensors
        }
        if len(makers) != 1:
            continue
        (before,) = makers
        if type(before) not in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
            continue
        alone = {node.operation for node in before._outbound_nodes} == {norm}
        plain = before.activation in (None, keras.activations.linear)
        last = before.data_format == "channels_last" and norm.axis in (-1, 3)
        lora = getattr(before, "lora_enabled", False)
        if alone and plain and last and not lora and before not in ends:
            yield before, norm


def _folded(layer: keras.layers.Layer, norm: keras.layers.Layer) -> Callable[..., tf.Tensor]:
    def call(x: tf.Tensor) -> tf.Tensor:
        # In float32, before weights are rounded to what the layer computes in.
        scale = tf.math.rsqrt(_value(norm.moving_variance) + norm.epsilon)
        scale = scale if norm.gamma is None else scale * _value(norm.gamma)
        shift = -_value(norm.moving_mean) * scale
        shift = shift if norm.beta is None else shift + _value(norm.beta)
        kernel = _value(layer.kernel)
        if layer.bias is not None:
            shift += _value(layer.bias) * scale
        if type(layer) is keras.layers.Conv2D:
            kernel = tf.cast(kernel * scale, x.dtype)
            if {*layer.kernel_size, layer.groups} == {1}:
                return _pointwise(_every(x, layer.strides), kernel, tf.cast(shift, x.dtype))
            y = layer.convolution_op(x, kernel)
        else:
            kernel *= tf.reshape(scale, kernel.shape[2:])
            y = keras.ops.depthwise_conv(
                x,
                tf.cast(kernel, x.dtype),
                strides=layer.strides,
                padding=layer.padding,
                data_format=layer.data_format,
                dilation_rate=layer.dilation_rate,
            )
        return tf.nn.bias_add(y, tf.cast(shift, x.dtype))

    return call


def _every(x: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
    """Returns every n-th pixel `[batch, height, width, channels]`, downwards and across.

    A slice with strides takes TensorFlow 30 times as long as one of blocks, and so does its
    gradient, even where all strides are one.
    """
    (down, across), (height, width, channels) = strides, x.shape[1:]
    if strides == (1, 1):
        return x
    if None in (height, width) or height % down or width % across:
        return x[:, ::down, ::across]
    blocks = tf.reshape(x, [-1, height // down, down, width // across, across * channels])
    first = tf.slice(blocks, [0, 0, 0, 0, 0], [-1, -1, 1, -1, channels])
    return tf.reshape(first, [-1, height // down, width // across, channels])


@tf.custom_gradient
def _pointwise(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """A convolution of single pixels is a product of matrices; so are its gradients, which
    TensorFlow computes two to three times as fast as those of a convolution.
    """
    flat = tf.reshape(kernel, kernel.shape[2:])

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = tf.reshape(upstream, [-1, flat.shape[1]])
        pixels = tf.reshape(x, [-1, flat.shape[0]])
        return (
            tf.reshape(tf.matmul(rows, flat, transpose_b=True), tf.shape(x)),
            tf.reshape(tf.matmul(pixels, rows, transpose_a=True), kernel.shape),
            _sum_of_rows(rows),
        )

    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), bias), gradients


def _value(variable: keras.Variable) -> tf.Tensor:
    """Returns a variable as it is stored, whatever the layer around computes in."""
    return tf.convert_to_tensor(variable._value)


def _nothing(x: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
    return x
