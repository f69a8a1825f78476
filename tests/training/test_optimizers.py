"""Weight decay falls on matrices alone, by the amount that its formula says."""

import keras
import numpy as np
import pytest

from tfsft.training import make_optimizer


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "muon"])
def test_decay_is_on_kernels_alone(name, scaled):
    """With gradients of zero only the decay moves: w * (1 - rate * decay) an update.

    Among the kernels is one of a convolution, and an output layer, which muon trains with adamw.
    """
    dense = keras.layers.Dense(3, bias_initializer="ones", name="dense")
    dense.build((None, 3))
    norm = keras.layers.LayerNormalization(name="norm")
    norm.build((None, 3))
    output = keras.layers.Dense(2, use_bias=False, name="predictions")
    output.build((None, 3))
    convolution = keras.layers.Conv2D(2, 3, use_bias=False, name="convolution")
    convolution.build((None, 8, 8, 3))
    kernels = [layer.trainable_variables[0] for layer in (dense, output, convolution)]
    others = [dense.trainable_variables[1], *norm.trainable_variables]
    others.append(keras.Variable(np.ones(3), name="lora_magnitude"))
    variables = kernels + others
    factors = {v.path: 0.5 for v in variables} if scaled else {}
    optimizer = make_optimizer(
        name, 0.1, weight_decay=0.5, rate_factors=factors, exclude_layers=("predictions",)
    )
    optimizer.build(variables)
    before = [np.asarray(v) for v in variables]
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables])
    after = [np.asarray(v) for v in variables]
    for old, new in zip(before[:3], after[:3], strict=True):
        decayed = old * (1 - 0.1 * 0.5 * (0.5 if scaled else 1))
        np.testing.assert_allclose(new, decayed, rtol=1e-6)
    for old, new in zip(before[3:], after[3:], strict=True):
        np.testing.assert_array_equal(old, new)


def test_adam_does_not_decay():
    optimizer = make_optimizer("adam", 0.1, weight_decay=0.5)
    variable = keras.Variable([1.0, 2.0], name="kernel")
    optimizer.build([variable])
    optimizer.apply([keras.ops.zeros(2)])
    np.testing.assert_array_equal(variable, [1.0, 2.0])


@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_follows_its_formula(decay, factor):
    """Six updates at a changing rate, against NumPy (Loshchilov and Hutter, 2019, algorithm 2)."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(7, 5)).astype("float32")
    kernel = keras.Variable(weights, name="kernel")
    rates = [0.1, 0.05, 0.2, 0.1, 0.01, 0.3]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(range(5), rates)
    optimizer = make_optimizer(
        "adamw", schedule, weight_decay=decay, rate_factors={kernel.path: factor}
    )
    optimizer.build([kernel])
    expected = weights.astype("float64")
    first, second = np.zeros((7, 5)), np.zeros((7, 5))
    for step, rate in enumerate(rates, 1):
        gradient = rng.normal(size=(7, 5)).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        expected *= 1 - rate * factor * decay
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.astype("float64") ** 2
        # Keras adds epsilon before it corrects the root (Kingma and Ba, 2015, end of section 2).
        corrected = rate * factor * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        expected -= corrected * first / (np.sqrt(second) + 1e-7)
        np.testing.assert_allclose(np.asarray(kernel), expected, rtol=1e-5, atol=1e-6)
