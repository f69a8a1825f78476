"""Rounded weights leave the means of channels where they were, and the model as it was."""

import keras
import numpy as np
import pytest

from tfsft.export.bias_correction import corrected_biases

LAYERS = ("stem", "depthwise", "wide", "hidden", "answer")


def network():
    """Has what picture networks have: weights with and without a bias, alone and normalised."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(x)
    x = keras.layers.ReLU(6)(keras.layers.BatchNormalization(name="stem_norm")(x))
    inner = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"),
            keras.layers.BatchNormalization(name="depthwise_norm"),
        ]
    )
    x = keras.layers.Conv2D(5, 1, activation="relu", name="wide")(inner(x))
    x = keras.layers.Dense(6, activation="relu", name="hidden")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(4, name="answer")(x))
    random = np.random.default_rng(2)
    for weight in model.weights:
        low = 0.3 if "variance" in weight.path else -1.0
        weight.assign(random.uniform(low, 1.0, weight.shape))
    return model


def pictures():
    """Mostly background, as many are."""
    found = np.full((20, 12, 12, 3), 250, np.uint8)
    found[:, 4:9, 4:9] = np.random.default_rng(3).integers(0, 256, (20, 5, 5, 3))
    return found


def named(model):
    return {layer.name: layer for layer in model._flatten_layers()}


def means(model, batch):
    """The mean of each channel behind the bias, or the normalisation, of each layer."""
    layers, found = named(model), {}
    x = batch / np.float32(255)
    for name in LAYERS:
        layer = layers[name]
        x = x.reshape(len(x), -1) if name == "hidden" else x
        after, layer.activation = layer.activation, None
        x = layer(x)
        layer.activation = after
        if f"{name}_norm" in layers:
            x = layers[f"{name}_norm"](x)
        x = np.asarray(x)
        found[name] = x.mean(tuple(range(x.ndim - 1)))
        x = np.clip(x, 0, 6 if name == "stem" else None) if name != "depthwise" else x
    return found


def round_weights(model):
    """As 8 bits have them: 127 steps on each side of zero, a scale for each channel."""
    for name in LAYERS:
        kernel = named(model)[name].kernel
        value = np.array(kernel)
        axes = (0, 1) if name == "depthwise" else tuple(range(value.ndim - 1))
        scale = np.abs(value).max(axes, keepdims=True) / 127
        kernel.assign(np.round(value / scale) * scale)


def test_the_means_of_channels_are_kept():
    model, batch = network(), pictures()
    before, expected = model.get_weights(), means(model, batch)
    with corrected_biases(model, batch):
        biases = model.get_weights()
        round_weights(model)
        corrected = means(model, batch)
        model.set_weights(biases)
    for value, as_it_was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_allclose(value, as_it_was, atol=1e-7)
    assert named(model)["wide"].activation is keras.activations.relu
    np.testing.assert_array_equal(model(batch), model.predict(batch, verbose=0))
    round_weights(model)
    rounded = means(model, batch)
    for name in LAYERS:
        apart = np.abs(rounded[name] - expected[name]).max()
        assert apart > 1e-3
        assert np.abs(corrected[name] - expected[name]).max() < apart / 100, name


def test_a_failure_leaves_the_model_as_it_was():
    model, batch = network(), pictures()
    before = model.get_weights()

    def fail():
        assert any((a != b).any() for a, b in zip(model.get_weights(), before, strict=True))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), corrected_biases(model, batch):
        fail()
    for value, as_it_was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, as_it_was)


def test_the_first_convolutions_may_stay_exact():
    model, batch = network(), pictures()
    before = {weight.path: np.array(weight) for weight in model.weights}
    with corrected_biases(model, batch, exact=1):
        changed = {
            "/".join(w.path.split("/")[-2:])
            for w in model.weights
            if (np.array(w) != before[w.path]).any()
        }
    assert changed == {
        "depthwise_norm/moving_mean",
        *(f"{name}/bias" for name in ("wide", "hidden", "answer")),
    }
