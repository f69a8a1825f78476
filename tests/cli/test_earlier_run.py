"""Mistakes with `tfsft run --from` that are found before TensorFlow starts."""

import json

import pytest

from tfsft.cli import main


@pytest.fixture
def run(tmp_path):
    """What of a finished run is looked at."""
    folder = tmp_path / "old"
    folder.mkdir()
    settings = {"data": "old.csv", "pooling": "mean", "teacher": "runs/gone", "text_column": "body"}
    config = {"format": 1, "recipe": "text_cls", "settings": settings}
    (folder / "config.json").write_text(json.dumps(config))
    task = {"task": "text_classification", "labels": "single"}
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "model.keras").write_bytes(b"")
    return folder


def said(capsys, *words):
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_what_is_no_finished_run(run, tmp_path, capsys):
    given = ["--data", "new.jsonl"]
    found = said(capsys, "run", "text_cls", "--from", tmp_path / "none", *given)
    assert f"{tmp_path / 'none'} is not the folder of a run." in found
    (run / "model.keras").unlink()
    found = said(capsys, "run", "text_cls", "--from", run, *given)
    assert "is not finished: it has no model.keras." in found
    assert "--resume" in found
    (run / "model.keras").write_bytes(b"")
    (run / "REFUSED").write_text("It got worse.\n")
    found = said(capsys, "run", "text_cls", "--from", run, *given)
    assert "was refused. It got worse." in found


def test_another_recipe(run, capsys):
    found = said(capsys, "run", "image_cls", "--from", run, "--data", "new.jsonl")
    assert f"{run} is a run of text_cls, and the recipe given is image_cls." in found
    assert f"tfsft run text_cls --from {run}" in found


def test_options_that_do_not_go_together(run, tmp_path, capsys):
    found = said(capsys, "run", "text_cls", "--from", run)
    assert "was given without --data." in found
    found = said(capsys, "run", "text_cls", "--max-forgetting", "1")
    assert "--max-forgetting was given without --from." in found
    found = said(capsys, "run", "text_cls", "--from", run, "--data", "x", "--pooling", "cls")
    assert "the model of" in found
    assert "has mean" in found
    found = said(capsys, "run", "text_cls", "--from", run, "--data", "x", "--max-forgetting", "-1")
    assert "--max-forgetting" in found
    found = said(capsys, "run", "text_cls", "--from", run, "--resume", run)
    assert "A resumed run goes on from where it began; --from begins a new one." in found


def test_a_run_goes_on_where_the_one_before_is_gone(run, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())
    config["from"] = {"run": str(tmp_path / "moved"), "max_forgetting": 2}
    (run / "config.json").write_text(json.dumps(config))
    found = said(capsys, "run", "text_cls", "--resume", run)
    assert f"{tmp_path / 'moved'} is not there, and {run} trains its model further." in found


def test_what_a_run_hands_on(run):
    from tfsft.cli.earlier_run import settings
    from tfsft.cli.recipe_files import find_recipe

    assert settings(run, find_recipe("text_cls"), {}) == {"pooling": "mean"}
