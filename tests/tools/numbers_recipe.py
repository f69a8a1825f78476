"""Numbers: a recipe that trains a tiny network in a second, for tests of whole processes.

    tfsft run numbers_recipe.py

Two phases with augmentation of a sort, dropout, a schedule, a moving average, accumulation and
clipping.
"""

import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf

from tfsft import training
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan

SIZE, WIDTH = 45, 6
CLASSES = ("none", "one", "both")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the numbers.

    Args:
        data: Not looked at.
        epochs: Of each phase.
        batch_size: Examples in an update.
        accumulate: Parts of a batch.
        dropout: Share of hidden units.
        wait: Seconds that each step takes longer.
        seed: Fixes every random choice.
    """

    data: str = "numbers"
    epochs: Annotated[int, "1.."] = 2
    batch_size: Annotated[int, "1.."] = 8
    accumulate: Annotated[int, "1.."] = 2
    dropout: Annotated[float, "0..<1"] = 0.3
    wait: Annotated[float, "0.."] = 0.0
    seed: Annotated[int, "0.."] = 3


def load_data(config):
    """Returns inputs and labels."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SIZE, WIDTH)).astype("float32")
    return inputs, (inputs[:, 0] > 0).astype(int) + (inputs[:, 1] > 0)


def build_model(dropout=0.3):
    """Returns a classifier."""
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(
                8, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3), name="hidden"
            ),
            keras.layers.Dropout(dropout, name="dropout"),
            keras.layers.Dense(len(CLASSES), activation="softmax", name="predictions"),
        ],
        name="network",
    )


class Trouble(keras.callbacks.Callback):
    """Does what NUMBERS_TROUBLE asks for: "WORKER PHASE STEP SIGNAL", once; makes steps longer.

    Signal 0 raises an error.
    """

    def __init__(self, run, phase, wait):
        super().__init__()
        words = os.environ.get("NUMBERS_TROUBLE", "-1 none 0 0").split()
        self.mine = int(words[0]) == run.workers.index and words[1] == phase and not run.resuming
        self.step, self.signal, self.wait = int(words[2]), int(words[3]), wait

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(self.wait)
        if self.mine and int(self.model.optimizer.iterations.numpy()) == self.step:
            if not self.signal:
                raise ValueError("trouble was asked for")
            signal.raise_signal(self.signal)


def main(config, run):
    """Trains, evaluates, saves and reports."""
    inputs, labels = load_data(config)

    def pipeline(shuffle):
        def fetch(rows, seeds):
            noise = seeds[..., :1].astype("float32") / 2**31 * 0.01
            ok = np.ones(rows.shape, bool)
            return tf.data.Dataset.from_tensor_slices((inputs[rows] + noise, ok))

        plan = BatchPlan(SIZE, config.batch_size, seed=config.seed, shuffle=shuffle)
        return Pipeline(plan, labels, fetch, num_classes=len(CLASSES))

    with run.strategy.scope():
        model = build_model(config.dropout)
    task = {"task": "image_classification", "labels": "single", "class_names": list(CLASSES)}
    run.begin(model, task=task, data={"fingerprint": "f", "train": SIZE, "warnings": []})
    for name in ("head", "whole"):
        model.get_layer("hidden").trainable = name == "whole"
        with run.strategy.scope():
            tuner = training.FineTuner(model, accumulate=config.accumulate, clip_norm=1.0)
            schedule = training.make_schedule("cosine", 0.05, 6 * config.epochs)
            tuner.compile(
                training.make_optimizer("adamw", schedule, ema=0.9),
                "categorical_crossentropy",
                weighted_metrics=["accuracy", training.ConfusionMatrix(len(CLASSES))],
            )
        tuner.fit(
            pipeline(True),
            validation_data=pipeline(False),
            epochs=config.epochs,
            callbacks=[Trouble(run, name, config.wait)],
            phase=run.phase(name, class_names=CLASSES),
        )
    score = partial(training.score_labels, kind="single", class_names=CLASSES)
    run.evaluate(model, {"validation": pipeline(False), "test": None}, score)
    run.save(model)
    run.report()
