"""Small real pictures and a small real backbone, for recipes that train in seconds."""

import keras
import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}


def picture(colour, random, size=(40, 56)):
    noise = random.normal(0, 40, (*size, 3))
    return Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype("uint8"))


@pytest.fixture(scope="session")
def flowers(tmp_path_factory):
    """A folder of class folders: 3 colours, 24, 20 and 16 noisy pictures of several formats."""
    folder = tmp_path_factory.mktemp("flowers")
    random = np.random.default_rng(0)
    for name, count in zip(COLOURS, (24, 20, 16), strict=True):
        (folder / name).mkdir()
        for i in range(count):
            suffix = ("jpg", "png", "webp")[i % 3]
            picture(name, random).save(folder / name / f"{i}.{suffix}")
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """A folder with a ResNet of three stages and random weights, as KerasHub saves it."""
    import keras_hub

    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("tiny_resnet")
    keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 16, 16],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    ).save_to_preset(folder)
    keras_hub.layers.ResNetImageConverter(
        image_size=(32, 32), scale=1 / 127.5, offset=-1.0
    ).save_to_preset(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """A folder with a BERT of two blocks and random weights, as KerasHub saves it."""
    import text_families

    folder = tmp_path_factory.mktemp("tiny_bert")
    text_families.save_tiny("bert", folder, num_layers=2)
    return str(folder)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache folder for all tests of recipes."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", cache)


@pytest.fixture(scope="session")
def weather(tmp_path_factory):
    """A CSV file of 150 short texts about animals or weather, of very different lengths."""
    random = np.random.default_rng(0)
    words = {"animals": ["fox", "dog"], "weather": ["sun", "short"]}
    others = "the a one what was and over under few word lazy brown true is to"
    others = others.split()
    lines = ["text,label"]
    for i in range(150):
        label = ("animals", "weather")[i % 2]
        filler = random.choice(others, random.integers(1, 14)).tolist()
        place = random.integers(0, len(filler) + 1)
        text = [*filler[:place], random.choice(words[label]), *filler[place:]]
        lines.append(" ".join(text) + f",{label}")
    path = tmp_path_factory.mktemp("texts") / "weather.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)
