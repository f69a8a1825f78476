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


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory):
    """The folder with a random encoder of three blocks, by family, made once."""
    import text_families

    @functools.cache
    def folder(family):
        path = tmp_path_factory.mktemp(family)
        text_families.save_tiny(family, path)
        return path

    return folder


@pytest.fixture(scope="session")
def load_text(tiny_text):
    """Loads a tiny text backbone once for all tests that do not change its weights."""
    return functools.cache(lambda family: models.load_text_backbone(str(tiny_text(family))))


@pytest.fixture
def text_classifier():
    """Builds the recipes' shapes of model around a text backbone."""

    def build(backbone: models.TextBackbone, head="mean", dropout=0.0):
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in backbone.inputs}
        x = backbone.sequence(inputs)
        if head == "mean":
            pool = keras.layers.GlobalAveragePooling1D(dtype="float32", name="pool")
            x = pool(x, mask=inputs["padding_mask"])
        elif head == "first":
            x = x[:, 0]
        x = keras.layers.Dropout(dropout, name="dropout")(x)
        x = keras.layers.Dense(3, "softmax", dtype="float32", name="probabilities")(x)
        return keras.Model(inputs, x)

    return build


@pytest.fixture
def pack():
    """Packs token lists into a batch of a width."""

    def pack(tokenizer, texts, width):
        flat, offsets = tokenizer.encode(texts)
        shape = (len(texts), width)
        batch = {
            "token_ids": np.full(shape, tokenizer.pad, "int32"),
            "padding_mask": np.zeros(shape, "int32"),
        }
        for i in range(len(texts)):
            tokens = flat[offsets[i] : offsets[i + 1]]
            row = [*tokenizer.start, *tokens, *tokenizer.end]
            batch["token_ids"][i, : len(row)] = row
            batch["padding_mask"][i, : len(row)] = 1
        if tokenizer.uses_segments:
            batch["segment_ids"] = np.zeros(shape, "int32")
        return batch

    return pack
