"""A SavedModel in TensorFlow, whose signatures take raw inputs."""

import contextlib
from pathlib import Path

import tensorflow as tf

with contextlib.suppress(ImportError):  # has the operations that make tokens; pictures need none
    import tensorflow_text  # noqa: F401

model = tf.saved_model.load(str(Path(__file__).with_name("saved_model")))


def run(inputs):
    """Returns probabilities or numbers, an array, for the inputs of one of the signatures."""
    name = "encoded" if "image_bytes" in inputs else "serving_default"
    found = model.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
    return found["probabilities" if "probabilities" in found else "value"].numpy()
