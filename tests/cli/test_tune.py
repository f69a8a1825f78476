"""`tfsft tune` as a person types it."""

import json
import signal
import subprocess
import sys

import numbers_recipe
import pytest

RECIPE = numbers_recipe.__file__
pytest.importorskip("optuna")


def test_mistakes_cost_one_message_each_and_leave_nothing(tfsft, toy_recipe, tmp_path):
    done = tfsft("tune", toy_recipe, "--space", "dropuot=0..0.5")
    assert done.returncode == 2
    assert "no setting is called dropuot.\nDid you mean 'dropout'?" in done.stderr
    done = tfsft("tune", toy_recipe, "--space", "dropout=0..0.5", "--dropout", "0.1")
    assert done.returncode == 2
    assert "A setting is either fixed or searched for." in done.stderr
    done = tfsft("tune", toy_recipe, "--space", "dropout=0..0.5", "--resume", "runs/a")
    assert done.returncode == 2
    assert "runs/a is not the folder of a search." in done.stderr
    (tmp_path / "optuna.py").write_text("raise ImportError('half of it is missing')")
    done = tfsft("tune", toy_recipe, "--space", "dropout=0..0.5", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "Optuna, which chooses what to try, cannot be used: half of it is missing." in (
        done.stderr
    )
    assert '-m pip install "tfsft[tune]"' in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_real_trial(tfsft, tmp_path):
    """One of those that two cost; the best command leaves the same run."""
    done = tfsft(
        *("tune", RECIPE, "--trials", 1, "--space", "dropout=0..0.5", "--epochs", 1),
        *("--metric", "val_accuracy", "--run-dir", "s"),
    )
    assert done.returncode == 0, done.stderr
    assert "trial-000 (1/1) · dropout=" in done.stdout
    settings = json.loads((tmp_path / "s" / "trial-000" / "config.json").read_text())["settings"]
    assert f"Train it again: tfsft run {RECIPE} --epochs=1 --dropout={settings['dropout']}" in (
        done.stdout
    )
    metrics = json.loads((tmp_path / "s" / "trial-000" / "metrics.json").read_text())
    accuracy = f"{metrics['validation']['accuracy']:.4g}"
    assert f"val_accuracy {accuracy}" in done.stdout
    assert (tmp_path / "s" / "report.html").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_all_and_the_search_goes_on(tfsft, tmp_path):
    words = ["tune", RECIPE, "--trials", "2", "--space", "dropout=0..0.5"]
    done = tfsft(*words, "--run-dir", "whole")
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "tfsft", *words, "--wait", "0.3", "--run-dir", "stopped"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "stopped" / "trial-000" / "history.csv").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    again = next(line.split() for line in errors.splitlines() if "--resume stopped" in line)
    assert again[:2] == ["tfsft", "tune"]
    done = tfsft(*again[1:])
    assert done.returncode == 0, done.stderr
    for name in ("trial-000", "trial-001"):
        figures = [(tmp_path / s / name / "history.csv").read_text() for s in ("whole", "stopped")]
        assert figures[0] == figures[1]
    log = (tmp_path / "stopped" / "trial-000" / "log.txt").read_text()
    assert "Going on from phase" in log
