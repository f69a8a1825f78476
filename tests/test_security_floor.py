"""Known holes in loading model files are closed, and no second framework is installed."""

import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

# Below it: Lambda layers executed in safe mode, path traversal and file reads from model files.
KERAS_FLOOR = Version("3.15.1")


def test_the_installed_keras_is_above_the_floor():
    assert Version(version("keras")) >= KERAS_FLOOR


def test_no_older_keras_can_be_installed_with_tfsft():
    text = (Path(__file__).parents[1] / "setup.cfg").read_text()
    (declared,) = re.findall(r"^\s+(keras>=.*)$", text, re.MULTILINE)
    allowed = Requirement(declared).specifier
    assert KERAS_FLOOR in allowed
    assert not any(older in allowed for older in ("2.15.0", "3.11.3", "3.13.2", "3.14.0", "3.15.0"))


def test_nothing_pulls_another_framework():
    names, waiting = set(), ["tfsft"]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in names:
            continue
        names.add(name)
        try:
            requirements = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # of another platform
            continue
        waiting += [
            requirement.name
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    assert {"keras", "tensorflow", "click"} <= names
    assert not {"torch", "jax", "jaxlib", "flax"} & names
