"""Integrated gradients against integrals by hand, and Grad-CAM where the answer is known."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from tfsft.export.attribution import GAP, Slopes, grad_cam, integrated_gradients


def integrate(score, *ends, **options):
    """Two places with a number each."""
    slopes = Slopes(lambda x: score(x[..., 0]), [2, 1])
    return integrated_gradients(slopes, *(np.array(end)[:, None] for end in ends), **options)


def test_a_product_is_shared_by_its_factors():
    """The gradient of x y at the share a of the way is a y and a x: each factor gets x y / 2."""
    found = integrate(lambda x: x[:, 0] * x[:, 1], np.array([3.0, 5.0]), np.zeros(2))
    np.testing.assert_allclose(found.values, [7.5, 7.5], rtol=1e-5)
    assert (found.output, found.baseline) == (15, 0)


def test_a_start_elsewhere_and_what_does_not_matter():
    """x^3 from 1 to 2 gains 7, all by x; the second number is never looked at."""
    found = integrate(lambda x: x[:, 0] ** 3, np.array([2.0, 9.0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(found.values, [7.0, 0.0], rtol=1e-5)


@pytest.mark.parametrize("steepness", [10.0, 300.0, 3000.0])
def test_a_steep_output_is_resolved(steepness):
    """Most of a sigmoid's gain lies in a small part of the way, which evenly spread places miss."""

    def score(x):
        return tf.sigmoid(steepness * (x[:, 0] + x[:, 1] - 0.77))

    found = integrate(score, np.array([0.6, 0.3]), np.zeros(2))
    assert found.gap < GAP
    gain = expit(steepness * 0.13) - expit(-steepness * 0.77)
    np.testing.assert_allclose(found.values, [gain * 2 / 3, gain / 3], rtol=GAP)
    assert found.places < 300
    few = integrate(score, np.array([0.6, 0.3]), np.zeros(2), most=9)
    assert few.places == 9
    late = integrate(score, np.array([0.6, 0.3]), np.zeros(2), until=0.0)
    assert late.places == 9
    if steepness > 1000:
        assert few.gap > GAP  # and says so


def test_rounding_is_not_looked_at_for_ever():
    """Outputs that are 3% off, as in half precision, which no halving mends: 5% will do."""

    def score(x):
        wrong = 0.03 * tf.round(x[:, 0]) + 0.01 * tf.sin(1e5 * x[:, 0])
        return x[:, 0] + x[:, 1] + tf.stop_gradient(wrong)

    found = integrate(score, np.array([0.6, 0.4]), np.zeros(2))
    assert 0.02 < found.gap < GAP
    assert 48 <= found.places < 60
    np.testing.assert_allclose(found.values, [0.6, 0.4], rtol=1e-5)


def test_parts_may_speak_against_each_other():
    """Up and down again: the sum is small, the parts are not."""
    found = integrate(
        lambda x: x[:, 0] ** 2 - 0.99 * x[:, 1] ** 2, np.array([1.0, 1.0]), np.zeros(2)
    )
    np.testing.assert_allclose(found.values, [1.0, -0.99], rtol=1e-4)


def test_slopes_are_compiled_once_for_inputs_of_all_sizes():
    traces = []

    def score(x, power):
        traces.append(x.shape)
        return tf.reduce_sum(x ** tf.cast(power, tf.float32), axis=[1, 2])

    slopes = Slopes(score, [None, 1], tf.TensorSpec([], tf.int32))
    for size, power in ((2, 2), (3, 2), (5, 3)):
        point = np.arange(1.0, size + 1)[:, None]
        found = integrated_gradients(slopes, point, np.zeros_like(point), tf.constant(power))
        np.testing.assert_allclose(found.values, point[:, 0] ** power, rtol=1e-5)
    assert len(traces) == 1


def test_grad_cam_by_hand():
    """Channel 0 has the weight 2, channel 1 -1: what is left is relu(2 a - b), over its largest."""
    features = np.zeros((1, 2, 2, 2), "float32")
    features[0, ..., 0] = [[1, 2], [0, 4]]
    features[0, ..., 1] = [[3, 0], [1, 2]]

    def score(x):
        return tf.reduce_sum(x * tf.constant([2.0, -1.0]), axis=[1, 2, 3])

    np.testing.assert_allclose(grad_cam(score, features), [[0, 4 / 6], [0, 1]], rtol=1e-6)
    tokens = np.concatenate([np.full((1, 1, 2), 9.0), features.reshape(1, 4, 2)], axis=1)
    squared = grad_cam(lambda x: tf.reduce_sum(x * [2.0, -1.0], [1, 2]), tokens.astype("float32"))
    np.testing.assert_allclose(squared, [[0, 4 / 6], [0, 1]], rtol=1e-6)
    assert grad_cam(lambda x: -tf.reduce_sum(x, [1, 2, 3]), features) is None
