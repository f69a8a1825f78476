"""A training in small with all that has a state: a second each, because it is eager."""

import dataclasses
import signal

import keras
import numpy as np
import tensorflow as tf

from tfsft import training
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan

SIZE, WIDTH, CLASSES, BATCH = 20, 5, 3, 8
STEPS = -(-SIZE // BATCH)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    data: str = "numbers"
    seed: int = 3
    epochs: int = 12
    max_steps: int = 0


def pipeline(shuffle):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SIZE, WIDTH)).astype("float32")
    labels = (inputs[:, 0] > 0).astype(int) + (inputs[:, 1] > 0)

    def fetch(rows, seeds):
        noise = seeds[..., :1].astype("float32") / 2**31 * shuffle  # augmentation of a sort
        return tf.data.Dataset.from_tensor_slices((inputs[rows] + noise, np.ones(rows.shape, bool)))

    plan = BatchPlan(SIZE, BATCH, seed=3, shuffle=shuffle)
    return Pipeline(plan, labels, fetch, num_classes=CLASSES)


def build():
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(8, activation="tanh", name="hidden"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(CLASSES, activation="softmax", name="predictions"),
        ]
    )


def after(steps, act):
    """A callback that calls `act` after so many steps of this process."""
    left = [steps]

    def on_train_batch_end(batch, logs):
        left[0] -= 1
        if left[0] == 0:
            act()

    return keras.callbacks.LambdaCallback(on_train_batch_end=on_train_batch_end)


def stop_after(steps):
    return after(steps, lambda: signal.raise_signal(signal.SIGTERM))


def train(folder, *callbacks, config=None, resume=False, **options):
    """Two phases with shuffling, dropout, a schedule, a moving average and early stopping; eagerly,
    because building a graph would take longer than training.
    """
    keras.utils.clear_session()
    config = config or Config()
    where = {"resume" if resume else "run_dir": folder}
    with training.Run("small", config, **where, **options) as run:
        model = build()
        run.begin(model, task={"class_names": []}, data={"fingerprint": "f"})
        for name, epochs in (("head", 1), ("unfrozen", config.epochs)):
            model.get_layer("hidden").trainable = name != "head"
            tuner = training.FineTuner(model)
            schedule = training.make_schedule("cosine", 0.2, epochs * STEPS)
            tuner.compile(
                training.make_optimizer("adamw", schedule, ema=0.8),
                "categorical_crossentropy",
                weighted_metrics=["accuracy"],
                run_eagerly=True,
            )
            tuner.fit(
                pipeline(True),
                validation_data=pipeline(False),
                epochs=epochs,
                callbacks=list(callbacks),
                phase=run.phase(name, patience=2, max_updates=config.max_steps or None),
            )
