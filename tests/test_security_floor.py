"""Known holes in loading and decoding are closed, and no second framework is installed."""

import configparser
import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([a-z0-9-]+) \| ([0-9.]+) \| .+ \|$", re.MULTILINE)
_page = (ROOT / "docs" / "security.md").read_text()
FLOORS = {
    name: Version(floor) for name, floor in ROW.findall(_page[_page.index("## Floors of the") :])
}
PARSERS = {"keras", "keras-hub", "h5py", "pillow", "pyarrow", "sentencepiece", "protobuf"}


def declared():
    """What setup.cfg requires, by name."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    found = [Requirement(line) for line in lines if line.strip()]
    return {requirement.name: requirement.specifier for requirement in found}


def lowest(specifier):
    """The lowest version that a requirement allows."""
    return max(Version(s.version) for s in specifier if s.operator in (">=", "==", "~=", ">"))


def test_what_parses_foreign_files_has_a_floor():
    assert FLOORS.keys() >= PARSERS | {"jinja2", "pyyaml"}
    assert FLOORS["keras"] >= Version("3.15.1")


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_is_above_the_floor(name):
    assert Version(version(name)) >= FLOORS[name]


@pytest.mark.parametrize("name", FLOORS)
def test_nothing_older_can_be_installed_with_tfsft(name):
    assert lowest(declared()[name]) >= FLOORS[name]


def test_the_check_itself():
    assert lowest(Requirement("a>=1.10,<3").specifier) == Version("1.10") > Version("1.9")
    with pytest.raises(ValueError, match="empty"):
        lowest(Requirement("a").specifier)


def test_hdf5_is_above_its_floor():
    import h5py

    assert h5py.version.hdf5_version_tuple >= (1, 14, 5)


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
