"""Recipes trained by two processes, as a person types it, are those that a single one trains."""

import csv
import json
import subprocess
import sys
from importlib import import_module

import keras
import numpy as np
import pytest
from chat_families import tiny_causal_lm

from tfsft import training

SETTINGS = {
    "image_cls": {"image_size": 32, "batch_size": 8, "hidden_units": 16, "dropout": 0.0},
    # With batches by tokens, whose parts differ in size from step to step.
    "text_cls": {"batch_tokens": 256, "max_length": 32, "dropout": 0.0, "backbone_dropout": 0.0},
    "chat_sft": {"batch_size": 8, "answers": 4, "max_new_tokens": 8, "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def settings(flowers, weather, tiny_backbone, tiny_encoder, tmp_path_factory):
    """Returns a function from a recipe to its settings."""

    def of(recipe):
        if recipe == "chat_sft":
            folder = tmp_path_factory.mktemp("chats")
            backbone, path = tiny_causal_lm(folder / "llama"), folder / "chats.jsonl"
            with open(path, "w") as file:
                for i in range(40):
                    turns = [("user", f"What comes after {i}?"), ("assistant", f"{i + 1}.")]
                    turns = [{"role": role, "content": text} for role, text in turns]
                    file.write(json.dumps({"messages": turns}) + "\n")
            where = {"data": str(path), "backbone": str(backbone)}
        elif recipe == "text_cls":
            where = {"data": weather, "backbone": tiny_encoder}
        else:
            where = {"data": str(flowers), "backbone": tiny_backbone}
        return {"epochs": 2, **where, **SETTINGS[recipe]}

    return of


@pytest.fixture(
    scope="module",
    params=[
        "image_cls",
        *(pytest.param(r, marks=pytest.mark.slow) for r in ("text_cls", "chat_sft")),
    ],
)
def runs(request, settings, tmp_path_factory):
    """The folders of the same run by one process and by two, and what these said."""
    name, chosen = request.param, settings(request.param)
    folder = tmp_path_factory.mktemp("runs")
    recipe = import_module(f"tfsft.recipes.{name}")
    keras.utils.clear_session()
    # Batches by tokens are a multiple of workers and parts: here the parts are as many.
    parts = {"accumulate": 2} if "batch_tokens" in chosen else {}
    config = recipe.Config(**chosen, **parts)
    with training.Run(name, config, run_dir=folder / "alone") as run:
        recipe.main(config, run)

    options = [f"--{option.replace('_', '-')}={value}" for option, value in chosen.items()]
    words = ["run", name, *options, "--run-dir", "launched"]
    done = subprocess.run(
        [sys.executable, "-m", "tfsft", "launch", "--workers", "2", "--", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder / "alone", folder / "launched", done.stdout


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_only_the_chief_speaks_and_writes(runs):
    alone, launched, said = runs
    for epoch in (1, 2):
        assert sum(f" {epoch}/2 · loss" in line for line in said.splitlines()) in (1, 2)  # phases
    names = {path.name for path in launched.iterdir()}
    assert names - {"recipe.py"} == {path.name for path in alone.iterdir()}
    device = json.loads((launched / "config.json").read_text())["device"]
    assert (device["workers"], device["replicas"]) == (2, 2)


def test_weights_are_the_same(runs):
    alone, launched, _ = runs
    expected = keras.models.load_model(alone / "model.keras").get_weights()
    found = keras.models.load_model(launched / "model.keras").get_weights()
    for value, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, value, atol=1e-5)


def test_history_and_predictions_are_the_same(runs):
    alone, launched, _ = runs
    for name in ("history.csv", "predictions.csv"):
        expected, found = rows(alone / name), rows(launched / name)
        assert len(found) == len(expected) > 0
        for row, other in zip(expected, found, strict=True):
            assert row.keys() == other.keys()
            for key, value in row.items():
                try:
                    assert float(other[key]) == pytest.approx(float(value), abs=1e-4), key
                except ValueError:
                    assert other[key] == value
