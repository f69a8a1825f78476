"""What is learned in a second: the weights of what was seen, without filler and validation."""

import keras
import numpy as np
import tensorflow as tf

from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.training import FineTuner, make_optimizer
from tfsft.training.callbacks import Speed

SIZE, BATCH, EPOCHS = 11, 4, 3
WEIGHTS = np.arange(1.0, SIZE + 1, dtype="float32")


def pipeline(weights=None):
    def fetch(rows, seeds):
        seen = np.ones([*rows.shape, 2], "float32"), np.ones(rows.shape, bool)
        return tf.data.Dataset.from_tensor_slices(seen)

    labels = np.zeros(SIZE, np.int64)
    return Pipeline(BatchPlan(SIZE, BATCH, seed=0), labels, fetch, num_classes=2, weights=weights)


def test_all_weights_but_those_of_the_first_step_are_counted():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
    tuner = FineTuner(model)
    tuner.compile(make_optimizer("sgd", 0.1), "categorical_crossentropy")
    first = []
    speed = Speed(lambda: first.append(speed.learned))
    data = pipeline(WEIGHTS)
    tuner.fit(data, validation_data=pipeline(), epochs=EPOCHS, callbacks=[speed])
    assert first == [0.0]
    # The examples weigh 1 + 2 + ... + 11 = 66.
    (_, _, weights), *_ = data.epoch(0)
    assert np.isclose(speed.learned, EPOCHS * 66 - weights.numpy().sum())
    assert speed.per_second > 0
    assert Speed(print).per_second is None
