"""Folders of small real pictures."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """Makes a picture (height, width) whose pixels depend on its number alone."""

    def make(number, size=(12, 10)):
        return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)

    return make


@pytest.fixture
def write_pictures(tmp_path, picture):
    """Writes numbered pictures: `write_pictures("roses", range(5))` makes roses/0.png to 4.png."""

    def write(folder, numbers, *, size=(12, 10), suffix=".png", first=0):
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, number in enumerate(numbers, first):
            Image.fromarray(picture(number, size)).save(place / f"{name}{suffix}")
        return tmp_path

    return write


@pytest.fixture
def flowers(write_pictures):
    """A folder with ten roses and twenty tulips, no two alike."""
    write_pictures("roses", range(10))
    return write_pictures("tulips", range(100, 120))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TFSFT_CACHE", str(folder))
    return folder
