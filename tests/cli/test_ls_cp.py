"""Recipes are listed and copied."""

from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


def test_ls_shows_each_recipe_with_its_first_line(tfsft):
    done = tfsft("ls")
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert set(lines) == {path.stem for path in RECIPES.glob("[!_]*.py")}
    assert lines["image_cls"].startswith("Image classification")


@pytest.mark.parametrize("file", ["mine.py", "mine"])
def test_cp_copies_and_says_what_to_type_next(tfsft, tmp_path, file):
    done = tfsft("cp", "image_cls", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "mine.py").read_bytes() == (RECIPES / "image_cls.py").read_bytes()
    assert "Wrote mine.py, a copy of the recipe image_cls." in done.stdout
    assert "\n    tfsft run mine.py\n" in done.stdout
    assert tfsft("run", "mine.py", "--help").returncode == 0


def test_cp_into_a_folder(tfsft, tmp_path):
    (tmp_path / "sub").mkdir()
    assert "Wrote sub/image_cls.py" in tfsft("cp", "image_cls", "sub").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("image_cls", "taken.py"), "Error: taken.py exists."),
        (("image_cls", "taken"), "Error: taken.py exists."),
        (("image_cl", "new.py"), "There is no recipe 'image_cl'."),
        (("image_cl", "new.py"), "Did you mean 'image_cls'?"),
        (("image_cls", "no/new.py"), "Error: There is no folder no."),
    ],
)
def test_cp_refuses(tfsft, tmp_path, words, expected):
    (tmp_path / "taken.py").write_text("mine")
    done = tfsft("cp", *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken.py"]
    assert (tmp_path / "taken.py").read_text() == "mine"
