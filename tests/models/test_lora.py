"""Low-rank updates: what they compute, what they leave alone, how they merge, and PEFT's files."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from text_families import FAMILIES

from tfsft import models
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.errors import UsageError, UserError
from tfsft.models.lora import Form, adapted, projections
from tfsft.training import FineTuner, make_optimizer
from tfsft.training.checkpoints import restore, state_of

PEFT = Path(__file__).parent / "data" / "peft"  # written by PEFT 0.21 from random encoders
RANK, ALPHA = 3, 6.0
SCALE = ALPHA / RANK
SIZE, TOKENS, WIDTH, HEADS, HEAD_SIZE = 12, 4, 6, 2, 5
TEXTS = ["the quick brown fox", "nothing new under the sun!", "few lessons", "mostly true"]
LABELS = np.eye(3, dtype="float32")[[0, 1, 2, 1]]

slow = pytest.mark.slow

# By name: equation or None for a Dense, output, axes of the bias, activation.
LAYERS = {
    "query": ("abc,cde->abde", (None, HEADS, HEAD_SIZE), "de", "linear"),
    "key": ("btd,ndh->btnh", (None, HEADS, HEAD_SIZE), None, "linear"),  # as in Gemma
    "attention_output": ("abcd,cde->abe", (None, WIDTH), "e", "linear"),
    "feedforward_intermediate_dense": (None, 7, None, "tanh"),
    "feedforward_output_dense": (None, WIDTH, None, "linear"),
}


def toy(dropout=0.0):
    """A block with two heads' projections, an FFN with an activation, and a head on its mean."""
    keras.utils.set_random_seed(1)
    layers = {}
    for name, (equation, shape, bias, activation) in LAYERS.items():
        common = {"activation": activation, "name": name, "bias_initializer": "random_normal"}
        layers[name] = (
            keras.layers.EinsumDense(equation, shape, bias_axes=bias, **common)
            if equation
            else keras.layers.Dense(shape, **common)
        )
    tokens = keras.Input((TOKENS, WIDTH), name="tokens")
    x = layers["query"](tokens) + layers["key"](tokens)
    x = layers["attention_output"](x)
    x = keras.layers.LayerNormalization(name="norm")(x + tokens)
    x = layers["feedforward_intermediate_dense"](x)
    x = layers["feedforward_output_dense"](x)
    backbone = keras.Model(tokens, x, name="backbone")

    inputs = keras.Input((TOKENS, WIDTH), name="inputs")
    x = keras.layers.GlobalAveragePooling1D(name="pool")(backbone(inputs, training=False))
    x = keras.layers.Dense(3, "softmax", dtype="float32", name="predictions")(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def examples():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SIZE, TOKENS, WIDTH)).astype("float32")
    return inputs, random.integers(0, 3, SIZE)


def randomise(model, seed=0, size=0.3):
    """Sets every B to something, as training would."""
    random = np.random.default_rng(seed)
    for layer in adapted(model.get_layer("backbone")):
        layer.adapter.b.assign(random.normal(0, size, layer.adapter.b.shape))


def values(variables):
    return {v.path: np.array(v) for v in variables}


def steps(model, batch, labels, count=2):
    """A few updates by plain gradient descent."""
    for _ in range(count):
        with tf.GradientTape() as tape:
            outputs = model(batch, training=True)
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(labels, outputs))
        weights = model.trainable_variables
        gradients = tape.gradient(loss, [w.value for w in weights])
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign_sub(0.1 * gradient)


def as_matrix(name, kernel):
    """A kernel as [in, out], heads before what is in them."""
    kernel = np.asarray(kernel)
    if name == "key":
        return kernel.transpose(1, 0, 2).reshape(WIDTH, -1)
    return kernel.reshape((-1, WIDTH) if "output" in name else (WIDTH, -1))


def layer_input(name, x):
    """What each projection may be given, for layers [batch, tokens, ...]."""
    if name == "attention_output":
        return np.concatenate([x, x], -1)[..., : HEADS * HEAD_SIZE].reshape(
            *x.shape[:2], HEADS, HEAD_SIZE
        )
    return x


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "feedforward_output_dense"])
def test_each_projection_computes_what_numpy_computes(name, examples):
    model = toy()
    models.add_lora(model, RANK, ALPHA, ("all",))
    randomise(model)
    layer = model.get_layer("backbone").get_layer(name)
    a, b = np.asarray(layer.adapter.a), np.asarray(layer.adapter.b)
    x = layer_input(name, examples[0])
    flat = x.reshape(SIZE, TOKENS, -1)
    assert a.shape == (flat.shape[-1], RANK)
    assert b.shape == (RANK, as_matrix(name, layer.kernel).shape[1])

    weights = as_matrix(name, layer.kernel) + SCALE * a @ b
    bias = 0 if layer.bias is None else np.asarray(layer.bias).reshape(-1)
    expected = flat @ weights + bias
    if name == "feedforward_intermediate_dense":
        expected = np.tanh(expected)
    result = np.asarray(layer(x))
    np.testing.assert_allclose(result.reshape(expected.shape), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["query", "key", "attention_output"])
def test_gradients_of_a_and_b_are_those_of_the_formula(name, examples):
    model = toy()
    models.add_lora(model, RANK, ALPHA, ("all",))
    randomise(model)
    layer = model.get_layer("backbone").get_layer(name)
    a, b = np.asarray(layer.adapter.a), np.asarray(layer.adapter.b)
    x = layer_input(name, examples[0])
    with tf.GradientTape() as tape:
        y = layer(x)
        upstream = np.random.default_rng(3).normal(size=y.shape).astype("float32")
        total = tf.reduce_sum(y * upstream)
    by_a, by_b = tape.gradient(total, [layer.adapter.a.value, layer.adapter.b.value])
    flat, upstream = x.reshape(SIZE * TOKENS, -1), upstream.reshape(SIZE * TOKENS, -1)
    np.testing.assert_allclose(by_a, SCALE * flat.T @ (upstream @ b.T), atol=1e-4)
    np.testing.assert_allclose(by_b, SCALE * (flat @ a).T @ upstream, atol=1e-4)


def train(model, seed=0):
    """Sets every B to something, and every length to another, as training would."""
    randomise(model, seed, size=0.1)
    random = np.random.default_rng(seed)
    for layer in adapted(model.get_layer("backbone")):
        lengths = layer.adapter.lengths
        if lengths is not None:
            lengths.assign(np.asarray(lengths) * random.uniform(0.5, 1.5, lengths.shape))


@pytest.mark.parametrize("variant", ["rslora", "dora"])
def test_variants_compute_and_merge_to_what_numpy_computes(variant, examples):
    model = toy()
    plain = np.asarray(model(examples[0]))
    models.add_lora(model, RANK, ALPHA, ("all",), variant=variant)
    np.testing.assert_allclose(model(examples[0]), plain, atol=1e-6)
    train(model)
    expected = {}
    for layer in adapted(model.get_layer("backbone")):
        adapter = layer.adapter
        scale = ALPHA / np.sqrt(RANK) if variant == "rslora" else SCALE
        weights = as_matrix(layer.name, layer.kernel)
        start = np.sqrt((weights**2).sum(0))
        weights = weights + scale * np.asarray(adapter.a) @ np.asarray(adapter.b)
        if variant == "dora":
            assert 0.5 <= (np.asarray(adapter.lengths) / start).min() < 1
            weights = weights * np.asarray(adapter.lengths) / np.sqrt((weights**2).sum(0))
        expected[layer.name] = weights
        x = layer_input(layer.name, examples[0])
        if layer.name == "feedforward_output_dense":
            x = np.concatenate([x, x], -1)[..., :7]
        bias = 0 if layer.bias is None else np.asarray(layer.bias).reshape(-1)
        result = x.reshape(SIZE, TOKENS, -1) @ weights + bias
        result = np.tanh(result) if layer.name == "feedforward_intermediate_dense" else result
        np.testing.assert_allclose(
            np.asarray(layer(x)).reshape(result.shape), result, atol=3e-6, err_msg=layer.name
        )
    before = np.asarray(model(examples[0]))
    traced = tf.function(model).get_concrete_function(examples[0])
    models.merge_lora(model)
    for name, weights in expected.items():
        kernel = model.get_layer("backbone").get_layer(name).kernel
        np.testing.assert_allclose(as_matrix(name, kernel), weights, atol=2e-6)
    np.testing.assert_allclose(model(examples[0]), before, atol=1e-5)
    np.testing.assert_allclose(traced(tf.constant(examples[0])), before, atol=1e-5)


@pytest.mark.parametrize("name", ["query", "key", "attention_output"])
def test_gradients_of_dora_take_the_norm_as_a_constant(name, examples):
    model = toy()
    models.add_lora(model, RANK, ALPHA, ("all",), variant="dora")
    train(model)
    layer = model.get_layer("backbone").get_layer(name)
    adapter = layer.adapter
    a, b, lengths = (np.asarray(weight) for weight in adapter.weights)
    x = layer_input(name, examples[0])
    with tf.GradientTape() as tape:
        y = layer(x)
        upstream = np.random.default_rng(3).normal(size=y.shape).astype("float32")
        total = tf.reduce_sum(y * upstream)
    by_a, by_b, by_lengths = tape.gradient(total, [weight.value for weight in adapter.weights])
    flat, upstream = x.reshape(SIZE * TOKENS, -1), upstream.reshape(SIZE * TOKENS, -1)
    changed = as_matrix(name, layer.kernel) + SCALE * a @ b
    norms = np.sqrt((changed**2).sum(0))
    scaled = upstream * lengths / norms
    np.testing.assert_allclose(by_a, SCALE * flat.T @ (scaled @ b.T), atol=1e-4)
    np.testing.assert_allclose(by_b, SCALE * (flat @ a).T @ scaled, atol=1e-4)
    expected = (upstream * (flat @ changed) / norms).sum(0)
    np.testing.assert_allclose(by_lengths, expected, atol=1e-4)


def test_dora_trains_its_lengths_and_files_keep_them(examples, tmp_path):
    inputs, labels = examples
    model = toy()
    models.add_lora(model, RANK, ALPHA, ("query",), dropout=0.1, variant="dora")
    before = values(model.trainable_weights)
    assert any(path.endswith("query/lora_magnitude") for path in before)
    steps(model, inputs, np.eye(3, dtype="float32")[labels], count=3)
    for path, value in values(model.trainable_weights).items():
        assert not np.array_equal(value, before[path]), path
    model.save_weights(tmp_path / "a.weights.h5")
    other = toy()
    models.add_lora(other, RANK, ALPHA, ("query",), dropout=0.1, variant="dora")
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(other(inputs), model(inputs))


def test_wrong_variants_are_named():
    with pytest.raises(UsageError, match="variant of LoRA 'dorra'"):
        models.add_lora(toy(), 2, variant="dorra")


def test_the_update_of_a_whole_projection_has_the_rank_asked_for():
    model = toy()
    backbone = model.get_layer("backbone")
    before = {x.name: np.array(x.kernel) for x in projections(backbone)}
    models.add_lora(model, RANK, ALPHA, ("all",))
    randomise(model)
    models.merge_lora(model)
    for layer in projections(backbone):
        update = np.asarray(layer.kernel) - before[layer.name]
        if not layer.name.startswith("feedforward"):
            update = as_matrix(layer.name, update)
        assert np.linalg.matrix_rank(update, tol=1e-5) == RANK


def test_a_begins_as_peft_draws_it_and_b_at_zero():
    model = toy()
    models.add_lora(model, 400, targets=("query", "key"), seed=5)
    query, key = (layer.adapter for layer in adapted(model.get_layer("backbone")))
    a = np.asarray(query.a)
    bound = WIDTH**-0.5
    assert 0.99 * bound < np.abs(a).max() <= bound
    np.testing.assert_allclose(a.std(), bound / 3**0.5, rtol=0.05)
    assert not np.asarray(query.b).any()
    assert not np.array_equal(a, np.asarray(key.a))
    again = toy()
    models.add_lora(again, 400, targets=("query", "key"), seed=5)
    np.testing.assert_array_equal(a, adapted(again.get_layer("backbone"))[0].adapter.a)


# The others take longer and have, but for DeBERTa, the blocks of BERT.
@pytest.mark.parametrize(
    "family",
    [
        family if family in ("albert", "bert") else pytest.param(family, marks=slow)
        for family in FAMILIES
    ],
)
def test_every_family_trains_its_updates_and_merges(
    family, tiny_text, text_classifier, pack, tmp_path
):
    backbone = models.load_text_backbone(str(tiny_text(family)))
    model = text_classifier(backbone)
    batch = pack(backbone.tokenizer, TEXTS, 32)
    plain = np.asarray(model(batch))
    kinds = [type(layer) for layer in model._flatten_layers()]
    old = values(model.weights)

    counts = models.add_lora(model, RANK, ALPHA, ("all",))
    np.testing.assert_array_equal(model(batch), plain)
    trained = values(model.trainable_weights)
    assert counts.trainable == sum(x.size for x in trained.values())
    inside = {path for path in trained if not path.startswith("probabilities")}
    blocks = 1 if family == "albert" else 3
    assert len(inside) == 2 * 6 * blocks == len(model.trainable_weights) - 2
    assert all(path.endswith(("/lora_a", "/lora_b")) for path in inside)
    assert inside < set(models.weight_depths(model))

    steps(model, batch, LABELS)
    for path, value in values(model.weights).items():
        before = trained[path] if path in trained else old[path]
        assert (not np.array_equal(value, before)) == (path in trained), path
    adapted_output = np.asarray(model(batch))
    assert np.abs(adapted_output - plain).max() > 1e-3

    models.merge_lora(model)
    assert [type(layer) for layer in model._flatten_layers()] == kinds
    assert values(model.weights).keys() == old.keys()
    np.testing.assert_allclose(model(batch), adapted_output, atol=1e-5)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert "tfsft" not in archive.read("config.json").decode()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(batch), adapted_output, atol=1e-5)


@pytest.mark.parametrize("family", ["Gemma", "GPT2", "Llama"])
def test_decoders_go_the_same_way(family):
    import keras_hub

    size = {"vocabulary_size": 30, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
    heads = {"num_query_heads": 4, "num_key_value_heads": 2}
    heads = {"GPT2": {"num_heads": 4}, "Gemma": heads | {"head_dim": 8}}.get(family, heads)
    backbone = getattr(keras_hub.models, f"{family}Backbone")(**size, **heads, name="backbone")
    model = keras.Model(backbone.input, backbone(backbone.input))
    tokens = np.random.default_rng(0).integers(1, 30, (2, 7)).astype("int32")
    batch = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    plain = np.asarray(model(batch))
    models.add_lora(model, RANK, targets=("all",))
    assert len(adapted(backbone)) == 2 * (6 if family == "GPT2" else 7)
    np.testing.assert_array_equal(model(batch), plain)
    randomise(model, size=0.05)
    changed = np.asarray(model(batch))
    assert np.abs(changed - plain).max() > 1e-3
    models.merge_lora(model)
    np.testing.assert_allclose(model(batch), changed, atol=1e-5)


def test_merging_under_mixed_precision(mixed_bfloat16, examples):
    model = toy()
    models.add_lora(model, RANK, ALPHA, ("all",))
    randomise(model, size=0.1)
    layer = adapted(model.get_layer("backbone"))[0]
    assert layer.adapter.a.dtype == layer.adapter.b.dtype == "float32"
    assert layer(examples[0]).dtype == "bfloat16"
    before = np.asarray(model(examples[0]))
    models.merge_lora(model)
    np.testing.assert_allclose(model(examples[0]), before, atol=0.02)


def test_models_that_were_compiled_before_follow(examples):
    inputs, labels = examples
    labels = np.eye(3)[labels]
    model = toy()
    model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    model.fit(inputs, labels, verbose=0)
    plain = model.predict(inputs, verbose=0)
    frozen = values(model.get_layer("backbone").weights)
    models.add_lora(model, RANK, ALPHA, ("all",))
    randomise(model)
    changed = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(changed, model(inputs), atol=1e-6)
    assert np.abs(changed - plain).max() > 0.01
    model.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy", jit_compile=False)
    model.fit(inputs, labels, epochs=3, verbose=0)
    for path, value in frozen.items():
        np.testing.assert_array_equal(
            value, values(model.get_layer("backbone").weights)[path], err_msg=path
        )
    trained = model.predict(inputs, verbose=0)
    assert np.abs(trained - changed).max() > 0.01
    traced = tf.function(model).get_concrete_function(inputs)
    models.merge_lora(model)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), trained, atol=1e-6)
    # Even what was traced with the updates in it computes the same.
    np.testing.assert_allclose(traced(tf.constant(inputs)), trained, atol=1e-6)


def fine_tuned(examples, strategy, accumulate):
    inputs, labels = examples

    def fetch(rows, seeds):
        return tf.data.Dataset.from_tensor_slices((inputs[rows], np.ones(rows.shape, bool)))

    with strategy.scope():
        model = toy()
        models.add_lora(model, RANK, ALPHA, ("all",))
        tuner = FineTuner(model, accumulate=accumulate)
        tuner.compile(
            optimizer=make_optimizer("sgd", 0.3, momentum=0.9), loss="categorical_crossentropy"
        )
    plan = BatchPlan(SIZE, 8, seed=1, shuffle=True)
    tuner.fit(Pipeline(plan, labels, fetch, num_classes=3), epochs=2)
    result = np.asarray(model(inputs))
    trained = values(model.trainable_weights)
    models.merge_lora(model)
    np.testing.assert_allclose(model(inputs), result, atol=1e-5)
    return trained


@pytest.mark.slow
def test_two_replicas_that_accumulate_train_like_one(examples, mirrored):
    one = fine_tuned(examples, tf.distribute.get_strategy(), 1)
    two = fine_tuned(examples, mirrored, 2)
    assert one.keys() == two.keys()
    assert any(np.abs(value).max() > 0.01 for path, value in one.items() if "lora_b" in path)
    for path, value in one.items():
        np.testing.assert_allclose(two[path], value, atol=1e-5, err_msg=path)


def test_dropout_draws_in_training_alone_and_checkpoints_know_where_it_is(examples):
    def build():
        model = toy()
        models.add_lora(model, RANK, ALPHA, ("query", "feedforward"), dropout=0.5, seed=2)
        randomise(model)
        return model

    inputs, model = examples[0], build()
    calm = np.asarray(model(inputs, training=False))
    first = np.asarray(model(inputs, training=True))
    assert np.abs(first - calm).max() > 0.01
    saved = state_of("model", model.variables)
    second = np.asarray(model(inputs, training=True))
    assert not np.array_equal(first, second)

    other = build()
    adapted(other.get_layer("backbone"))[0].adapter.a.assign_add([[1.0] * RANK] * WIDTH)
    restore("model", other.variables, saved)
    np.testing.assert_array_equal(other(inputs, training=True), second)

    count = len(toy().variables)
    models.merge_lora(model)
    assert len(model.variables) == count
    np.testing.assert_allclose(model(inputs, training=True), calm, atol=1e-5)


def test_dropout_keeps_the_mean_of_the_update(examples):
    model = toy()
    models.add_lora(model, RANK, ALPHA, ("query",), dropout=0.5)
    randomise(model)
    layer = adapted(model.get_layer("backbone"))[0]
    x = np.repeat(examples[0][:1], 4000, 0)
    mean = np.asarray(layer(x, training=True)).mean(0)
    np.testing.assert_allclose(mean, layer(x[:1])[0], atol=0.15)


def test_the_frozen_part_splits_off(load_text, tiny_text, text_classifier, pack):
    backbone = models.load_text_backbone(str(tiny_text("bert")))
    model = text_classifier(backbone)
    models.add_lora(model, RANK, ALPHA)
    randomise(model)
    trunk, top = models.split_frozen(model)
    batch = pack(backbone.tokenizer, TEXTS, 32)
    np.testing.assert_allclose(top(trunk(batch)), model(batch), atol=1e-6)
    assert not trunk.trainable_weights
    assert {w.path for w in top.trainable_weights} == {w.path for w in model.trainable_weights}
    depths = models.weight_depths(model)
    by_block = [
        depths[f"transformer_layer_{i}/self_attention_layer/query/lora_a"] for i in range(3)
    ]
    assert by_block == [3, 2, 1]


def test_weights_files_keep_the_updates_and_keras_files_are_refused(examples, tmp_path):
    model = toy()
    models.add_lora(model, RANK, ALPHA, ("all",))
    randomise(model)
    model.save_weights(tmp_path / "a.weights.h5")
    other = toy()
    models.add_lora(other, RANK, ALPHA, ("all",), seed=9)
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(other(examples[0]), model(examples[0]))
    with pytest.raises(UserError, match="merge_lora"):
        model.save(tmp_path / "model.keras")


def test_targets_go_by_their_role(tiny_text, text_classifier):
    def chosen(targets):
        model = text_classifier(models.load_text_backbone(str(tiny_text("bert"))))
        models.add_lora(model, RANK, targets=targets)
        return {layer.name for layer in adapted(model.get_layer("backbone"))}

    assert chosen(("query", " value")) == {"query", "value"}
    assert chosen(("output", "feedforward")) == {
        "attention_output",
        "feedforward_intermediate_dense",
        "feedforward_output_dense",
    }


@pytest.mark.parametrize(
    ("rank", "targets", "message"),
    [
        (2, ("qeury",), "no LoRA target 'qeury'. Did you mean 'query'"),
        (2, ("value",), "no projection for the LoRA target 'value'.\nIt has: query, key, output"),
        (2, (), "No LoRA targets"),
        (0, ("query",), "rank 0"),
    ],
)
def test_wrong_targets_are_named(rank, targets, message):
    model = toy()
    with pytest.raises(UsageError, match=message):
        models.add_lora(model, rank, targets=targets)
    assert len(model.trainable_weights) == len(toy().trainable_weights)


def test_a_backbone_without_projections_and_one_with_updates():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs), name="backbone")
    model = keras.Model(backbone.input, backbone(backbone.input))
    with pytest.raises(UsageError, match="LoRA is for transformers"):
        models.add_lora(model, 2, targets=("all",))
    model = toy()
    models.add_lora(model, 2, targets=("query",))
    with pytest.raises(UsageError, match="already"):
        models.add_lora(model, 2, targets=("key",))


@pytest.mark.parametrize("family", ["bert", "deberta_v3"])
def test_an_adapter_goes_round(family, tiny_text, text_classifier, pack, tmp_path):
    def build(seed):
        keras.utils.set_random_seed(seed)
        return text_classifier(models.load_text_backbone(str(tiny_text(family))))

    model = build(1)
    models.add_lora(model, RANK, ALPHA, ("all",), dropout=0.1)
    randomise(model)
    models.save_adapter(model, tmp_path / "adapter", base="some/encoder")
    tokenizer = models.load_text_backbone(str(tiny_text(family))).tokenizer
    batch = pack(tokenizer, TEXTS, 32)

    other = build(2)
    counts = models.load_adapter(other, tmp_path / "adapter")
    np.testing.assert_allclose(other(batch), model(batch), atol=1e-6)
    assert counts == models.count_parameters(model)
    assert values(other.trainable_weights).keys() == values(model.trainable_weights).keys()
    loaded = adapted(other.get_layer("backbone"))[0].adapter
    assert loaded.form == Form(RANK, ALPHA, 0.1)

    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/encoder"
    assert (config["r"], config["lora_alpha"]) == (RANK, ALPHA)
    name = {
        "bert": "encoder.layer.1.attention.output.dense",
        "deberta_v3": "disentangled_attention_encoder_layer_1.self_attention_layer."
        "attention_output",
    }[family]
    assert name in config["target_modules"]
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert tensors[f"base_model.model.{name}.lora_A.weight"].shape == (RANK, 16)

    models.merge_lora(model)
    with pytest.raises(UserError, match="no LoRA updates to save"):
        models.save_adapter(model, tmp_path / "late", base="")


def peft_model(family):
    import keras_hub

    backbone = keras_hub.models.Backbone.from_preset(str(PEFT / family), name="backbone")
    outputs = backbone(backbone.input)
    outputs = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
    return keras.Model(backbone.input, outputs)


@pytest.mark.parametrize("family", ["albert", "bert", "distilbert", "roberta"])
def test_an_adapter_of_peft_gives_the_hidden_states_that_peft_gives(family, tmp_path):
    expected = load_file(PEFT / family / "expected.safetensors")
    real = expected["padding_mask"].astype(bool)
    model = peft_model(family)
    batch = {name: expected[name] for name in ("token_ids", "padding_mask")}
    batch |= {"segment_ids": np.zeros_like(expected["token_ids"])}
    batch = {name: batch[name] for name in model.input}

    plain = np.asarray(model(batch))[real]
    np.testing.assert_allclose(plain, expected["hidden_without"][real], atol=1e-4)
    models.load_adapter(model, PEFT / family)
    np.testing.assert_allclose(np.asarray(model(batch))[real], expected["hidden"][real], atol=1e-4)
    assert np.abs(expected["hidden"] - expected["hidden_without"])[real].max() > 0.5

    models.save_adapter(model, tmp_path, base="")
    ours = load_file(tmp_path / "adapter_model.safetensors")
    theirs = load_file(PEFT / family / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=key)


@pytest.fixture
def damaged(tmp_path):
    """Makes a copy of PEFT's adapter and changes its configuration or tensors."""

    def change(config=None, tensors=lambda x: x, without=()):
        folder = tmp_path / "adapter"
        shutil.copytree(PEFT / "bert", folder)
        known = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(known | (config or {})))
        path = folder / "adapter_model.safetensors"
        save_file(tensors(load_file(path)), path)
        for name in without:
            (folder / name).unlink()
        return folder

    return change


def renamed(old, new):
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


def without(part):
    return lambda tensors: {key: value for key, value in tensors.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": ["adapter_config.json"]}, "There is no .*adapter_config.json"),
        ({"without": ["adapter_model.safetensors"]}, "There is no .*adapter_model.safetensors"),
        ({"config": {"r": "many"}}, "cannot be read"),
        ({"config": {"r": 4}}, r"has the shape \(2, 8\).\nExpected \(4, 8\)"),
        ({"config": {"use_qalora": True}}, "does not compute: use_qalora"),
        ({"config": {"use_dora": True}}, "lora_magnitude_vector is missing"),
        ({"config": {"alpha_pattern": {"key": 3}}}, "does not compute: alpha_pattern"),
        ({"config": {"peft_type": "IA3"}}, "does not compute: peft_type IA3"),
        ({"config": {"init_lora_weights": "pissa"}}, "init_lora_weights pissa"),
        ({"tensors": without("0.output.dense.lora_B")}, "lora_B.weight is missing"),
        ({"tensors": without("layer.1.")}, "for a smaller model.*layer.1.attention"),
        ({"tensors": renamed("layer.1", "layer.2")}, "no place in it, like encoder.layer.2"),
        (
            {"tensors": lambda x: x | {"base_model.model.classifier.weight": x[min(x)]}},
            "classifier",
        ),
        ({"tensors": without("lora")}, "not for this model"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_whole(damaged, change, message):
    model = peft_model("bert")
    before = values(model.variables)
    with pytest.raises(UserError, match=message):
        models.load_adapter(model, damaged(**change))
    assert values(model.variables).keys() == before.keys()


def test_an_adapter_of_some_blocks_in_a_model_with_a_head(damaged, tmp_path):
    config = {"layers_to_transform": [0]}
    model = peft_model("bert")
    folder = damaged(config, lambda x: renamed("encoder", "bert.encoder")(without("layer.1.")(x)))
    models.load_adapter(model, folder)
    layers = adapted(model.get_layer("backbone"))
    assert {layer.path.split("/")[0] for layer in layers} == {"transformer_layer_0"}
    models.save_adapter(model, tmp_path / "again", base="")
    again = peft_model("bert")
    models.load_adapter(again, tmp_path / "again")
    assert len(adapted(again.get_layer("backbone"))) == len(layers)


def test_a_head_of_other_classes_is_refused(tmp_path):
    model = toy()
    models.add_lora(model, RANK, targets=("query",))
    models.save_adapter(model, tmp_path, base="")
    head = load_file(tmp_path / "head.safetensors")
    save_file(
        {key: np.concatenate([x, x], -1) for key, x in head.items()}, tmp_path / "head.safetensors"
    )
    with pytest.raises(UserError, match=r"'predictions/bias': \(6,\)"):
        models.load_adapter(toy(), tmp_path)


def folded(folder, tensors, config):
    """Puts an adapter into a folder of Hugging Face weights, by NumPy alone."""
    weights = load_file(folder / "model.safetensors")
    rank, alpha = config["r"], config["lora_alpha"]
    scale = alpha / np.sqrt(rank) if config["use_rslora"] else alpha / rank
    for module in {key.split(".lora_")[0] for key in tensors}:
        key = module.removeprefix("base_model.model.") + ".weight"
        a, b = (tensors[f"{module}.lora_{part}.weight"] for part in "AB")
        assert (b.shape[0], a.shape[1]) == weights[key].shape
        weights[key] = weights[key] + scale * b @ a
        if config["use_dora"]:
            length = tensors[f"{module}.lora_magnitude_vector"]
            norm = np.sqrt((weights[key] ** 2).sum(1))
            weights[key] = (length / norm)[:, None] * weights[key]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("llama", "rslora"),
        ("llama", "dora"),
        ("gemma", "dora"),
        ("gemma3_text", "dora"),
        ("qwen3", "dora"),
        ("mixtral", "dora"),
        ("smollm3", "dora"),
        pytest.param("gemma2", "lora", marks=slow),
        pytest.param("mistral", "dora", marks=slow),
        pytest.param("qwen2", "dora", marks=slow),
    ],
)
def test_adapters_of_language_models_go_into_the_weights_of_hugging_face(tmp_path, family, variant):
    from chat_families import tiny_causal_lm

    folder = tiny_causal_lm(tmp_path / family, family)
    model = models.load_causal_lm(str(folder)).model
    ids = np.array([[5, 6, 7, 8]], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    original = np.asarray(model(inputs))
    models.add_lora(model, RANK, ALPHA, ("all",), variant=variant)
    np.testing.assert_allclose(model(inputs), original, atol=1e-5)
    train(model)
    changed = np.asarray(model(inputs))
    assert np.abs(changed - original).max() > 0.01
    models.save_adapter(model, tmp_path / "adapter", base=str(folder))

    again = models.load_causal_lm(str(folder)).model
    models.load_adapter(again, tmp_path / "adapter")
    np.testing.assert_array_equal(again(inputs), changed)

    with models.lora_off(model):
        np.testing.assert_array_equal(model(inputs), original)
    models.merge_lora(model)
    size = np.abs(changed).max()
    np.testing.assert_allclose(model(inputs), changed, atol=5e-6 * size)

    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == (variant == "rslora", variant == "dora")
    assert config["lora_alpha"] == ALPHA
    assert len(tensors) == 2 * (4 if family == "mixtral" else 7) * (3 if variant == "dora" else 2)
    folded(folder, tensors, config)
    merged = models.load_causal_lm(str(folder)).model(inputs)
    # KerasHub reads the weights of Mistral as float16.
    near = 5e-3 if family == "mistral" else 1e-5
    np.testing.assert_allclose(merged, changed, atol=near * size)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_updates_of_a_language_model_have_the_names_that_peft_looks_for(tmp_path, family):
    from chat_families import tiny_causal_lm

    folder = str(tiny_causal_lm(tmp_path / family, family))
    model = models.load_causal_lm(folder).model
    models.add_lora(model, 2, 4.0, ("all",))
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(random.normal(0, 0.1, weight.shape))
    models.save_adapter(model, tmp_path / "adapter", base=folder)

    # The names in a file that PEFT 0.21 wrote for LlamaForCausalLM.
    names = [f"self_attn.{name}_proj" for name in "qkvo"]
    names += [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    expected = {
        f"base_model.model.model.layers.{block}.{name}.lora_{part}.weight"
        for block in (0, 1)
        for name in names
        for part in "AB"
    }
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(tensors) == expected
    assert tensors["base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"].shape == (
        16,
        2,
    )
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"

    again = models.load_causal_lm(folder).model
    models.load_adapter(again, tmp_path / "adapter")
    ids = np.array([[5, 6, 7, 8]], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_updates_that_are_off_leave_the_original_bit_for_bit(tmp_path):
    from chat_families import tiny_causal_lm

    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama"))).model
    ids = np.array([[5, 6, 7, 8]], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    original = np.asarray(model(inputs))
    models.add_lora(model, 2, 4.0, ("all",), dropout=0.1)
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 0.1))
    changed = np.asarray(model(inputs))
    with models.lora_off(model):
        np.testing.assert_array_equal(model(inputs), original)
        np.testing.assert_allclose(model.predict(inputs, verbose=0), original, atol=1e-5)
    np.testing.assert_array_equal(model(inputs), changed)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), changed, atol=1e-5)
    assert np.abs(changed - original).max() > 0.01
