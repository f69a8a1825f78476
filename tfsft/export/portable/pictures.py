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
    """Returns a picture as uint8 [size, size, 3], each colour resized in floating point."""
    colours = [
        Image.fromarray(np.float32(picture[..., i])).resize((size, size), Image.Resampling.BILINEAR)
        for i in range(3)
    ]
    return np.clip(np.round(np.stack(colours, axis=-1)), 0, 255).astype(np.uint8)


def outputs(run, path, image_size, **_):
    """Returns what the model says of one picture, [classes]."""
    return run({"pictures": resized(pixels(path), image_size)[None]})[0]


def answer(run, path, class_names, labels, **rest):
    """Returns what the model says of one picture, in words."""
    return {"input": path} | named(outputs(run, path, **rest), class_names, labels)
