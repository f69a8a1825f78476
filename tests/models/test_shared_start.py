"""Rows whose start is computed once against the same rows computed one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chat_families import tiny_causal_lm

from tfsft import models

START = [3, 4, 5, 6, 7]
ENDS = [[8, 20, 21, 22], [9, 40, 41], [10, 50, 51, 52, 53, 54]]
WIDTH = len(START) + max(map(len, ENDS)) + 1  # with padding behind the longest, too


def padded(rows, padding):
    return np.array([row + [padding] * (WIDTH - len(row)) for row in rows], "int32")


IDS = padded([START + end for end in ENDS], 0)
MASK = padded([[1] * (len(START) + len(end)) for end in ENDS], 0)
AFTER_START = padded([[-1] * 5 + end[1:] for end in ENDS], -1)
ALL = padded([START[1:] + end for end in ENDS], -1)


def losses_and_gradients(model, rows, targets, shared=0):
    network = models.with_token_loss(model, shared=shared)
    inputs = {"token_ids": IDS[rows], "padding_mask": MASK[rows], "targets": targets[rows]}
    with tf.GradientTape() as tape:
        losses = network({name: tf.constant(x) for name, x in inputs.items()})[..., 0]
        loss = tf.reduce_sum(losses)
    variables = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
    return losses.numpy(), [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


@pytest.mark.parametrize("targets", [AFTER_START, ALL], ids=["answers", "all"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_loss_and_gradients_are_those_of_single_rows(tmp_path, family, targets):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / family, family))).model
    singles = [losses_and_gradients(model, slice(row, row + 1), targets) for row in range(3)]
    losses = np.concatenate([found for found, _ in singles])
    for shared in (1, len(START)):
        found, gradients = losses_and_gradients(model, slice(None), targets, shared)
        np.testing.assert_allclose(found, losses, atol=1e-5)
        for gradient, *parts in zip(gradients, *(found for _, found in singles), strict=True):
            expected = sum(parts)
            np.testing.assert_allclose(
                gradient, expected, atol=1e-5 * max(1, np.abs(expected).max())
            )


def test_single_rows_of_a_backbone_that_allows_packed_ones(tmp_path):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama", "llama"))).model
    expected, _ = losses_and_gradients(model, slice(None), ALL)
    models.allow_packing(model.get_layer("backbone"))
    found, _ = losses_and_gradients(model, slice(None), ALL, len(START))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fewer_tokens_go_through_the_layers(tmp_path):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama", "llama"))).model
    network = models.with_token_loss(model, shared=len(START))
    layer = model.get_layer("backbone").transformer_layers[0]._feedforward_gate_dense
    seen = []
    plain = layer.call
    layer.call = lambda x: seen.append(x.shape) or plain(x)
    network({"token_ids": IDS, "padding_mask": MASK, "targets": ALL})
    rest = WIDTH - len(START)
    assert [tuple(shape[:2]) for shape in seen] == [(1, len(START) + 3 * rest)]


def test_the_model_is_as_before(tmp_path):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama", "llama"))).model
    before = model({"token_ids": IDS, "padding_mask": MASK}).numpy()
    network = models.with_token_loss(model, shared=len(START))
    network({"token_ids": IDS, "padding_mask": MASK, "targets": ALL})
    np.testing.assert_array_equal(model({"token_ids": IDS, "padding_mask": MASK}), before)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded({"token_ids": IDS, "padding_mask": MASK}), before)
    assert [v.path for v in network.variables] == [
        v.path for v in models.with_token_loss(model).variables
    ]


def test_rows_that_begin_with_other_tokens_are_no_batch(tmp_path):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama", "llama"))).model
    network = models.with_token_loss(model, shared=len(START) + 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="begin with other tokens"):
        network({"token_ids": IDS, "padding_mask": MASK, "targets": ALL})


def test_another_family_computes_row_by_row(tmp_path):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "gpt2", "gpt2"))).model
    plain, _ = losses_and_gradients(model, slice(None), ALL)
    shared, _ = losses_and_gradients(model, slice(None), ALL, len(START))
    np.testing.assert_array_equal(shared, plain)
