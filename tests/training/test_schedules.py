"""Learning rates against their formulas, worked out by hand in NumPy."""

import keras
import numpy as np
import pytest

from tfsft.training import SCHEDULES, make_schedule

STEPS = np.arange(0, 40)
AFTER = np.maximum(STEPS - 10, 0)
EXPECTED = {
    "constant": np.full(40, 1.0),
    "linear": 1 - np.minimum(AFTER, 30) / 30,
    "cosine": (1 + np.cos(np.pi * np.minimum(AFTER, 30) / 30)) / 2,
    "step": 0.5 ** (AFTER // 7),
    "exponential": 0.5 ** (AFTER / 7),
    "inverse_time": (1 / (1 + 3 * AFTER / 7)) ** (1 / 2),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedule(name, warmup):
    schedule = make_schedule(
        name,
        0.1,
        40 if warmup else 30,
        warmup_steps=warmup,
        decay_factor=0.5,
        decay_every=7,
        decay_rate=3.0,
        decay_power=2.0,
    )
    rate = schedule if callable(schedule) else lambda step: schedule
    if warmup:
        expected = EXPECTED[name] * np.minimum((STEPS + 1) / 10, 1)
        steps = STEPS
    else:
        expected, steps = EXPECTED[name][10:], STEPS[:30]
    actual = [float(rate(step)) for step in steps]
    np.testing.assert_allclose(actual, 0.1 * expected, rtol=2e-5, atol=1e-7)


def test_warm_up_counts_updates_of_the_optimizer():
    """The first update already moves, the tenth has the full rate."""
    optimizer = keras.optimizers.SGD(make_schedule("constant", 0.1, 40, warmup_steps=10))
    variable = keras.Variable(0.0)
    optimizer.build([variable])
    for _ in range(10):
        optimizer.apply([keras.ops.convert_to_tensor(-1.0)])
    assert float(variable) == pytest.approx(0.1 * sum(range(1, 11)) / 10)
