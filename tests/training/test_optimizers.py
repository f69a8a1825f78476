"""Weight decay falls on matrices alone, by the amount that its formula says."""

import keras
import numpy as np
import pytest

from tfsft.training import make_optimizer


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "muon"])
def test_decay_is_on_kernels_alone(name):
    """With gradients of zero only the decay moves: w * (1 - rate * decay) an update."""
    dense = keras.layers.Dense(3, bias_initializer="ones", name="dense")
    dense.build((None, 3))
    norm = keras.layers.LayerNormalization(name="norm")
    norm.build((None, 3))
    variables = dense.trainable_variables + norm.trainable_variables
    optimizer = make_optimizer(name, 0.1, weight_decay=0.5)
    optimizer.build(variables)
    before = [np.asarray(v) for v in variables]
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables])
    after = [np.asarray(v) for v in variables]
    np.testing.assert_allclose(after[0], before[0] * (1 - 0.1 * 0.5), rtol=1e-6)
    for old, new in zip(before[1:], after[1:], strict=True):
        np.testing.assert_array_equal(old, new)


def test_adam_does_not_decay():
    optimizer = make_optimizer("adam", 0.1, weight_decay=0.5)
    variable = keras.Variable([1.0, 2.0], name="kernel")
    optimizer.build([variable])
    optimizer.apply([keras.ops.zeros(2)])
    np.testing.assert_array_equal(variable, [1.0, 2.0])
