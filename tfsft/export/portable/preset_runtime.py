"""The folder `model` in KerasHub."""

from pathlib import Path

import keras_hub
import tensorflow as tf

name = f"KerasHub {keras_hub.__version__}"
folder = str(Path(__file__).with_name("model"))
model = keras_hub.models.CausalLM.from_preset(folder, preprocessor=None, dtype="float32")
call = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)


def run(inputs):
    """Returns logits [n, tokens, vocabulary] for arrays [n, tokens] by their names."""
    return call(inputs).numpy()
