"""Picture files as the model takes them: pip install numpy pillow"""

import json
from pathlib import Path

import numpy as np
from labels import named
from PIL import Image, ImageOps

task = json.loads(Path(__file__).with_name("task.json").read_text(encoding="utf-8"))
width = 1  # inputs of one example


def pixels(path):
    """Returns a picture as RGB, uint8 [height, width, 3], transparency on white."""
    image = Image.open(path)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16-bit grey
        wide = np.asarray(image)
        grey = np.where(wide == image.info.get("transparency", -1), 255, wide >> 8)
        return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def resized(picture, size):
    """Returns a picture as uint8 [size, size, 3], as tf.image.resize(antialias=True) makes it."""
    wide = shrunk(np.float32(picture), size)  # every sum in its order, so that halves round alike
    square = shrunk(wide.swapaxes(0, 1), size).swapaxes(0, 1)
    return np.clip(np.round(square), 0, 255).astype(np.uint8)


def shrunk(rows, size):
    """Returns as many weighted sums of neighbouring rows as `size`, all in float32."""
    one, half = np.float32(1), np.float32(0.5)
    step = one / (np.float32(size) / np.float32(len(rows)))  # source rows for each new one
    reach = max(step, one)
    centres = (np.arange(size, dtype=np.float32) + half) * step
    first = np.maximum(np.ceil(centres - reach - half), 0).astype(int)
    last = np.minimum(np.floor(centres + reach - half), len(rows) - 1).astype(int)
    span = np.arange((last - first).max() + 1)
    places = first[:, None] + span
    distance = np.abs((np.float32(places) + half - centres[:, None]) * (one / reach))
    weights = np.where((places <= last[:, None]) & (distance < 1), one - distance, np.float32(0))
    total = np.zeros(size, np.float32)
    for column in weights.T:
        total += column
    weights *= (one / total)[:, None]
    found = np.zeros([size, *rows.shape[1:]], np.float32)
    for place, weight in zip(np.minimum(places, len(rows) - 1).T, weights.T, strict=True):
        found += rows[place] * weight[:, None, None]
    return found


def outputs(run, path, image_size, **_):
    """Returns what the model says of one picture, [classes]."""
    return run({"pictures": resized(pixels(path), image_size)[None]})[0]


def answer(run, path, class_names, labels, **rest):
    """Returns what the model says of one picture, in words."""
    return {"input": path} | named(outputs(run, path, **rest), class_names, labels)
