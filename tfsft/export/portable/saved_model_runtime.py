"""A SavedModel in TensorFlow, whose signatures take raw inputs."""

import contextlib
from pathlib import Path

import tensorflow as tf

with contextlib.suppress(ImportError):  # has the operations that make tokens; pictures need none
    import tensorflow_text  # noqa: F401

name = f"TensorFlow {tf.__version__}"
model = tf.saved_model.load(str(Path(__file__).with_name("saved_model")))


def run(inputs):
    """Returns the outputs of one of the signatures, arrays by name, for its inputs."""
    signature = "encoded" if "image_bytes" in inputs else "serving_default"
    given = {key: tf.constant(value) for key, value in inputs.items()}
    return {key: value.numpy() for key, value in model.signatures[signature](**given).items()}
