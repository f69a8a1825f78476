"""A run killed five times by SIGKILL leaves the bits of one that was never interrupted."""

import os
import random

import pytest
from killed import kill_and_compare
from tiny_pictures import save_flowers, save_tiny_resnet

EVERYTHING = ["--image-size", "32", "--batch-size", "8", "--epochs", "6", "--hidden-units", "16",
              "--learning-rate", "0.02", "--augment", "flip,crop,color,mixup", "--dropout", "0.3",
              "--schedule", "cosine", "--warmup", "0.1", "--accumulate", "2", "--ema", "0.8",
              "--patience", "4", "--class-weight", "balanced", "--clip-norm", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """All settings that have a state of their own."""
    folder = tmp_path_factory.mktemp("kills")
    for name, save in (("flowers", save_flowers), ("resnet", save_tiny_resnet)):
        (folder / name).mkdir()
        save(folder / name)
    return ["--data", str(folder / "flowers"), "--backbone", str(folder / "resnet"), *EVERYTHING]


def test_five_kills_with_everything_on(options, tmp_path):
    draw = random.Random(int(os.environ.get("TFSFT_KILL_SEED", "1")))
    moments = [
        ("step", draw.randint(3, 12), draw.uniform(0, 0.05)),
        ("phase", 1, draw.random()),
        ("write", draw.randint(1, 7), draw.random()),
        ("validation", draw.randint(1, 3), 0),
        ("rename", draw.randint(2, 6), draw.random()),
    ]
    said = kill_and_compare(tmp_path, "image_cls", options, moments)
    assert any("Going on from phase 'unfrozen', epoch" in text for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_five_kills_with_cached_features(options, tmp_path, seed):
    draw = random.Random(seed)
    moments = [
        ("write", draw.randint(1, 9), draw.random()),
        ("phase", 1, draw.random()),
        ("step", draw.randint(1, 9), draw.uniform(0, 0.05)),
        ("validation", draw.randint(1, 4), 0),
        ("evaluation", 1, draw.random()),
    ]
    kill_and_compare(tmp_path, "image_cls", [*options, "--augment", "none"], moments)
