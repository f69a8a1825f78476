"""What two workers and one process alone compute for tests/training/test_workers.py: the same code
in both.

    TF_CONFIG=... python worker_checks.py FOLDER    writes what this worker ends with to FOLDER
"""

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

from tfsft import training
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.training.forward import run_batches
from tfsft.training.strategy import is_multiworker

SIZE, WIDTH, CLASSES, BATCH = 27, 6, 3, 8  # 27 examples in batches of 8: an uneven tail of 3


def examples(shuffle=True):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SIZE, WIDTH)).astype("float32")
    labels = random.integers(0, CLASSES, SIZE)
    weights = np.linspace(0.5, 2.0, SIZE).astype("float32")

    def fetch(rows, seeds):
        noise = seeds[..., :1].astype("float32") / 2**31 * 0.01  # augmentation of a sort
        ok = rows != 5  # an example that cannot be read
        return tf.data.Dataset.from_tensor_slices((inputs[rows] + noise, ok))

    plan = BatchPlan(SIZE, BATCH, seed=1, shuffle=shuffle)
    return Pipeline(plan, labels, fetch, num_classes=CLASSES, weights=weights)


def network(dropout=0.0, batch_norm=False):
    keras.utils.set_random_seed(7)
    norm = [keras.layers.BatchNormalization(synchronized=True, name="norm")] if batch_norm else []
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(
                5, activation="tanh", kernel_regularizer=keras.regularizers.L2(1e-3), name="hidden"
            ),
            *norm,
            keras.layers.Dropout(dropout, name="dropout"),
            keras.layers.Dense(CLASSES, activation="softmax", name="predictions"),
        ],
        name="network",
    )


def train(strategy, dropout=0.0, batch_norm=False, accumulate=1, clip=0.5, ema=0.0, epochs=3):
    """Returns the tuner, its history, and the step losses that callbacks have seen."""
    with strategy.scope():
        model = network(dropout, batch_norm)
        tuner = training.FineTuner(model, accumulate=accumulate, clip_norm=clip)
        tuner.compile(
            training.make_optimizer("adamw", 0.02, weight_decay=0.01, ema=ema),
            "categorical_crossentropy",
            weighted_metrics=["accuracy", training.ConfusionMatrix(CLASSES)],
        )
    history = tuner.fit(examples(), validation_data=examples(shuffle=False), epochs=epochs)
    return tuner, history.history


class TokenPipeline(Pipeline):
    """Batches of different widths, with a weight for each token."""

    def epoch(self, epoch=0, start=0, part=(0, 1)):
        _, weights = self.plan.epoch(epoch)
        size = BATCH // part[1]
        mine = slice(part[0] * size, (part[0] + 1) * size)

        def batches():
            for step in range(start, self.steps):
                width = 3 + step
                random = np.random.default_rng(step)
                tokens = random.integers(0, 11, (BATCH, width))
                mask = (random.random((BATCH, width)) < 0.4) * weights[step][:, None]
                yield tokens[mine], np.eye(11)[(tokens[mine] + 1) % 11], mask[mine]

        spec = tf.TensorSpec
        return tf.data.Dataset.from_generator(
            batches,
            output_signature=(
                spec([size, None], "int64"),
                spec([size, None, 11], "float32"),
                spec([size, None], "float32"),
            ),
        )


def train_tokens(strategy):
    """A masked loss of tokens, whose number differs from part to part of a batch."""
    with strategy.scope():
        keras.utils.set_random_seed(7)
        model = keras.Sequential(
            [
                keras.Input((None,), dtype="int64"),
                keras.layers.Embedding(11, 4, name="embedding"),
                keras.layers.Dense(11, activation="softmax", name="predictions"),
            ],
            name="tokens",
        )
        tuner = training.FineTuner(model, clip_norm=1.0)
        tuner.compile(training.make_optimizer("adamw", 0.05), "categorical_crossentropy")
    plan = BatchPlan(SIZE, BATCH, seed=1)
    history = tuner.fit(TokenPipeline(plan, np.zeros(SIZE), None), epochs=2)
    return tuner, history.history


def checks(strategy):
    """Returns by name what training and inference give: arrays, the same on every worker."""
    found = {}
    for name, options in {
        "adamw": {},
        "accumulated": {"accumulate": 2},
        "average": {"ema": 0.9, "clip": None, "batch_norm": True},
    }.items():
        tuner, history = train(strategy, **options)
        found |= {
            f"{name}/{v.path}": np.asarray(v) for v in tuner.model.weights if "seed" not in v.path
        }
        found |= {f"{name}/{key}": np.array(values) for key, values in history.items()}
        found[f"{name}/updates"] = tuner.optimizer.iterations.numpy()
    model = tuner.model
    outputs, ok = training.predict(model, examples(), strategy)
    found |= {"outputs": outputs, "ok": ok}
    found["rows"] = np.concatenate([rows for rows, *_ in run_batches(model, examples(), strategy)])
    scores = tuner.evaluate(examples(shuffle=False), return_dict=True, verbose=0)
    found |= {f"evaluate/{key}": np.array(value) for key, value in scores.items()}
    tuner, history = train_tokens(strategy)
    found |= {f"tokens/{v.path}": np.asarray(v) for v in tuner.model.weights}
    found["tokens/loss"] = np.array(history["loss"])
    return found


def masks(strategy):
    """Returns what the units of this worker drop in the first step of a training."""
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            layer = self.model.model.get_layer("dropout")
            kept = strategy.run(lambda: layer(tf.ones((4, 50)), training=True))
            seen.append(np.asarray(strategy.experimental_local_results(kept)[0]))

    with strategy.scope():
        tuner = training.FineTuner(network(dropout=0.5))
        tuner.compile(training.make_optimizer("adamw", 0.02), "categorical_crossentropy")
    tuner.fit(examples(), epochs=2, callbacks=[Look()])
    state = tuner.model.get_layer("dropout").seed_generator.state
    return {
        "mask": seen[0],
        "seed": np.asarray(state),
        "dropped": np.asarray(tuner.model.weights[0]),
    }


def stock_fit(strategy):
    """Keras's own `fit`; fails under several workers as long as Keras is not repaired."""
    with strategy.scope():
        model = network()
        model.compile("sgd", "categorical_crossentropy")
    data = np.ones((8, WIDTH), "float32"), np.eye(CLASSES)[np.zeros(8, int)]
    model.fit(tf.data.Dataset.from_tensor_slices(data).batch(8), epochs=1, verbose=0)


if __name__ == "__main__":
    folder = sys.argv[1]
    strategy = training.make_strategy("multiworker")
    assert is_multiworker(strategy)
    found = checks(strategy) | masks(strategy)
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    np.savez(f"{folder}/{index}.npz", **found)
    try:
        stock_fit(strategy)
        message = ""
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    with open(f"{folder}/stock-{index}.txt", "w") as file:
        file.write(message)
    os._exit(0)
