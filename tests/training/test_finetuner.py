"""However a batch is cut up, the weights after training are the same; and they are those of an
independent loop.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.errors import UserError
from tfsft.training import FineTuner, finetuner, lean, make_optimizer

SIZE, WIDTH, CLASSES, BATCH = 27, 6, 3, 8  # 27 examples in batches of 8: an uneven tail of 3


@pytest.fixture(scope="module")
def examples():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SIZE, WIDTH)).astype("float32")
    labels = random.integers(0, CLASSES, SIZE)
    return inputs, labels


def pipeline(examples, shuffle=True, weights=None):
    inputs, labels = examples

    def fetch(rows, seeds):
        ok = np.ones(rows.shape, bool)
        return tf.data.Dataset.from_tensor_slices((inputs[rows], ok))

    plan = BatchPlan(SIZE, BATCH, seed=1, shuffle=shuffle)
    return Pipeline(plan, labels, fetch, num_classes=CLASSES, weights=weights)


def network(l2=0.0, dropout=0.0):
    keras.utils.set_random_seed(7)
    penalty = keras.regularizers.L2(l2) if l2 else None
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(5, activation="tanh", kernel_regularizer=penalty, name="hidden"),
            keras.layers.Dropout(dropout, name="dropout"),
            keras.layers.Dense(CLASSES, activation="softmax", name="predictions"),
        ],
        name="network",
    )


def train(
    examples, strategy=None, epochs=4, l2=0.0, dropout=0.0, clip=None, accumulate=1, **options
):
    strategy = strategy or tf.distribute.get_strategy()
    weights = options.pop("weights", None)
    optimizer = options.pop("optimizer", "adamw")
    with strategy.scope():
        model = network(l2, dropout)
        tuner = FineTuner(model, accumulate=accumulate, clip_norm=clip)
        tuner.compile(
            optimizer=make_optimizer(optimizer, 0.02, weight_decay=0.01, **options),
            loss="categorical_crossentropy",
            weighted_metrics=["accuracy"],
        )
    history = tuner.fit(pipeline(examples, weights=weights), epochs=epochs)
    return [np.asarray(w) for w in model.trainable_variables], history.history, tuner


def largest_difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


def numpy_training(examples, epochs, learning_rate=0.1, l2=0.0, clip=None, weights=None):
    """Plain SGD on the same network in NumPy: loss is the weighted mean of each whole batch."""
    inputs, labels = examples
    weights = np.ones(SIZE) if weights is None else weights
    w1, b1, w2, b2 = (np.asarray(v).astype("float64") for v in network().trainable_variables)
    losses = []
    for epoch in range(epochs):
        rows, filler = BatchPlan(SIZE, BATCH, seed=1).epoch(epoch)
        sums = np.zeros(2)
        for batch, real in zip(rows, filler, strict=True):
            x, y, w = inputs[batch], np.eye(CLASSES)[labels[batch]], real * weights[batch]
            h = np.tanh(x @ w1 + b1)
            z = h @ w2 + b2
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            sums += -(w * (y * np.log(p)).sum(1)).sum() + l2 * (w1**2).sum() * w.sum(), w.sum()
            dz = (p - y) * w[:, None] / w.sum()
            dh = dz @ w2.T * (1 - h**2)
            gradients = [x.T @ dh + 2 * l2 * w1, dh.sum(0), h.T @ dz, dz.sum(0)]
            if clip:
                norm = np.sqrt(sum((g**2).sum() for g in gradients))
                gradients = [g * min(1, clip / norm) for g in gradients]
            w1, b1, w2, b2 = (
                v - learning_rate * g for v, g in zip((w1, b1, w2, b2), gradients, strict=True)
            )
        losses.append(sums[0] / sums[1])
    return [w1, b1, w2, b2], losses


@pytest.mark.parametrize("cut", ["whole", "parts", "replicas", "replicas and parts"])
def test_sgd_equals_numpy(examples, mirrored, cut):
    """Uneven tail, class weights, L2 and clipping, against a loop written by hand."""
    weights = np.linspace(0.5, 2.0, SIZE).astype("float32")
    expected, losses = numpy_training(examples, 3, l2=0.01, clip=0.4, weights=weights)
    strategy = mirrored if "replicas" in cut else tf.distribute.get_strategy()
    with strategy.scope():
        model = network(l2=0.01)
        tuner = FineTuner(model, accumulate=2 if "parts" in cut else 1, clip_norm=0.4)
        tuner.compile(optimizer=keras.optimizers.SGD(0.1), loss="categorical_crossentropy")
    history = tuner.fit(pipeline(examples, weights=weights), epochs=3)
    actual = [np.asarray(w) for w in model.trainable_variables]
    assert largest_difference(actual, expected) < 1e-6
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "lion", "muon"])
def test_two_replicas_equal_one_device(examples, mirrored, optimizer):
    one, one_history, _ = train(examples, clip=0.5, l2=1e-3, optimizer=optimizer)
    two, two_history, _ = train(examples, mirrored, clip=0.5, l2=1e-3, optimizer=optimizer)
    assert largest_difference(one, two) < 1e-5
    for name, values in one_history.items():
        np.testing.assert_allclose(values, two_history[name], atol=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_equal_the_whole_batch(examples, mirrored, parts):
    whole, *_ = train(examples, clip=0.5, l2=1e-3)
    cut, *_ = train(examples, clip=0.5, l2=1e-3, accumulate=parts)
    both, *_ = train(examples, mirrored, clip=0.5, l2=1e-3, accumulate=parts)
    assert largest_difference(whole, cut) < 1e-5
    assert largest_difference(whole, both) < 1e-5


def test_moving_average_is_the_same_on_two_replicas(examples, mirrored):
    one, *_ = train(examples, ema=0.9)
    two, *_ = train(examples, mirrored, ema=0.9)
    plain, *_ = train(examples)
    assert largest_difference(one, two) < 1e-5
    assert largest_difference(one, plain) > 1e-3


def test_dropout_under_replicas_and_parts_repeats_itself(examples, mirrored):
    for options in (
        {"accumulate": 2},
        {"strategy": mirrored},
        {"strategy": mirrored, "accumulate": 2},
    ):
        first, *_ = train(examples, dropout=0.5, epochs=2, **options)
        again, *_ = train(examples, dropout=0.5, epochs=2, **options)
        assert largest_difference(first, again) == 0.0


def test_every_epoch_has_its_exact_number_of_steps(examples):
    _, _, tuner = train(examples, epochs=3)
    assert int(tuner.optimizer.iterations.numpy()) == 3 * 4


def test_filler_never_counts_in_metrics(examples):
    """Accuracy and loss of 27 examples evaluated in batches of 8, against NumPy."""
    inputs, labels = examples
    model = network()
    tuner = FineTuner(model)
    tuner.compile(optimizer="sgd", loss="categorical_crossentropy", weighted_metrics=["accuracy"])
    scores = tuner.evaluate(pipeline(examples, shuffle=False), return_dict=True, verbose=0)
    probabilities = np.asarray(model(inputs))
    assert scores["accuracy"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    expected = -np.log(probabilities[np.arange(SIZE), labels]).mean()
    assert scores["loss"] == pytest.approx(expected, rel=1e-6)


def test_layers_have_rates_of_their_own(examples):
    """Factor 0 leaves a layer as it is; factor 0.5 on every layer is half the learning rate."""
    paths = [v.path for v in network().variables if "hidden" in v.path]
    before = [np.asarray(v) for v in network().trainable_variables]
    after, *_ = train(examples, rate_factors=dict.fromkeys(paths, 0.0))
    assert largest_difference(before[:2], after[:2]) == 0.0
    assert largest_difference(before[2:], after[2:]) > 0.0

    def halved(factors, rate):
        model = network()
        tuner = FineTuner(model)
        optimizer = make_optimizer("adamw", rate, weight_decay=0.1, rate_factors=factors)
        tuner.compile(optimizer=optimizer, loss="categorical_crossentropy")
        tuner.fit(pipeline(examples), epochs=2)
        return [np.asarray(v) for v in model.trainable_variables]

    every = {v.path: 0.5 for v in network().variables}
    assert largest_difference(halved(every, 0.02), halved({}, 0.01)) < 1e-7


def test_mixed_float16_trains_with_scaled_loss(examples):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        weights, history, tuner = train(examples, clip=0.5, accumulate=2)
    finally:
        keras.config.set_dtype_policy("float32")
    exact, *_ = train(examples, clip=0.5, accumulate=2)
    assert isinstance(tuner.optimizer, keras.optimizers.LossScaleOptimizer)
    assert largest_difference(weights, exact) < 0.02
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize(
    ("optimizer", "compile_options", "named"),
    [
        (lambda: keras.optimizers.SGD(0.1, clipnorm=1.0), {}, "clipnorm"),
        (lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), {}, "accumulate"),
        (lambda: "sgd", {"metrics": ["accuracy"]}, "weighted_metrics"),
        (lambda: "sgd", {"steps_per_execution": 4}, "steps_per_execution"),
    ],
)
def test_what_would_not_be_exact_is_refused(optimizer, compile_options, named):
    with pytest.raises(UserError, match=named):
        FineTuner(network()).compile(optimizer(), "categorical_crossentropy", **compile_options)


def test_a_batch_that_cannot_be_cut_is_refused(examples):
    with pytest.raises(UserError, match="multiple of --accumulate 3"):
        train(examples, accumulate=3)


def test_frozen_kernels_are_rounded_once_and_not_for_ever(examples, monkeypatch):
    """In bfloat16: the same weights as with rounding in every update, also after a change."""
    used = []
    monkeypatch.setattr(
        finetuner,
        "rounded_kernels",
        lambda model: used.append(lean.rounded_kernels(model)) or used[-1],
    )

    def trained(rounded):
        if not rounded:
            monkeypatch.setattr(finetuner, "rounded_kernels", lambda model: {})
        keras.utils.set_random_seed(7)
        hidden = keras.layers.Dense(5, trainable=False, dtype="mixed_bfloat16")
        head = keras.layers.Dense(CLASSES, activation="softmax", dtype="float32")
        model = keras.Sequential([keras.Input((WIDTH,)), hidden, head])
        tuner = FineTuner(model)
        tuner.compile(make_optimizer("adam", 0.02), loss="categorical_crossentropy")
        weights, losses = [], []
        for factor in (1.0, -2.0):
            hidden.kernel.assign(hidden.kernel * factor)
            losses.append(tuner.evaluate(pipeline(examples), verbose=0))
            tuner.fit(pipeline(examples), epochs=2)
            weights += [np.asarray(w) for w in model.weights]
        return weights, losses

    found, losses = trained(rounded=True)
    assert [len(kernels) for kernels in used] == [1, 1]
    expected, expected_losses = trained(rounded=False)
    assert largest_difference(found, expected) == 0
    assert losses == expected_losses


def test_every_token_counts_alike_whatever_the_width_of_its_batch():
    """Keras divides what a batch adds to a metric by the batch's width."""
    random = np.random.default_rng(3)
    batches, losses, hits, counted = [], [], [], []
    model = keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(CLASSES, "softmax")])
    for width in (2, 7, 3):
        inputs = random.normal(size=(2, width, 4)).astype("float32")
        labels = random.integers(0, CLASSES, (2, width))
        weights = random.choice([0.0, 1.0, 2.0], (2, width)).astype("float32")
        batches.append((inputs, np.eye(CLASSES, dtype="float32")[labels], weights))
        chances = np.asarray(model(inputs)).astype("float64")
        losses.append(-np.log(np.take_along_axis(chances, labels[..., None], -1)).ravel())
        hits.append((chances.argmax(-1) == labels).ravel())
        counted.append(weights.ravel())
    spec = tuple(tf.TensorSpec([2, None, *part.shape[2:]], "float32") for part in batches[0])
    data = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)
    data = data.apply(tf.data.experimental.assert_cardinality(3))
    tuner = FineTuner(model)
    tuner.compile(
        keras.optimizers.SGD(0.0),
        "categorical_crossentropy",
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    losses, hits, counted = (np.concatenate(parts) for parts in (losses, hits, counted))
    expected = {
        "loss": np.average(losses, weights=counted),
        "accuracy": np.average(hits, weights=counted),
    }
    for found in (
        tuner.evaluate(data, return_dict=True, verbose=0),
        {name: values[0] for name, values in tuner.fit(data, verbose=0).history.items()},
    ):
        assert found == pytest.approx(expected, rel=1e-6)
    assert float(tuner._loss_tracker.count.numpy()) == counted.sum()


def test_the_loss_of_validation_goes_by_logits(examples):
    """An answer that is very sure and wrong is as bad as it is, not cut off at 1e-7."""
    inputs, labels = examples
    model = network()
    model.get_layer("predictions").kernel.assign(model.get_layer("predictions").kernel * 100)
    tuner = FineTuner(model)
    tuner.compile(optimizer="sgd", loss="categorical_crossentropy")
    w1, b1, w2, b2 = (np.asarray(v, "float64") for v in model.trainable_variables)
    logits = np.tanh(inputs @ w1 + b1) @ w2 + b2
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(SIZE), labels]
    found = tuner.evaluate(pipeline(examples, shuffle=False), return_dict=True, verbose=0)
    assert losses.max() > 30
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
