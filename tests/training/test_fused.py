"""Compiled layers compute what the layers compute, and so do their gradients."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from tfsft import data, training
from tfsft.training import fused
from tfsft.training.fused import compilable, faster, pays


def llama():
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_query_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        num_key_value_heads=1,
    )
    tokens = {name: keras.Input((None,), dtype="int32", name=name) for name in backbone.input}
    return keras.Model(tokens, keras.layers.Dense(3)(backbone(tokens)[:, 0]))


def bert():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, dropout=0
    )
    tokens = {name: keras.Input((None,), dtype="int32", name=name) for name in backbone.input}
    return keras.Model(tokens, keras.layers.Dense(3)(backbone(tokens)["sequence_output"][:, 0]))


def batch(model, size=4, width=7):
    rng = np.random.default_rng(width)
    known = {
        "token_ids": rng.integers(1, 50, (size, width)),
        "padding_mask": np.ones((size, width)),
        "segment_ids": np.zeros((size, width)),
    }
    return {i.name: tf.constant(known[i.name], tf.int32) for i in model.inputs}


def gradients(model, inputs, compiled=None):
    @tf.function
    def compute(inputs):
        with tf.GradientTape() as tape:
            if compiled is not None:
                with faster(model, compiled):
                    outputs = model(inputs, training=True)
            else:
                outputs = model(inputs, training=True)
            loss = tf.reduce_sum(outputs**2)
        variables = [v.value for v in model.trainable_variables]
        return outputs, tape.gradient(loss, variables, unconnected_gradients="zero")

    outputs, found = compute(inputs)
    return outputs.numpy(), [tf.convert_to_tensor(g).numpy() for g in found]


@pytest.mark.parametrize("make", [bert, llama])
def test_the_same_gradients(make, monkeypatch):
    keras.utils.set_random_seed(0)
    model = make()
    for variable in model.trainable_variables:  # norms that do something
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.1))
    monkeypatch.setattr(fused, "_functions", {})
    layers = compilable(model)
    for width in (7, 5):
        inputs = batch(model, width=width)
        plain, expected = gradients(model, inputs)
        compiled, found = gradients(model, inputs, layers)
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-5)
        scale = max(np.abs(g).max() for g in expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one / scale, other / scale, atol=2e-6)
    # A normalisation and an activation, each once for all layers.
    assert len(fused._functions) == 2


def test_activations_in_bfloat16_are_rounded_once():
    layer = keras.layers.Dense(4, activation="gelu", dtype="bfloat16")
    compiled = fused._function(layer)
    x = tf.constant(np.linspace(-6, 6, 501), "bfloat16")
    upstream = tf.constant(np.linspace(0.5, 1.5, 501), "bfloat16")
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = compiled(x)
    gradient = tape.gradient(found, x, upstream)
    exact, given = (t.numpy().astype("float64") for t in (x, upstream))
    below = 0.5 * (1 + erf(exact / np.sqrt(2)))
    slope = below + exact * np.exp(-(exact**2) / 2) / np.sqrt(2 * np.pi)
    for rounded, true in ((found, exact * below), (gradient, given * slope)):
        assert rounded.dtype == "bfloat16"
        # Half of the distance of two numbers of 8 bits, and what float32 cancels out far below 0.
        np.testing.assert_allclose(rounded.numpy().astype("float64"), true, rtol=2**-8, atol=3e-6)


def test_the_layers_are_as_they_were_afterwards():
    model = bert()
    before = [dict(layer.__dict__) for layer in model._flatten_layers()]
    changed = []

    def trace():
        with faster(model, compilable(model)):
            changed.extend(layer.__dict__ for layer in model._flatten_layers())
            assert changed != before
            raise RuntimeError("traced")

    with pytest.raises(RuntimeError, match="traced"):
        trace()
    for layer, old in zip(model._flatten_layers(), before, strict=True):
        assert layer.__dict__.keys() == old.keys()
        assert all(layer.__dict__[name] is value for name, value in old.items())


def test_training_gives_the_same_weights(tmp_path):
    compare_trainings(tmp_path, replicas=1)


@pytest.mark.slow
def test_training_on_two_replicas_gives_the_same_weights(tmp_path):
    """In a process of its own, as TensorFlow mixes up the sums of two networks' replicas."""
    code = (
        "from pathlib import Path\nimport conftest, test_fused\n"
        "conftest.pytest_pycollect_makemodule(Path(test_fused.__file__), None)\n"
        f"test_fused.compare_trainings(Path({str(tmp_path)!r}), replicas=2)"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (here, here.parent)))
    environment = os.environ | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def compare_trainings(folder, replicas):
    found = {}
    for jit in ("off", "on"):
        devices = ",".join(f"cpu:{i}" for i in range(replicas))
        options = {"strategy": "mirrored", "devices": devices} if replicas > 1 else {}
        with training.Run("x", run_dir=folder / jit, jit=jit, **options) as run:
            with run.strategy.scope():
                model = bert()
                model.set_weights(
                    [
                        np.random.default_rng(i).normal(0, 0.3, w.shape)
                        for i, w in enumerate(model.weights)
                    ]
                )
            rows = [{k: v.numpy() for k, v in batch(model, 8, w).items()} for w in (7, 5)]
            labels = np.arange(8) % 3

            def fetch(steps, seeds, rows=rows):
                return tf.data.Dataset.from_tensor_slices(
                    {k: v[steps] for k, v in rows[0].items()}
                ).map(lambda inputs: (inputs, tf.ones(tf.shape(inputs["token_ids"])[:1], bool)))

            pipeline = data.Pipeline(data.BatchPlan(8, 4), labels, fetch, num_classes=3)
            run.begin(model, task={"task": "x"}, data={})
            with run.strategy.scope():
                tuner = training.FineTuner(model)
                tuner.compile(
                    keras.optimizers.SGD(0.01),
                    keras.losses.CategoricalCrossentropy(from_logits=True),
                )
            tuner.fit(pipeline, epochs=2, phase=run.phase("all"))
            assert bool(tuner._compiled) == bool(run.compiled) == (jit == "on")
            found[jit] = [np.asarray(w) for w in model.weights]
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_it_is_compiled_where_that_pays():
    one = tf.distribute.get_strategy()
    assert pays("auto", one, updates=200, shapes=1)
    assert not pays("auto", one, updates=199, shapes=1)
    assert not pays("auto", one, updates=500, shapes=20)
    assert pays("on", one, updates=1, shapes=20)
    assert not pays("off", one, updates=10_000, shapes=1)
