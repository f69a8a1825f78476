"""Blocks that are traced once against the same blocks traced one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chat_families import tiny_causal_lm

from tfsft import models
from tfsft.models.alike import alike, traced_once
from tfsft.training.lean import lean_layers, rounded_kernels

IDS = np.array([[3, 4, 5, 6, 7, 8], [3, 4, 9, 10, 0, 0]], "int32")
MASK = (IDS > 0).astype("int32")
TARGETS = np.array([[4, 5, 6, 7, 8, -1], [4, 9, 10, -1, -1, -1]], "int32")
INPUTS = {"token_ids": IDS, "padding_mask": MASK, "targets": TARGETS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_causal_lm(tmp_path_factory.mktemp("llama") / "llama", "llama", layers=5))


def traced(network, once, rounded=None):
    """Returns what gives losses and gradients, and how many operations it has."""

    @tf.function(autograph=False)
    def compute(inputs):
        with tf.GradientTape() as tape:
            if once:
                with traced_once(network, rounded):
                    losses = network(inputs)[..., 0]
            else:
                losses = network(inputs)[..., 0]
            loss = tf.reduce_sum(losses)
        gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
        return losses, [tf.convert_to_tensor(g) for g in gradients]

    concrete = compute.get_concrete_function(tf.nest.map_structure(tf.constant, INPUTS))
    return concrete, len(concrete.graph.get_operations())


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("shared", [0, 2])
def test_losses_and_gradients_are_the_same(folder, lora, shared):
    model = models.load_causal_lm(folder).model
    if lora:
        models.add_lora(model, 2)
        for v in model.trainable_variables:
            v.assign(keras.random.normal(v.shape, seed=0) * 0.1)
    network = models.with_token_loss(model, shared=shared)
    inputs = tf.nest.map_structure(tf.constant, INPUTS)
    plain, many = traced(network, once=False)
    once, few = traced(network, once=True)
    losses, gradients = plain(inputs)
    found, others = once(inputs)
    assert len(gradients) == (20 if lora else len(model.trainable_variables))
    np.testing.assert_allclose(found, losses, atol=1e-5)
    for a, b in zip(others, gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()))
    assert few < many / 2


def encoders(**changed):
    """Returns a model of five encoders, the last of which may differ."""
    from keras_hub.layers import TransformerEncoder

    inputs = keras.Input((None, 8))
    mask = keras.Input((None,), dtype="int32")
    x = inputs
    for i in range(5):
        settings = {"intermediate_dim": 16, "num_heads": 2, **(changed if i == 4 else {})}
        x = TransformerEncoder(**settings)(x, padding_mask=mask)
    return keras.Model([inputs, mask], x)


def test_encoders_and_their_masks():
    model = encoders()
    inputs = keras.random.normal((2, 6, 8), seed=0), tf.constant([[1] * 6, [1] * 4 + [0] * 2])

    @tf.function
    def once(*inputs):
        with traced_once(model):
            return model(inputs)

    np.testing.assert_allclose(once(*inputs), model(inputs), atol=1e-6)


def test_what_runs_eagerly_is_not_traced(monkeypatch):
    """Each step has a function of its own, which would be traced for that step alone."""
    model = encoders()
    inputs = keras.random.normal((2, 6, 8), seed=0), tf.constant([[1] * 6, [1] * 4 + [0] * 2])
    expected = model(inputs)
    kind, traced = type(model.layers[-1]), []
    plain = kind.call
    monkeypatch.setattr(
        kind, "call", lambda *args, **kw: traced.append(tf.inside_function()) or plain(*args, **kw)
    )
    with traced_once(model):
        found = model(inputs)
    np.testing.assert_array_equal(found, expected)
    assert traced == [False] * 5


def test_only_blocks_that_compute_the_same_are_alike():
    assert [len(blocks) for blocks in alike(encoders())] == [5]
    for changed in ({"activation": "gelu"}, {"intermediate_dim": 8}, {"layer_norm_epsilon": 1e-3}):
        assert [len(blocks) for blocks in alike(encoders(**changed))] == [4]
    model = encoders()
    model.layers[-1].trainable = False
    assert [len(blocks) for blocks in alike(model)] == [4]
    # Masks of dropout must differ from block to block, and from update to update.
    assert [len(blocks) for blocks in alike(encoders(dropout=0.1))] == [4]


def test_each_block_has_its_own_rounded_kernels(folder, mixed_bfloat16):
    model = models.load_causal_lm(folder).model
    models.add_lora(model, 2)
    network = models.with_token_loss(model)
    rounded = rounded_kernels(network)
    assert len(rounded) == 5 * 7  # four of attention, three of the feed-forward part
    inputs = tf.nest.map_structure(tf.constant, INPUTS)

    @tf.function
    def plain(inputs):
        with lean_layers(network, rounded):
            return network(inputs)

    @tf.function
    def once(inputs):
        with lean_layers(network, rounded), traced_once(network, rounded):
            return network(inputs)

    np.testing.assert_allclose(once(inputs), plain(inputs), atol=1e-2)
    # With kernels of zero in all blocks but the first, something else comes out.
    first = list(model.get_layer("backbone").transformer_layers[0]._flatten_layers())
    some = {x: kernel if x in first else tf.zeros_like(kernel) for x, kernel in rounded.items()}

    @tf.function
    def others_are_zero(inputs):
        with traced_once(network, some):
            return network(inputs)

    assert np.abs(others_are_zero(inputs) - plain(inputs)).max() > 0.1
