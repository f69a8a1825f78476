"""A wrong label and a copy among real pictures, by features that are their mean colours."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfsft import data, models, training
from tfsft.evaluation.suspects import FILE, read_suspects
from tfsft.training.forward import Forward

SIZE = 16
COLOURS = {"blue": (40, 60, 200), "red": (210, 50, 40)}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """20 pictures of each colour; the first blue one is red, and a red one is there twice."""
    folder = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / "train" / name).mkdir(parents=True)
        (folder / "test" / name).mkdir(parents=True)
        for i in range(20):
            shown = COLOURS["red"] if (name, i) == ("blue", 0) else colour
            noise = random.normal(0, 9, (SIZE, SIZE, 3)) + random.normal(0, 12, 3)
            pixels = np.clip(noise + shown, 0, 255).astype("uint8")
            part = "train" if i < 14 else "test"
            Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
            if (name, i) == ("red", 3):
                pixels[0, 0] = 0
                Image.fromarray(pixels).save(folder / "test" / name / "copy.png")
    return data.load_images(str(folder), validation_fraction=0.1)


def test_wrong_labels_and_copies_are_found(splits, tmp_path):
    inputs = keras.Input((None, None, 3), dtype="uint8", name="pictures")
    x = keras.layers.Resizing(SIZE, SIZE, dtype="uint8", name="resize")(inputs)
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    output = keras.layers.Dense(2, "softmax", dtype="float32", name="predictions")
    model = keras.Model(inputs, output(keras.layers.Dense(3, name="hidden")(x)))
    said = []
    run = SimpleNamespace(
        strategy=tf.distribute.get_strategy(),
        frozen=None,
        compiled=set(),
        dir=tmp_path,
        say=said.append,
        console=SimpleNamespace(quiet_reporter=lambda *_: lambda *_: None),
        forward=lambda network, features: Forward(models.with_features(network)),
    )
    sources = splits.sources()
    pipelines = {name: data.ImageFeed(source, SIZE).pipeline(8) for name, source in sources.items()}
    output.kernel.assign(np.zeros((3, 2)))  # so that held-out examples are not judged at all
    found = training.find_suspects(
        run, model, pipelines, sources, kind="single", class_names=splits.class_names
    )
    wrong = [suspect for suspect in found if suspect.why == "label"]
    assert [(s.label, s.suggestion, s.id.endswith("blue/0.png")) for s in wrong] == [
        ("blue", "red", True)
    ]
    assert wrong[0].label_probability == 0
    copies = [{s.id.split("/")[-1], s.twin.split("/")[-1]} for s in found if s.why != "label"]
    assert {"3.png", "copy.png"} in copies
    assert [row.id for row in read_suspects(tmp_path / FILE)] == [s.id for s in found]
    assert "Labels that are likely wrong: 1; near-duplicates:" in said[0]
