"""model.keras in Keras, for comparison."""

from pathlib import Path

import keras
import keras_hub  # noqa: F401  (knows the layers)
import tensorflow as tf

name = f"Keras {keras.__version__}"
model = keras.models.load_model(Path(__file__).with_name("model.keras"), compile=False)
call = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)


def run(inputs):
    """Returns the model's output, an array, for arrays `[n, ...]` by the names of its inputs."""
    return call(inputs if len(inputs) > 1 else next(iter(inputs.values()))).numpy()
