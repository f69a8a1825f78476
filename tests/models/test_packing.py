"""Packed rows against the same conversations in rows of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chat_families import tiny_causal_lm

from tfsft import models
from tfsft.errors import UserError

PACKED = [[5, 6, 7, 8, 20, 21, 22, 40, 41, 0]]
SEGMENTS = [[1, 1, 1, 1, 2, 2, 2, 3, 3, 0]]
TARGETS = [[6, 7, 8, -1, 21, 22, -1, 41, -1, -1]]
SINGLE = [[5, 6, 7, 8], [20, 21, 22, 0], [40, 41, 0, 0]]
MASKS = [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
SINGLE_TARGETS = [[6, 7, 8, -1], [21, 22, -1, -1], [41, -1, -1, -1]]


def losses_and_gradients(model, ids, mask, targets):
    network = models.with_token_loss(model)
    inputs = {"token_ids": ids, "padding_mask": mask, "targets": targets}
    inputs = {name: tf.constant(rows, "int32") for name, rows in inputs.items()}
    with tf.GradientTape() as tape:
        losses = network(inputs)[..., 0]
        loss = tf.reduce_sum(losses)
    variables = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
    losses = losses.numpy()[np.array(targets) >= 0]
    return losses, [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_loss_and_gradients_are_those_of_single_rows(tmp_path, family):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / family, family))).model
    losses, gradients = losses_and_gradients(model, SINGLE, MASKS, SINGLE_TARGETS)
    mixed, _ = losses_and_gradients(model, PACKED, SEGMENTS, TARGETS)
    assert np.abs(mixed - losses).max() > 1e-3  # conversations do see each other by default

    models.allow_packing(model.get_layer("backbone"))
    packed, packed_gradients = losses_and_gradients(model, PACKED, SEGMENTS, TARGETS)
    np.testing.assert_allclose(packed, losses, atol=1e-4)
    for found, expected in zip(packed_gradients, gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))
    # single rows are as before, and so is what is saved
    again, _ = losses_and_gradients(model, SINGLE, MASKS, SINGLE_TARGETS)
    np.testing.assert_array_equal(again, losses)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found, _ = losses_and_gradients(loaded, SINGLE, MASKS, SINGLE_TARGETS)
    np.testing.assert_array_equal(found, losses)


def test_a_family_with_absolute_positions_refuses(tmp_path):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "gpt2", "gpt2"))).model
    with pytest.raises(UserError, match="with a GPT2Backbone"):
        models.allow_packing(model.get_layer("backbone"))
