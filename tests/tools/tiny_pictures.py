"""Small real pictures and a small real backbone, for runs that train in seconds."""

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}


def picture(colour, random, size=(40, 56)):
    noise = random.normal(0, 40, (*size, 3))
    return Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype("uint8"))


def save_flowers(folder):
    """Fills a folder of class folders: 24, 20 and 16 noisy pictures of several formats."""
    random = np.random.default_rng(0)
    for name, count in zip(COLOURS, (24, 20, 16), strict=True):
        (folder / name).mkdir()
        for i in range(count):
            suffix = ("jpg", "png", "webp")[i % 3]
            picture(name, random).save(folder / name / f"{i}.{suffix}")


def save_tiny_resnet(folder):
    """Fills a folder with a ResNet of three stages and random weights, as KerasHub saves it."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
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
