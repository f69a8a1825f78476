"""Small real pictures and a small real backbone, for recipes that train in seconds."""

import numpy as np
import pytest
from tiny_pictures import save_flowers, save_tiny_resnet


@pytest.fixture(scope="session")
def flowers(tmp_path_factory):
    """A folder of class folders: 3 colours, 24, 20 and 16 noisy pictures of several formats."""
    folder = tmp_path_factory.mktemp("flowers")
    save_flowers(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """A folder with a ResNet of three stages and random weights, as KerasHub saves it."""
    folder = tmp_path_factory.mktemp("tiny_resnet")
    save_tiny_resnet(folder)
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
