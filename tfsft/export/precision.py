"""Models that were trained in half precision."""

import keras

HALF_PRECISION = {"bfloat16", "float16"}


def compute_in_float32(model: keras.Model) -> None:
    """Makes a model that was trained in half precision compute as its weights are stored."""
    for layer in model._flatten_layers():
        if layer.dtype_policy.compute_dtype in HALF_PRECISION:
            layer.dtype_policy = "float32"
