"""Lean layers compute what Keras's layers compute, and so do their gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsft.training import lean
from tfsft.training.lean import lean_layers

DENSE = [
    (keras.layers.Dense(5, activation="tanh"), (3, 4)),
    (keras.layers.Dense(5), (3, 2, 4)),
    (keras.layers.Dense(5, use_bias=False), (4,)),
    (keras.layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de"), (3, 4)),
    (keras.layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e"), (3, 2, 4)),
    (keras.layers.EinsumDense("...x,xy->...y", 5, bias_axes="y", activation="relu"), (3, 4)),
    # These meet in other ways, and stay as they are.
    (keras.layers.EinsumDense("abc,dc->abd", (None, 5), bias_axes="d"), (3, 4)),
    (keras.layers.EinsumDense("abc,bcd->abd", (3, 5), bias_axes="bd"), (3, 4)),
]


def outputs_and_gradients(model, inputs, weights, lean):
    @tf.function(input_signature=[tf.TensorSpec([None, *inputs.shape[1:]])])
    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            if lean:
                with lean_layers(model):
                    outputs = model(inputs, training=True)
            else:
                outputs = model(inputs, training=True)
            loss = tf.reduce_sum(outputs * weights)
        return outputs, tape.gradient(loss, [inputs, *(v.value for v in model.trainable_variables)])

    outputs, found = compute(inputs)
    shape = compute.get_concrete_function().structured_outputs[0].shape
    return [t.numpy() for t in (outputs, *found)], shape


@pytest.mark.parametrize(("layer", "shape"), DENSE, ids=lambda x: getattr(x, "name", None))
def test_dense_layers(layer, shape):
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input(shape), layer])
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))
    inputs = tf.constant(rng.normal(size=(6, *shape)), tf.float32)
    weights = rng.normal(size=model(inputs).shape)
    expected, shape_before = outputs_and_gradients(model, inputs, weights, lean=False)
    found, shape = outputs_and_gradients(model, inputs, weights, lean=True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert shape == shape_before


def test_einsum_layers_become_plain_products():
    model = keras.Sequential([keras.Input((3, 4)), DENSE[3][0]])

    @tf.function
    def compute(inputs):
        with lean_layers(model):
            return model(inputs)

    graph = compute.get_concrete_function(tf.TensorSpec([None, 3, 4])).graph
    operations = {op.type for op in graph.get_operations()}
    assert "MatMul" in operations
    assert not operations & {"BatchMatMulV2", "Einsum"}


def test_a_bias_is_not_fused_with_its_product():
    """TensorFlow fuses one that is added to what comes out of a product of matrices."""
    model = keras.Sequential([keras.Input((3, 4)), DENSE[1][0]])

    @tf.function
    def compute(inputs):
        with lean_layers(model):
            return model(inputs)

    graph = compute.get_concrete_function(tf.TensorSpec([None, 3, 4])).graph
    (addition,) = (op for op in graph.get_operations() if op.type in ("AddV2", "BiasAdd"))
    assert addition.inputs[0].op.type == "Reshape"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropout(dtype):
    model = keras.Sequential([keras.Input((999,)), keras.layers.Dropout(0.3, dtype=dtype)])
    inputs = tf.ones((101, 999), dtype)

    @tf.function
    def compute(inputs):
        with tf.GradientTape() as tape, lean_layers(model):
            tape.watch(inputs)
            outputs = model(inputs, training=True)
        return outputs, tape.gradient(outputs, inputs)

    first, gradient = (t.numpy().astype("float32") for t in compute(inputs))
    second, _ = (t.numpy().astype("float32") for t in compute(inputs))
    assert first.shape == (101, 999)
    np.testing.assert_array_equal(gradient, first)  # of a sum of ones times a mask
    kept = first > 0
    scale = float(tf.cast(1 / 0.7, dtype))
    np.testing.assert_allclose(first[kept], scale, rtol=1e-4)
    deviation = (0.7 * 0.3 / kept.size) ** 0.5  # of a share of independent draws
    assert abs(kept.mean() - 0.7) < 5 * deviation
    # Places and times do not depend on one another: both kept in 0.49 of the cases.
    for pair in (kept & (second > 0), kept[:, 1:] & kept[:, :-1], kept[1:] & kept[:-1]):
        assert abs(pair.mean() - 0.49) < 5 * (0.49 * 0.51 / pair.size) ** 0.5


def test_dropout_of_all_or_nothing_or_no_training():
    ones = tf.ones((3, 4))
    for rate, training, expected in (
        (0.0, True, 1),
        (1e-9, True, 1),
        (1.0, True, 0),
        (0.5, False, 1),
    ):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(rate)])
        with lean_layers(model):
            np.testing.assert_array_equal(model(ones, training=training), np.full((3, 4), expected))


def convolutional(frozen=True, shared=False, height=9, strides=(2, 1)):
    inputs = keras.Input((height, 8, 3))
    first = x = keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(name="norm_1")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = keras.layers.BatchNormalization(epsilon=1e-5, name="norm_2")(x)
    x = keras.layers.Conv2D(6, 1, strides=strides)(x)
    x = keras.layers.BatchNormalization(scale=False, center=False, name="norm_3")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    if shared:
        x = keras.layers.Concatenate()([x, keras.layers.GlobalAveragePooling2D()(first)])
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        sign = np.abs if variable.name == "moving_variance" else np.asarray
        variable.assign(sign(rng.normal(size=variable.shape)) + (0.1 if sign is np.abs else 0))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen
    return model


def operations(model, shape):
    @tf.function
    def compute(inputs):
        with lean_layers(model):
            return model(inputs, training=True)

    graph = compute.get_concrete_function(tf.TensorSpec([None, *shape])).graph
    return [op.type for op in graph.get_operations()]


@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("height", [9, 8, None])  # 5 or 4 rows before the strides
def test_frozen_batch_normalisation_goes_into_the_convolution(height, strides):
    model = convolutional(height=height, strides=strides)
    inputs = np.random.default_rng(1).normal(size=(5, height or 9, 8, 3))
    inputs = tf.constant(inputs, tf.float32)
    weights = np.random.default_rng(2).normal(size=(5, 2))
    expected, _ = outputs_and_gradients(model, inputs, weights, lean=False)
    found, _ = outputs_and_gradients(model, inputs, weights, lean=True)
    assert len(found) == len(expected) == 2 + 1 + 2 + 2 + 2  # output, inputs, and weights
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert operations(model, (height, 8, 3)).count("Rsqrt") == 3


@pytest.mark.parametrize(
    ("options", "left"), [({"frozen": False}, 3), ({"shared": True}, 1)], ids=["trains", "shared"]
)
def test_other_batch_normalisations_stay(options, left):
    """One that computes means of the batch, and one whose input is used elsewhere, too."""
    model = convolutional(**options)
    inputs = tf.constant(np.random.default_rng(1).normal(size=(5, 9, 8, 3)), tf.float32)
    weights = np.random.default_rng(2).normal(size=(5, 2))
    before = [np.asarray(v) for v in model.non_trainable_variables]
    expected, _ = outputs_and_gradients(model, inputs, weights, lean=False)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    found, _ = outputs_and_gradients(model, inputs, weights, lean=True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    norms = [layer for _, layer in lean._normalised(model)]
    assert len(norms) == 3 - left
