"""The loss without logits, against the loss over all logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsft.models.token_loss import with_token_loss

VOCABULARY = 50


def tiny(family="llama", **options):
    import keras_hub

    if family == "gpt2":
        backbone = keras_hub.models.GPT2Backbone(
            VOCABULARY, 2, 4, 16, 32, dropout=0.0, max_sequence_length=16, name="backbone"
        )
        model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    elif family == "gemma":  # with a soft cap on its logits
        backbone = keras_hub.models.GemmaBackbone(
            vocabulary_size=VOCABULARY,
            num_layers=2,
            num_query_heads=2,
            num_key_value_heads=1,
            hidden_dim=16,
            intermediate_dim=32,
            head_dim=8,
            final_logit_soft_cap=3.0,
            name="backbone",
        )
        model = keras_hub.models.GemmaCausalLM(backbone=backbone, preprocessor=None)
    else:
        backbone = keras_hub.models.Llama3Backbone(
            vocabulary_size=VOCABULARY,
            num_layers=2,
            num_query_heads=4,
            hidden_dim=16,
            intermediate_dim=32,
            num_key_value_heads=2,
            name="backbone",
            **options,
        )
        model = keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None)
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(0, 0.3, weight.shape))
    return model


def batch():
    random = np.random.default_rng(1)
    tokens = tf.constant(random.integers(0, VOCABULARY, (3, 7)), "int32")
    targets = random.integers(0, VOCABULARY, (3, 7)).astype("int32")
    targets[random.random((3, 7)) < 0.3] = -1
    targets[0] = -1
    return {"token_ids": tokens, "padding_mask": tf.ones_like(tokens)}, tf.constant(targets)


def gradients(variables, compute):
    with tf.GradientTape() as tape:
        outputs, loss = compute()
    values = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
    return outputs, [tf.convert_to_tensor(value).numpy() for value in values]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"tie_word_embeddings": False}),
        ("gpt2", {}),
        ("gemma", {}),
    ],
)
@pytest.mark.parametrize("logits", [VOCABULARY * 4, VOCABULARY * 1000])
def test_loss_hits_and_gradients_are_those_of_all_logits(family, options, logits):
    model = tiny(family, **options)
    network = with_token_loss(model, logits)
    inputs, targets = batch()
    weights = tf.random.stateless_uniform(targets.shape, [1, 2])

    def plain():
        every = model(inputs)
        logs = tf.nn.log_softmax(every)
        picked = tf.gather(logs, tf.maximum(targets, 0), batch_dims=2)
        wanted = tf.cast(targets >= 0, "float32")
        losses = -picked * wanted
        right = tf.cast(tf.argmax(every, -1, "int32") == targets, "float32") * wanted
        return tf.stack([losses, right], -1), tf.reduce_sum(losses * weights)

    @tf.function
    def ours():
        outputs = network({**inputs, "targets": targets}, training=True)
        return outputs, tf.reduce_sum(outputs[..., 0] * weights)

    expected, slopes = gradients(model.trainable_variables, plain)
    outputs, found = gradients(model.trainable_variables, ours)
    np.testing.assert_allclose(outputs, expected, atol=2e-6)
    for slope, expected in zip(found, slopes, strict=True):
        np.testing.assert_allclose(slope, expected, atol=1e-5)
    assert len(found) == len(network.trainable_variables)


def test_a_batch_without_targets_has_no_loss_and_no_gradient():
    model = tiny(tie_word_embeddings=True)
    network = with_token_loss(model)
    inputs, targets = batch()

    def ours():
        outputs = network({**inputs, "targets": -tf.ones_like(targets)}, training=True)
        return outputs, tf.reduce_sum(outputs[..., 0])

    outputs, found = gradients(model.trainable_variables, ours)
    assert not outputs.numpy().any()
    assert not any(slope.any() for slope in found)


def test_a_frozen_output_layer_gets_no_gradient_and_the_states_get_theirs():
    model = tiny(tie_word_embeddings=False)
    model.get_layer("backbone").token_embedding.trainable = False
    network = with_token_loss(model, VOCABULARY * 2)
    inputs, targets = batch()

    def ours():
        outputs = network({**inputs, "targets": targets}, training=True)
        return outputs, tf.reduce_sum(outputs[..., 0])

    def plain():
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.maximum(targets, 0), model(inputs)
        )
        return losses, tf.reduce_sum(losses * tf.cast(targets >= 0, "float32"))

    _, expected = gradients(model.trainable_variables, plain)
    _, found = gradients(model.trainable_variables, ours)
    for slope, like in zip(found, expected, strict=True):
        np.testing.assert_allclose(slope, like, atol=1e-5)


def test_half_precision_computes_the_loss_in_full():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = with_token_loss(tiny(tie_word_embeddings=True))
    finally:
        keras.config.set_dtype_policy(policy)
    full = with_token_loss(tiny(tie_word_embeddings=True))
    inputs, targets = batch()
    outputs = [net({**inputs, "targets": targets})[..., 0] for net in (network, full)]
    assert outputs[0].dtype == "float32"
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_parts_gives_the_same_update_whatever_its_lengths(accumulate):
    from tfsft import training

    random = np.random.default_rng(2)
    tokens = random.integers(0, VOCABULARY, (8, 9)).astype("int32")
    targets = random.integers(0, VOCABULARY, (8, 9)).astype("int32")
    lengths = np.array([9, 8, 2, 1, 5, 3, 9, 4])
    inside = np.arange(9) < lengths[:, None]
    learned = inside & (random.random((8, 9)) < 0.5)
    learned[3] = False  # a conversation without any
    inputs = {
        "token_ids": tokens,
        "padding_mask": inside.astype("int32"),
        "targets": np.where(learned, targets, -1),
    }
    batch = tf.data.Dataset.from_tensors(
        (inputs, np.zeros((8, 9), "float32"), learned.astype("float32"))
    )

    def trained(parts):
        model = tiny(tie_word_embeddings=True)
        tuner = training.FineTuner(with_token_loss(model), accumulate=parts, clip_norm=1.0)
        tuner.compile(
            keras.optimizers.SGD(0.5),
            loss=training.token_loss,
            weighted_metrics=training.token_metrics(),
        )
        logs = tuner.fit(batch, epochs=2, verbose=0).history
        return [np.asarray(weight) for weight in model.weights], logs

    (whole, logs), (parts, logs_of_parts) = trained(1), trained(accumulate)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    np.testing.assert_allclose(logs["loss"], logs_of_parts["loss"], rtol=1e-5)
    first = tiny(tie_word_embeddings=True).weights
    assert max(np.abs(a - b).max() for a, b in zip(whole, first, strict=True)) > 0.01


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_logits_are_made_of_states_one_by_one(family):
    from tfsft.models import cut_at_states, cut_at_tokens

    model = tiny(family)
    given, _ = batch()
    below, above = cut_at_tokens(model)
    states, head = cut_at_states(above)
    found = states(below(given))
    assert found.shape == (3, 7, 16)
    expected = np.asarray(model(given))
    np.testing.assert_allclose(head(found[:, 4:]), expected[:, 4:], atol=1e-5)
