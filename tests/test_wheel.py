"""The wheel holds everything and works without the checkout."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Builds the wheel from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("tfsft", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    building = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run([*pip, *building], cwd=source, check=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Installs the wheel into a folder and returns a runner of Python that sees it alone."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)

    def python(*words):
        # -S leaves out the .pth files, and with them an editable install of the checkout.
        paths = os.pathsep.join([str(target), *site.getsitepackages()])
        done = subprocess.run(
            [sys.executable, "-S", *words],
            cwd=target.parent,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


def test_the_wheel_holds_every_file_of_the_package(wheel):
    files = {
        f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, prefix in (("tfsft", "tfsft"), ("recipes", "tfsft/recipes"))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files


def test_the_license_travels_with_it(wheel):
    assert any(name.endswith("LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_a_recipe_of_the_installed_wheel_is_read_and_imported(installed):
    code = (
        "import pathlib, tfsft.recipes\n"
        "from tfsft.cli.recipe_files import find_recipe, import_recipe\n"
        "info = find_recipe('image_cls')\n"
        "module = import_recipe(info)\n"
        "assert pathlib.Path(module.__file__) == info.path\n"
        "print(module.__name__, info.path, len(info.fields))"
    )
    name, path, fields = installed("-c", code).split()
    assert name == "tfsft.recipes.image_cls"
    assert not Path(path).is_relative_to(ROOT)
    assert int(fields) >= 2


def test_the_command_of_the_installed_wheel(installed):
    recipes = {p.stem for p in (ROOT / "recipes").glob("*.py") if not p.stem.startswith("_")}
    listed = installed("-m", "tfsft", "ls").splitlines()
    assert {line.split()[0] for line in listed} == recipes
