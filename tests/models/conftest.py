"""Models as the image recipe builds them, small enough for a test."""

import functools

import keras
import numpy as np
import pytest

from tfsft import models


@pytest.fixture(scope="session")
def pictures():
    """Four uint8 pictures that are not square."""
    return np.random.default_rng(0).integers(0, 256, (4, 80, 72, 3), dtype="uint8")


@pytest.fixture(scope="session")
def load():
    """Loads a backbone for 64 pixels once for all tests that do not change its weights."""
    return functools.cache(lambda name: models.load_image_backbone(str(name), 64))


@pytest.fixture
def classifier():
    """Builds the recipe's shape of model around a backbone."""

    def build(backbone: models.ImageBackbone, dropout=0.2):
        image_size = backbone.model.inputs[0].shape[1]
        x = inputs = keras.Input((None, None, 3), dtype="uint8", name="picture")
        x = keras.layers.Resizing(
            image_size, image_size, antialias=True, dtype="uint8", name="resize"
        )(x)
        for layer in backbone.preprocessing:
            x = layer(x)
        x = backbone.model(x, training=False)
        pool = "GlobalAveragePooling2D" if len(x.shape) == 4 else "GlobalAveragePooling1D"
        x = getattr(keras.layers, pool)(name="pool")(x)
        x = keras.layers.Dense(8, "relu", name="hidden")(x)
        x = keras.layers.Dropout(dropout, name="dropout")(x)
        x = keras.layers.Dense(3, "softmax", dtype="float32", name="probabilities")(x)
        return keras.Model(inputs, x)

    return build


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory):
    """A folder with a random ViT of six blocks for 64 pixels, dropout and a converter included."""
    import keras_hub

    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("tiny_vit")
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(64, 64, 3),
        patch_size=16,
        num_layers=6,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        dropout_rate=0.3,
        attention_dropout=0.3,
    )
    backbone.save_to_preset(folder)
    keras_hub.layers.ViTImageConverter(
        image_size=(64, 64), scale=[1 / 51, 1 / 102, 1 / 255], offset=[-1.0, -2.0, -0.5]
    ).save_to_preset(folder)
    return folder


@pytest.fixture
def mixed_bfloat16():
    """The mixed policy, for one test."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")
