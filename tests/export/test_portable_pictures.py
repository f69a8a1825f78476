"""Pictures are resized without TensorFlow as they are in training, to the last bit."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from PIL import Image

from tfsft.data.images import load_image, resize
from tfsft.export.portable_folder import HERE


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    """The module `pictures` of an export."""
    folder = tmp_path_factory.mktemp("portable")
    for name in ("pictures.py", "labels.py"):
        (folder / name).write_text((HERE / name).read_text())
    (folder / "task.json").write_text(json.dumps({"image_size": 24}))
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("pictures", folder / "pictures.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (8, 8, 96),
        (8, 8, 224),
        (500, 333, 96),
        (97, 96, 96),
        (31, 400, 64),
        (1, 1, 32),
        (768, 1, 99),
    ],
)
def test_the_pixels_are_the_same(portable, height, width, size):
    random = np.random.default_rng(0)
    picture = random.integers(0, 17, (height, width, 3), np.uint8) * 15  # many halves
    np.testing.assert_array_equal(portable.resized(picture, size), resize(picture, size))


def test_files_are_read_as_in_training(portable, tmp_path):
    """Grey of 16 bits, transparency, a palette, CMYK, and a camera that was turned."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (20, 30, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(tmp_path / "a.png")
    Image.fromarray(colours).save(tmp_path / "b.png")
    Image.fromarray(colours[..., :3]).convert("P").save(tmp_path / "c.gif")
    Image.fromarray(colours[..., :3]).convert("CMYK").save(tmp_path / "d.jpg")
    Image.fromarray(colours[..., :3]).save(tmp_path / "e.jpg", exif=exif)
    for path in sorted(tmp_path.glob("?.*")):
        expected, ok = load_image(str(path), 24)
        assert ok, path
        found = portable.resized(portable.pixels(str(path)), 24)
        np.testing.assert_array_equal(found, expected, err_msg=path.name)
