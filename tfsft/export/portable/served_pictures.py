"""Pictures as a SavedModel takes them: encoded, or as pixels where a camera was turned."""

from pathlib import Path

from labels import scores
from pictures import pixels, task  # noqa: F401  (read by the replay)
from PIL import Image

ORIENTATION = 0x0112  # in EXIF, which TensorFlow's decoders do not look at


def outputs(run, path, **_):
    """Returns what the model says of one picture, [classes]."""
    with Image.open(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    given = {"pictures": pixels(path)[None]} if turned else {"image_bytes": [encoded(path)]}
    return scores(run(given))


def encoded(path):
    """Returns the bytes of a file."""
    return Path(path).read_bytes()
