"""A run whose folder lies on what fsspec calls object storage, begun and gone on with."""

import csv

import pytest

from tfsft.cli import main

WORDS = ["--image-size", "32", "--batch-size", "8", "--hidden-units", "16", "--unfreeze", "none"]


@pytest.fixture
def run(flowers, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--data", str(flowers), "--backbone", tiny_backbone, *WORDS]
    return lambda *more: main(["run", "image_cls", *words, *more])


def test_the_same_command_again_takes_the_folder_up(toy_recipe, tmp_path, capsys):
    folder = tmp_path / "bucket" / "run"
    words = ["run", str(toy_recipe), "--run-dir", f"file://{folder}", "--go-on"]
    assert main(words) == 0
    assert {path.name for path in folder.iterdir()} == {"config.json", "recipe.py"}
    capsys.readouterr()
    assert main(words) == 0
    assert "starting from the beginning" in capsys.readouterr().out
    assert "starting from the beginning" in (folder / "log.txt").read_text()


def test_go_on_needs_a_folder(toy_recipe, capsys):
    assert main(["run", str(toy_recipe), "--go-on"]) == 2
    assert "--go-on was given without --run-dir." in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_command_again_goes_on(run, tmp_path, capsys):
    url = f"file://{tmp_path}/bucket/run"
    assert run("--run-dir", url, "--go-on", "--epochs", "1") == 0
    assert f"Report: {url}/report.html" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"bucket"}
    folder = tmp_path / "bucket" / "run"
    assert {"config.json", "model.keras", "report.html"} <= {path.name for path in folder.iterdir()}

    assert run("--run-dir", url, "--epochs", "2") == 2
    assert f"--resume {url} goes on with it." in capsys.readouterr().err
    assert run("--run-dir", url, "--go-on", "--epochs", "2") == 0
    assert "--epochs grows from 1 to 2" in capsys.readouterr().out
    with open(folder / "history.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
