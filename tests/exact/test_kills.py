"""A run killed five times by SIGKILL leaves the bits of one that was never interrupted."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import differences
from tiny_pictures import save_flowers, save_tiny_resnet

KILLED = Path(__file__).parents[1] / "tools" / "killed.py"
EVERYTHING = ["--image-size", "32", "--batch-size", "8", "--epochs", "6", "--hidden-units", "16",
              "--learning-rate", "0.02", "--augment", "flip,crop,color,mixup", "--dropout", "0.3",
              "--schedule", "cosine", "--warmup", "0.1", "--accumulate", "2", "--ema", "0.8",
              "--patience", "4", "--class-weight", "balanced", "--clip-norm", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """All settings that have a state of their own."""
    folder = tmp_path_factory.mktemp("kills")
    for name, save in (("flowers", save_flowers), ("resnet", save_tiny_resnet)):
        (folder / name).mkdir()
        save(folder / name)
    return ["--data", str(folder / "flowers"), "--backbone", str(folder / "resnet"), *EVERYTHING]


def run(folder, recipe, *words, moment=None):
    """Runs the command; returns it when it has ended or was killed."""
    begin = [str(KILLED), *map(str, moment)] if moment else ["-m", "tfsft"]
    return subprocess.run(
        [sys.executable, *begin, "run", recipe, *map(str, words)],
        cwd=folder, env=os.environ | {"TFSFT_CACHE": str(folder / "cache")}, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip


def kill_and_compare(folder, recipe, options, moments):
    """Kills a run at one moment after the other; asserts that its end is that of a whole one."""
    whole = run(folder, recipe, *options, "--run-dir", "whole")
    assert whole.returncode == 0, whole.stderr
    said = []
    for moment in moments:
        there = (folder / "killed" / "config.json").exists()
        words = ["--resume" if there else "--run-dir", "killed", "--checkpoint-steps", "2"]
        done = run(folder, recipe, *options, *words, moment=moment)
        assert done.returncode == -9, (moment, done.stdout, done.stderr)
        said.append(done.stdout)
    done = run(folder, recipe, *options, "--resume", "killed")
    assert done.returncode == 0, (moments, done.stderr)
    assert differences(folder / "whole", folder / "killed") == [], (moments, said)
    assert not list((folder / "killed" / "checkpoints").glob(".writing-*"))
    return said, done.stdout


def test_five_kills_with_everything_on(options, tmp_path):
    draw = random.Random(int(os.environ.get("TFSFT_KILL_SEED", "1")))
    moments = [
        ("step", draw.randint(3, 12), draw.uniform(0, 0.05)),
        ("phase", 1, draw.random()),
        ("write", draw.randint(1, 7), draw.random()),
        ("validation", draw.randint(1, 3), 0),
        ("rename", draw.randint(2, 6), draw.random()),
    ]
    said, _ = kill_and_compare(tmp_path, "image_cls", options, moments)
    assert any("Going on from phase 'unfrozen', epoch" in text for text in said)
    manifests = (tmp_path / "killed" / "checkpoints").glob("*/manifest.json")
    assert all("files" in json.loads(path.read_text()) for path in manifests)
